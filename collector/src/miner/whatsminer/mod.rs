//! Reads MicroBT's firmware for the Whatsminer: versions 1 and 2 of its interface on the cgminer port, and version 3 on
//! port 4433. Reading needs no password with any of them.
//!
//! A firmware that speaks version 3 still answers on the cgminer port, with less: it is read on port 4433 where that is
//! open.

mod boards;
mod codes;
mod identity;
mod judge;
mod miner_row;
mod parts;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use racklake_schemas::tables::miner_sample as miner;
use racklake_schemas::{Cell, Row};

use self::miner_row::{Model, miner_row};
use self::parts::Parts;
use super::decimal::shifted;
use super::exchange::Trouble;
use super::filler::Keys;
use super::json::Json;
use super::reader::{Memory, MinerError, Reader, Replies, Told, Wants};
use super::session::Session;
use crate::source::BoxFuture;

/// Where version 3 of the interface answers.
const FRAMED_PORT: u16 = 4433;
/// Firmwares from this date on have it.
const FRAMED_SINCE: u32 = 20_241_101;
/// Its code for a client that may not ask.
const NO_PERMISSION: &str = "-4";

/// Reads MicroBT's firmware.
pub(super) struct Whatsminer;

/// Which interface a miner is read with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Interface {
    #[default]
    Unknown,
    Plain,
    Framed,
}

/// What is known of one Whatsminer from earlier polls.
#[derive(Default)]
struct Known {
    interface: Interface,
    /// `summary` says how many error codes there are, so that nothing else is asked for them.
    has_codes_in_summary: bool,
    /// Boards are told by `edevs` only.
    wants_edevs: bool,
    model: Model,
    boards: BTreeSet<usize>,
    keys: Keys,
}

impl Reader for Whatsminer {
    fn make(&self) -> &'static str {
        "whatsminer"
    }

    fn memory(&self) -> Memory {
        Box::new(Known::default())
    }

    fn ask<'a>(&'a self, session: &'a mut Session<'_>, wants: Wants, memory: &'a mut Memory) -> BoxFuture<'a, Replies> {
        Box::pin(async move {
            let mut replies = Replies::default();
            let Some(known) = memory.downcast_mut::<Known>() else { return replies };
            if wants.sample {
                ask_sample(session, known, &mut replies).await;
            }
            let answers = !wants.sample || replies.iter().any(|(_, reply)| reply.is_ok());
            if wants.identity && answers && known.interface != Interface::Framed {
                for command in identity::COMMANDS {
                    if replies.get(command).is_none() {
                        replies.add(command, session.rpc(command).await);
                    }
                }
                // Its firmware may have become a newer one.
                if identity::firmware_date(&replies).is_some_and(|date| date >= FRAMED_SINCE) {
                    known.interface = Interface::Unknown;
                }
            }
            replies
        })
    }

    fn read(&self, replies: &Replies, memory: &mut Memory) -> Told {
        let Some(known) = memory.downcast_mut::<Known>() else { return Told::default() };
        let parts = Parts::of(replies);
        if parts.is_empty() {
            return Told::default();
        }
        known.learn(replies, &parts);
        let errors = raised(&parts);
        let model = Model { is_asleep: judge::is_stopped(&parts) == Some(true), ..known.model };
        let mut row = miner_row(&parts, model, &mut known.keys);
        if errors.is_none() {
            let trouble = parts.errors.trouble.or(parts.summary.trouble).unwrap_or(Trouble::Unreadable);
            row.fail(miner::ERROR_CODES, trouble.code());
        }
        let boards = boards::rows(&parts, model.is_asleep, &mut known.boards, &mut known.keys);
        let judged = judge::judge(&row, &boards, &parts, errors.as_deref().unwrap_or_default());
        let is_asked = |command: &&str| replies.get(command).is_some();
        let asked: Vec<&str> = identity::COMMANDS.into_iter().filter(is_asked).collect();
        let is_missing =
            |command: &&str| replies.get(command).and_then(Result::err).is_some_and(|t| t != Trouble::Declined);
        let is_told = parts.device.json.is_some() || !asked.is_empty();
        Told {
            identity: is_told.then(|| identity::identity(replies, &parts, boards.len())),
            is_identity_partial: parts.device.json.is_none() && asked.iter().any(is_missing),
            mark: identity::mark(replies, &parts),
            uptime: integer(&row, miner::UPTIME_SECONDS),
            // The sum over the pools falls when one is taken away.
            lifetime: vec![parts.summary.number("Accepted", "").filter(|shares| *shares >= 0)],
            miner: Some(row),
            boards,
            judged,
            errors,
        }
    }
}

impl Known {
    fn learn(&mut self, replies: &Replies, parts: &Parts<'_>) {
        if let Some(model) = identity::model(replies) {
            self.model.is_liquid_cooled = identity::is_liquid_cooled(model);
        }
        if let Some(liquid) = parts.summary.json.and_then(|summary| summary.get("Liquid Cooling")) {
            self.model.is_liquid_cooled = matches!(liquid, Json::Bool(true)) || liquid.text() == Some("true");
        }
        let version = identity::interface(replies);
        if parts.summary.is_framed || version.is_some() {
            self.model.is_power_of_wall = parts.summary.is_framed || version.is_some_and(|version| version >= 2);
        }
    }
}

