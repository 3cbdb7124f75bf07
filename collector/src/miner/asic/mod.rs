//! Makes that asic-rs knows and that no recording has taught us: its tables say which commands to ask and what the
//! replies mean, and everything is asked over our own session.
//!
//! The library speaks to a miner once, to learn its model, and only after the miner has answered as that make does. Its
//! client sends default passwords, opens a connection per command and keeps whatever comes, so it is used for nothing
//! else; its `is_mining`, which is true of a miner that does not answer, is never read.

mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use asic_rs::core::data::collector::{DataCollector, DataField};
use asic_rs::core::data::command::MinerCommand;
use asic_rs::core::data::miner::MinerData;
use asic_rs::core::test::api::MockAPIClient;
use asic_rs::core::traits::auth::MinerAuth;
use asic_rs::core::traits::entry::FirmwareEntry;
use asic_rs::core::traits::miner::Miner;
use futures::FutureExt;
use serde_json::Value;

use super::exchange::Trouble;
use super::filler::Keys;
use super::json::Json;
use super::others::{Body, Door, Key, Lock};
use super::reader::{Memory, Reader, Replies, Told, Wants};
use super::session::Session;
use crate::source::BoxFuture;

/// How long the library may take to learn a model.
const LEARN_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked with every poll. Chips and tuning are left out: no unverified list goes into the lake.
const FIELDS: [DataField; 18] = [
    DataField::Hashrate,
    DataField::ExpectedHashrate,
    DataField::Hashboards,
    DataField::Fans,
    DataField::PsuFans,
    DataField::FluidTemperature,
    DataField::OutletFluidTemperature,
    DataField::Wattage,
    DataField::Messages,
    DataField::Uptime,
    DataField::Pools,
    DataField::SessionBestShare,
    DataField::OperatingState,
    DataField::Mac,
    DataField::SerialNumber,
    DataField::Hostname,
    DataField::FirmwareVersion,
    DataField::ControlBoardVersion,
];

/// A make that asic-rs reads.
pub(super) struct Asic {
    make: &'static str,
    firmware: fn() -> Box<dyn FirmwareEntry>,
    door: Door,
    /// What its own interface answers, before the library speaks to it.
    first: First,
    /// The library asks for a password before it knows anything.
    needs_credentials: bool,
}

/// The question by which a make is known to be there.
#[derive(Debug, Clone, Copy)]
enum First {
    Rpc(&'static str),
    Get(&'static str),
    /// A query.
    GraphQl(&'static str),
}

const fn open(before: &'static str) -> Door {
    Door { before, behind: "", lock: Lock::Open }
}

/// VNish.
pub(super) static VNISH: Asic = Asic {
    make: "vnish",
    firmware: || Box::new(asic_rs::vnish::firmware::VnishFirmware::default()),
    door: open("/api/v1/"),
    first: First::Get("info"),
    needs_credentials: false,
};

/// Marathon's firmware for Antminers.
pub(super) static MARATHON: Asic = Asic {
    make: "marathon",
    firmware: || Box::new(asic_rs::marathon::firmware::MarathonFirmware::default()),
    door: Door { before: "/kaonsu/v1/", behind: "", lock: Lock::Digest },
    first: First::Rpc("version"),
    needs_credentials: false,
};

/// VolcMiner.
pub(super) static VOLCMINER: Asic = Asic {
    make: "volcminer",
    firmware: || Box::new(asic_rs::volcminer::firmware::VolcMinerStockFirmware::default()),
    door: Door { before: "/cgi-bin/", behind: ".cgi", lock: Lock::Digest },
    first: First::Get("get_system_info"),
    needs_credentials: true,
};

/// Goldshell. What its web interface keeps behind a login is not read.
pub(super) static GOLDSHELL: Asic = Asic {
    make: "goldshell",
    firmware: || Box::new(asic_rs::goldshell::firmware::GoldshellFirmware),
    door: open("/mcb/"),
    first: First::Get("status"),
    needs_credentials: false,
};

/// FutureBit Apollo.
pub(super) static FUTUREBIT: Asic = Asic {
    make: "futurebit",
    firmware: || Box::new(asic_rs::futurebit::firmware::ApolloFirmware::default()),
    door: Door {
        before: "",
        behind: "",
        lock: Lock::Token {
            login: "/api/graphql",
            body: Body::Apollo,
            token: "data/Auth/login/result/accessToken",
            header: "Authorization",
            scheme: "Bearer ",
        },
    },
    first: First::GraphQl("{ Miner { stats { result { stats { version } } } } }"),
    needs_credentials: true,
};

/// What is known of one miner from earlier polls.
#[derive(Default)]
struct Known {
    keys: Keys,
    key: Key,
    /// The identity, which the sample tells, was not asked for.
    is_identity_unasked: bool,
    /// The library's tables for its model.
    miner: Option<Box<dyn Miner>>,
}

impl Reader for Asic {
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
            known.key.open_again();
            known.is_identity_unasked = !wants.identity;
            // Sample and identity stand in the same replies, so one question brings both.
            if !wants.sample {
                return replies;
            }
            if known.miner.is_none() {
                match self.learn(session, &mut known.key).await {
                    Ok(miner) => known.miner = Some(miner),
                    Err(trouble) => replies.add("model", Err(trouble)),
                }
            }
            let Some(miner) = &known.miner else { return replies };
            for (name, command) in commands(&**miner) {
                let reply = self.one(session, &mut known.key, &command).await;
                let is_gone = replies.iter().next().is_none() && matches!(reply, Err(Trouble::NoConnection(_)));
                replies.add(name, reply);
                if is_gone {
                    break;
                }
            }
            replies
        })
    }

