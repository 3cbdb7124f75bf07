//! What the recorded replies of the makes with tables become.

use racklake_schemas::Cell;
use racklake_schemas::tables::{device, hashboard_sample as board, miner_sample as miner};

use super::*;
use crate::miner::state::State;
use crate::miner::testing::{json, recorded};

/// Replies from recordings: each command with the name of its file.
fn replies(folder: &str, files: &[(&str, &str)]) -> Replies {
    let mut replies = Replies::default();
    for (command, file) in files {
        replies.add(*command, Ok(recorded(&format!("{folder}/{file}.json"))));
    }
    replies
}

fn with(replies: &Replies, changes: &[(&str, &str)]) -> Replies {
    let mut changed = Replies::default();
    for (command, reply) in replies.iter() {
        let other = changes.iter().find(|(name, _)| *name == command).map(|(_, text)| json(text));
        changed.add(command, other.map_or_else(|| reply.cloned(), Ok));
    }
    changed
}

fn read(make: &Described, replies: &Replies) -> Told {
    make.read(replies, &mut make.memory())
}

fn assert_cells(row: &Row, wanted: &[(usize, Cell)]) {
    for (column, cell) in wanted {
        assert_eq!(row.cell(*column), cell, "{}", row.table().columns[*column].name);
    }
}

pub(super) fn epic() -> Replies {
    replies(
        "epic/v1",
        &[
            ("summary", "summary"),
            ("temps", "temps"),
            ("capabilities", "capabilities"),
            ("network", "network"),
            ("temps/chip", "chip_temps"),
            ("voltages", "chip_voltages"),
            ("clocks", "chip_clocks"),
            ("hashrate", "chip_hashrates"),
        ],
    )
}

#[test]
fn an_epic_with_a_board_that_is_off_hashes_on_with_a_dead_board() {
    let told = read(&EPIC, &epic());
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(99_365_848_000_000)),
            (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, Cell::I64(90_071_990_000_000)),
            (miner::ACCEPTED_SHARES, Cell::I64(1862)),
            (miner::REJECTED_SHARES, Cell::I64(2)),
            (miner::POWER_MILLIWATTS, Cell::I64(2_166_617)),
            (miner::POWER_LIMIT_MILLIWATTS, Cell::I64(3_000_000)),
            (miner::PSU_OUTPUT_MILLIVOLTS, Cell::I64(12_595)),
            (miner::PSU_INPUT_MILLIVOLTS, Cell::Null),
            (miner::FAN_1_RPM, Cell::I64(5971)),
            (miner::FAN_2_RPM, Cell::I64(0)),
            (miner::FAN_5_RPM, Cell::Null),
            (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(67)),
            (miner::POOL_URL, Cell::from("mine.ocean.xyz:3334")),
            (miner::POOL_STATUS, Cell::from("connected")),
            (miner::POOL_PING_MILLISECONDS, Cell::I64(38)),
            (miner::BOARDS_FOUND, Cell::I64(3)),
            (miner::POWER_MODE, Cell::from("VoltageOptimizer")),
            (miner::UPTIME_SECONDS, Cell::I64(23_170)),
        ],
    );
    assert_eq!(row.failed_mask(), 0);
    assert_eq!(told.judged, Some((State::Fault, Some("dead board"))));
    assert_eq!(told.errors, Some(Vec::new()));
    assert_cells(
        &told.boards[0],
        &[
            (board::BOARD_STATUS, Cell::from("disabled")),
            (board::HASHRATE_HASHES_PER_SECOND, Cell::Null),
            (board::PCB_TEMPS_CELSIUS, Cell::List(vec![Some(42), Some(42)])),
        ],
    );
    assert_eq!(told.boards[0].failed_mask(), 0);
    assert_cells(
        &told.boards[2],
        &[
            (board::HASHRATE_HASHES_PER_SECOND, Cell::I64(49_925_124_000_000)),
            (board::FREQUENCY_KILOHERTZ, Cell::I64(487_500)),
            (board::VOLTAGE_MILLIVOLTS, Cell::I64(12_600)),
            (board::PCB_TEMP_MAX_CELSIUS, Cell::I64(64)),
            (board::CHIP_TEMPS_CELSIUS, Cell::Null),
            (board::CHIP_FREQUENCIES_KILOHERTZ, Cell::List(vec![Some(487_500); 110])),
        ],
    );
    assert!(told.boards[2].is_unsupported(board::CHIP_TEMPS_CELSIUS), "a list of zeros is no reading");
    let Cell::List(rates) = told.boards[2].cell(board::CHIP_HASHRATES_MEGAHASHES_PER_SECOND) else { panic!() };
    assert_eq!(rates[0], Some(501_452));
    let identity = told.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("antminer:e6:d4:41:51:64:28"));
    assert_cells(
        &identity.row,
        &[
            (device::MODEL, Cell::from("AntMiner S19 XP")),
            (device::FIRMWARE_VERSION, Cell::from("PowerPlay-BMS v1.5.13")),
            (device::ALGORITHM, Cell::from("sha256")),
            (device::BOARDS_EXPECTED, Cell::I64(3)),
            (device::CHIPS_EXPECTED, Cell::I64(330)),
        ],
    );
}

