//! What LuxOS' recorded replies become.

use racklake_schemas::Cell;
use racklake_schemas::tables::{device, hashboard_sample as board, miner_sample as miner};

use super::*;
use crate::miner::state::State;
use crate::miner::testing::{json, recorded};

fn replies() -> Replies {
    let mut replies = Replies::default();
    for command in SAMPLE.iter().chain(["version"].iter()) {
        replies.add(*command, Ok(recorded(&format!("luxminer/v1/{command}.json"))));
    }
    for number in 0..3 {
        for command in ["voltageget", "healthchipget"] {
            replies.add(format!("{command} {number}"), Ok(recorded(&format!("luxminer/v1/{command}_{number}.json"))));
        }
    }
    replies
}

fn replies_with(changes: &[(&str, &str)]) -> Replies {
    let mut changed = Replies::default();
    for (command, reply) in replies().iter() {
        let other = changes.iter().find(|(name, _)| *name == command).map(|(_, text)| json(text));
        changed.add(command, Ok(other.unwrap_or_else(|| reply.unwrap().clone())));
    }
    changed
}

#[test]
fn the_recorded_replies_become_rows() {
    let told = LuxOs.read(&replies(), &mut LuxOs.memory());
    let row = told.miner.unwrap();
    for (column, cell) in [
        (miner::ACCEPTED_SHARES, Cell::I64(1483)),
        (miner::REJECTED_SHARES, Cell::I64(1)),
        (miner::STALE_SHARES, Cell::I64(0)),
        (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(59_756_060_000_000)),
        (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, Cell::I64(56_917_910_000_000)),
        (miner::HASHRATE_30M_HASHES_PER_SECOND, Cell::I64(61_154_220_000_000)),
        (miner::HASHRATE_24H_HASHES_PER_SECOND, Cell::I64(55_400_800_000_000)),
        (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(61_954_200_000_000)),
        (miner::POWER_MILLIWATTS, Cell::Null),
        (miner::POWER_ESTIMATED_MILLIWATTS, Cell::I64(1_051_000)),
        (miner::FAN_1_RPM, Cell::I64(1920)),
        (miner::FAN_4_RPM, Cell::I64(2340)),
        (miner::FAN_DUTY_PERCENT, Cell::I64(20)),
        (miner::FREQUENCY_KILOHERTZ, Cell::I64(300_000)),
        (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(47)),
        (miner::CHIP_TEMP_MAX_CELSIUS, Cell::Null),
        (miner::BOARDS_FOUND, Cell::I64(3)),
        (miner::POOLS_ALIVE, Cell::I64(2)),
        (miner::POOLS_CONFIGURED, Cell::I64(4)),
        (miner::POOL_URL, Cell::from("stratum+tcp://ca.stratum.braiins.com:3333")),
        (miner::POOL_DIFFICULTY, Cell::F64(32768.0)),
        (miner::POWER_MODE, Cell::from("290MHz")),
        (miner::UPTIME_SECONDS, Cell::I64(3453)),
    ] {
        assert_eq!(*row.cell(column), cell, "{}", row.table().columns[column].name);
    }
    assert!(row.is_unsupported(miner::CHIP_TEMP_MAX_CELSIUS), "what LuxOS calls chips are sensors on the board");
    assert!(row.is_unsupported(miner::POWER_MILLIWATTS));
    assert_eq!(row.failed_mask(), 0);
    assert_eq!(told.judged, Some((State::Mining, None)));
    assert_eq!(told.uptime, Some(3453));
    assert_eq!(told.mark.as_deref(), Some("JYZZB0UBDJABF06RB"));
}

#[test]
fn the_recorded_boards_become_rows_in_the_order_of_their_numbers() {
    let told = LuxOs.read(&replies(), &mut LuxOs.memory());
    assert_eq!(told.boards.len(), 3);
    for (column, cell) in [
        (board::BOARD_INDEX, Cell::I64(1)),
        (board::HASHRATE_HASHES_PER_SECOND, Cell::I64(19_230_588_746_675)),
        (board::HASHRATE_5M_HASHES_PER_SECOND, Cell::I64(20_467_887_352_198)),
        (board::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(20_651_400_000_000)),
        (board::HARDWARE_ERRORS, Cell::I64(0)),
        (board::ACCEPTED_NONCES, Cell::I64(505)),
        (board::REJECTED_NONCES, Cell::I64(1)),
        (board::BOARD_STATUS, Cell::from("Alive")),
        (board::BOARD_SERIAL, Cell::from("JYZZYRSBDJEBI06ZM")),
        (board::VOLTAGE_MILLIVOLTS, Cell::I64(11_880)),
        (board::FREQUENCY_KILOHERTZ, Cell::I64(300_000)),
        (board::CHIPS_FOUND, Cell::I64(77)),
        (board::CHIPS_EXPECTED, Cell::I64(77)),
        (board::CHIP_OK, Cell::List(vec![Some(1); 77])),
        (board::PCB_TEMPS_CELSIUS, Cell::List(vec![Some(47), Some(33), Some(47), Some(33)])),
        (board::INLET_TEMP_CELSIUS, Cell::I64(33)),
        (board::OUTLET_TEMP_CELSIUS, Cell::I64(47)),
        (board::CHIP_TEMPS_CELSIUS, Cell::Null),
    ] {
        let row = &told.boards[1];
        assert_eq!(*row.cell(column), cell, "{}", row.table().columns[column].name);
    }
    let Cell::List(rates) = told.boards[0].cell(board::CHIP_HASHRATES_MEGAHASHES_PER_SECOND) else { panic!() };
    assert_eq!((rates.len(), rates[0]), (77, Some(266_840)));
}

