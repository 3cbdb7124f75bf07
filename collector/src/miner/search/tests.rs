//! Ranges of addresses with miners in them.

use std::collections::BTreeMap;

use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};
use racklake_schemas::tables::{MINER_SAMPLE, miner_sample};
use tokio::sync::mpsc;

use super::*;
use crate::config::{MinersConfig, RangeConfig};
use crate::source::Source as _;

fn units(net: u8) -> Vec<Unit> {
    let unit = |last: u8, profile: Profile, fault: Option<Fault>| {
        let address = Some(std::net::SocketAddr::from(([127, 78, net, last], 4028)));
        Unit { address, fault, ..Unit::new(&format!("u{last}"), profile) }
    };
    vec![
        unit(1, Profile::Avalon1246, None),
        unit(2, Profile::AvalonQ, None),
        unit(3, Profile::AvalonQ, Some(Fault::Hang)),
        unit(5, Profile::AvalonQ, Some(Fault::Garbage)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_the_miners_of_a_range_and_says_what_else_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let sim = MinerSim::start(units(1), &folder.path().join("account")).unwrap();
    let range: IpNet = "127.78.1.0/29".parse().unwrap();
    let mut found = BTreeMap::new();
    let pace = Pace { at_once: 3, answer: Duration::from_millis(300) };
    search(addresses(&range).collect(), pace, |searched| {
        found.insert(searched.address.to_string(), searched.make);
    })
    .await;
    let expected = [
        Ok(Make::Avalon),
        Ok(Make::Avalon),
        Err(Seen::Something),
        Err(Seen::Nothing),
        Err(Seen::Something),
        Err(Seen::Nothing),
    ];
    assert_eq!(found.into_values().collect::<Vec<_>>(), expected);
    assert_eq!((sim.calls(0), sim.calls(1)), (1, 1), "who says what it is is asked once");
}

/// A machine of each make that is simulated, and what it is.
const MAKES: [(Profile, Make); 8] = [
    (Profile::Avalon1246, Make::Avalon),
    (Profile::AvalonQ, Make::Avalon),
    (Profile::AntminerS19Pro, Make::Antminer),
    (Profile::WhatsminerV2, Make::Whatsminer),
    (Profile::WhatsminerV3, Make::Whatsminer),
    (Profile::Braiins, Make::Braiins),
    (Profile::Luxos, Make::Luxos),
    (Profile::Epic, Make::Epic),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_miner_of_a_mixed_range_is_recognised_with_one_connection_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let unit = |(last, (profile, _)): (u8, &(Profile, Make))| {
        let port = if *profile == Profile::WhatsminerV3 { 4433 } else { 4028 };
        let address = Some(std::net::SocketAddr::from(([127, 78, 3, last], port)));
        // One connection more than it takes is cut, and then it would not be recognised. Port 80 is not for everybody.
        Unit { address, http_port: Some(8080), connections_max: 1, ..Unit::new(&format!("u{last}"), *profile) }
    };
    let units: Vec<Unit> = (1..).zip(&MAKES).map(unit).collect();
    let _sim = MinerSim::start(units, &folder.path().join("account")).unwrap();
    let range: IpNet = "127.78.3.0/28".parse().unwrap();
    let mut found = BTreeMap::new();
    let pace = Pace { at_once: 16, answer: Duration::from_secs(1) };
    search(addresses(&range).collect(), pace, |searched| {
        found.insert(searched.address, searched.make);
    })
    .await;
    let expected: Vec<Result<Make, Seen>> = MAKES.iter().map(|(_, make)| Ok(*make)).collect();
    assert_eq!(found.values().copied().take(MAKES.len()).collect::<Vec<_>>(), expected);
    assert!(found.values().skip(MAKES.len()).all(|make| *make == Err(Seen::Nothing)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_whose_firmware_was_replaced_is_read_as_what_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let address = std::net::SocketAddr::from(([127, 78, 4, 1], 4028));
    let start = |profile: Profile, file: &str| {
        let unit = Unit { address: Some(address), http_port: Some(8080), ..Unit::new("a", profile) };
        MinerSim::start(vec![unit], &folder.path().join(file))
    };
    let miner = MinerConfig { http_port: Some(8080), ..MinerConfig::at("127.78.4.1") };
    let endpoint = miner.endpoint();
    let config = MinersConfig { miners: vec![miner], timeout: Duration::from_secs(1), ..MinersConfig::default() };
    let miners = MinerSource::with_finds(&config, crate::miner::Finds::open(None));
    let state = async || {
        let reading = miners.read(&endpoint, &MINER_SAMPLE).await;
        let row = &reading.rows[0];
        [miner_sample::STATE, miner_sample::STATE_REASON].map(|column| row.cell(column).clone())
    };
    assert_eq!(state().await, ["unreachable".into(), "no answer".into()], "nothing is there yet");
    let avalon = start(Profile::AvalonQ, "account").unwrap();
    assert_eq!(state().await, ["mining".into(), racklake_schemas::Cell::Null]);
    assert_eq!(miners.finds().make(&endpoint), Some(Make::Avalon));
    avalon.stop();
    // The address is free as soon as the runtime of the first one has let it go.
    let _luxos = loop {
        match start(Profile::Luxos, "account2") {
            Ok(sim) => break sim,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    for _ in 0..8 {
        state().await;
    }
    assert_eq!(miners.finds().make(&endpoint), Some(Make::Luxos));
    assert_eq!(state().await, ["mining".into(), racklake_schemas::Cell::Null]);
}

#[tokio::test(flavor = "multi_thread")]
async fn miners_of_a_range_become_devices_and_stay_when_they_are_silent() {
    let folder = tempfile::tempdir().unwrap();
    let sim = MinerSim::start(units(2), &folder.path().join("account")).unwrap();
    let range = RangeConfig { cidr: "127.78.2.0/30".parse().unwrap(), rack: Some("m1".to_owned()), credentials: None };
    let timeout = Duration::from_millis(300);
    let config = MinersConfig { ranges: vec![range], timeout, ..MinersConfig::default() };
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let source = || Arc::new(MinerSource::with_finds(&config, crate::miner::Finds::open(Some(&state))));
    let (sink, mut events) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let miners = source();
    let searching = tokio::spawn(run(Arc::clone(&miners), sink, stop.clone()));
    let event = events.recv().await.unwrap();
    assert_eq!((event.event, event.message.contains("has found 2 miners")), ("miners_found", true));
    tokio::time::timeout(Duration::from_secs(5), miners.relisted()).await.unwrap();
    let listed = miners.discover().await.unwrap();
    let addresses: Vec<&str> = listed.iter().map(|found| found.address.as_str()).collect();
    assert_eq!(addresses, ["127.78.2.1:4028", "127.78.2.2:4028"]);
    assert_eq!(listed[0].rack.as_deref(), Some("m1"));
    let reading = miners.read(addresses[1], &MINER_SAMPLE).await;
    assert_eq!(reading.rows.len(), 2, "a row of the miner and one of its board");
    stop.cancel();
    searching.await.unwrap();
    drop(sim);
    let miners = source();
    assert_eq!(miners.discover().await.unwrap().len(), 2, "they are remembered");
    let reading = miners.read(addresses[1], &MINER_SAMPLE).await;
    assert_eq!(reading.rows[0].status(), racklake_schemas::row_status::UNREACHABLE);
}
