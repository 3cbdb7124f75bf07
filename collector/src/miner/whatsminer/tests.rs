//! Recorded replies of Whatsminers become rows, and replies that are none become failed readings.

use proptest::prelude::*;
use racklake_schemas::Cell;
use racklake_schemas::tables::{device, hashboard_sample as board, miner_sample as miner};

use super::super::exchange::Trouble;
use super::super::reader::{Reader, Replies, Told};
use super::super::recorded::{any_json, changed, check, replies, told};
use super::super::state::State;
use super::Whatsminer;

mod states;

macro_rules! recording {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/miner-sim/recordings/whatsminer/", $name)).as_slice()
    };
}

const V1: [(&str, &[u8]); 7] = [
    ("summary", recording!("v1/summary.json")),
    ("get_version", recording!("v1/get_version.json")),
    ("devs", recording!("v1/devs.json")),
    ("pools", recording!("v1/pools.json")),
    ("get_psu", recording!("v1/get_psu.json")),
    ("status", recording!("v1/status.json")),
    ("devdetails", br#"{"STATUS":[{"STATUS":"S"}],"DEVDETAILS":[{"DEVDETAILS":0,"Name":"SM","Model":"M20S"}]}"#),
];
const V2: [(&str, &[u8]); 8] = [
    ("summary", recording!("v2/summary.json")),
    ("get_version", recording!("v2/get_version.json")),
    ("devs", recording!("v2/devs.json")),
    ("pools", recording!("v2/pools.json")),
    ("get_psu", recording!("v2/get_psu.json")),
    ("get_error_code", recording!("v2/get_error_code.json")),
    ("status", recording!("v2/status.json")),
    ("get_miner_info", recording!("v2/get_miner_info.json")),
];
const V3: [(&str, &[u8]); 4] = [
    ("get.device.info", recording!("v3/get_device_info.json")),
    ("get.miner.status summary", recording!("v3/get_miner_status_summary.json")),
    ("get.miner.status edevs", recording!("v3/get_miner_status_edevs.json")),
    ("get.miner.status pools", recording!("v3/get_miner_status_pools.json")),
];

/// The same replies with another one to a command.
fn with(recorded: &[(&'static str, &'static [u8])], command: &str, reply: &[u8]) -> Told {
    let all: Vec<(&str, &[u8])> =
        recorded.iter().map(|(name, bytes)| (*name, if *name == command { reply } else { bytes })).collect();
    told(&Whatsminer, &all)
}

#[test]
fn every_reading_of_version_1_has_its_column() {
    let told = told(&Whatsminer, &V1);
    let row = told.miner.unwrap();
    check(
        &row,
        &[
            (miner::ACCEPTED_SHARES, 2338i64.into()),
            (miner::REJECTED_SHARES, 0i64.into()),
            (miner::STALE_SHARES, 0i64.into()),
            (miner::HARDWARE_ERRORS, 69i64.into()),
            (miner::ACCEPTED_DIFFICULTY, 158_334_976.0.into()),
            (miner::REJECTED_DIFFICULTY, 0.0.into()),
            (miner::STALE_DIFFICULTY, 0.0.into()),
            (miner::DISCARDED_WORK, 613_134i64.into()),
            (miner::BLOCKS_FOUND, 0i64.into()),
            (miner::BEST_SHARE_DIFFICULTY, 41_127_493.0.into()),
            (miner::HASHRATE_HASHES_PER_SECOND, 67_394_800_970_000i64.into()),
            (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, 67_753_251_190_000i64.into()),
            (miner::HASHRATE_5S_HASHES_PER_SECOND, 70_668_114_520_000i64.into()),
            (miner::HASHRATE_1M_HASHES_PER_SECOND, 67_439_352_490_000i64.into()),
            (miner::HASHRATE_5M_HASHES_PER_SECOND, 67_394_800_970_000i64.into()),
            (miner::HASHRATE_15M_HASHES_PER_SECOND, 67_681_620_180_000i64.into()),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 68_796_000_000_000i64.into()),
            // The documents of version 1 do not say where it is measured.
            (miner::POWER_ESTIMATED_MILLIWATTS, 3_417_000i64.into()),
            (miner::POWER_LIMIT_MILLIWATTS, 3_500_000i64.into()),
            (miner::POWER_MODE, "Normal".into()),
            (miner::PSU_OUTPUT_MILLIVOLTS, 11_800i64.into()),
            (miner::PSU_OUTPUT_MILLIAMPERES, 261_000i64.into()),
            (miner::PSU_FAN_RPM, 9060i64.into()),
            (miner::CHIP_TEMP_MAX_CELSIUS, 92i64.into()),
            (miner::CHIP_TEMP_AVERAGE_CELSIUS, 84i64.into()),
            (miner::PCB_TEMP_MAX_CELSIUS, 71i64.into()),
            (miner::FAN_1_RPM, 6450i64.into()),
            (miner::FAN_2_RPM, 6480i64.into()),
            (miner::FREQUENCY_KILOHERTZ, 648_000i64.into()),
            (miner::UPTIME_SECONDS, 10_154i64.into()),
            (miner::BOARDS_FOUND, 3i64.into()),
            (miner::POOL_URL, "stratum+tcp://btc.example.pool:3333".into()),
            (miner::POOL_STATUS, "Alive".into()),
            (miner::POOLS_ALIVE, 3i64.into()),
            (miner::POOLS_CONFIGURED, 3i64.into()),
            (miner::POOL_DIFFICULTY, 65_536.0.into()),
        ],
        &[],
        &[miner::STATE, miner::ERROR_CODES],
    );
    assert_eq!(told.judged, Some((State::Mining, None)));
    assert_eq!((told.errors, told.uptime, told.lifetime), (Some(vec![]), Some(10_154), vec![Some(2338)]));
    assert_eq!(told.mark.as_deref(), Some("c4:08:28:00:a4:19"));
    assert_eq!(told.boards.len(), 3);
    check(
        &told.boards[1],
        &[
            (board::BOARD_INDEX, 1i64.into()),
            (board::HASHRATE_AVERAGE_HASHES_PER_SECOND, 22_714_314_870_000i64.into()),
            (board::HASHRATE_5S_HASHES_PER_SECOND, 25_567_317_810_000i64.into()),
            (board::HASHRATE_1M_HASHES_PER_SECOND, 22_719_799_790_000i64.into()),
            (board::HASHRATE_5M_HASHES_PER_SECOND, 22_642_921_900_000i64.into()),
            (board::HASHRATE_15M_HASHES_PER_SECOND, 22_674_339_700_000i64.into()),
            (board::HARDWARE_ERRORS, 47i64.into()),
            (board::CHIPS_FOUND, 105i64.into()),
            (board::FREQUENCY_KILOHERTZ, 652_000i64.into()),
            (board::ACCEPTED_NONCES, 796i64.into()),
            (board::REJECTED_NONCES, 0i64.into()),
            (board::BOARD_STATUS, "Alive".into()),
            (board::BOARD_SERIAL, "H5M14S69129A17K10058".into()),
            (board::CHIP_TEMP_MAX_CELSIUS, 90i64.into()),
            (board::CHIP_TEMP_AVERAGE_CELSIUS, 83i64.into()),
            (board::CHIP_TEMP_MIN_CELSIUS, 71i64.into()),
            (board::PCB_TEMP_MAX_CELSIUS, 69i64.into()),
        ],
        &[],
        &[],
    );
}

