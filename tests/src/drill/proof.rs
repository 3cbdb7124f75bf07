//! The end of a drill: everything is healed and stopped, and the lake is compared with what the simulators served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::fleet::{GROUP, TABLES};
use super::states::State;
use super::{Drill, copy_out};
use crate::fault_proxy::{Met, Mode, Way};
use crate::site::{Ingest, Site, http_get};
use crate::{lake_tool, python, wait_for};

/// The longest that what is spooled, and what is in Kafka, may take to the lake when all is well again.
const DRAIN_SECONDS: u64 = 600;

/// What a drill did and found.
#[derive(Debug)]
pub struct Summary {
    /// Kills per state.
    pub states: BTreeMap<State, usize>,
    /// Everything, for programs and for the record.
    pub record: Value,
    /// Why the lake is not proven, in sentences.
    pub problems: Vec<String>,
}

impl Summary {
    /// Whether every state was hit, nothing was lost or doubled, and both checks agree.
    pub fn is_proof(&self) -> bool {
        self.problems.is_empty()
    }
}

pub(super) fn prove(drill: Drill, begin: Instant) -> Result<Summary> {
    heal(&drill)?;
    stop_collectors(&drill)?;
    let site = stop_ingests(&drill)?;
    let killing = begin.elapsed();
    copy_out(&drill.lake, &site.lake())?;

    let mut problems = Vec::new();
    let states = drill.tally.states();
    for state in State::ALL {
        if !states.contains_key(&state) {
            problems.push(format!("no kill fell in the state: {}", state.name()));
        }
    }
    let (code, report) = lake_tool::verify(&site)?;
    // A lossy drill has gaps; each must be one that the collector told of.
    if code != 0 && !(drill.options.lossy && only_told_drops(&report)) {
        problems.push(format!("racklake-lake verify ended with {code}, see verify.json"));
    }
    std::fs::write(drill.options.folder.join("verify.json"), format!("{report:#}\n"))?;
    let checked = match check(&drill, &site) {
        Ok(told) => told,
        Err(error) => {
            problems.push(format!("{error:#}"));
            String::new()
        }
    };
    let named = |counts: BTreeMap<State, usize>| counts.into_iter().map(|(state, n)| (state.name(), n)).collect();
    let by_state: BTreeMap<&str, usize> = named(states.clone());
    let record = json!({
        "seed": drill.options.seed,
        "lossy": drill.options.lossy,
        "nodes": drill.options.nodes,
        "seconds": killing.as_secs(),
        "kills": drill.tally.total(),
        "kills_by_state": by_state,
        "kills_by_service": drill.tally.services(),
        "faults": drill.made.counts(),
        "network": network(&drill),
        "received": report["received"],
        "checked": checked.lines().collect::<Vec<_>>(),
        "problems": problems,
    });
    std::fs::write(drill.options.folder.join("drill.json"), format!("{record:#}\n"))?;
    drill.fleet.stop_miners();
    Ok(Summary { states, record, problems })
}

fn heal(drill: &Drill) -> Result<()> {
    drill.proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
    for disk in drill.fleet.spools.iter().chain([&drill.disks.lake, &drill.disks.broker]) {
        disk.heal()?;
    }
    for clock in &drill.fleet.clocks {
        std::fs::write(clock, "+0")?;
    }
    Ok(())
}

/// Waits until nothing is spooled, and ends the collectors in order.
fn stop_collectors(drill: &Drill) -> Result<()> {
    for service in &drill.fleet.collectors {
        let mut slot = service.hold();
        let process = slot.as_mut().context("the collector does not run")?;
        // Frames are closed all the time; fewer than a handful are those of this moment.
        let drained = wait_for(&format!("the spool of {} to drain", service.name), DRAIN_SECONDS, || {
            let (_, metrics) = http_get(&service.http, "/metrics").ok()?;
            let waiting = metrics.lines().filter(|line| line.contains("spool_frames") && !line.starts_with('#'));
            let frames: f64 = waiting.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
            (frames < 5.0).then_some(())
        });
        drained.with_context(|| process.tail())?;
        let status = process.terminate(60)?;
        ensure!(status.success(), "{} ended with {status}\n{}", service.name, process.tail());
    }
    Ok(())
}

/// Waits until the lake has everything, and ends the ingest processes in order.
fn stop_ingests(drill: &Drill) -> Result<Site> {
    let site = Site {
        broker: Arc::clone(&drill.broker),
        folder: drill.options.folder.clone(),
        prefix: drill.prefix.clone(),
        collector_servers: drill.broker.bootstrap().to_owned(),
        ingest_servers: drill.broker.bootstrap().to_owned(),
    };
    let mut first = true;
    for service in &drill.fleet.ingests {
        let process = service.hold().take().context("ingest does not run")?;
        let ingest = Ingest { process, http: service.http.clone(), group: GROUP.to_owned() };
        if std::mem::take(&mut first) {
            site.wait_until_drained(&ingest, &TABLES, DRAIN_SECONDS)?;
        }
        site.stop_ingest(ingest)?;
    }
    Ok(site)
}

/// The check that shares no code with racklake.
fn check(drill: &Drill, site: &Site) -> Result<String> {
    let lake = site.lake().display().to_string();
    let kills = drill.tally.services();
    let mut arguments = vec![lake, "--miner".to_owned(), drill.fleet.miner_account.display().to_string()];
    for (service, account) in drill.fleet.collectors.iter().zip(&drill.fleet.gpu_accounts) {
        let killed = kills.get(&service.name).copied().unwrap_or(0);
        arguments.push("--node".to_owned());
        arguments.push(format!("{},{killed},{}", service.name, account.display()));
    }
    if drill.options.lossy {
        arguments.push("--lossy".to_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    python::run("check_drill.py", &arguments)
}

/// Whether all that `verify` misses are frames of which the collector said that it dropped them.
fn only_told_drops(report: &Value) -> bool {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let told = |gap: &Value| gap["reason"].as_str().is_some_and(|reason| reason == "dropped");
    let clean = |stream: &Value| {
        list(stream, "gaps").iter().all(told)
            && ["doubled", "short"].iter().all(|key| list(stream, key).is_empty())
            && list(stream, "contradictory").is_empty()
    };
    let whole = |table: &Value| {
        list(table, "files_missing").is_empty()
            && list(table, "files_altered").is_empty()
            && list(table, "streams").iter().all(clean)
    };
    report["answer"] == "incomplete" && list(report, "tables").iter().all(whole)
}

/// What each proxy did to connections.
fn network(drill: &Drill) -> Value {
    let modes = [
        ("cut", Mode::Cut),
        ("reset", Mode::Reset),
        ("delay", Mode::Delay(std::time::Duration::from_millis(300))),
        ("blackhole", Mode::Blackhole(Way::Both)),
        ("drop_replies", Mode::DropReplies),
    ];
    let of = |proxy: &crate::fault_proxy::FaultProxy| {
        let met = modes.iter().map(|(name, mode)| {
            let Met { connections, bytes, .. } = proxy.met(*mode);
            ((*name).to_owned(), json!({"connections": connections, "bytes": bytes}))
        });
        Value::Object(met.collect())
    };
    json!({"collectors": of(&drill.proxies[0]), "ingests": of(&drill.proxies[1])})
}
