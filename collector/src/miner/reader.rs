//! What reads one firmware: which replies it asks for, and what they say.
//!
//! Asking and reading are apart: `ask` is asynchronous and speaks to a miner, `read` is a function from replies to rows,
//! so that recordings, hostile bytes and a fuzzer reach it without a socket. A reader keeps no connection, judges no
//! absence and raises no event; the source does, from what [`Told`] says.

use std::any::Any;

use racklake_schemas::Row;

use super::exchange::Trouble;
use super::json::Json;
use super::session::Session;
use super::state::Judged;
use crate::source::{BoxFuture, Identity};

/// Reads one firmware of one make.
pub(super) trait Reader: Send + Sync {
    /// Its name in the config, in `docs/miners.md` and in front of a device id: `avalon`, `antminer`, `whatsminer`, ...
    fn make(&self) -> &'static str;

    /// A memory for one miner, empty: what the reader must know from earlier polls. Kept while the miner stays at its
    /// address.
    fn memory(&self) -> Memory;

    /// Asks for what is wanted, one command after another. Every command that was tried is in the replies, answered
    /// or not. A miner that cannot be connected to is asked one command only.
    fn ask<'a>(&'a self, session: &'a mut Session<'_>, wants: Wants, memory: &'a mut Memory) -> BoxFuture<'a, Replies>;

    /// What the replies say. Never fails: what cannot be read is a failed reading, what the model lacks is unsupported.
    fn read(&self, replies: &Replies, memory: &mut Memory) -> Told;
}

/// What a reader keeps of one miner, of a type of its own.
pub(super) type Memory = Box<dyn Any + Send + Sync>;

/// What is to be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// What every poll brings. Without it only the rest is asked for: a poll whose sample makes the source doubt who the
    /// miner is asks once more, adds these replies to those that it has, and reads all of them again.
    pub(super) sample: bool,
    /// Who the miner is: the commands that tell make, model, serial, MAC, firmware.
    pub(super) identity: bool,
    /// The values per chip, where they cost commands of their own.
    pub(super) chips: bool,
}

/// Replies of one poll, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(super) struct Replies {
    all: Vec<(String, Result<Json, Trouble>)>,
}

impl Replies {
    /// Adds the reply to a command.
    pub(super) fn add(&mut self, command: impl Into<String>, reply: Result<Json, Trouble>) {
        self.all.push((command.into(), reply));
    }

    /// The reply to a command; `None` where it was not asked.
    pub(super) fn get(&self, command: &str) -> Option<Result<&Json, Trouble>> {
        self.all.iter().find(|(name, _)| name == command).map(|(_, reply)| reply.as_ref().map_err(|trouble| *trouble))
    }

    /// The reply to a command that came and can be read.
    pub(super) fn ok(&self, command: &str) -> Option<&Json> {
        self.get(command)?.ok()
    }

    /// Why a command has no readable reply; `None` where it has one or was not asked.
    pub(super) fn trouble(&self, command: &str) -> Option<Trouble> {
        self.get(command)?.err()
    }

    /// Adds those of a later question of the same poll.
    pub(super) fn extend(&mut self, later: Replies) {
        self.all.extend(later.all);
    }

    /// All of them, by command.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Result<&Json, Trouble>)> {
        self.all.iter().map(|(name, reply)| (name.as_str(), reply.as_ref().map_err(|trouble| *trouble)))
    }
}

/// What the replies of one poll say.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The row of `miner_sample`, without state, state_reason, error_codes and reply_json, which the source sets.
    /// `None` where no command has a readable reply.
    pub(super) miner: Option<Row>,
    /// Rows of `hashboard_sample`, one per board that the model has or the firmware tells of.
    pub(super) boards: Vec<Row>,
    /// What the miner does; `None` where some reply was read and does not say.
    pub(super) judged: Option<Judged>,
    /// Seconds since the mining program started.
    pub(super) uptime: Option<i64>,
    /// Other counters of its lifetime that never fall within one session, always the same ones in the same order.
    pub(super) lifetime: Vec<Option<i64>>,
    /// Who it is, where it was asked for and told. The source sets device_kind and address.
    pub(super) identity: Option<Identity>,
    /// A command of the identity had no readable reply: it is asked again at the next poll, and what there is counts
    /// only where nothing better is known.
    pub(super) is_identity_partial: bool,
    /// A text that is another one for another machine (serial number, MAC), where every poll brings it.
    pub(super) mark: Option<String>,
    /// Error codes that are raised now; `None` where the replies do not say.
    pub(super) errors: Option<Vec<MinerError>>,
}

/// One error that a firmware raises now. History and factory codes are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MinerError {
    /// The firmware's number.
    pub(super) code: i64,
    /// What it means, from the firmware or from a catalogue.
    pub(super) message: String,
    /// `fan`, `psu`, `temperature`, `board`, `chip`, `pool`, `hashrate`, `controller` or `other`.
    pub(super) component: &'static str,
    /// Which board, from 0, where it is about one.
    pub(super) board: Option<i32>,
}
