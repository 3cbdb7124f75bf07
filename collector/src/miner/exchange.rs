//! One command and its answer, over a connection of its own, within a bound on bytes and time.
//!
//! No byte of an answer is in an error: those of `pools` hold users and passwords.

use std::io::ErrorKind;
use std::time::Duration;

use racklake_schemas::fail_code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::json::Json;

/// Longest answer that is read; those of an Avalon have up to 30 KiB.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// An answer of so many bytes that has not begun as JSON is none.
const PREAMBLE_MAX: usize = 64;
/// Codes for a command that the client may not use: cgminer's, then Whatsminer's for its token.
const REFUSALS: [&str; 3] = ["45", "135", "136"];

pub(super) const TIMEOUT: &str = "the time was over";
pub(super) const CLOSED: &str = "the miner closed the connection";
pub(super) const CUT: &str = "it ends in the middle";

/// Why a command has no readable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no connection.
    NoConnection(&'static str),
    /// There is a connection, and not one byte.
    NoAnswer(&'static str),
    /// The answer stops before its end.
    Partial(&'static str),
    /// The answer does not end.
    Endless,
    /// The answer is no reply to the command.
    Unreadable,
    /// The miner wants another client, or a password.
    Refused,
    /// The firmware does not know the command, or declines it.
    Declined,
}

impl Trouble {
    /// The reason in `state_reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Trouble::NoConnection(_) | Trouble::NoAnswer(_) => "no answer",
            Trouble::Partial(_) => "partial answer",
            Trouble::Endless => "endless answer",
            Trouble::Unreadable => "unreadable answer",
            Trouble::Refused => "access denied",
            Trouble::Declined => "command declined",
        }
    }

    /// Whether there is a machine, with this port closed; others may be open.
    pub(super) fn is_port_closed(self) -> bool {
        self == Trouble::NoConnection(words(ErrorKind::ConnectionRefused))
    }

    /// Whether the time passed and not one byte came.
    pub(super) fn is_silence(self) -> bool {
        matches!(self, Trouble::NoConnection(TIMEOUT) | Trouble::NoAnswer(TIMEOUT))
    }

    /// What was seen, in more words.
    pub(super) fn cause(self) -> Option<&'static str> {
        match self {
            Trouble::NoConnection(cause) | Trouble::NoAnswer(cause) | Trouble::Partial(cause) => Some(cause),
            _ => None,
        }
    }

    /// The code in `fail_code`.
    pub(super) fn code(self) -> i32 {
        match self {
            Trouble::NoAnswer(TIMEOUT) | Trouble::Partial(TIMEOUT) => fail_code::DEADLINE,
            Trouble::NoConnection(_) | Trouble::NoAnswer(_) => fail_code::UNREACHABLE,
            Trouble::Partial(_) | Trouble::Endless | Trouble::Unreadable => fail_code::UNPARSABLE,
            Trouble::Refused | Trouble::Declined => fail_code::REFUSED,
        }
    }
}

/// Sends a request to a cgminer port and gives the whole reply, unless its `STATUS` says that there is none.
pub(super) async fn ask(endpoint: &str, request: &str, limit: Duration) -> Result<Json, Trouble> {
    let mut answer = Answer::default();
    let ended = match timeout(limit, answer.receive(endpoint, request)).await {
        Ok(ended) => ended,
        Err(_) if !answer.connected => Ended::NoConnection(TIMEOUT),
        Err(_) => Ended::Late,
    };
    answer.read(&ended)
}

/// The request for a command of cgminer's API.
pub(super) fn command(name: &str, parameter: Option<&str>) -> String {
    match parameter {
        None => format!("{{\"command\":\"{name}\"}}"),
        Some(parameter) => serde_json::json!({ "command": name, "parameter": parameter }).to_string(),
    }
}

/// Sends a request where each message has its length before it, and gives the reply as [`ask`] does.
pub(super) async fn ask_framed(endpoint: &str, request: &str, limit: Duration) -> Result<Json, Trouble> {
    let mut message = Message::default();
    let ended = match timeout(limit, message.receive(endpoint, request)).await {
        Ok(ended) => ended,
        Err(_) if !message.connected => Ended::NoConnection(TIMEOUT),
        Err(_) => Ended::Late,
    };
    message.read(&ended)
}

/// A message with its length in front, four bytes, little endian.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
    connected: bool,
}

