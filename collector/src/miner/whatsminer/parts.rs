//! The parts of a Whatsminer's replies, wherever its firmware puts them.

use super::super::decimal::shifted;
use super::super::exchange::{Trouble, section};
use super::super::json::Json;
use super::super::reader::Replies;

/// Commands of port 4433, in the names that their replies have here.
pub(super) const DEVICE: &str = "get.device.info";
pub(super) const SUMMARY: &str = "get.miner.status summary";
pub(super) const BOARDS: &str = "get.miner.status edevs";
pub(super) const POOLS: &str = "get.miner.status pools";

/// A command, whether it is one of port 4433, and how the part is found in its reply.
type Place<'a> = (&'static str, bool, fn(&'a Json) -> Option<&'a Json>);

/// A part of a reply and whether it came from port 4433, or why there is none.
pub(super) struct Part<'a> {
    pub(super) json: Option<&'a Json>,
    pub(super) is_framed: bool,
    /// `None` where the part was not asked for, or its reply came without it.
    pub(super) trouble: Option<Trouble>,
}

impl<'a> Part<'a> {
    /// The part of the first of some commands that has one. A reply of the right kind that lacks what it should have is
    /// unreadable.
    fn of(replies: &'a Replies, places: &[Place<'a>]) -> Part<'a> {
        let mut trouble = None;
        for (command, is_framed, pick) in places {
            match replies.get(command) {
                None => {}
                Some(Err(reply)) => trouble = trouble.or(Some(reply)),
                Some(Ok(reply)) => match pick(reply) {
                    Some(json) => return Part { json: Some(json), is_framed: *is_framed, trouble: None },
                    None => trouble = trouble.or(Some(Trouble::Unreadable)),
                },
            }
        }
        Part { json: None, is_framed: false, trouble }
    }

    /// A text, by its name in either shape.
    pub(super) fn text(&self, plain: &str, framed: &str) -> Option<&'a str> {
        self.json?.text_of(if self.is_framed { framed } else { plain })
    }

    /// A number, cut to an integer.
    pub(super) fn number(&self, plain: &str, framed: &str) -> Option<i64> {
        shifted(self.text(plain, framed)?, 0).ok()
    }
}

/// All parts of one poll.
pub(super) struct Parts<'a> {
    pub(super) summary: Part<'a>,
    /// A list of boards.
    pub(super) boards: Part<'a>,
    /// A list of pools.
    pub(super) pools: Part<'a>,
    pub(super) psu: Part<'a>,
    pub(super) status: Part<'a>,
    /// A list of errors.
    pub(super) errors: Part<'a>,
    /// The part `miner` of `get.device.info`.
    pub(super) device: Part<'a>,
}

impl<'a> Parts<'a> {
    /// The parts of all replies.
    pub(super) fn of(replies: &'a Replies) -> Parts<'a> {
        Parts {
            summary: Part::of(
                replies,
                &[(SUMMARY, true, |reply| object(message(reply)?.get("summary")?)), ("summary", false, summary)],
            ),
            boards: Part::of(
                replies,
                &[
                    (BOARDS, true, |reply| list(message(reply)?.get("edevs")?)),
                    ("devs", false, |reply| list(reply.get("DEVS")?)),
                    ("edevs", false, |reply| list(reply.get("DEVS")?)),
                ],
            ),
            pools: Part::of(
                replies,
                &[
                    (POOLS, true, |reply| list(message(reply)?.get("pools")?)),
                    ("pools", false, |reply| list(reply.get("POOLS")?)),
                ],
            ),
            psu: Part::of(
                replies,
                &[
                    (DEVICE, true, |reply| object(message(reply)?.get("power")?)),
                    ("get_psu", false, |reply| object(message(reply)?)),
                ],
            ),
            status: Part::of(replies, &[("status", false, |reply| object(message(reply)?))]),
            errors: Part::of(
                replies,
                &[
                    // Without an error there is no such list.
                    (DEVICE, true, |reply| message(reply)?.get("error-code").map_or(Some(&NONE), list)),
                    ("get_error_code", false, |reply| list(message(reply)?.get("error_code")?)),
                ],
            ),
            device: Part::of(replies, &[(DEVICE, true, |reply| object(message(reply)?.get("miner")?))]),
        }
    }

    /// Whether no reply can be read.
    pub(super) fn is_empty(&self) -> bool {
        [&self.summary, &self.boards, &self.pools, &self.psu, &self.status, &self.device]
            .iter()
            .all(|part| part.json.is_none())
    }
}

static NONE: Json = Json::List(Vec::new());

/// What a reply of MicroBT's own interfaces says.
pub(super) fn message(reply: &Json) -> Option<&Json> {
    reply.get("Msg").or_else(|| reply.get("msg"))
}

fn object(json: &Json) -> Option<&Json> {
    matches!(json, Json::Object(_)).then_some(json)
}

fn list(json: &Json) -> Option<&Json> {
    matches!(json, Json::List(_)).then_some(json)
}

/// The entry of cgminer's list; newer firmwares put it into `Msg`.
fn summary(reply: &Json) -> Option<&Json> {
    match section(reply, "SUMMARY") {
        Ok(entries) => entries.first().and_then(object),
        Err(_) => object(message(reply)?),
    }
}