#[test]
fn an_idling_epic_sleeps_unless_an_error_or_the_pool_keeps_it_from_mining() {
    let summary = |state: &str, error: &str, connected: bool| {
        format!(
            r#"{{"HBStatus":[{{"Index":0,"Detected":true,"Enabled":true}}],"HBs":[],"IdleOnConnectionLost":true,
            "Status":{{"Operating State":"{state}","Last Error":{error}}},"Stratum":{{"IsPoolConnected":{connected}}},
            "Session":{{"Uptime":9000}}}}"#
        )
    };
    for (state, error, connected, judged) in [
        ("Idling", "null", true, (State::Sleeping, Some("standby"))),
        ("Idling", "null", false, (State::Fault, Some("no pool"))),
        ("Idling", r#"{"OverTemp":"board 1 too hot"}"#, true, (State::Fault, Some("overheat"))),
        ("Idling", r#""NoHashboards""#, true, (State::Fault, Some("firmware error"))),
        ("Initializing", "null", true, (State::Mining, Some("starting"))),
        ("Mining", r#""an old one""#, true, (State::Fault, Some("no hashrate"))),
    ] {
        let told = read(&EPIC, &with(&epic(), &[("summary", &summary(state, error, connected))]));
        assert_eq!(told.judged, Some(judged), "{state} {error}");
    }
}

#[test]
fn a_bitaxe_and_a_forgeaxe_tell_everything_in_one_document() {
    let told = read(&BITAXE, &replies("bitaxe/v2_0_0", &[("system/info", "system_info")]));
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(1_000_000_000_000)),
            (miner::POWER_ESTIMATED_MILLIWATTS, Cell::I64(2_650)),
            (miner::PSU_OUTPUT_MILLIVOLTS, Cell::I64(5_175)),
            (miner::PSU_OUTPUT_MILLIAMPERES, Cell::I64(521)),
            (miner::CHIP_TEMP_MAX_CELSIUS, Cell::I64(59)),
            (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(78)),
            (miner::FAN_1_RPM, Cell::I64(3517)),
            (miner::FAN_DUTY_PERCENT, Cell::I64(35)),
            (miner::FREQUENCY_KILOHERTZ, Cell::I64(490_000)),
            (miner::POOL_URL, Cell::from("btc.example.pool:3333")),
            (miner::POOLS_CONFIGURED, Cell::I64(2)),
            (miner::BEST_SHARE_DIFFICULTY, Cell::F64(0.0)),
            (miner::UPTIME_SECONDS, Cell::I64(4)),
        ],
    );
    assert_eq!(told.judged, Some((State::Mining, None)));
    assert_eq!(*told.boards[0].cell(board::CHIP_VOLTAGES_MILLIVOLTS), Cell::List(vec![Some(1172)]));
    assert_eq!(told.identity.unwrap().device_id, None, "the recorded MAC is a placeholder");
    let told = read(&FORGEAXE, &replies("forgeaxe/v1_1_0", &[("system/info", "system_info")]));
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::ACCEPTED_SHARES, Cell::I64(12)),
            (miner::BEST_SHARE_DIFFICULTY, Cell::F64(33e6)),
            (miner::POWER_ESTIMATED_MILLIWATTS, Cell::I64(42_670)),
            (miner::POOL_URL, Cell::from("translator.local:34255")),
        ],
    );
    assert_eq!(row.failed_mask(), 0);
}