impl Message {
    async fn receive(&mut self, endpoint: &str, request: &str) -> Ended {
        let mut stream = match TcpStream::connect(endpoint).await {
            Ok(stream) => stream,
            Err(error) => return Ended::NoConnection(words(error.kind())),
        };
        self.connected = true;
        let Ok(length) = u32::try_from(request.len()) else { return Ended::Done };
        let sent = [&length.to_le_bytes(), request.as_bytes()].concat();
        if stream.write_all(&sent).await.is_err() {
            return Ended::Done;
        }
        loop {
            match self.length() {
                Some(length) if self.bytes.len() >= length + 4 => return Ended::Done,
                Some(length) if length > ANSWER_BYTES_MAX => return Ended::Endless,
                _ => {}
            }
            let Ok(1..) = stream.read_buf(&mut self.bytes).await else { return Ended::Done };
        }
    }

    /// The length that it announces.
    fn length(&self) -> Option<usize> {
        self.bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize)
    }

    fn read(&self, ended: &Ended) -> Result<Json, Trouble> {
        let text = self.bytes.get(4..).unwrap_or_default();
        let is_whole = self.length().is_some_and(|length| text.len() >= length);
        Err(match ended {
            _ if is_whole => return Json::parse_joined(text).map_or(Err(Trouble::Unreadable), judged),
            Ended::NoConnection(cause) => Trouble::NoConnection(cause),
            // Text where the length should be is no length.
            Ended::Endless if matches!(self.bytes.first(), Some(b'{' | b'[' | b'H')) => Trouble::Unreadable,
            Ended::Endless => Trouble::Endless,
            Ended::Late if self.bytes.is_empty() => Trouble::NoAnswer(TIMEOUT),
            Ended::Done if self.bytes.is_empty() => Trouble::NoAnswer(CLOSED),
            Ended::Late => Trouble::Partial(TIMEOUT),
            Ended::Done => Trouble::Partial(CUT),
        })
    }
}

/// The reply that bytes are which come in these parts, and then no more.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_parts(parts: &[&[u8]]) -> Result<Json, Trouble> {
    let mut answer = Answer::default();
    let ended = parts.iter().find_map(|part| answer.take(part)).unwrap_or(Ended::Done);
    answer.read(&ended)
}

/// A list within a reply, `SUMMARY` and so on.
pub(super) fn section<'a>(reply: &'a Json, name: &str) -> Result<&'a [Json], Trouble> {
    match reply.get(name) {
        Some(Json::List(items)) => Ok(items),
        _ => Err(Trouble::Unreadable),
    }
}

/// How the bytes came to an end.
enum Ended {
    /// The reply is whole, or what there is can be none, or the miner closed the connection.
    Done,
    /// The time was over.
    Late,
    /// There are more bytes than any reply has.
    Endless,
    /// There was no connection.
    NoConnection(&'static str),
}

#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    end: EndOfJson,
    connected: bool,
}

impl Answer {
    async fn receive(&mut self, endpoint: &str, request: &str) -> Ended {
        let mut stream = match TcpStream::connect(endpoint).await {
            Ok(stream) => stream,
            Err(error) => return Ended::NoConnection(words(error.kind())),
        };
        self.connected = true;
        if stream.write_all(request.as_bytes()).await.is_err() {
            return Ended::Done;
        }
        let mut part = vec![0; 16 * 1024];
        loop {
            let Ok(read @ 1..) = stream.read(&mut part).await else { return Ended::Done };
            if let Some(ended) = self.take(&part[..read]) {
                return ended;
            }
        }
    }

    /// Takes more bytes; says when they are enough.
    fn take(&mut self, part: &[u8]) -> Option<Ended> {
        let mut ended = None;
        let mut used = 0;
        for &byte in part {
            if byte == 0 && (used > 0 || !self.bytes.is_empty()) {
                ended = Some(Ended::Done);
                break;
            }
            used += 1;
            if !self.end.follow(byte) {
                continue;
            }
            // A document may follow at once on the first one; nothing is waited for that has not come.
            if part[used..].iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
                ended = Some(Ended::Done);
                break;
            }
            self.end = EndOfJson::default();
        }
        let room = ANSWER_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&part[..used.min(room)]);
        if used >= room {
            return Some(Ended::Endless);
        }
        ended.or_else(|| (self.end.hopeless && self.bytes.len() >= PREAMBLE_MAX).then_some(Ended::Done))
    }

    fn read(&self, ended: &Ended) -> Result<Json, Trouble> {
        if let Some(refused) = self.http() {
            return Err(if refused { Trouble::Refused } else { Trouble::Unreadable });
        }
        if let Some(reply) = Json::parse_joined(&self.bytes) {
            return judged(reply);
        }
        Err(match ended {
            Ended::NoConnection(cause) => Trouble::NoConnection(cause),
            Ended::Endless => Trouble::Endless,
            Ended::Late if self.bytes.is_empty() => Trouble::NoAnswer(TIMEOUT),
            Ended::Done if self.bytes.is_empty() => Trouble::NoAnswer(CLOSED),
            Ended::Late => Trouble::Partial(TIMEOUT),
            Ended::Done if self.end.depth > 0 => Trouble::Partial(CUT),
            Ended::Done => Trouble::Unreadable,
        })
    }

    /// Whether a web server answers, and if so, whether it wants a password.
    fn http(&self) -> Option<bool> {
        let status = self.bytes.strip_prefix(b"HTTP/1.")?.get(2..5);
        Some(matches!(status, Some(b"401" | b"403")))
    }
}

