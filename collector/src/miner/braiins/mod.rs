//! Reads Braiins OS+: over its REST interface where the config has credentials and the firmware is new enough for one,
//! else over GraphQL, which tells most of it to anyone, with BOSminer's cgminer API beside it.

mod ask;
mod graphql;
mod rest;
#[cfg(test)]
mod tests;

use racklake_schemas::Row;
use racklake_schemas::tables::{device, hashboard_sample as board, miner_sample as miner};

use super::filler::Keys;
use super::json::Json;
use super::judge::judge;
use super::others::is_passing;
use super::reader::{Memory, MinerError, Reader, Replies, Told, Wants};
use super::recipe::{error_code, text_at, walk};
use super::session::Session;
use super::who;
use crate::source::{BoxFuture, Identity};

/// The log of messages.
const ERRORS: &str = "miner/errors";
/// The status of a miner that has suspended itself.
const SUSPENDED: i64 = 4;

/// Reads Braiins OS+.
pub(super) struct Braiins;

/// What is known of one miner from earlier polls.
#[derive(Default)]
struct Known {
    keys: Keys,
    /// Where it is read.
    interface: Interface,
    /// Token of the REST interface, while it is accepted.
    token: Option<String>,
    /// Queries that the firmware's schema does not know, asked again with the identity.
    unknown: Vec<&'static str>,
    /// Its cgminer API is closed.
    lacks_rpc: bool,
}

/// Where a miner is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Interface {
    /// Not known yet.
    #[default]
    Unknown,
    /// `/api/v1`, for which there are credentials.
    Rest,
    /// `/graphql`.
    GraphQl,
}

impl Reader for Braiins {
    fn make(&self) -> &'static str {
        "braiins"
    }

    fn memory(&self) -> Memory {
        Box::new(Known::default())
    }

    fn ask<'a>(&'a self, session: &'a mut Session<'_>, wants: Wants, memory: &'a mut Memory) -> BoxFuture<'a, Replies> {
        Box::pin(async move {
            match memory.downcast_mut::<Known>() {
                Some(known) => ask::ask(session, wants, known).await,
                None => Replies::default(),
            }
        })
    }

    fn read(&self, replies: &Replies, memory: &mut Memory) -> Told {
        let Some(known) = memory.downcast_mut::<Known>() else { return Told::default() };
        if replies.iter().all(|(_, reply)| reply.is_err()) {
            return Told::default();
        }
        let is_rest = replies.get("miner/details").is_some();
        let (row, boards, facts) =
            if is_rest { rest::rows(replies, &mut known.keys) } else { graphql::rows(replies, &mut known.keys) };
        let lifetime = [miner::ACCEPTED_SHARES, miner::REJECTED_SHARES, miner::HARDWARE_ERRORS];
        let identity = if is_rest { rest_identity(replies) } else { graphql_identity(replies) };
        let details = |name: &str| text_at(replies.ok("miner/details")?, name);
        let mark = details("serial_number").or_else(|| details("mac_address"));
        Told {
            judged: judge(&facts),
            uptime: who::integer_of(&row, miner::UPTIME_SECONDS),
            lifetime: lifetime.iter().map(|column| who::integer_of(&row, *column)).collect(),
            is_identity_partial: ["version", "model", "net_conf"].iter().any(|name| is_passing(replies.trouble(name))),
            identity,
            mark: mark.map(str::to_owned),
            errors: replies.ok("events").map(appeals),
            miner: Some(row),
            boards,
        }
    }
}

/// Index of a board by its name: the connectors are numbered from 1, and from 6 on older control boards.
fn board_index(name: &str, base: i64) -> Option<i64> {
    name.trim().parse::<i64>().ok().map(|number| number - base).filter(|index| (0..64).contains(index))
}

/// Number of the first connector, by the names of the boards.
fn first_connector<'a>(names: impl Iterator<Item = &'a str>) -> i64 {
    let lowest = names.filter_map(|name| name.trim().parse::<i64>().ok()).min();
    if lowest.is_some_and(|lowest| lowest >= 6) { 6 } else { 1 }
}

/// The highest value of a column over the boards.
fn highest(boards: &[Row], column: usize) -> Option<i64> {
    boards.iter().filter_map(|row| who::integer_of(row, column)).max()
}

/// Whether each board hashes.
fn hashing(boards: &[Row]) -> Vec<Option<bool>> {
    let rate = |row: &Row| who::integer_of(row, board::HASHRATE_HASHES_PER_SECOND).map(|rate| rate > 0);
    boards.iter().map(rate).collect()
}

/// What the firmware asks its owner to look at. It has kinds for them, no numbers.
fn appeals(events: &Json) -> Vec<MinerError> {
    let appeals = walk(events, "data/events/appeals").map(Json::items).unwrap_or_default();
    let error = |appeal: &Json| {
        let kind = appeal.text_of("kind")?;
        let message = format!("{kind}: {}", appeal.text_of("message").unwrap_or_default());
        Some(MinerError { code: error_code(kind), message, component: "other", board: None })
    };
    appeals.iter().filter_map(error).collect()
}

fn rest_identity(replies: &Replies) -> Option<Identity> {
    // It was asked for where the version was.
    let _asked = replies.get("version")?;
    let details = replies.ok("miner/details")?;
    let network = |name: &str| text_at(replies.ok("network")?, name);
    let model = text_at(details, "miner_identity/miner_model").or_else(|| text_at(details, "miner_identity/name"));
    let api = replies.ok("version").and_then(|version| {
        let part = |name: &str| text_at(version, name);
        Some(format!("{}.{}.{}", part("major")?, part("minor")?, part("patch")?))
    });
    let told = [
        (device::MODEL, model),
        (device::FIRMWARE_VERSION, text_at(details, "bos_version/current")),
        (device::API_VERSION, api.as_deref()),
        (device::HOSTNAME, text_at(details, "hostname").or_else(|| network("hostname"))),
        (device::PSU_MODEL, text_at(details, "psu_info/model_name")),
        (device::PSU_SERIAL, text_at(details, "psu_info/serial_number")),
        (device::PSU_FIRMWARE_VERSION, text_at(details, "psu_info/fw_version")),
        (device::ALGORITHM, Some("sha256")),
    ];
    let mac = text_at(details, "mac_address").or_else(|| network("mac_address"));
    let mut identity = who::identity(who::maker(model, "braiins"), text_at(details, "serial_number"), mac, &told);
    if let Some(fans) = replies.ok("cooling/state").and_then(|cooling| walk(cooling, "fans")) {
        who::count(&mut identity, device::FANS_EXPECTED, Some(fans.items().len() as i64));
    }
    Some(identity)
}

fn graphql_identity(replies: &Replies) -> Option<Identity> {
    let _asked = replies.get("model")?;
    let model = replies.ok("model").and_then(|reply| text_at(reply, "data/bosminer/info/modelName"));
    let system = |path: &str| text_at(replies.ok("system")?, path);
    let mac = replies.ok("net_conf").and_then(|reply| text_at(reply, "0/macaddr"));
    let told = [
        (device::MODEL, model),
        (device::FIRMWARE_VERSION, system("data/bos/info/version/full")),
        (device::API_VERSION, replies.ok("version").and_then(|version| text_at(version, "VERSION/0/API"))),
        (device::HOSTNAME, system("data/bos/hostname")),
        (device::ALGORITHM, Some("sha256")),
    ];
    Some(who::identity(who::maker(model, "braiins"), None, mac, &told))
}