#[test]
fn every_reading_of_version_2_has_its_column() {
    let told = told(&Whatsminer, &V2);
    let row = told.miner.unwrap();
    check(
        &row,
        &[
            (miner::ACCEPTED_SHARES, 5412i64.into()),
            // Of its pools.
            (miner::REJECTED_SHARES, 0i64.into()),
            (miner::BEST_SHARE_DIFFICULTY, 82_000_000.0.into()),
            (miner::HASHRATE_HASHES_PER_SECOND, 124_500_000_000_000i64.into()),
            (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, 125_000_000_000_000i64.into()),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 126_000_000_000_000i64.into()),
            (miner::POWER_MILLIWATTS, 3_200_000i64.into()),
            (miner::POWER_LIMIT_MILLIWATTS, 3_300_000i64.into()),
            (miner::POWER_MODE, "Normal".into()),
            (miner::PSU_FAN_RPM, 6000i64.into()),
            (miner::INLET_TEMP_CELSIUS, 28i64.into()),
            (miner::CHIP_TEMP_MAX_CELSIUS, 81i64.into()),
            (miner::CHIP_TEMP_AVERAGE_CELSIUS, 72i64.into()),
            (miner::FAN_1_RPM, 5400i64.into()),
            (miner::FAN_2_RPM, 5280i64.into()),
            (miner::UPTIME_SECONDS, 25_000i64.into()),
            (miner::BOARDS_FOUND, 3i64.into()),
            (miner::POOL_URL, "stratum+tcp://btc.example.pool:3333".into()),
            (miner::POOL_STATUS, "Alive".into()),
            (miner::POOLS_ALIVE, 3i64.into()),
            (miner::POOLS_CONFIGURED, 3i64.into()),
        ],
        &[],
        &[miner::STATE, miner::ERROR_CODES],
    );
    assert_eq!((told.judged, told.errors), (Some((State::Mining, None)), Some(vec![])));
    check(
        &told.boards[2],
        &[
            (board::BOARD_INDEX, 2i64.into()),
            (board::HASHRATE_AVERAGE_HASHES_PER_SECOND, 41_700_000_000_000i64.into()),
            (board::HASHRATE_EXPECTED_HASHES_PER_SECOND, 42_000_000_000_000i64.into()),
            (board::CHIPS_FOUND, 135i64.into()),
            (board::FREQUENCY_KILOHERTZ, 600_000i64.into()),
            (board::ACCEPTED_NONCES, 1804i64.into()),
            (board::REJECTED_NONCES, 0i64.into()),
            (board::BOARD_STATUS, "Alive".into()),
            (board::BOARD_SERIAL, "BHM5CSD1302803K30003".into()),
            (board::CHIP_TEMP_MAX_CELSIUS, 81i64.into()),
            (board::CHIP_TEMP_AVERAGE_CELSIUS, 73i64.into()),
            (board::CHIP_TEMP_MIN_CELSIUS, 62i64.into()),
            (board::PCB_TEMP_MAX_CELSIUS, 67i64.into()),
        ],
        &[],
        &[],
    );
    let identity = told.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("whatsminer:d4:01:02:03:04:05"));
    assert_eq!(*identity.row.cell(device::HOSTNAME), "WhatsMiner".into());
    assert_eq!(*identity.row.cell(device::CONTROL_BOARD), "H616".into());
    assert_eq!(*identity.row.cell(device::PSU_MODEL), "P222B".into());
}