/// Asks for the sample with the interface that is known, or finds out which one there is.
async fn ask_sample(session: &mut Session<'_>, known: &mut Known, replies: &mut Replies) {
    if known.interface == Interface::Framed {
        match ask_framed(session, replies).await {
            Some(trouble) if trouble.is_port_closed() => known.interface = Interface::Unknown,
            _ => return,
        }
    }
    let summary = session.rpc("summary").await;
    let trouble = summary.as_ref().err().copied();
    replies.add("summary", summary);
    match trouble {
        Some(Trouble::NoConnection(_) | Trouble::Refused | Trouble::Declined) => {
            let may_be_open =
                trouble.is_some_and(|trouble| trouble.is_port_closed() || !matches!(trouble, Trouble::NoConnection(_)));
            if may_be_open && replies.get(parts::DEVICE).is_none() && ask_framed(session, replies).await.is_none() {
                known.interface = Interface::Framed;
            }
            return;
        }
        _ if known.interface == Interface::Unknown => {
            let version = session.rpc("get_version").await;
            let is_told = version.is_ok();
            replies.add("get_version", version);
            let is_new = identity::firmware_date(replies).is_some_and(|date| date >= FRAMED_SINCE);
            if is_new && replies.get(parts::DEVICE).is_none() && ask_framed(session, replies).await.is_none() {
                known.interface = Interface::Framed;
                return;
            }
            if is_told {
                known.interface = Interface::Plain;
            }
        }
        _ => {}
    }
    ask_plain(session, known, replies).await;
}

/// Asks on port 4433. Why the first command has no reply; the others are asked where it has one.
async fn ask_framed(session: &mut Session<'_>, replies: &mut Replies) -> Option<Trouble> {
    let device = framed(session, r#"{"cmd":"get.device.info"}"#).await;
    let trouble = device.as_ref().err().copied();
    replies.add(parts::DEVICE, device);
    if trouble.is_some() {
        return trouble;
    }
    for (name, part) in [(parts::SUMMARY, "summary"), (parts::BOARDS, "edevs"), (parts::POOLS, "pools")] {
        let request = format!(r#"{{"cmd":"get.miner.status","param":"{part}"}}"#);
        replies.add(name, framed(session, &request).await);
    }
    None
}

async fn framed(session: &mut Session<'_>, request: &str) -> Result<Json, Trouble> {
    let reply = session.framed(FRAMED_PORT, request).await?;
    match reply.text_of("code") {
        Some("0") => Ok(reply),
        Some(NO_PERMISSION) => Err(Trouble::Refused),
        Some(_) => Err(Trouble::Declined),
        None => Err(Trouble::Unreadable),
    }
}

/// Asks on the cgminer port for what comes after `summary`.
async fn ask_plain(session: &mut Session<'_>, known: &mut Known, replies: &mut Replies) {
    let boards = if known.wants_edevs { ["edevs", "devs"] } else { ["devs", "edevs"] };
    for (attempt, command) in boards.into_iter().enumerate() {
        let reply = session.rpc(command).await;
        let is_declined = matches!(reply, Err(Trouble::Declined));
        replies.add(command, reply);
        if !is_declined {
            known.wants_edevs ^= attempt > 0;
            break;
        }
    }
    replies.add("pools", session.rpc("pools").await);
    replies.add("get_psu", session.rpc("get_psu").await);
    let parts = Parts::of(replies);
    if parts.summary.json.is_some() {
        known.has_codes_in_summary = parts.summary.text("Error Code Count", "").is_some();
    }
    // It says why there is no hash, and whether somebody has stopped it.
    let is_hashing = ["HS RT", "MHS 1m"].iter().any(|name| parts.summary.number(name, "").is_some_and(|rate| rate > 0));
    if !known.has_codes_in_summary {
        replies.add("get_error_code", session.rpc("get_error_code").await);
    }
    if !is_hashing {
        replies.add("status", session.rpc("status").await);
    }
}

/// The error codes that are raised now; those of the factory are history.
fn raised(parts: &Parts<'_>) -> Option<Vec<MinerError>> {
    let mut errors: Vec<MinerError> = Vec::new();
    let mut add = |code: &str, reason: Option<&str>| {
        if let Some(error) =
            codes::error(code, reason).filter(|error| errors.iter().all(|known| known.code != error.code))
        {
            errors.push(error);
        }
    };
    if let Some(Json::List(items)) = parts.errors.json {
        for item in items {
            let reason = item.text_of("reason");
            match item {
                Json::Object(members) => members.iter().for_each(|(code, _)| add(code, reason)),
                other => other.text().into_iter().for_each(|code| add(code, None)),
            }
        }
        return Some(errors);
    }
    let count = shifted(parts.summary.text("Error Code Count", "")?, 0).ok()?;
    for index in 0..count.clamp(0, 100) {
        if let Some(code) = parts.summary.text(&format!("Error Code {index}"), "") {
            add(code, None);
        }
    }
    Some(errors)
}

fn integer(row: &Row, column: usize) -> Option<i64> {
    match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    }
}
