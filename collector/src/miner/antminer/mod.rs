//! Reads Bitmain's own firmware for the Antminer, as of 2020 and as of 2023: the cgminer port and, for those who have a
//! password, the web.
//!
//! Either way in is enough. Port 4028 closed, all that the web tells is read there; without a password what only the web
//! tells is refused.

mod boards;
mod errors;
mod identity;
mod judge;
mod miner_row;
mod model;
mod stats;
#[cfg(test)]
mod tests;
mod web;

use racklake_schemas::Cell;
use racklake_schemas::tables::miner_sample as miner;

use self::boards::{Boards, Seen};
use self::identity::Beside;
use self::miner_row::{Parts, miner_row};
use self::stats::{NEW_STATS, Stats, WEB_STATS};
use super::exchange::Trouble;
use super::filler::{Keys, plain};
use super::reader::{Memory, Reader, Replies, Told, Wants};
use super::session::Session;
use crate::source::BoxFuture;

/// The request for the newer shape of `stats`; a firmware that does not know the parameter gives the older one.
const NEW_STATS_REQUEST: &str = r#"{"command":"stats","new_api":true}"#;

/// Reads Bitmain's firmware.
pub(super) struct Antminer;

/// What is known of one Antminer from earlier polls.
#[derive(Default)]
struct Known {
    /// Whether the newer shape of `stats` tells more; `None` until it was asked for.
    has_new_stats: Option<bool>,
    /// The cgminer port is closed, or not for us.
    has_no_port: bool,
    /// Whether there is a password for it.
    has_login: bool,
    model: Option<String>,
    boards: Seen,
    keys: Keys,
}

impl Reader for Antminer {
    fn make(&self) -> &'static str {
        "antminer"
    }

    fn memory(&self) -> Memory {
        Box::new(Known::default())
    }

    fn ask<'a>(&'a self, session: &'a mut Session<'_>, wants: Wants, memory: &'a mut Memory) -> BoxFuture<'a, Replies> {
        Box::pin(async move {
            let mut replies = Replies::default();
            let Some(known) = memory.downcast_mut::<Known>() else { return replies };
            known.has_login = session.credentials().is_some();
            if wants.identity {
                known.has_new_stats = None;
            }
            if wants.sample {
                let summary = session.rpc("summary").await;
                let trouble = summary.as_ref().err().copied();
                replies.add("summary", summary);
                known.has_no_port = matches!(trouble, Some(Trouble::NoConnection(_) | Trouble::Refused));
                if matches!(trouble, Some(other @ Trouble::NoConnection(_)) if !other.is_port_closed()) {
                    return replies;
                }
                if !known.has_no_port {
                    ask_port(session, known, &mut replies).await;
                }
                ask_web(session, known, &mut replies).await;
            }
            if wants.identity {
                if !known.has_no_port {
                    replies.add("version", session.rpc("version").await);
                }
                if known.has_login {
                    replies.add(web::SYSTEM, web::get(session, web::SYSTEM).await);
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
        if let Some(told) = identity::model(replies, parts.stats.as_ref()) {
            known.model = Some(plain(told));
        }
        let boards_of_model = known.model.as_deref().and_then(model::boards);
        let boards = parts.stats.as_ref().map(|stats| Boards::of(stats, boards_of_model, &mut known.boards));
        let row = miner_row(&parts, boards.as_ref(), known.has_login, &mut known.keys);
        let is_asleep = parts.mode.is_some_and(judge::is_sleep);
        let rows = match (&boards, &parts.stats) {
            (Some(boards), Some(stats)) => boards.rows(stats, is_asleep, &mut known.keys),
            _ => Vec::new(),
        };
        let errors = parts.status().map(errors::raised);
        let judged = judge::judge(&row, &rows, parts.mode, errors.as_deref().unwrap_or_default());
        let integer = |column: usize| match row.cell(column) {
            Cell::I64(value) => Some(*value),
            _ => None,
        };
        let uptime = integer(miner::UPTIME_SECONDS);
        // The sum over the pools falls when one is taken away.
        let accepted = integer(miner::ACCEPTED_SHARES).filter(|_| parts.summary.is_some());
        let mark = parts.stats.and_then(|stats| stats.text("miner_id", "miner_id"));
        let is_asked = |command: &&str| replies.get(command).is_some();
        let asked: Vec<&str> = ["version", web::SYSTEM].into_iter().filter(is_asked).collect();
        let counted = |boards: &Boards<'_>| (boards.count(), boards.chips);
        let (count, chips) = boards.as_ref().map(counted).unwrap_or_default();
        let beside = Beside { stats: parts.stats, boards: count, chips };
        Told {
            identity: (!asked.is_empty()).then(|| identity::identity(replies, &beside)),
            is_identity_partial: asked.iter().any(|command| replies.ok(command).is_none()),
            mark: mark.and_then(racklake_schemas::identity::real_identifier),
            miner: Some(row),
            boards: rows,
            judged,
            uptime,
            lifetime: vec![accepted],
            errors,
        }
    }
}

/// Asks over the cgminer port.
async fn ask_port(session: &mut Session<'_>, known: &mut Known, replies: &mut Replies) {
    replies.add("stats", session.rpc("stats").await);
    let is_flat = Stats::of(replies).is_some_and(|stats| stats.has_flat());
    if is_flat && known.has_new_stats != Some(false) {
        replies.add(NEW_STATS, session.rpc_json(NEW_STATS_REQUEST).await);
        if replies.ok(NEW_STATS).is_some() {
            known.has_new_stats = Some(Stats::of(replies).is_some_and(|stats| stats.has_new()));
        }
    }
    replies.add("pools", session.rpc("pools").await);
}

/// Asks over the web what the port has not told. Without a password it is tried only where there is no other way in.
async fn ask_web(session: &mut Session<'_>, known: &Known, replies: &mut Replies) {
    if !known.has_login && !known.has_no_port {
        return;
    }
    let summary = web::get(session, web::SUMMARY).await;
    let is_open = !matches!(summary, Err(Trouble::NoConnection(_) | Trouble::Refused));
    replies.add(web::SUMMARY, summary);
    if !is_open {
        return;
    }
    if known.has_no_port {
        replies.add(WEB_STATS, web::get(session, WEB_STATS).await);
        replies.add(web::POOLS, web::get(session, web::POOLS).await);
    }
    let has_mode = Stats::of(replies).is_some_and(|stats| stats.text("miner-mode", "miner-mode").is_some());
    if known.has_login && !has_mode {
        replies.add(web::CONF, web::get(session, web::CONF).await);
    }
}