/// The reply, unless it says that there is none. `STATUS` is an entry of a list, or the reply itself.
fn judged(reply: Json) -> Result<Json, Trouble> {
    let Json::Object(members) = &reply else { return Err(Trouble::Unreadable) };
    let status = match reply.get("STATUS") {
        Some(Json::List(items)) => items.first(),
        Some(object @ Json::Object(_)) => Some(object),
        Some(_) => Some(&reply),
        None => None,
    };
    let told = |name: &str| status.and_then(|status| status.text_of(name)).unwrap_or_default();
    if !matches!(told("STATUS"), "E" | "F") {
        return Ok(reply);
    }
    let message = told("Msg").to_ascii_lowercase();
    if REFUSALS.contains(&told("Code")) || message.contains("access denied") {
        return Err(Trouble::Refused);
    }
    // Some say `E` of one part and answer all the same.
    let has_more = members.iter().any(|(name, value)| name != "STATUS" && matches!(value, Json::List(_)));
    if has_more { Ok(reply) } else { Err(Trouble::Declined) }
}

pub(super) fn words(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::ConnectionRefused => "the port is closed",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "there is no route to it",
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => CLOSED,
        _ => "the connection cannot be made",
    }
}

/// Notices the end of the first JSON value, so that a miner that neither says NUL nor closes costs no time.
#[derive(Default)]
struct EndOfJson {
    begun: bool,
    /// It has begun as something else.
    hopeless: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl EndOfJson {
    /// Takes the next byte; true when it is the last one of the value.
    fn follow(&mut self, byte: u8) -> bool {
        if !self.begun && !byte.is_ascii_whitespace() && byte != 0 {
            self.begun = true;
            self.hopeless = !matches!(byte, b'{' | b'[');
        }
        if self.hopeless {
            return false;
        }
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Json, Trouble> {
        let mut answer = Answer::default();
        let ended = answer.take(bytes).unwrap_or(Ended::Done);
        answer.read(&ended).and_then(|reply| section(&reply, "SUMMARY").map(|list| Json::List(list.to_vec())))
    }

    #[test]
    fn a_reply_is_its_section_or_says_why_not() {
        let list = read(b"{\"STATUS\":[{\"STATUS\":\"S\"}],\"SUMMARY\":[{\"Elapsed\":1}]}").unwrap();
        assert_eq!(list.items()[0].text_of("Elapsed"), Some("1"));
        for (bytes, trouble) in [
            (r#"{"STATUS":[{"STATUS":"E","Code":45,"Msg":"Access denied to 'summary' command"}]}"#, Trouble::Refused),
            (r#"{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}]}"#, Trouble::Declined),
            (r#"{"STATUS":[{"STATUS":"S"}],"POOLS":[]}"#, Trouble::Unreadable),
            (r#"{"SUMMARY":7}"#, Trouble::Unreadable),
            ("[1]", Trouble::Unreadable),
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", Trouble::Refused),
            ("HTTP/1.0 200 OK\r\n\r\n{}", Trouble::Unreadable),
            ("HTTP/1.1", Trouble::Unreadable),
            ("\u{3} [ { hello", Trouble::Unreadable),
            (r#"{"SUMMARY":[{"Elapsed":1"#, Trouble::Partial(CUT)),
            ("{\"SUMMARY\":[{\"Elap\0sed\":1}]}", Trouble::Partial(CUT)),
            ("", Trouble::NoAnswer(CLOSED)),
        ] {
            assert_eq!(read(bytes.as_bytes()), Err(trouble), "{bytes}");
        }
        assert_eq!(read(&vec![b'['; ANSWER_BYTES_MAX]), Err(Trouble::Endless));
    }

    #[test]
    fn the_end_is_noticed_at_the_last_brace_and_not_within_a_string() {
        let text = br#" {"a":"}\"]","b":[{}]}"#;
        let mut end = EndOfJson::default();
        let ends: Vec<usize> = (0..text.len()).filter(|&i| end.follow(text[i])).collect();
        assert_eq!(ends, [text.len() - 1]);
    }
}
