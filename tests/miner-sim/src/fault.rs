//! The ways in which a simulated miner fails.

use serde::{Deserialize, Serialize};

/// What is wrong with a unit. The first group is about the connection, the second about the bytes of an answer, the
/// third about the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The port is closed.
    RefuseConnection,
    /// The connection is accepted and nothing is ever answered.
    Hang,
    /// The connection is closed without a byte.
    Empty,

    /// One byte every 20 ms, so that a reply of some kilobytes takes minutes.
    SlowDrip,
    /// The first half of the reply, then the connection is closed.
    HalfJson,
    /// The first half of the reply, then silence with the connection open.
    Stall,
    /// Bytes that are no JSON.
    Garbage,
    /// A reply that never ends.
    Endless,
    /// The whole reply without the NUL at its end, the connection left open.
    NoNul,
    /// The whole reply with raw newlines within a string; readable after repair.
    RawNewline,
    /// The whole reply with `nan` for a number (summary: `MHS 5s`; stats: `Wait`); readable after repair.
    Nan,
    /// The whole reply and text after its end; readable after repair.
    TextAfterEnd,
    /// cgminer's error 45, access denied.
    AccessDenied,
    /// A web server answers with 401.
    Http401,

    /// Told to sleep: `In Idle`, `SoftOFF`.
    Idle,
    /// Too hot, and stopped.
    Overheat,
    /// Mining with dead sensors: chips of 0, -40 and 255 °C, a fan of 65,535 rpm.
    NonsenseSensors,
}

impl Fault {
    /// Whether it is a state of the machine, told in well-formed answers, rather than of its answers.
    pub(crate) fn is_of_the_machine(self) -> bool {
        matches!(self, Fault::Idle | Fault::Overheat | Fault::NonsenseSensors)
    }

    /// Whether a good reader gets the whole reply all the same.
    pub(crate) fn leaves_the_reply_readable(self) -> bool {
        let repairable = matches!(self, Fault::NoNul | Fault::RawNewline | Fault::Nan | Fault::TextAfterEnd);
        repairable || self.is_of_the_machine()
    }
}
