//! Error codes and states of Whatsminers.

use racklake_schemas::tables::{hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, fail_code};

use super::super::super::reader::{Reader, Told};
use super::super::super::recorded::{changed, told, told_after};
use super::super::super::state::State;
use super::super::Whatsminer;
use super::{V1, V2, V3, with};

macro_rules! recording {
    ($name:literal) => {
        include_bytes!(concat!("../../../../../tests/miner-sim/recordings/whatsminer/", $name)).as_slice()
    };
}

fn codes(told: &Told) -> Vec<(i64, &str)> {
    told.errors.iter().flatten().map(|error| (error.code, error.message.as_str())).collect()
}

#[test]
fn error_codes_are_read_wherever_they_are_told() {
    let v1 = with(&V1, "summary", recording!("v1/summary_with_errors.json"));
    assert_eq!(codes(&v1), [(110, "Intake fan speed error."), (600, "Environment temperature is too high.")]);
    assert_eq!(v1.judged, Some((State::Mining, None)), "it hashes all the same");
    let v2 = with(&V2, "get_error_code", recording!("v2/get_error_code_with_errors.json"));
    assert_eq!(
        codes(&v2),
        [(218, "Power input voltage is lower than 230V for high power mode."), (110, "Intake fan speed error."),]
    );
    let v3 = with(&V3, "get.device.info", recording!("v3/get_device_info_with_errors.json"));
    let numbers: Vec<i64> = codes(&v3).iter().map(|(code, _)| *code).collect();
    assert_eq!(numbers, [264, 265, 266, 267, 270]);
    assert_eq!(codes(&v3)[3].1, "Power watch dog protected. code: 0xffffffffc0000000");
    assert!(v3.errors.unwrap().iter().all(|error| error.component == "psu"));
    // Those of the factory are history, and a list of numbers is a list of codes.
    let factory = changed(
        V1[0].1,
        "\"Factory Error Code Count\": 0",
        "\"Factory Error Code Count\": 1,\"Factory Error Code 0\": 110",
    );
    assert_eq!(codes(&with(&V1, "summary", &factory)), []);
    assert_eq!(
        codes(&with(&V2, "get_error_code", br#"{"STATUS":"S","Msg":{"error_code":[5070,"531",null,{}]}}"#)).len(),
        2
    );
    let without = with(&V2, "get_error_code", b"");
    assert!(without.errors.is_none() && without.miner.unwrap().has_failed(miner::ERROR_CODES));
}

#[test]
fn stopped_hot_broken_and_told_to_sleep_are_told_apart() {
    use State::{Fault, Mining, Sleeping};
    let still = changed(V2[0].1, "\"HS RT\": 124500000.0", "\"HS RT\": 0");
    let young = changed(&still, "\"Elapsed\": 25000", "\"Elapsed\": 60");
    let judge = |summary: &[u8], status: &str, errors: &str, pools: &[u8]| {
        let status = format!(r#"{{"STATUS":"S","Msg":{{{status}}}}}"#);
        let errors = format!(r#"{{"STATUS":"S","Msg":{{"error_code":[{errors}]}}}}"#);
        let recorded = [
            ("summary", summary),
            ("devs", V2[2].1),
            ("pools", pools),
            ("get_error_code", errors.as_bytes()),
            ("status", status.as_bytes()),
        ];
        told(&Whatsminer, &recorded).judged
    };
    let off = r#""mineroff":"true""#;
    let on = r#""mineroff":"false""#;
    let dead = changed(V2[3].1, "Alive", "Dead");
    for (summary, status, errors, pools, state) in [
        (&still, off, "", V2[3].1, (Sleeping, Some("standby"))),
        (&still, r#""btmineroff":"true""#, "", V2[3].1, (Sleeping, Some("standby"))),
        (&still, r#""mineroff":true,"mineroff_reason":"demand response""#, "", V2[3].1, (Sleeping, Some("curtailed"))),
        (&still, off, r#"{"350":"2024-06-15 10:30:00"}"#, V2[3].1, (Fault, Some("overheat"))),
        (&still, r#""mineroff":"true","mineroff_reason":"high temp""#, "", V2[3].1, (Fault, Some("overheat"))),
        (&still, on, r#"{"5052":""}"#, V2[3].1, (Fault, Some("overheat"))),
        (&still, on, r#"{"217":""}"#, V2[3].1, (Fault, Some("psu"))),
        (&still, on, r#"{"111":""}"#, V2[3].1, (Fault, Some("fan"))),
        (&still, on, r#"{"8410":""}"#, V2[3].1, (Fault, Some("firmware error"))),
        (&still, on, "", V2[3].1, (Fault, Some("no hashrate"))),
        (&still, on, "", dead.as_slice(), (Fault, Some("no pool"))),
        (&young, on, "", V2[3].1, (Mining, Some("starting"))),
    ] {
        assert_eq!(judge(summary, status, errors, pools), Some(state), "{status} {errors}");
    }
    let gone = with(&V2, "get_error_code", br#"{"STATUS":"S","Msg":{"error_code":[{"532":""}]}}"#);
    assert_eq!(gone.judged, Some((Fault, Some("dead board"))));
    let devs = changed(V2[2].1, "\"MHS av\": 41800000.0", "\"MHS av\": 0");
    assert_eq!(with(&V2, "devs", &devs).judged, Some((Fault, Some("dead board"))));
    let works = changed(V3[0].1, "\"working\": \"true\"", "\"working\": \"false\"");
    let summary = changed(V3[1].1, "\"hash-realtime\": 171.259", "\"hash-realtime\": 0");
    let recorded = [("get.device.info", works.as_slice()), ("get.miner.status summary", &summary)];
    let asleep = told(&Whatsminer, &recorded);
    assert_eq!(asleep.judged, Some((Sleeping, Some("standby"))));
    let row = asleep.miner.unwrap();
    assert!(*row.cell(miner::CHIP_TEMP_MAX_CELSIUS) == Cell::Null && !row.has_failed(miner::CHIP_TEMP_MAX_CELSIUS));
}

#[test]
fn a_board_that_goes_missing_keeps_its_row() {
    let mut memory = Whatsminer.memory();
    told_after(&Whatsminer, &V2, &mut memory);
    let two = changed(V2[2].1, "\"Slot\": 1", "\"Slot\": 0");
    let recorded = [V2[0], ("devs", two.as_slice())];
    let told = told_after(&Whatsminer, &recorded, &mut memory);
    assert_eq!((told.boards.len(), told.judged), (3, Some((State::Fault, Some("dead board")))));
    assert!(told.boards[1].has_failed(board::CHIPS_FOUND));
    assert_eq!(told.boards[1].fail_code(), Some(fail_code::MISSING));
}
