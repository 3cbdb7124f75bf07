//! Reads LuxOS, Luxor's firmware for Antminers, over its cgminer API on port 4028. Nothing that is read needs a login.
//!
//! All temperatures of LuxOS are those of sensors on the boards: what it prints as `temp_chip` are the same sensors, so
//! that chips have no temperature here.

mod rows;
#[cfg(test)]
mod tests;

use racklake_schemas::tables::device;

use super::exchange::Trouble;
use super::filler::Keys;
use super::json::Json;
use super::judge::judge;
use super::reader::{Memory, MinerError, Reader, Replies, Told, Wants};
use super::recipe::{error_code, integer_at, text_at, walk};
use super::session::Session;
use super::who;
use crate::source::{BoxFuture, Identity};

pub(super) use rows::chip_marks;

use racklake_schemas::tables::miner_sample as miner;

/// Most boards that are asked about one by one.
const BOARDS_MAX: usize = 16;

/// What every poll asks for, in this order.
const SAMPLE: [&str; 9] = ["summary", "devs", "stats", "pools", "power", "temps", "fans", "config", "events"];

/// Reads LuxOS.
pub(super) struct LuxOs;

/// What is known of one miner from earlier polls.
#[derive(Default)]
struct Known {
    keys: Keys,
    /// Numbers of its boards.
    boards: Vec<i64>,
}

impl Reader for LuxOs {
    fn make(&self) -> &'static str {
        "luxos"
    }

    fn memory(&self) -> Memory {
        Box::new(Known::default())
    }

    fn ask<'a>(&'a self, session: &'a mut Session<'_>, wants: Wants, memory: &'a mut Memory) -> BoxFuture<'a, Replies> {
        Box::pin(async move {
            let mut replies = Replies::default();
            let Some(known) = memory.downcast_mut::<Known>() else { return replies };
            if wants.sample && !ask_sample(session, known, &mut replies).await {
                return replies;
            }
            if wants.identity {
                replies.add("version", session.rpc("version").await);
            }
            if wants.chips {
                for board in &known.boards {
                    let reply = session.rpc_with("healthchipget", Some(&board.to_string())).await;
                    replies.add(format!("healthchipget {board}"), reply);
                }
            }
            replies
        })
    }

    fn read(&self, replies: &Replies, memory: &mut Memory) -> Told {
        let Some(known) = memory.downcast_mut::<Known>() else { return Told::default() };
        if SAMPLE.iter().all(|command| replies.ok(command).is_none()) {
            return Told::default();
        }
        let row = rows::miner_row(replies, &mut known.keys);
        let boards = rows::board_rows(replies, &mut known.keys);
        let uptime = who::integer_of(&row, miner::UPTIME_SECONDS);
        let lifetime = [miner::ACCEPTED_SHARES, miner::REJECTED_SHARES, miner::HARDWARE_ERRORS];
        let config = replies.ok("config");
        let mark = config.and_then(|config| {
            text_at(config, "CONFIG/0/SerialNumber").or_else(|| text_at(config, "CONFIG/0/MACAddr"))
        });
        Told {
            judged: judge(&rows::facts(replies, &row)),
            uptime,
            lifetime: lifetime.iter().map(|column| who::integer_of(&row, *column)).collect(),
            identity: replies.get("version").is_some().then(|| identity(replies)),
            is_identity_partial: replies.ok("version").is_none() || config.is_none(),
            mark: mark.map(str::to_owned),
            errors: replies.ok("events").map(errors),
            miner: Some(row),
            boards,
        }
    }
}

/// Asks for the sample; false where the miner has answered nothing.
async fn ask_sample(session: &mut Session<'_>, known: &mut Known, replies: &mut Replies) -> bool {
    for command in SAMPLE {
        let reply = session.rpc(command).await;
        let is_connected = !matches!(reply, Err(Trouble::NoConnection(_)));
        replies.add(command, reply);
        if !is_connected && command == SAMPLE[0] {
            return false;
        }
    }
    if let Some(devs) = replies.ok("devs").and_then(|devs| walk(devs, "DEVS")) {
        known.boards = devs.items().iter().filter_map(|board| integer_at(board, "ID", 0)).take(BOARDS_MAX).collect();
    }
    for board in &known.boards {
        let reply = session.rpc_with("voltageget", Some(&board.to_string())).await;
        replies.add(format!("voltageget {board}"), reply);
    }
    replies.iter().any(|(_, reply)| reply.is_ok())
}

/// What `events` lists, each of which is raised for as long as it is in the list. LuxOS has names for them, no numbers.
fn errors(events: &Json) -> Vec<MinerError> {
    let events = walk(events, "EVENTS").map(Json::items).unwrap_or_default();
    let error = |event: &Json| {
        let name = event.text_of("Code")?;
        let board = integer_at(event, "ID", 0).and_then(|board| i32::try_from(board).ok());
        let component = match (event.text_of("Target"), name.contains("TEMP"), name.contains("FAN")) {
            (_, true, _) => "temperature",
            (_, _, true) => "fan",
            (Some("BOARD"), ..) => "board",
            _ if name.contains("PSU") => "psu",
            _ if name.contains("POOL") => "pool",
            _ => "other",
        };
        let message = format!("{name}: {}", event.text_of("Description").unwrap_or_default());
        let board = board.filter(|_| event.text_of("Target") == Some("BOARD"));
        Some(MinerError { code: error_code(name), message, component, board })
    };
    events.iter().filter_map(error).collect()
}

fn identity(replies: &Replies) -> Identity {
    let config = |name: &str| text_at(replies.ok("config")?, &format!("CONFIG/0/{name}"));
    let version = |name: &str| text_at(replies.ok("version")?, &format!("VERSION/0/{name}"));
    let model = config("Model").or_else(|| version("Type"));
    // The Antminers of these two letters are for SHA-256; LuxOS does not say.
    let is_sha256 = model.is_some_and(|model| ["Antminer S", "Antminer T"].iter().any(|name| model.starts_with(name)));
    let told = [
        (device::MODEL, model),
        (device::FIRMWARE_VERSION, version("LUXminer").or_else(|| version("Miner"))),
        (device::API_VERSION, version("API")),
        (device::HOSTNAME, config("Hostname")),
        (device::CONTROL_BOARD, config("ControlBoardType")),
        (device::PSU_MODEL, config("PSULabel")),
        (device::ALGORITHM, is_sha256.then_some("sha256")),
    ];
    let maker = who::maker(model, "luxos");
    let mut identity = who::identity(maker, config("SerialNumber"), config("MACAddr"), &told);
    let fans = replies.ok("stats").and_then(|stats| integer_at(stats, "STATS/1/fan_num", 0));
    who::count(&mut identity, device::FANS_EXPECTED, fans);
    identity
}