#[test]
fn a_reflashed_antminer_keeps_the_prefix_of_its_maker() {
    let told = LuxOs.read(&replies(), &mut LuxOs.memory());
    let identity = told.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("antminer:JYZZB0UBDJABF06RB"));
    for (column, text) in [
        (device::MODEL, "Antminer S19k Pro"),
        (device::MAC, "62:f7:5e:b7:10:46"),
        (device::FIRMWARE_VERSION, "2025.4.8.220305-57b389c7"),
        (device::PSU_MODEL, "APW121215e"),
        (device::ALGORITHM, "sha256"),
    ] {
        assert_eq!(*identity.row.cell(column), Cell::from(text));
    }
    assert!(!told.is_identity_partial);
}

#[test]
fn events_are_errors_for_as_long_as_they_are_listed() {
    let errors = LuxOs.read(&replies(), &mut LuxOs.memory()).errors.unwrap();
    assert_eq!(errors.len(), 2);
    assert_eq!(errors[1].message, "REBOOT_NOT_HASHING: Board reboot due to it not hashing.");
    assert_eq!((errors[1].component, errors[1].board), ("board", Some(0)));
    assert_eq!((errors[0].component, errors[0].board), ("other", None));
    assert_ne!(errors[0].code, errors[1].code);
}

#[test]
fn sleep_heat_and_a_dead_board_are_told_apart() {
    let state = |changes: &[(&str, &str)]| LuxOs.read(&replies_with(changes), &mut LuxOs.memory()).judged;
    let asleep = r#"{"CONFIG":[{"CurtailMode":"Sleep"}]}"#;
    assert_eq!(state(&[("config", asleep)]), Some((State::Sleeping, Some("curtailed"))));
    let stopped = r#"{"SUMMARY":[{"Elapsed":9000,"GHS 5s":0}]}"#;
    let hot = r#"{"EVENTS":[{"Code":"OVERTEMP_SHUTDOWN","Target":"MINER"}]}"#;
    assert_eq!(state(&[("summary", stopped), ("events", hot)]), Some((State::Fault, Some("overheat"))));
    assert_eq!(state(&[("summary", stopped)]), Some((State::Fault, Some("no hashrate"))));
    let boards = r#"{"DEVS":[{"ID":0,"Status":"Alive","MHS 5m":5},{"ID":1,"Status":"Dead","MHS 5m":0}]}"#;
    assert_eq!(state(&[("devs", boards)]), Some((State::Fault, Some("dead board"))));
    let by_owner = boards.replace(r#""Status":"Dead""#, r#""Status":"Dead","IsUserShutdown":true"#);
    assert_eq!(state(&[("devs", &by_owner)]), Some((State::Mining, None)));
}

#[test]
fn power_that_the_supply_has_measured_is_power_at_the_wall() {
    let told = LuxOs.read(&replies_with(&[("power", r#"{"POWER":[{"PSU":true,"Watts":3000}]}"#)]), &mut LuxOs.memory());
    let row = told.miner.unwrap();
    assert_eq!(*row.cell(miner::POWER_MILLIWATTS), Cell::I64(3_000_000));
    assert_eq!(*row.cell(miner::POWER_ESTIMATED_MILLIWATTS), Cell::Null);
}

#[test]
fn what_one_reply_lacks_costs_no_other_reading() {
    let mut memory = LuxOs.memory();
    LuxOs.read(&replies(), &mut memory);
    let changes = [
        ("summary", r#"{"SUMMARY":[{"Accepted":"many","Rejected":-1,"GHS 5s":{},"Elapsed":60}]}"#),
        ("fans", r#"{"FANS":[{"RPM":65535},{"RPM":1000}]}"#),
        ("temps", r#"{"TEMPS":[{"ID":0,"TopLeft":0,"TopRight":255,"BottomLeft":-40,"BottomRight":41}]}"#),
    ];
    let told = LuxOs.read(&replies_with(&changes), &mut memory);
    let row = told.miner.unwrap();
    for column in [
        miner::ACCEPTED_SHARES,
        miner::REJECTED_SHARES,
        miner::HASHRATE_HASHES_PER_SECOND,
        miner::STALE_SHARES,
        miner::FAN_1_RPM,
        miner::FAN_3_RPM,
    ] {
        assert!(row.has_failed(column), "{}", row.table().columns[column].name);
    }
    assert_eq!(*row.cell(miner::FAN_2_RPM), Cell::I64(1000));
    assert_eq!(*row.cell(miner::PCB_TEMP_MAX_CELSIUS), Cell::I64(41));
    let board = &told.boards[0];
    assert_eq!(*board.cell(board::PCB_TEMPS_CELSIUS), Cell::List(vec![None, None, None, Some(41)]));
}
