//! What is printed of miners that work, hang, refuse and lie.

use std::net::SocketAddr;
use std::time::Instant;

use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(400);

struct Farm {
    sim: MinerSim,
    _folder: tempfile::TempDir,
}

fn farm(unit: Unit) -> Farm {
    let folder = tempfile::tempdir().unwrap();
    let sim = MinerSim::start(vec![unit], &folder.path().join("account")).unwrap();
    Farm { sim, _folder: folder }
}

async fn seen(address: SocketAddr, make: Option<Make>) -> Look {
    // Another port of this host may have a web server, which is none of the miner's.
    let miner = MinerConfig { port: address.port(), make, http_port: Some(1), ..MinerConfig::at("127.0.0.1") };
    look(&miner, None, TIMEOUT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_that_works_is_told_with_all_its_columns_and_boards() {
    let farm = farm(Unit::new("a", Profile::Avalon1246));
    let look = seen(farm.sim.addresses()[0], None).await;
    let told = json(&look);
    assert_eq!((&told["make"], &told["state"], &told["reason"]), (&json!("avalon"), &json!("mining"), &Value::Null));
    assert_eq!(told["model"], json!("AvalonMiner 1246"));
    assert!(told["device_id"].as_str().unwrap().starts_with("avalon:"), "{told}");
    let columns = told["columns"].as_object().unwrap();
    assert_eq!(columns.len(), MINER_SAMPLE.columns.iter().filter(|column| column.bit.is_some()).count());
    assert!(columns["uptime_seconds"]["value"].is_i64());
    assert!(columns.values().all(|column| column["value"] != Value::Null || column["null"].is_string()));
    let boards = told["boards"].as_array().unwrap();
    assert_eq!(boards.iter().map(|board| board["board"].as_i64()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    let shown = table(&look);
    assert!(shown.contains("state mining") && shown.contains("\nboard 2\n"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_that_does_not_answer_as_it_should_is_answered_for_in_time() {
    let farm = farm(Unit::new("a", Profile::AvalonQ));
    let address = farm.sim.addresses()[0];
    for (fault, state, reason) in [
        (Fault::Hang, "unreachable", "no answer"),
        (Fault::RefuseConnection, "unreachable", "no answer"),
        (Fault::SlowDrip, "unreachable", "partial answer"),
        (Fault::Endless, "unreachable", "endless answer"),
        (Fault::Garbage, "unreachable", "unreadable answer"),
        (Fault::AccessDenied, "refused", "access denied"),
        (Fault::Idle, "sleeping", "standby"),
        (Fault::Overheat, "fault", "overheat"),
    ] {
        farm.sim.set_fault(0, Some(fault), &[]);
        let began = Instant::now();
        let told = json(&seen(address, Some(Make::Avalon)).await);
        assert_eq!((told["state"].as_str(), told["reason"].as_str()), (Some(state), Some(reason)), "{fault:?}");
        assert!(began.elapsed() < TIMEOUT * 8, "{fault:?} took {:?}", began.elapsed());
    }
    farm.sim.set_fault(0, Some(Fault::Hang), &[]);
    let told = json(&seen(address, None).await);
    assert_eq!(
        (&told["make"], &told["state"], &told["reason"]),
        (&Value::Null, &json!("unreachable"), &json!("no answer"))
    );
    assert_eq!(told["columns"]["uptime_seconds"]["null"], json!("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_miner_lies_is_a_failed_reading_and_what_is_secret_is_not_printed() {
    let unit = Unit {
        fault: Some(Fault::NonsenseSensors),
        pool_url: Some("stratum+tcp://owner.1:hunter2@pool.example:3333".to_owned()),
        ..Unit::new("a", Profile::Avalon1246)
    };
    let farm = farm(unit);
    let look = seen(farm.sim.addresses()[0], None).await;
    let (told, shown) = (json(&look), table(&look));
    assert!(!told.to_string().contains("hunter2") && !shown.contains("hunter2"), "{shown}");
    assert!(!told.to_string().contains("owner"), "{told}");
    assert_eq!(told["boards"][0]["columns"]["chip_temp_max_celsius"]["null"], json!("failed"), "{told}");
    assert_eq!(plain("a\u{1b}[2Jb\n"), "a?[2Jb?");
}

#[test]
fn an_address_is_a_host_with_or_without_a_port() {
    for (text, host, port) in [
        ("10.0.0.5", "10.0.0.5", None),
        ("10.0.0.5:81", "10.0.0.5", Some(81)),
        ("miner-7.hall:4028", "miner-7.hall", Some(4028)),
        ("fd00::5", "fd00::5", None),
        ("[fd00::5]:4028", "fd00::5", Some(4028)),
    ] {
        assert_eq!(host_and_port(text).unwrap(), (host, port), "{text}");
    }
    for text in ["", ":80", "a:", "a:0", "a:99999", "a b"] {
        assert!(host_and_port(text).unwrap_err().to_string().contains("10.20.0.15"), "{text}");
    }
    assert!(make_of("toaster").unwrap_err().contains("avalon"));
}
