//! A network that cuts, resets, slows and loses replies, before and behind the broker: the lake holds exactly what was
//! sent.

use std::sync::Arc;
use std::time::Duration;

use racklake_tests::fault_proxy::{FaultProxy, Mode, Way};
use racklake_tests::kafka::Broker;
use racklake_tests::sender::Sender;
use racklake_tests::site::{PARTITIONS, Site};
use racklake_tests::{cache, turn, wait_for};
use rdkafka::ClientConfig;

const FAULTS: [Mode; 6] = [
    Mode::DropReplies,
    Mode::Reset,
    Mode::Delay(Duration::from_millis(50)),
    Mode::Blackhole(Way::Replies),
    Mode::Cut,
    Mode::Blackhole(Way::Both),
];
/// Frames in each period with a fault, and in each without.
const FRAMES: usize = 60;

#[test]
fn a_lossy_network_loses_and_doubles_nothing() {
    let _turn = turn();
    let name = format!("broker-{}/lossy_network", std::process::id());
    let (broker, collector, ingest_proxy) = Broker::start_with_proxies(&cache().join(name)).unwrap();
    let mut site = Site::with_broker("lossy_network", Arc::new(broker)).unwrap();
    site.ingest_servers = ingest_proxy.address().to_string();
    site.collector_servers = collector.address().to_string();
    let ingest = site.start_ingest("ingest", "lossy-network").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut client = site.broker.client_config();
    client.set("bootstrap.servers", &site.collector_servers).set("socket.timeout.ms", "2000");
    let mut sender = Sender::new(&client, &site.prefix, PARTITIONS, "node-1").unwrap();
    send(&mut sender, &client);
    // The two sides have different faults at the same time.
    for (mode, behind) in FAULTS.into_iter().zip(FAULTS.into_iter().cycle().skip(1)) {
        let (met, met_behind) = (collector.met(mode), ingest_proxy.met(behind));
        collector.set(mode);
        ingest_proxy.set(behind);
        send(&mut sender, &client);
        meets(&collector, mode, met.connections);
        meets(&ingest_proxy, behind, met_behind.connections);
        collector.set(Mode::Pass);
        ingest_proxy.set(Mode::Pass);
        send(&mut sender, &client);
        // The next fault shall meet an ingest that works.
        site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();
        if mode == Mode::Reset {
            site.broker.kill().unwrap();
            site.broker.restart().unwrap();
        }
    }
    sender.flush().unwrap();
    while mend(&mut sender, &client) {
        sender.flush().unwrap();
    }
    site.wait_until_drained(&ingest, &["gpu_sample"], 120).unwrap();
    site.stop_ingest(ingest).unwrap();
    let account = site.folder.join("sent.json");
    Sender::write_account(&[&sender], &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
    let (code, report) = racklake_tests::lake_tool::verify(&site).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
}

fn send(sender: &mut Sender, client: &ClientConfig) {
    for _ in 0..FRAMES {
        mend(sender, client);
        let seq = sender.prepare().unwrap();
        // One that is refused is sent again by the next `mend`.
        if let Err(error) = sender.resend(seq) {
            assert!(sender.fatal_error().is_some(), "{error:#}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Does what a collector does whose producer has given up: a new one sends all frames again. Says whether it had to.
fn mend(sender: &mut Sender, client: &ClientConfig) -> bool {
    let Some(error) = sender.fatal_error() else { return false };
    println!("new producer after {} frames: {error}", sender.last_seq());
    sender.restart(client).unwrap();
    (1..=sender.last_seq()).for_each(|seq| sender.resend(seq).unwrap());
    true
}

/// Waits until a fault has met a connection.
fn meets(proxy: &FaultProxy, mode: Mode, before: u64) {
    wait_for(&format!("{mode:?} to meet a connection"), 30, || (proxy.met(mode).connections > before).then_some(()))
        .unwrap();
}