#[test]
fn every_reading_of_version_3_has_its_column() {
    let told = told(&Whatsminer, &V3);
    let row = told.miner.unwrap();
    check(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, 171_259_000_000_000i64.into()),
            (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, 170_800_000_000_000i64.into()),
            (miner::HASHRATE_1M_HASHES_PER_SECOND, 171_200_000_000_000i64.into()),
            (miner::HASHRATE_15M_HASHES_PER_SECOND, 170_500_000_000_000i64.into()),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 181_051_000_000_000i64.into()),
            (miner::POWER_MILLIWATTS, 3_156_000i64.into()),
            (miner::POWER_LIMIT_MILLIWATTS, 3_600_000i64.into()),
            (miner::POWER_MODE, "1".into()),
            (miner::PSU_FAN_RPM, 6344i64.into()),
            (miner::INLET_TEMP_CELSIUS, 28i64.into()),
            (miner::CHIP_TEMP_MAX_CELSIUS, 82i64.into()),
            (miner::CHIP_TEMP_AVERAGE_CELSIUS, 75i64.into()),
            (miner::PCB_TEMP_MAX_CELSIUS, 41i64.into()),
            (miner::FAN_1_RPM, 5400i64.into()),
            (miner::FAN_2_RPM, 5280i64.into()),
            (miner::FREQUENCY_KILOHERTZ, 625_000i64.into()),
            (miner::UPTIME_SECONDS, 50_000i64.into()),
            (miner::BOARDS_FOUND, 3i64.into()),
            (miner::POOL_URL, "stratum+tcp://btc.example.pool:3333".into()),
            (miner::POOL_STATUS, "alive".into()),
            (miner::POOLS_ALIVE, 3i64.into()),
            (miner::POOLS_CONFIGURED, 3i64.into()),
        ],
        &[],
        &[miner::STATE, miner::ERROR_CODES],
    );
    assert_eq!((told.judged, told.errors), (Some((State::Mining, None)), Some(vec![])));
    assert_eq!(told.mark.as_deref(), Some("BTM3CS40HD24083100000000000000000"));
    check(
        &told.boards[1],
        &[
            (board::BOARD_INDEX, 1i64.into()),
            (board::HASHRATE_HASHES_PER_SECOND, 57_000_000_000_000i64.into()),
            (board::HASHRATE_AVERAGE_HASHES_PER_SECOND, 56_800_000_000_000i64.into()),
            (board::HASHRATE_EXPECTED_HASHES_PER_SECOND, 60_350_000_000_000i64.into()),
            (board::CHIPS_FOUND, 75i64.into()),
            (board::FREQUENCY_KILOHERTZ, 625_000i64.into()),
            (board::BOARD_STATUS, "alive".into()),
            (board::BOARD_SERIAL, "BKM3CSE1404812K43675".into()),
            (board::CHIP_TEMP_MAX_CELSIUS, 82i64.into()),
            (board::CHIP_TEMP_AVERAGE_CELSIUS, 75i64.into()),
            (board::CHIP_TEMP_MIN_CELSIUS, 69i64.into()),
            (board::PCB_TEMP_MAX_CELSIUS, 40i64.into()),
        ],
        &[],
        &[],
    );
}

