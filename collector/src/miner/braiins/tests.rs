//! What the recorded replies of Braiins OS+ become.

use racklake_schemas::Cell;
use racklake_schemas::tables::{device, hashboard_sample as board, miner_sample as miner};

use super::*;
use crate::miner::exchange::Trouble;
use crate::miner::state::State;
use crate::miner::testing::{json, recorded};

const REST: [(&str, &str); 8] = [
    ("miner/details", "miner_details"),
    ("miner/stats", "miner_stats"),
    ("miner/hw/hashboards", "miner_hw_hashboards"),
    ("cooling/state", "cooling_state"),
    ("pools", "pools"),
    ("performance/tuner-state", "performance_tuner_state"),
    ("network", "network"),
    ("version", "version"),
];

fn rest(version: &str) -> Replies {
    let mut replies = Replies::default();
    for (command, file) in REST {
        replies.add(command, Ok(recorded(&format!("braiins/{version}/{file}.json"))));
    }
    replies
}

fn rest_with(version: &str, changes: &[(&str, &str)]) -> Replies {
    let mut changed = Replies::default();
    for (command, reply) in rest(version).iter() {
        let other = changes.iter().find(|(name, _)| *name == command).map(|(_, text)| json(text));
        changed.add(command, Ok(other.unwrap_or_else(|| reply.unwrap().clone())));
    }
    changed
}

fn graphql(version: &str) -> Replies {
    let mut replies = Replies::default();
    for name in ["system", "boards", "pools"] {
        replies.add(name, ask::judged(recorded(&format!("braiins/{version}/gql_{name}.json"))));
    }
    if version != "v21_09" {
        replies.add("events", ask::judged(recorded(&format!("braiins/{version}/gql_events.json"))));
    }
    replies.add("model", Ok(json(r#"{"data":{"bosminer":{"info":{"modelName":"Antminer S9"}}}}"#)));
    replies.add("version", Ok(recorded(&format!("braiins/{version}/version.json"))));
    replies.add("net_conf", Ok(recorded(&format!("braiins/{version}/web_net_conf.json"))));
    replies
}

fn assert_cells(row: &Row, wanted: &[(usize, Cell)]) {
    for (column, cell) in wanted {
        assert_eq!(row.cell(*column), cell, "{}", row.table().columns[*column].name);
    }
}

#[test]
fn the_recorded_rest_replies_become_rows() {
    let told = Braiins.read(&rest("v26_04"), &mut Braiins.memory());
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(248_186_677_200_024)),
            (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, Cell::I64(244_601_275_713_952)),
            (miner::HASHRATE_30M_HASHES_PER_SECOND, Cell::I64(248_034_207_073_017)),
            (miner::HASHRATE_1H_HASHES_PER_SECOND, Cell::I64(249_251_151_562_144)),
            (miner::HASHRATE_24H_HASHES_PER_SECOND, Cell::I64(19_713_352_677_613)),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(252_597_583_147_200)),
            (miner::POWER_MILLIWATTS, Cell::Null),
            (miner::POWER_ESTIMATED_MILLIWATTS, Cell::I64(3_480_000)),
            (miner::POWER_LIMIT_MILLIWATTS, Cell::I64(3_500_000)),
            (miner::POWER_MODE, Cell::from("powertarget")),
            (miner::ACCEPTED_SHARES, Cell::I64(848)),
            (miner::STALE_SHARES, Cell::I64(0)),
            (miner::BEST_SHARE_DIFFICULTY, Cell::F64(499_065_300.0)),
            (miner::FAN_4_RPM, Cell::I64(5973)),
            (miner::FAN_DUTY_PERCENT, Cell::I64(92)),
            (miner::CHIP_TEMP_MAX_CELSIUS, Cell::I64(65)),
            (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(50)),
            (miner::BOARDS_FOUND, Cell::I64(3)),
            (miner::POOLS_ALIVE, Cell::I64(2)),
            (miner::POOLS_CONFIGURED, Cell::I64(2)),
            (miner::POOL_URL, Cell::from("stratum+tcp://example.pool.com:3333")),
            (miner::POOL_DIFFICULTY, Cell::F64(524_288.0)),
            (miner::UPTIME_SECONDS, Cell::I64(7039)),
        ],
    );
    assert_eq!(row.failed_mask(), 0);
    assert!(row.is_unsupported(miner::HARDWARE_ERRORS) && row.is_unsupported(miner::POWER_MILLIWATTS));
    assert_eq!(told.judged, Some((State::Mining, None)));
    assert_eq!(told.boards.len(), 3);
    assert_cells(
        &told.boards[0],
        &[
            (board::BOARD_INDEX, Cell::I64(0)),
            (board::HASHRATE_HASHES_PER_SECOND, Cell::I64(83_168_431_305_218)),
            (board::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(83_433_204_518_640)),
            (board::CHIPS_FOUND, Cell::I64(65)),
            (board::CHIP_TEMP_MAX_CELSIUS, Cell::I64(65)),
            (board::PCB_TEMP_MAX_CELSIUS, Cell::I64(50)),
            (board::INLET_TEMP_CELSIUS, Cell::I64(35)),
            (board::VOLTAGE_MILLIVOLTS, Cell::I64(13_738)),
            (board::FREQUENCY_KILOHERTZ, Cell::I64(625_865)),
            (board::BOARD_STATUS, Cell::from("enabled")),
            (board::BOARD_SERIAL, Cell::from("THQGYSCBDJIAH11S3")),
        ],
    );
    let identity = told.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("antminer:THQGFKUBDJIAH0E9G"));
    assert_cells(
        &identity.row,
        &[
            (device::MODEL, Cell::from("Antminer S21 Pro")),
            (device::FIRMWARE_VERSION, Cell::from("2026-04-14-0-912d084c-26.04-plus")),
            (device::PSU_SERIAL, Cell::from("OLTT335BCAJBE3545")),
            (device::API_VERSION, Cell::from("1.3.0")),
            (device::MAC, Cell::from("02:8f:77:ec:e7:e0")),
        ],
    );
}