#[test]
fn axeos_says_when_it_is_too_hot_or_paused() {
    for (info, judged) in [
        (r#"{"overheat_mode":1,"hashRate":0,"uptimeSeconds":9000}"#, (State::Fault, Some("overheat"))),
        (r#"{"miningPaused":true,"hashRate":0,"uptimeSeconds":9000}"#, (State::Sleeping, Some("curtailed"))),
        (r#"{"hashRate":0,"uptimeSeconds":9000}"#, (State::Fault, Some("no hashrate"))),
    ] {
        let mut replies = Replies::default();
        replies.add("system/info", Ok(json(info)));
        assert_eq!(read(&NERDAXE, &replies).judged, Some(judged), "{info}");
    }
}

pub(super) fn proto() -> Replies {
    replies(
        "proto/v1",
        &[
            ("mining", "mining"),
            ("telemetry", "telemetry_full"),
            ("cooling", "cooling"),
            ("pools", "pools"),
            ("errors", "errors"),
            ("system", "system"),
            ("hardware", "hardware"),
            ("network", "network"),
        ],
    )
}

#[test]
fn a_proto_rig_adds_up_its_supplies() {
    let told = read(&PROTO, &proto());
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(141_147_435_031_471)),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(145_000_000_000_000)),
            (miner::POWER_MILLIWATTS, Cell::I64(1_774_490 + 1_751_847)),
            (miner::POWER_OUTPUT_MILLIWATTS, Cell::I64(1_616_318 + 1_647_885)),
            (miner::POWER_ESTIMATED_MILLIWATTS, Cell::I64(3_447_008)),
            (miner::PSU_INPUT_MILLIVOLTS, Cell::I64(230_969)),
            (miner::PSU_TEMP_CELSIUS, Cell::I64(46)),
            (miner::HARDWARE_ERRORS, Cell::I64(0)),
            (miner::CHIP_TEMP_AVERAGE_CELSIUS, Cell::I64(71)),
            (miner::FAN_4_RPM, Cell::I64(4443)),
            (miner::ACCEPTED_SHARES, Cell::I64(24_690)),
            (miner::POOL_URL, Cell::from("stratum+tcp://pool-a.example.com:3333")),
            (miner::POOL_DIFFICULTY, Cell::F64(1_048_576.0)),
            (miner::UPTIME_SECONDS, Cell::I64(28)),
        ],
    );
    assert_eq!(row.failed_mask(), 0);
    assert_eq!(told.boards.len(), 4);
    assert_cells(
        &told.boards[0],
        &[
            (board::HASHRATE_HASHES_PER_SECOND, Cell::I64(36_448_480_530_068)),
            (board::POWER_MILLIWATTS, Cell::I64(889_035)),
            (board::CURRENT_MILLIAMPERES, Cell::I64(59_466)),
            (board::INLET_TEMP_CELSIUS, Cell::I64(41)),
            (board::BOARD_SERIAL, Cell::from("HB-PROTO-SIM-b6bdaf86-0")),
        ],
    );
    assert_eq!(told.identity.unwrap().device_id.as_deref(), Some("proto:PROTO-SIM-b6bdaf86"));
    assert_eq!(told.judged, Some((State::Mining, None)));
    let degraded = r#"{"mining-status":{"status":"DegradedMining","hashrate_ghs":9,"mining_uptime_s":9000}}"#;
    let judged = read(&PROTO, &with(&proto(), &[("mining", degraded)])).judged;
    assert_eq!(judged, Some((State::Fault, Some("dead board"))));
    let raised = r#"[{"source":"hashboard","slot":2,"error_code":"1024","message":"over temperature"}]"#;
    let errors = read(&PROTO, &with(&proto(), &[("errors", raised)])).errors.unwrap();
    assert_eq!((errors[0].code, errors[0].component, errors[0].board), (1024, "board", Some(2)));
}