#[test]
fn who_it_is_is_told_in_the_words_of_each_version() {
    let identity = told(&Whatsminer, &V1).identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("whatsminer:c4:08:28:00:a4:19"));
    for (column, cell) in [
        (device::MODEL, Cell::from("M20S")),
        (device::FIRMWARE_VERSION, "20210322.22.REL".into()),
        (device::API_VERSION, "whatsminer v1.4.0".into()),
        (device::CONTROL_BOARD, "ALLWINNER_H3".into()),
        (device::PSU_MODEL, "P21-12-3600-E".into()),
        (device::PSU_FIRMWARE_VERSION, "102220.009".into()),
        (device::ALGORITHM, "sha256".into()),
        (device::BOARDS_EXPECTED, 3.into()),
    ] {
        assert_eq!(*identity.row.cell(column), cell, "{}", identity.row.table().columns[column].name);
    }
    let identity = told(&Whatsminer, &V3).identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("whatsminer:BTM3CS40HD24083100000000000000000"));
    for (column, cell) in [
        (device::MODEL, Cell::from("M60S_VK40")),
        (device::MAC, "ce:02:01:00:8c:36".into()),
        (device::FIRMWARE_VERSION, "20251209.16.Rel2".into()),
        (device::API_VERSION, "3.0.2".into()),
        (device::HOSTNAME, "WhatsMiner".into()),
        (device::CONTROL_BOARD, "H616".into()),
        (device::PSU_MODEL, "P221B".into()),
        (device::PSU_SERIAL, "1436B2429603097".into()),
        (device::PSU_FIRMWARE_VERSION, "230224.220429".into()),
        (device::HARDWARE_TYPE, "K40".into()),
    ] {
        assert_eq!(*identity.row.cell(column), cell, "{}", identity.row.table().columns[column].name);
    }
}