#[test]
fn every_recorded_version_of_the_rest_interface_is_read_without_a_failed_reading() {
    for version in ["v25_07", "v25_11", "v26_04"] {
        let told = Braiins.read(&rest(version), &mut Braiins.memory());
        assert_eq!(told.miner.unwrap().failed_mask(), 0, "{version}");
        assert_eq!(told.boards.len(), 3, "{version}");
        assert_eq!(told.judged, Some((State::Mining, None)), "{version}");
        let mac = told.identity.unwrap().device_id;
        assert!(mac.is_some_and(|id| id.starts_with("antminer:")), "{version}");
    }
}

#[test]
fn the_recorded_graphql_replies_become_rows() {
    let told = Braiins.read(&graphql("v21_09"), &mut Braiins.memory());
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(7_160_208_944_955)),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(7_242_402_523_230)),
            (miner::POWER_ESTIMATED_MILLIWATTS, Cell::I64(735_000)),
            (miner::POWER_LIMIT_MILLIWATTS, Cell::I64(900_000)),
            (miner::ACCEPTED_SHARES, Cell::I64(49)),
            (miner::REJECTED_SHARES, Cell::I64(0)),
            (miner::FAN_1_RPM, Cell::I64(4080)),
            (miner::FAN_3_RPM, Cell::I64(0)),
            (miner::FAN_DUTY_PERCENT, Cell::I64(100)),
            (miner::CHIP_TEMP_MAX_CELSIUS, Cell::I64(89)),
            (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(75)),
            (miner::POOLS_ALIVE, Cell::I64(2)),
            (miner::POOL_URL, Cell::from("stratum+tcp://btc1.example.pool:3333")),
            (miner::UPTIME_SECONDS, Cell::I64(1189)),
        ],
    );
    assert_eq!(told.boards.len(), 3, "connectors 6, 7 and 8 are boards 0, 1 and 2");
    assert_cells(
        &told.boards[1],
        &[
            (board::BOARD_INDEX, Cell::I64(1)),
            (board::HASHRATE_HASHES_PER_SECOND, Cell::I64(3_022_858_545_443)),
            (board::CHIPS_FOUND, Cell::I64(63)),
            (board::FREQUENCY_KILOHERTZ, Cell::I64(420_170)),
            (board::VOLTAGE_MILLIVOLTS, Cell::I64(9_097)),
            (board::CHIP_TEMP_MAX_CELSIUS, Cell::I64(89)),
        ],
    );
    assert_eq!(told.identity.unwrap().device_id, None, "the recorded MAC is a placeholder");
    let newer = Braiins.read(&graphql("v25_05"), &mut Braiins.memory());
    assert_cells(
        &newer.boards[2],
        &[
            (board::BOARD_SERIAL, Cell::from("NGSBYT0BEJCJD074C")),
            (board::INLET_TEMP_CELSIUS, Cell::I64(39)),
            (board::OUTLET_TEMP_CELSIUS, Cell::I64(54)),
        ],
    );
    assert_eq!(newer.errors, Some(Vec::new()));
    assert_eq!(newer.identity.unwrap().device_id.as_deref(), Some("antminer:02:b7:87:ee:7f:f5"));
}