pub(super) fn elphapex() -> Replies {
    let files = ["stats", "summary", "pools", "get_power", "get_system_info"].map(|name| (name, name));
    replies("elphapex/v1", &files)
}

#[test]
fn an_elphapex_has_one_board_at_four_connectors_and_its_units_are_its_own() {
    let told = read(&ELPHAPEX, &elphapex());
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(0)),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(3_003_750_000)),
            (miner::FAN_4_RPM, Cell::I64(1020)),
            (miner::POWER_OUTPUT_MILLIWATTS, Cell::I64(25_000)),
            (miner::CHIP_TEMP_MAX_CELSIUS, Cell::I64(25)),
            (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(67)),
            (miner::BOARDS_FOUND, Cell::I64(1)),
            (miner::POOLS_ALIVE, Cell::I64(0)),
            (miner::POOLS_CONFIGURED, Cell::I64(3)),
            (miner::POOL_URL, Cell::Null),
        ],
    );
    assert_eq!(row.failed_mask(), 0);
    assert_eq!(told.judged, Some((State::Mining, Some("starting"))));
    assert_eq!(told.boards.len(), 1);
    assert_cells(
        &told.boards[0],
        &[
            (board::BOARD_INDEX, Cell::I64(3)),
            (board::CHIPS_FOUND, Cell::I64(120)),
            (board::HARDWARE_ERRORS, Cell::I64(120)),
            (board::FREQUENCY_KILOHERTZ, Cell::I64(89_000)),
            (board::CHIP_TEMP_MAX_CELSIUS, Cell::I64(25)),
            (board::PCB_TEMPS_CELSIUS, Cell::List(vec![Some(47), Some(46), Some(67), Some(66)])),
            (board::BOARD_SERIAL, Cell::from("10HY24B046N300036H10JC53")),
        ],
    );
    let identity = told.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("elphapex:13HY24B056N300037C11B"));
    assert_eq!(*identity.row.cell(device::ALGORITHM), Cell::from("scrypt"));
}

pub(super) fn sealminer() -> Replies {
    let files = ["summary", "stats", "pools", "version", "get_system_info"].map(|name| (name, name));
    let mut replies = replies("sealminer/v2025", &files);
    replies.add("miner-psu-status", Ok(recorded("sealminer/v2025/miner_psu_status.json")));
    replies
}