#[test]
fn newer_firmware_writes_terahashes_of_a_board_as_megahashes() {
    // As the compatible interface of version 3 answers: everything in Msg, and no index but the slot.
    let summary = br#"{"STATUS":"S","When":1786628534,"Code":131,"Msg":{"Elapsed":10658.685546875,"MHS av":692030656,
        "MHS 1m":692632192,"HS RT":692632192,"Power":9763.263333333334,"Env Temp":45.562,"Chip Temp Max":77.7071,
        "Fan Speed In":0,"Fan Speed Out":0,"Power Mode":"High"},"Description":""}"#;
    let edevs = br#"{"STATUS":[{"STATUS":"S","Msg":"4 ASC(s)"}],"DEVS":[
        {"Slot":0,"Temperature":65.31,"Chip Frequency":413,"MHS av":346.51,"HS RT":346.75,"Factory GHS":279930,
         "Effective Chips":288,"PCB SN":"BMM7BSFF306311K40019"},
        {"Slot":1,"Temperature":0,"MHS av":345.51,"HS RT":345.88,"Factory GHS":279930,"Effective Chips":288}],"id":1}"#;
    let pools = br#"{"STATUS":[{"STATUS":"S"}],"POOLS":[{"POOL":1,"URL":"stratum+tcp://p:1","Status":"Alive",
        "Accepted":432,"Rejected":3,"Stale":1,"Stratum Active":true,"Stratum Difficulty":4194304}]}"#;
    let version =
        br#"{"STATUS":"S","Code":131,"Msg":{"api_ver":"2.2.2","fw_ver":"20260312.16.REL3","miner_type":"M63_V"}}"#;
    let recorded: [(&str, &[u8]); 4] =
        [("summary", summary), ("get_version", version), ("edevs", edevs), ("pools", pools)];
    let told = told(&Whatsminer, &recorded);
    let row = told.miner.unwrap();
    for (column, cell) in [
        (miner::HASHRATE_HASHES_PER_SECOND, Cell::from(692_632_192_000_000i64)),
        (miner::POWER_MILLIWATTS, 9_763_263i64.into()),
        (miner::ACCEPTED_SHARES, 432i64.into()),
        (miner::REJECTED_SHARES, 3i64.into()),
        (miner::STALE_SHARES, 1i64.into()),
        // An M63 is cooled by a liquid.
        (miner::COOLANT_INLET_TEMP_CELSIUS, 45i64.into()),
    ] {
        assert_eq!(*row.cell(column), cell, "{}", row.table().columns[column].name);
    }
    assert!(row.is_unsupported(miner::INLET_TEMP_CELSIUS));
    assert_eq!(*told.boards[0].cell(board::HASHRATE_HASHES_PER_SECOND), 346_750_000_000_000i64.into());
    assert_eq!(*told.boards[1].cell(board::HASHRATE_AVERAGE_HASHES_PER_SECOND), 345_510_000_000_000i64.into());
    assert!(told.boards[1].has_failed(board::PCB_TEMP_MAX_CELSIUS), "0 is no temperature");
}

#[test]
fn the_input_of_the_power_supply_is_told_in_two_units() {
    let psu = br#"{"STATUS":"S","Msg":{"model":"P463B","iin":"8718","vin":"22725","fan_speed":"0","temp0":"33.5"}}"#;
    let row = with(&V2, "get_psu", psu).miner.unwrap();
    for (column, value) in [
        (miner::PSU_INPUT_MILLIVOLTS, 227_250i64),
        (miner::PSU_INPUT_MILLIAMPERES, 8718),
        (miner::PSU_TEMP_CELSIUS, 33),
        (miner::PSU_FAN_RPM, 0),
    ] {
        assert_eq!(*row.cell(column), value.into());
    }
    let power = changed(
        V3[0].1,
        "\"fanspeed\": 6344",
        "\"iin\":10.52,\"vin\":409,\"vout\":4084,\"temp0\":255,\"fanspeed\": 6344",
    );
    let row = with(&V3, "get.device.info", &power).miner.unwrap();
    for (column, value) in [
        (miner::PSU_INPUT_MILLIVOLTS, 409_000i64),
        (miner::PSU_INPUT_MILLIAMPERES, 10_520),
        (miner::PSU_OUTPUT_MILLIVOLTS, 40_840),
    ] {
        assert_eq!(*row.cell(column), value.into());
    }
    assert!(row.has_failed(miner::PSU_TEMP_CELSIUS), "255 is no temperature");
}