#[test]
fn every_recorded_version_of_graphql_is_read_without_a_failed_reading() {
    for version in ["v21_09", "v24_09", "v25_03", "v25_05"] {
        let told = Braiins.read(&graphql(version), &mut Braiins.memory());
        assert_eq!(told.miner.unwrap().failed_mask(), 0, "{version}");
        assert_eq!(told.boards.len(), 3, "{version}");
        assert_eq!(told.judged, Some((State::Mining, None)), "{version}");
    }
}

#[test]
fn a_paused_miner_sleeps_and_one_suspended_hot_has_failed() {
    let state = |changes: &[(&str, &str)]| Braiins.read(&rest_with("v25_07", changes), &mut Braiins.memory()).judged;
    let status = |number: i64| format!(r#"{{"status":{number},"bosminer_uptime_s":9000}}"#);
    for (number, judged) in [
        (1, (State::Sleeping, Some("standby"))),
        (2, (State::Mining, None)),
        (3, (State::Sleeping, Some("curtailed"))),
        (4, (State::Sleeping, Some("idle"))),
    ] {
        assert_eq!(state(&[("miner/details", &status(number))]), Some(judged), "{number}");
    }
    let hot = r#"{"hashboards":[{"id":"1","highest_chip_temp":{"temperature":{"degree_c":104}}}]}"#;
    let judged = state(&[("miner/details", &status(4)), ("miner/hw/hashboards", hot)]);
    assert_eq!(judged, Some((State::Fault, Some("overheat"))));
    let mut cooled = rest_with("v25_07", &[("miner/details", &status(4))]);
    cooled.add("miner/errors", Ok(recorded("braiins/v25_11/miner_errors.json")));
    assert_eq!(Braiins.read(&cooled, &mut Braiins.memory()).judged, Some((State::Sleeping, Some("idle"))));
    let mut hot = rest_with("v25_07", &[("miner/details", &status(4))]);
    hot.add("miner/errors", Ok(json(r#"{"errors":[{"message":"x"},{"message":"Hash board overheated"}]}"#)));
    assert_eq!(Braiins.read(&hot, &mut Braiins.memory()).judged, Some((State::Fault, Some("overheat"))));
}

#[test]
fn a_board_that_is_disabled_beside_one_that_hashes_is_dead_and_keeps_its_number() {
    let rate = r#""stats":{"real_hashrate":{"last_5s":{"gigahash_per_second":9.5}}}"#;
    let boards =
        format!(r#"{{"hashboards":[{{"id":"1","enabled":true,{rate}}},{{"id":"3","enabled":false,{rate}}}]}}"#);
    let told = Braiins.read(&rest_with("v25_07", &[("miner/hw/hashboards", &boards)]), &mut Braiins.memory());
    assert_eq!(told.judged, Some((State::Fault, Some("dead board"))));
    assert_eq!(*told.boards[1].cell(board::BOARD_INDEX), Cell::I64(2));
}

#[test]
fn a_query_that_the_schema_does_not_know_is_declined_and_one_for_others_is_refused() {
    for (text, trouble) in [
        (r#"{"errors":[{"message":"Unknown field \"hbSerialNumber\""}]}"#, Trouble::Declined),
        (r#"{"data":null,"errors":[{"message":"Not authorized"}]}"#, Trouble::Refused),
        ("{}", Trouble::Unreadable),
        ("[]", Trouble::Unreadable),
    ] {
        assert_eq!(ask::judged(json(text)), Err(trouble), "{text}");
    }
}

#[test]
fn without_a_login_the_readings_behind_it_are_refused() {
    let mut replies = Replies::default();
    replies.add("miner/details", Err(Trouble::Refused));
    assert_eq!(Braiins.read(&replies, &mut Braiins.memory()).miner, None, "the source says that it was refused");
    let mut partly = Replies::default();
    for (command, reply) in rest("v25_07").iter() {
        let is_stats = command == "miner/stats";
        partly.add(command, if is_stats { Err(Trouble::Refused) } else { reply.cloned() });
    }
    let row = Braiins.read(&partly, &mut Braiins.memory()).miner.unwrap();
    assert!(row.has_failed(miner::ACCEPTED_SHARES));
    assert_eq!(*row.cell(miner::FAN_1_RPM), Cell::I64(5904));
}
