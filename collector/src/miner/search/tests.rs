//! Ranges of addresses with miners in them.

use std::collections::BTreeMap;

use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};
use tokio::sync::mpsc;

use super::*;
use crate::config::{MinersConfig, RangeConfig};
use crate::source::Source as _;
use racklake_schemas::tables::MINER_SAMPLE;

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