#[test]
fn a_sealminer_tells_its_boards_in_keys_with_their_number() {
    let told = read(&SEALMINER, &sealminer());
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(220_377_998_845_847)),
            (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, Cell::I64(206_860_473_510_000)),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, Cell::I64(221_663_472_000_000)),
            (miner::HARDWARE_ERRORS, Cell::I64(54)),
            (miner::DISCARDED_WORK, Cell::I64(1650)),
            (miner::POWER_MILLIWATTS, Cell::I64(3_504_000)),
            (miner::POWER_OUTPUT_MILLIWATTS, Cell::I64(3_232_000)),
            (miner::POWER_LIMIT_MILLIWATTS, Cell::I64(3_500_000)),
            (miner::PSU_INPUT_MILLIVOLTS, Cell::I64(246_000)),
            (miner::PSU_OUTPUT_MILLIVOLTS, Cell::I64(15_671)),
            (miner::PSU_TEMP_CELSIUS, Cell::I64(26)),
            (miner::PSU_FAN_RPM, Cell::I64(4408)),
            (miner::PSU_ERROR_CODE, Cell::I64(0)),
            (miner::FAN_3_RPM, Cell::I64(3753)),
            (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(70)),
            (miner::POWER_MODE, Cell::from("Normal")),
            (miner::UPTIME_SECONDS, Cell::I64(2481)),
        ],
    );
    assert_eq!(row.failed_mask(), 0);
    assert_cells(
        &told.boards[1],
        &[
            (board::HASHRATE_HASHES_PER_SECOND, Cell::I64(73_626_639_194_207)),
            (board::FREQUENCY_KILOHERTZ, Cell::I64(347_000)),
            (board::CHIPS_FOUND, Cell::I64(153)),
            (board::PCB_TEMPS_CELSIUS, Cell::List(vec![Some(58), Some(55), Some(70), Some(68)])),
            (board::BOARD_SERIAL, Cell::from("S124600252004521")),
        ],
    );
    assert_eq!(told.judged, Some((State::Mining, None)));
    assert_eq!(told.identity.unwrap().device_id.as_deref(), Some("sealminer:S127200252001850"));
}

pub(super) fn auradine() -> Replies {
    let files = [
        "summary",
        "devs",
        "pools",
        "asccount",
        "mode",
        "psu",
        "fan",
        "temperature",
        "voltage",
        "frequency",
        "version",
        "ipreport",
    ];
    replies("auradine/v1", &files.map(|name| (name, name)))
}

#[test]
fn an_auradine_prints_units_behind_its_numbers() {
    let told = read(&AURADINE, &auradine());
    let row = told.miner.unwrap();
    assert_cells(
        &row,
        &[
            (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(20_599_767_177_469)),
            (miner::ACCEPTED_SHARES, Cell::I64(3310)),
            (miner::POWER_MILLIWATTS, Cell::I64(58_940)),
            (miner::POWER_OUTPUT_MILLIWATTS, Cell::I64(0)),
            (miner::PSU_INPUT_MILLIVOLTS, Cell::I64(245_000)),
            (miner::PSU_INPUT_MILLIAMPERES, Cell::I64(280)),
            (miner::PSU_FAN_RPM, Cell::I64(4052)),
            (miner::POWER_LIMIT_MILLIWATTS, Cell::I64(2_000_000)),
            (miner::POWER_MODE, Cell::from("custom")),
            (miner::FAN_3_RPM, Cell::I64(7100)),
            (miner::CHIP_TEMP_MAX_CELSIUS, Cell::I64(51)),
            (miner::PCB_TEMP_MAX_CELSIUS, Cell::I64(47)),
            (miner::BOARDS_FOUND, Cell::I64(3)),
            (miner::POOLS_ALIVE, Cell::I64(1)),
            (miner::UPTIME_SECONDS, Cell::I64(56_696)),
        ],
    );
    assert_eq!(row.failed_mask(), 0);
    assert_cells(
        &told.boards[2],
        &[
            (board::HASHRATE_HASHES_PER_SECOND, Cell::I64(7_000_000_000_000)),
            (board::CHIP_TEMPS_CELSIUS, Cell::List(vec![Some(51), Some(50), Some(50)])),
            (board::CHIP_VOLTAGES_MILLIVOLTS, Cell::List(vec![Some(248), Some(248), Some(248)])),
            (board::CHIP_FREQUENCIES_KILOHERTZ, Cell::List(vec![Some(391_250), Some(352_500), Some(166_250)])),
            (board::PCB_TEMP_MAX_CELSIUS, Cell::I64(47)),
            (board::BOARD_STATUS, Cell::from("Alive")),
        ],
    );
    let identity = told.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("auradine:AU23200006"));
    assert_eq!(*identity.row.cell(device::CHASSIS_SERIAL), Cell::from("000020"));
    let asleep = r#"{"Mode":[{"Sleep":"on"}]}"#;
    let judged = read(&AURADINE, &with(&auradine(), &[("mode", asleep)])).judged;
    assert_eq!(judged, Some((State::Sleeping, Some("standby"))));
}

