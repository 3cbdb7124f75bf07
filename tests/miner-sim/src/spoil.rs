//! What a fault makes of a reply.

use crate::fault::Fault;

/// Bytes to send, and how they go on.
pub(crate) struct Spoilt {
    /// What a flawless reader gets out of it.
    pub(crate) meant: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
    /// How many bytes a sender of HTTP promises.
    pub(crate) promised: u64,
}

/// What follows the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The connection goes on, or is closed, as its protocol wants it.
    Go,
    Close,
    KeepOpen,
    /// The bytes again, until this many were sent.
    Repeat(u64),
}

/// Length of a huge reply.
pub(crate) const HUGE: u64 = 1 << 30;
/// Brackets of a nested reply.
const DEEP: usize = 200_000;

/// Spoils a whole reply. Faults that are not about the bytes leave it whole.
pub(crate) fn spoil(fault: Option<Fault>, reply: String) -> Spoilt {
    let whole = |reply: String| {
        let bytes = reply.clone().into_bytes();
        Spoilt { meant: reply, promised: bytes.len() as u64, bytes, then: Then::Go }
    };
    let half = |reply: String, then: Then| {
        let bytes = reply.as_bytes()[..reply.len() / 2].to_vec();
        Spoilt { promised: reply.len() as u64, meant: reply, bytes, then }
    };
    let sent = |meant: String, bytes: Vec<u8>| Spoilt { meant, promised: bytes.len() as u64, bytes, then: Then::Go };
    match fault {
        Some(Fault::Hang) => Spoilt { meant: reply, bytes: Vec::new(), then: Then::KeepOpen, promised: 0 },
        Some(Fault::Empty) => Spoilt { meant: reply, bytes: Vec::new(), then: Then::Close, promised: 0 },
        Some(Fault::HalfJson) => half(reply, Then::Close),
        Some(Fault::Stall) => half(reply, Then::KeepOpen),
        Some(Fault::Garbage) => {
            let bytes = b"\x16\x03\x01 <<< no JSON [ { \xff\xfe".to_vec();
            Spoilt { then: Then::Close, ..sent(reply, bytes) }
        }
        Some(Fault::Endless) => Spoilt { promised: u64::MAX, ..half(reply, Then::Repeat(u64::MAX)) },
        Some(Fault::Huge) => {
            let bytes = r#"{"SUMMARY":[{"Accepted":1}],"#.repeat(2000).into_bytes();
            Spoilt { promised: HUGE, ..Spoilt { then: Then::Repeat(HUGE), ..sent(reply, bytes) } }
        }
        Some(Fault::DeepNesting) => sent(reply, "[".repeat(DEEP).into_bytes()),
        Some(Fault::RawNewline) => {
            let meant = with_newlines(reply);
            let bytes = meant.replace("\\n", "\n").into_bytes(); // no longer escaped
            sent(meant, bytes)
        }
        Some(Fault::Nan) => match without_a_number(&reply) {
            Some((meant, text)) => sent(meant, text.into_bytes()),
            None => whole(reply),
        },
        Some(Fault::TextAfterEnd) => {
            let bytes = format!("{reply}\n}} end of reply").into_bytes();
            sent(reply, bytes)
        }
        Some(Fault::JoinedJson) => {
            let bytes = format!(r#"{reply}{{"STATUS":[{{"STATUS":"I","Msg":"another one"}}],"id":1}}"#).into_bytes();
            sent(reply, bytes)
        }
        Some(Fault::MissingCommas) => {
            let bytes = reply.replace("},{", "}{").replace("],\"", "]\"").into_bytes();
            sent(reply, bytes)
        }
        Some(Fault::WrongEscapes) => into_text(reply, br"\m\'\x"),
        Some(Fault::InvalidUtf8) => into_text(reply, &[0xff, 0xfe, 0xc3]),
        _ => whole(reply),
    }
}

/// Puts bytes into the first text that no reading is taken from; a reply without one stays whole.
fn into_text(reply: String, inserted: &[u8]) -> Spoilt {
    let places = ["\"Description\":\"", "\"Msg\":\"", "\"msg\":\""];
    let place = places.iter().find_map(|name| reply.find(name).map(|at| at + name.len()));
    let mut bytes = reply.clone().into_bytes();
    if let Some(at) = place {
        bytes.splice(at..at, inserted.iter().copied());
    }
    Spoilt { meant: reply, promised: bytes.len() as u64, bytes, then: Then::Go }
}

/// Puts a newline into the description and, where there are any, into Avalon's `Key[value]` texts.
fn with_newlines(mut reply: String) -> String {
    for (name, at) in [("\"Description\":\"", " "), ("\"MM ID0\":\"", "] "), ("\"MM ID0:Summary\":\"", "] ")] {
        if let Some(begin) = reply.find(name).map(|found| found + name.len())
            && let Some(place) = reply[begin..].find(at)
        {
            reply.insert_str(begin + place + at.len(), "\\n");
        }
    }
    reply
}

/// The reply with null for a number, and the same with `nan` in its place.
fn without_a_number(reply: &str) -> Option<(String, String)> {
    let names = ["\"MHS 5s\":", "\"GHS 5s\":", "\"Wait\":", "\"MHS av\":", "\"rpm\":", "\"Average MHs\":"];
    let begin = names.iter().find_map(|name| reply.find(name).map(|at| at + name.len()))?;
    let end = begin + reply[begin..].find([',', '}'])?;
    let with = |text: &str| format!("{}{text}{}", &reply[..begin], &reply[end..]);
    Some((with("null"), with("nan")))
}
