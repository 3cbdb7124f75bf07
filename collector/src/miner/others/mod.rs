//! Makes that are read by tables: which commands to ask, which place fills which column, and a judgement of their own.
//!
//! What differs between them beside the tables is how their web interface lets one in; [`door`] knows the ways.

mod auradine;
mod axeos;
mod door;
mod elphapex;
mod epic;
mod proto;
mod sealminer;
#[cfg(test)]
mod tests;

use racklake_schemas::tables::miner_sample as miner;
use racklake_schemas::{Row, Table};

use super::exchange::Trouble;
use super::filler::{Filler, Keys};
use super::json::Json;
use super::judge::{Facts, judge};
use super::reader::{Memory, MinerError, Reader, Replies, Told, Wants};
use super::session::Session;
use super::who;
use crate::source::{BoxFuture, Identity};

pub(super) use auradine::AURADINE;
pub(super) use axeos::{BITAXE, FORGEAXE, NERDAXE};
#[cfg(feature = "asic-rs")]
pub(super) use door::{Body, Lock};
pub(super) use door::{Door, Key, form_text};
pub(super) use elphapex::ELPHAPEX;
pub(super) use epic::EPIC;
pub(super) use proto::PROTO;
pub(super) use sealminer::SEALMINER;

/// Most boards that are read.
const BOARDS_MAX: usize = 64;

/// A make as data.
pub(super) struct Described {
    make: &'static str,
    /// Asked with every poll, in this order.
    sample: &'static [Ask],
    /// Asked with the identity.
    identity: &'static [Ask],
    /// Asked with the values per chip.
    chips: &'static [Ask],
    /// Paths of its web interface, and how it lets one in.
    door: Door,
    read: fn(&Replies, &mut Keys) -> Read,
    /// Who it is, from the replies to `identity` and those of the sample.
    who: fn(&Replies) -> Identity,
}

/// One command.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// Over the cgminer API.
    Rpc(&'static str),
    /// Over the web interface.
    Get(&'static str),
}

impl Ask {
    fn name(self) -> &'static str {
        match self {
            Ask::Rpc(name) | Ask::Get(name) => name,
        }
    }
}

/// What the replies of a sample say.
struct Read {
    row: Row,
    boards: Vec<Row>,
    facts: Facts,
    errors: Option<Vec<MinerError>>,
    mark: Option<String>,
}

/// What is known of one miner from earlier polls.
#[derive(Default)]
struct Known {
    keys: Keys,
    key: Key,
    /// The identity was not asked for, of a make whose sample tells it.
    is_identity_unasked: bool,
}

impl Reader for Described {
    fn make(&self) -> &'static str {
        self.make
    }

    fn memory(&self) -> Memory {
        Box::new(Known::default())
    }

    fn ask<'a>(&'a self, session: &'a mut Session<'_>, wants: Wants, memory: &'a mut Memory) -> BoxFuture<'a, Replies> {
        Box::pin(async move {
            let mut replies = Replies::default();
            let Some(known) = memory.downcast_mut::<Known>() else { return replies };
            let wanted = [(wants.sample, self.sample), (wants.identity, self.identity), (wants.chips, self.chips)];
            known.key.open_again();
            known.is_identity_unasked = !wants.identity;
            for ask in wanted.into_iter().filter(|(is_wanted, _)| *is_wanted).flat_map(|(_, asks)| asks) {
                let reply = match ask {
                    Ask::Rpc(command) => session.rpc(command).await,
                    Ask::Get(path) => self.door.get(session, &mut known.key, path).await,
                };
                let is_first = replies.iter().next().is_none();
                let is_gone = is_first && matches!(reply, Err(Trouble::NoConnection(_)));
                replies.add(ask.name(), reply);
                if is_gone {
                    break;
                }
            }
            replies
        })
    }

    fn read(&self, replies: &Replies, memory: &mut Memory) -> Told {
        let Some(known) = memory.downcast_mut::<Known>() else { return Told::default() };
        if self.sample.iter().all(|ask| replies.ok(ask.name()).is_none()) {
            return Told::default();
        }
        let read = (self.read)(replies, &mut known.keys);
        let lifetime = [miner::ACCEPTED_SHARES, miner::REJECTED_SHARES, miner::HARDWARE_ERRORS];
        let first = self.identity.first().map(|ask| ask.name());
        let is_asked = first.map_or(!known.is_identity_unasked, |name| replies.get(name).is_some());
        Told {
            judged: judge(&read.facts),
            uptime: who::integer_of(&read.row, miner::UPTIME_SECONDS),
            lifetime: lifetime.iter().map(|column| who::integer_of(&read.row, *column)).collect(),
            identity: is_asked.then(|| (self.who)(replies)),
            is_identity_partial: self.identity.iter().any(|ask| is_passing(replies.trouble(ask.name()))),
            mark: read.mark,
            errors: read.errors,
            miner: Some(read.row),
            boards: read.boards,
        }
    }
}

/// Whether a command may be answered when it is asked again. What is refused or not known stays so.
pub(super) fn is_passing(trouble: Option<Trouble>) -> bool {
    trouble.is_some_and(|trouble| !matches!(trouble, Trouble::Refused | Trouble::Declined))
}

/// The facts that a row tells for most makes.
fn facts_of(row: &Row) -> Facts {
    Facts {
        rate: who::integer_of(row, miner::HASHRATE_HASHES_PER_SECOND),
        uptime: who::integer_of(row, miner::UPTIME_SECONDS),
        pools_alive: who::integer_of(row, miner::POOLS_ALIVE).and_then(|alive| usize::try_from(alive).ok()),
        ..Facts::default()
    }
}

/// Rows of boards in the order of their numbers, each number once.
fn in_order(mut rows: Vec<(i64, Row)>) -> Vec<Row> {
    rows.sort_by_key(|(index, _)| *index);
    rows.dedup_by_key(|(index, _)| *index);
    rows.retain(|(index, _)| (0..BOARDS_MAX as i64).contains(index));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// An empty row of a board.
fn board_filler<'a>(table: &'static Table, keys: &'a mut Keys, column: usize, index: i64) -> Filler<'a> {
    let mut filler = Filler::new(table, keys);
    filler.row.set(column, index);
    filler
}

/// A reading that was worked out from a reply, or what its absence means.
fn set(filler: &mut Filler<'_>, column: usize, reply: Option<Result<&Json, Trouble>>, value: Option<i64>) {
    match (reply, value) {
        (Some(Ok(_)), Some(value)) => filler.read(column, value),
        (Some(Ok(_)) | Some(Err(Trouble::Declined)), None) | (Some(Err(Trouble::Declined)), _) => filler.absent(column),
        (Some(Err(trouble)), _) => filler.fail(&[column], trouble),
        (None, _) => {}
    }
}