#[test]
fn what_stands_behind_a_login_is_refused_without_one_and_the_rest_is_read() {
    let mut partly = Replies::default();
    for (command, reply) in auradine().iter() {
        let is_rpc = ["summary", "devs", "pools", "asccount", "version"].contains(&command);
        partly.add(command, if is_rpc { reply.cloned() } else { Err(Trouble::Refused) });
    }
    let told = read(&AURADINE, &partly);
    let row = told.miner.unwrap();
    assert_eq!(*row.cell(miner::ACCEPTED_SHARES), Cell::I64(3310));
    assert!(row.has_failed(miner::POWER_MILLIWATTS) && row.has_failed(miner::FAN_1_RPM));
    assert_eq!(told.judged, Some((State::Mining, None)));
    assert!(!told.is_identity_partial, "asking again would bring nothing more");
}

#[test]
fn a_letter_behind_a_number_multiplies_it() {
    for (text, value) in [("483k", Some(483e3)), ("0", Some(0.0)), ("1.5 G", Some(1.5e9)), ("x", None), ("-1", None)] {
        assert_eq!(axeos::lettered(text), value, "{text}");
    }
}

fn json_values() -> impl proptest::strategy::Strategy<Value = Json> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        "-?[0-9]{1,25}(\\.[0-9]{1,5})?(e[0-9]{1,4})?|NaN|0x[0-9a-f]{1,9}".prop_map(Json::Number),
        ".{0,12}".prop_map(Json::Text),
    ];
    leaf.prop_recursive(3, 40, 6, |inner| {
        let name = prop_oneof![
            Just("STATS"),
            Just("0"),
            Just("DEVS"),
            Just("ID"),
            Just("HBs"),
            Just("HBStatus"),
            Just("Index"),
            Just("chain"),
            Just("index"),
            Just("hashboards"),
            Just("id"),
            Just("data"),
            Just("CONFIG"),
            Just("SUMMARY"),
            Just("POOLS"),
            Just("Board Count"),
            Just("Temperature"),
            Just("Data"),
            Just("psus"),
            Just("status"),
            Just("url"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::List),
            prop::collection::vec((name.prop_map(str::to_owned), inner), 0..6).prop_map(Json::Object),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn any_json_is_read_without_a_panic(values in proptest::collection::vec(json_values(), 1..4)) {
        use crate::config::Make;
        let commands = [
            "summary", "devs", "stats", "pools", "power", "temps", "fans", "config", "events", "voltageget 0", "version",
            "healthchipget 0", "miner/details", "miner/stats", "miner/hw/hashboards", "cooling/state", "system", "boards",
            "performance/tuner-state", "model", "net_conf", "network", "temps/chip", "voltages", "clocks", "hashrate",
            "capabilities", "system/info", "mining", "telemetry", "cooling", "errors", "hardware", "get_power",
            "get_system_info", "miner-psu-status", "asccount", "mode", "psu", "fan", "temperature", "voltage",
            "frequency", "ipreport",
        ];
        let mut replies = Replies::default();
        for (index, command) in commands.iter().enumerate() {
            replies.add(*command, Ok(values[index % values.len()].clone()));
        }
        for make in Make::ALL {
            if let Some(reader) = crate::miner::readers::reader(make) {
                let mut memory = reader.memory();
                reader.read(&replies, &mut memory);
                reader.read(&replies, &mut memory);
            }
        }
    }
}
