//! The ways in which a simulated miner fails.

use serde::{Deserialize, Serialize};

/// What is wrong with a unit. The first group is about the connection, the second about the bytes of an answer, the
/// third about the right to ask, the fourth about the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// All ports are closed.
    RefuseConnection,
    /// The port of its address is closed, the web interface answers: what a stock Antminer without a valid pool does.
    CloseRpc,
    /// The connection is accepted and nothing is ever answered.
    Hang,
    /// The connection is closed without a byte.
    Empty,

    /// One byte every 100 ms, so that the shortest reply takes seconds and a long one an hour.
    SlowDrip,
    /// The first half of the reply, then the connection is closed.
    HalfJson,
    /// The first half of the reply, then silence with the connection open.
    Stall,
    /// Bytes that are no JSON.
    Garbage,
    /// A reply that never ends.
    Endless,
    /// A reply of 1 GiB of JSON; over HTTP with its length told before.
    Huge,
    /// 200,000 brackets, one within the other.
    DeepNesting,
    /// The whole reply without the NUL at its end, the connection left open.
    NoNul,
    /// The whole reply with raw newlines within a string; readable after repair.
    RawNewline,
    /// The whole reply with `nan` for a number; readable after repair.
    Nan,
    /// The whole reply and text after its end; readable after repair.
    TextAfterEnd,
    /// The whole reply and a second document joined to it; readable after repair.
    JoinedJson,
    /// The whole reply without the commas between its objects; readable after repair.
    MissingCommas,
    /// The whole reply with escapes in a text that JSON does not know; readable after repair.
    WrongEscapes,
    /// The whole reply with bytes in a text that are no UTF-8; readable after repair.
    InvalidUtf8,
    /// A web server that points elsewhere; whoever follows is in the account at `/elsewhere`.
    Redirect,

    /// cgminer's error 45, access denied; over HTTP 403.
    AccessDenied,
    /// A web server answers with 401, also to the right password.
    Http401,
    /// No session is left: cgminer's port refuses with Whatsminer's error 136, a web interface with 429.
    TokensExhausted,

    /// Told to sleep by hand.
    Idle,
    /// Told to sleep by the site's curtailment.
    Curtailed,
    /// Too hot, and stopped.
    Overheat,
    /// Just started, without a hash yet.
    Starting,
    /// No pool answers, and so it does not hash.
    NoPool,
    /// Its second board does not hash.
    DeadBoard,
    /// Its first fan stands still.
    FanStuck,
    /// Its power supply reports an error.
    PowerSupply,
    /// Mining with dead sensors: chips of 0, -40 and 255 °C, a fan of 65,535 rpm.
    NonsenseSensors,
    /// Its clock is ten years slow.
    WrongClock,
}

impl Fault {
    /// Whether it is a state of the machine, told in well-formed answers, rather than of its answers.
    pub(crate) fn is_of_the_machine(self) -> bool {
        use Fault::{
            Curtailed, DeadBoard, FanStuck, Idle, NoPool, NonsenseSensors, Overheat, PowerSupply, Starting, WrongClock,
        };
        matches!(
            self,
            Idle | Curtailed
                | Overheat
                | Starting
                | NoPool
                | DeadBoard
                | FanStuck
                | PowerSupply
                | NonsenseSensors
                | WrongClock
        )
    }

    /// Whether a good reader gets the whole reply all the same.
    pub(crate) fn leaves_the_reply_readable(self) -> bool {
        use Fault::{
            CloseRpc, InvalidUtf8, JoinedJson, MissingCommas, Nan, NoNul, RawNewline, TextAfterEnd, WrongEscapes,
        };
        let repairable = matches!(
            self,
            CloseRpc
                | NoNul
                | RawNewline
                | Nan
                | TextAfterEnd
                | JoinedJson
                | MissingCommas
                | WrongEscapes
                | InvalidUtf8
        );
        repairable || self.is_of_the_machine()
    }
}