    fn read(&self, replies: &Replies, memory: &mut Memory) -> Told {
        let Some(known) = memory.downcast_mut::<Known>() else { return Told::default() };
        let Some(miner) = &known.miner else { return Told::default() };
        match parsed(&**miner, replies) {
            Some(data) => {
                let mut told = rows::told(self.make, &data, replies, &mut known.keys);
                told.identity = told.identity.filter(|_| !known.is_identity_unasked);
                told
            }
            None => Told::default(),
        }
    }
}

impl Asic {
    /// The library's tables for the model at the address, once it has answered as this make does.
    async fn learn(&self, session: &mut Session<'_>, key: &mut Key) -> Result<Box<dyn Miner>, Trouble> {
        if self.needs_credentials && session.credentials().is_none() {
            return Err(Trouble::Refused);
        }
        match self.first {
            First::Rpc(command) => session.rpc(command).await,
            First::Get(path) => self.door.get(session, key, path).await,
            First::GraphQl(query) => self.door.post(session, key, "/api/graphql", &graphql(query)).await,
        }?;
        let host = session.address().rsplit_once(':').map_or(session.address(), |(host, _)| host);
        let ip: IpAddr = host.trim_matches(['[', ']']).parse().map_err(|_| Trouble::Unreadable)?;
        // Empty ones where there are none: without any, the library would send its own.
        let auth = match session.credentials() {
            Some(credentials) => MinerAuth::new(credentials.user.as_str(), credentials.password.as_str()),
            None => MinerAuth::new("", ""),
        };
        let firmware = (self.firmware)();
        let built = AssertUnwindSafe(firmware.build_miner(ip, Some(&auth))).catch_unwind();
        match tokio::time::timeout(LEARN_TIMEOUT, built).await {
            Ok(Ok(Ok(miner))) => Ok(miner),
            _ => Err(Trouble::Unreadable),
        }
    }

    async fn one(&self, session: &mut Session<'_>, key: &mut Key, command: &MinerCommand) -> Result<Json, Trouble> {
        match command {
            MinerCommand::RPC { command, parameters: None } => session.rpc(command).await,
            MinerCommand::RPC { command, parameters: Some(parameters) } => {
                let request = serde_json::json!({ "command": command, "parameter": parameters });
                session.rpc_json(&request.to_string()).await
            }
            MinerCommand::WebAPI { command, parameters: None } => self.door.get(session, key, command).await,
            MinerCommand::GraphQL { command } => self.door.post(session, key, "/api/graphql", &graphql(command)).await,
            _ => Err(Trouble::Declined),
        }
    }
}

fn graphql(query: &str) -> String {
    serde_json::json!({ "query": query }).to_string()
}

/// The commands that the fields need, each once, and the names of their replies.
fn commands(miner: &dyn Miner) -> Vec<(String, MinerCommand)> {
    let mut all: Vec<(String, MinerCommand)> = Vec::new();
    for (command, _) in FIELDS.iter().flat_map(|field| miner.get_locations(*field)) {
        if all.iter().any(|(_, known)| *known == command) {
            continue;
        }
        let name = match &command {
            MinerCommand::RPC { command, .. } => (*command).to_owned(),
            MinerCommand::WebAPI { command, .. } => format!("/{}", command.trim_start_matches('/')),
            _ => format!("query {}", all.len() + 1),
        };
        all.push((name, command));
    }
    all
}

/// What the library makes of the replies; `None` where none can be read. Its code is not ours: if it panics on a
/// reply, that poll has no readings and nothing else happens.
fn parsed(miner: &dyn Miner, replies: &Replies) -> Option<MinerData> {
    let read = commands(miner).into_iter().filter_map(|(name, command)| {
        let reply = value(replies.ok(&name)?);
        // The library's GraphQL client hands out what stands in `data`.
        let is_query = matches!(command, MinerCommand::GraphQL { .. });
        Some((command, if is_query { reply.get("data").cloned().unwrap_or(Value::Null) } else { reply }))
    });
    let read: HashMap<MinerCommand, Value> = read.collect();
    if read.is_empty() {
        return None;
    }
    let client = MockAPIClient::new(read);
    let parse = || {
        let mut collector = DataCollector::new_with_client(miner, &client);
        // Nothing is waited for: the replies are there.
        let fields = collector.collect(&FIELDS).now_or_never()?;
        (!fields.is_empty()).then(|| miner.parse_data(fields))
    };
    catch_unwind(AssertUnwindSafe(parse)).ok().flatten()
}

/// A reply as the library takes it. A number that is none is a text.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(text) => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Value::Number(number),
            Err(_) => Value::String(text.clone()),
        },
        Json::Text(text) => Value::String(text.clone()),
        Json::List(items) => Value::Array(items.iter().map(value).collect()),
        Json::Object(members) => members.iter().map(|(name, member)| (name.clone(), value(member))).collect(),
    }
}
