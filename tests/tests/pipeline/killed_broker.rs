//! kill -9 of the broker's JVM while frames flow: acknowledged rows are in the lake exactly once.

use std::time::Duration;

use racklake_tests::sender::Sender;
use racklake_tests::site::{PARTITIONS, Site};
use racklake_tests::turn_alone;

#[test]
fn a_killed_broker_loses_and_doubles_nothing() {
    let _turn = turn_alone();
    let site = Site::new("killed_broker").unwrap();
    let ingest = site.start_ingest("ingest", "killed-broker").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut sender = Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, "node-1").unwrap();
    for round in 0..3 {
        for frame in 0..150 {
            sender.send().unwrap();
            std::thread::sleep(Duration::from_millis(5));
            if frame == 40 + 30 * round {
                site.broker.kill().unwrap();
            }
            if frame == 60 + 30 * round {
                site.broker.restart().unwrap();
            }
        }
    }
    sender.flush().unwrap();
    site.wait_until_drained(&ingest, &["gpu_sample"], 120).unwrap();
    site.stop_ingest(ingest).unwrap();
    let account = site.folder.join("sent.json");
    Sender::write_account(&[&sender], &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
}