#[test]
fn what_firmwares_get_wrong_costs_one_reading_and_not_the_reply() {
    let mut summary = changed(V1[0].1, "\"Hardware Errors\": 69", "\"Hardware Errors\": -nan");
    for (from, to) in [
        ("\"Power Fanspeed\": 9060", "\"Power Fanspeed\": 65535"),
        ("\"Chip Temp Max\": 92.5", "\"Chip Temp Max\": 255"),
        ("\"Chip Temp Avg\": 84.11", "\"Chip Temp Avg\": []"),
        ("\"Accepted\": 2338,", "\"Accepted\": 2338"),
        ("\"Power Mode\": \"Normal\"", "\"Power Mode\": \"Nor\nmal\""),
    ] {
        summary = changed(&summary, from, to);
    }
    summary.extend_from_slice(b"\0{\"id\":1} and more");
    let row = with(&V1, "summary", &summary).miner.unwrap();
    for column in [miner::HARDWARE_ERRORS, miner::PSU_FAN_RPM, miner::CHIP_TEMP_MAX_CELSIUS] {
        assert!(row.has_failed(column), "{}", row.table().columns[column].name);
    }
    assert!(row.is_unsupported(miner::CHIP_TEMP_AVERAGE_CELSIUS), "the first reply that it is missing in");
    assert_eq!(*row.cell(miner::ACCEPTED_SHARES), 2338i64.into());
    assert_eq!(*row.cell(miner::POWER_MODE), "Nor mal".into());
    assert_eq!(*row.cell(miner::FAN_2_RPM), 6480i64.into());
}

#[test]
fn a_command_without_a_reply_fails_its_own_columns_only() {
    let row = with(&V2, "summary", b"").miner.unwrap();
    assert!(row.has_failed(miner::HASHRATE_HASHES_PER_SECOND) && row.has_failed(miner::CHIP_TEMP_MAX_CELSIUS));
    assert_eq!(*row.cell(miner::PSU_FAN_RPM), 6000i64.into());
    assert_eq!(*row.cell(miner::ACCEPTED_SHARES), 5412i64.into(), "the sum over the pools");
    let told = with(&V2, "devs", b"{");
    assert!(told.boards.is_empty() && told.miner.unwrap().has_failed(miner::BOARDS_FOUND));
    assert!(with(&V2, "get_psu", b"").miner.unwrap().has_failed(miner::PSU_FAN_RPM));
    let mut nothing = replies(&[("summary", b"{}"), ("devs", b"[]")]);
    nothing.add("pools", Err(Trouble::Refused));
    assert!(Whatsminer.read(&nothing, &mut Whatsminer.memory()).miner.is_none());
}

/// Keys that are read, for JSON that holds anything.
const KEYS: &[&str] = &[
    "STATUS",
    "SUMMARY",
    "POOLS",
    "DEVS",
    "Msg",
    "msg",
    "summary",
    "edevs",
    "pools",
    "power",
    "miner",
    "error-code",
    "error_code",
    "Error Code Count",
    "Error Code 0",
    "Slot",
    "id",
    "slot",
    "HS RT",
    "board-num",
    "Effective Chips",
    "board-temperature",
    "mineroff",
    "Factory GHS",
    "reason",
    "vin",
];

proptest! {
    #[test]
    fn any_json_gives_rows(parts in prop::collection::vec(any_json(KEYS), 8)) {
        let commands = [
            "summary", "devs", "pools", "get_psu", "get.device.info", "get.miner.status summary",
            "get.miner.status edevs", "get_error_code",
        ];
        let mut replies = Replies::default();
        for (command, reply) in commands.into_iter().zip(parts) {
            replies.add(command, Ok(reply));
        }
        let told = Whatsminer.read(&replies, &mut Whatsminer.memory());
        prop_assert!(told.boards.len() <= 64);
    }
}
