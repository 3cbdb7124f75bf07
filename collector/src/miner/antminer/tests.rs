//! Recorded replies of Antminers become rows, and replies that are none become failed readings.

use proptest::prelude::*;
use racklake_schemas::tables::{device, hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, fail_code};

use super::super::exchange::Trouble;
use super::super::reader::{Reader, Replies, Told};
use super::super::recorded::{any_json, changed, check, replies, told, told_after};
use super::super::state::State;
use super::Antminer;

macro_rules! recording {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/miner-sim/recordings/antminer/", $name)).as_slice()
    };
}

const S19_SUMMARY: &[u8] = recording!("v2020/summary.json");
const S19_STATS: &[u8] = recording!("v2020/stats.json");
const S19_POOLS: &[u8] = recording!("v2020/pools.json");
const L9_SUMMARY: &[u8] = recording!("v2023_07/l9_summary.json");
const L9_STATS: &[u8] = recording!("v2023_07/l9_stats.json");
const L11_SUMMARY: &[u8] = recording!("v2023_07/l11_summary.json");
const L11_STATS: &[u8] = recording!("v2023_07/l11_stats.json");
/// In the shape of the newer interface, as firmwares of 2023 answer.
const NESTED: &[u8] = br#"{"STATUS":{"STATUS":"S","when":1703024668,"Msg":"stats","api_version":"1.0.0"},
    "INFO":{"miner_version":"uart_trans.1.3","CompileTime":"Sat Mar 11 14:02:23 CST 2023","type":"Antminer S19Pro+"},
    "STATS":[{"elapsed":17065,"rate_5s":121056.23,"rate_30m":121386.29,"rate_avg":121523.8,"rate_ideal":120000.0,
    "rate_unit":"GH/s","chain_num":3,"fan_num":4,"fan":[3270,3420,3510,0],"hwp_total":0.0025,"miner-mode":0,
    "watt":3310,"chain":[
    {"index":0,"freq_avg":660,"rate_ideal":40708.0,"rate_real":40044.21,"asic_num":4,"asic":" oo ox",
     "temp_pic":[17,17,48,48],"temp_pcb":[27,27,58,58],"temp_chip":["32125","32000","63","0"],"hw":4,
     "eeprom_loaded":true,"sn":"YNAHYR5BCJCBG0NMS"},
    {"index":2,"freq_avg":0,"rate_ideal":40708.0,"rate_real":0.0,"asic_num":0,"temp_pic":[],"temp_pcb":[],
     "temp_chip":[],"hw":0,"eeprom_loaded":false,"sn":""}]}]}"#;

fn ints(values: &[i32]) -> Cell {
    Cell::List(values.iter().copied().map(Some).collect())
}

#[test]
fn every_reading_of_an_s19_of_2020_has_its_column() {
    let told = told(&Antminer, &[("summary", S19_SUMMARY), ("stats", S19_STATS), ("pools", S19_POOLS)]);
    let row = told.miner.unwrap();
    check(
        &row,
        &[
            (miner::ACCEPTED_SHARES, 4057i64.into()),
            (miner::REJECTED_SHARES, 11i64.into()),
            (miner::STALE_SHARES, 1i64.into()),
            (miner::HARDWARE_ERRORS, 562i64.into()),
            (miner::ACCEPTED_DIFFICULTY, 1_305_083_904.0.into()),
            (miner::REJECTED_DIFFICULTY, 2_490_368.0.into()),
            (miner::STALE_DIFFICULTY, 0.0.into()),
            (miner::DISCARDED_WORK, 4_528_177i64.into()),
            (miner::BLOCKS_FOUND, 0i64.into()),
            (miner::BEST_SHARE_DIFFICULTY, 12_904_207_043.0.into()),
            (miner::HASHRATE_5S_HASHES_PER_SECOND, 110_566_890_000_000i64.into()),
            (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, 111_834_850_000_000i64.into()),
            (miner::HASHRATE_30M_HASHES_PER_SECOND, 111_878_260_000_000i64.into()),
            (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 110_000_000_000_000i64.into()),
            (miner::CHIP_TEMP_MAX_CELSIUS, 78i64.into()),
            // 267 and 248 and 237 over the twelve sensors.
            (miner::CHIP_TEMP_AVERAGE_CELSIUS, 62i64.into()),
            (miner::PCB_TEMP_MAX_CELSIUS, 73i64.into()),
            (miner::FAN_1_RPM, 6000i64.into()),
            (miner::FAN_2_RPM, 5880i64.into()),
            (miner::FAN_3_RPM, 5040i64.into()),
            (miner::FAN_4_RPM, 5040i64.into()),
            (miner::FREQUENCY_KILOHERTZ, 525_000i64.into()),
            (miner::UPTIME_SECONDS, 50_474i64.into()),
            (miner::BOARDS_FOUND, 3i64.into()),
            (miner::POOL_URL, "stratum+tcp://btc.global.luxor.tech:700".into()),
            (miner::POOL_STATUS, "Alive".into()),
            (miner::POOLS_ALIVE, 3i64.into()),
            (miner::POOLS_CONFIGURED, 3i64.into()),
            (miner::POOL_DIFFICULTY, 524_288.0.into()),
        ],
        // Only the web tells them, to those who have a password.
        &[miner::POWER_MODE, miner::ERROR_CODES],
        &[miner::STATE],
    );
    assert_eq!(row.fail_code(), Some(fail_code::REFUSED));
    assert_eq!(told.judged, Some((State::Mining, None)));
    assert_eq!((told.uptime, told.lifetime), (Some(50_474), vec![Some(4057)]));
    assert_eq!((told.mark.as_deref(), told.errors), (Some("8144d5ca79104814"), None));
    assert_eq!(told.boards.len(), 3, "the fourth chain is none");
    check(
        &told.boards[0],
        &[
            (board::BOARD_INDEX, 0i64.into()),
            (board::HASHRATE_HASHES_PER_SECOND, 37_603_300_000_000i64.into()),
            (board::HARDWARE_ERRORS, 183i64.into()),
            (board::CHIPS_FOUND, 114i64.into()),
            (board::CHIPS_EXPECTED, 114i64.into()),
            (board::CHIP_OK, ints(&[1; 114])),
            (board::FREQUENCY_KILOHERTZ, 525_000i64.into()),
            (board::CHIP_TEMP_MAX_CELSIUS, 78i64.into()),
            (board::CHIP_TEMP_MIN_CELSIUS, 50i64.into()),
            (board::CHIP_TEMP_AVERAGE_CELSIUS, 66i64.into()),
            (board::PCB_TEMP_MAX_CELSIUS, 73i64.into()),
            (board::PCB_TEMPS_CELSIUS, ints(&[73, 45, 64, 65, 63, 35, 54, 55])),
        ],
        &[],
        &[],
    );
    for (index, rate, errors, hottest) in [(1, 35_536_220_000_000i64, 195i64, 71i64), (2, 37_427_380_000_000, 184, 69)]
    {
        let row = &told.boards[index];
        assert_eq!(*row.cell(board::HASHRATE_HASHES_PER_SECOND), rate.into());
        assert_eq!(*row.cell(board::HARDWARE_ERRORS), errors.into());
        assert_eq!(*row.cell(board::CHIP_TEMP_MAX_CELSIUS), hottest.into());
    }
}

#[test]
fn an_l9_with_a_dying_board_shows_which_chips_answer() {
    let told = told(&Antminer, &[("summary", L9_SUMMARY), ("stats", L9_STATS)]);
    let row = told.miner.unwrap();
    // Gigahashes of scrypt: the text of the chains says so.
    for (column, value) in [
        (miner::HASHRATE_5S_HASHES_PER_SECOND, 11_480_000_000i64),
        (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, 12_850_000_000),
        (miner::HASHRATE_30M_HASHES_PER_SECOND, 11_470_000_000),
        (miner::HASHRATE_HASHES_PER_SECOND, 11_490_000_000),
        (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 17_030_000_000),
        (miner::HARDWARE_ERRORS, 84_799),
        (miner::CHIP_TEMP_MAX_CELSIUS, 81),
        (miner::CHIP_TEMP_AVERAGE_CELSIUS, 54),
        (miner::PCB_TEMP_MAX_CELSIUS, 64),
        (miner::FAN_1_RPM, 4170),
        (miner::FAN_4_RPM, 4200),
        (miner::FREQUENCY_KILOHERTZ, 1_262_000),
    ] {
        assert_eq!(*row.cell(column), value.into(), "{}", row.table().columns[column].name);
    }
    assert_eq!(*row.cell(miner::STALE_SHARES), 4i64.into());
    assert!(row.is_unsupported(miner::BEST_SHARE_DIFFICULTY), "this firmware says 0 whatever the shares are");
    assert_eq!(told.judged, Some((State::Mining, None)), "the third board still hashes");
    let chips: String =
        "xoXoooXooXXXooXXXxXxxXXXoxXoxXXXoxxxXXxxooXXxoXXooooxXXXoxoooooox".to_owned() + &"X".repeat(45);
    let chips: Vec<i32> = chips.chars().map(|chip| i32::from(chip == 'o')).collect();
    assert_eq!((chips.len(), chips.iter().sum::<i32>()), (110, 25));
    check(
        &told.boards[2],
        &[
            (board::BOARD_INDEX, 2i64.into()),
            (board::HASHRATE_HASHES_PER_SECOND, 1_536_668_800i64.into()),
            (board::HASHRATE_AVERAGE_HASHES_PER_SECOND, 1_536_670_000i64.into()),
            (board::HARDWARE_ERRORS, 82_571i64.into()),
            (board::CHIPS_FOUND, 25i64.into()),
            (board::CHIPS_EXPECTED, 110i64.into()),
            (board::CHIP_OK, ints(&chips)),
            (board::FREQUENCY_KILOHERTZ, 1_262_000i64.into()),
            (board::CHIP_TEMP_MAX_CELSIUS, 54i64.into()),
            (board::CHIP_TEMP_MIN_CELSIUS, 39i64.into()),
            (board::CHIP_TEMP_AVERAGE_CELSIUS, 42i64.into()),
            (board::PCB_TEMP_MAX_CELSIUS, 45i64.into()),
            (board::PCB_TEMPS_CELSIUS, ints(&[32, 45])),
            (board::INLET_TEMP_CELSIUS, 32i64.into()),
            (board::OUTLET_TEMP_CELSIUS, 45i64.into()),
        ],
        &[],
        &[],
    );
}

#[test]
fn an_l11_tells_gigahashes_too() {
    let told = told(&Antminer, &[("summary", L11_SUMMARY), ("stats", L11_STATS)]);
    let row = told.miner.unwrap();
    for (column, value) in [
        (miner::HASHRATE_5S_HASHES_PER_SECOND, 19_210_000_000i64),
        (miner::HASHRATE_HASHES_PER_SECOND, 19_220_000_000),
        (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 20_520_000_000),
        (miner::ACCEPTED_SHARES, 122_643),
        (miner::REJECTED_SHARES, 1230),
        (miner::STALE_SHARES, 109),
        (miner::DISCARDED_WORK, 0),
        (miner::UPTIME_SECONDS, 400_392),
        (miner::CHIP_TEMP_MAX_CELSIUS, 66),
    ] {
        assert_eq!(*row.cell(column), value.into(), "{}", row.table().columns[column].name);
    }
    let rates: Vec<&Cell> = told.boards.iter().map(|row| row.cell(board::HASHRATE_HASHES_PER_SECOND)).collect();
    assert_eq!(rates, [&6_804_968_960i64.into(), &6_784_541_696i64.into(), &6_744_297_984i64.into()]);
    let errors: Vec<&Cell> = told.boards.iter().map(|row| row.cell(board::HARDWARE_ERRORS)).collect();
    assert_eq!(errors, [&158_176i64.into(), &243_975i64.into(), &404_864i64.into()]);
}

#[test]
fn who_it_is_comes_from_the_port_and_from_the_web() {
    let with_web = [
        ("summary", S19_SUMMARY),
        ("stats", S19_STATS),
        ("version", recording!("v2020/version.json")),
        ("get_system_info.cgi", recording!("v2020/system_info.json")),
    ];
    let read = told(&Antminer, &with_web);
    let identity = read.identity.unwrap();
    assert!(!read.is_identity_partial);
    assert_eq!(identity.device_id.as_deref(), Some("antminer:THQING0BDJAB024NF"));
    for (column, cell) in [
        (device::VENDOR, Cell::from("antminer")),
        (device::MODEL, "Antminer S19 Pro".into()),
        (device::SERIAL, "THQING0BDJAB024NF".into()),
        // The recorded address has an M in it.
        (device::MAC, Cell::Null),
        (device::FIRMWARE_VERSION, "FR-1.12(251009-S21)".into()),
        (device::HARDWARE_TYPE, "49.0.1.3".into()),
        (device::API_VERSION, "3.1".into()),
        (device::HOSTNAME, "Antminer".into()),
        (device::ALGORITHM, "sha256".into()),
        (device::BOARDS_EXPECTED, 3.into()),
        (device::CHIPS_EXPECTED, 342.into()),
        (device::FANS_EXPECTED, 4.into()),
    ] {
        assert_eq!(*identity.row.cell(column), cell, "{}", identity.row.table().columns[column].name);
    }
    let scrypt = [("stats", L9_STATS), ("version", recording!("v2023_07/l9_version.json"))];
    let identity = told(&Antminer, &scrypt).identity.unwrap();
    assert_eq!((identity.device_id, identity.row.cell(device::ALGORITHM)), (None, &"scrypt".into()));
    assert_eq!(*identity.row.cell(device::FIRMWARE_VERSION), "Mon Mar  2 17:06:41 CST 2026".into());
    let identity = told(&Antminer, &[("version", recording!("v2023_07/l11_version.json")), ("stats", L11_STATS)]);
    assert_eq!(*identity.identity.unwrap().row.cell(device::MODEL), "Antminer L11".into());
}

fn with(command: &'static str, bytes: &[u8]) -> Told {
    let others = [("summary", S19_SUMMARY), ("stats", S19_STATS), ("pools", S19_POOLS)];
    let recorded: Vec<(&str, &[u8])> =
        others.into_iter().map(|(name, reply)| (name, if name == command { bytes } else { reply })).collect();
    told(&Antminer, &recorded)
}

#[test]
fn the_newer_interface_fills_what_the_older_one_has_not() {
    let told = told(&Antminer, &[("summary", S19_SUMMARY), ("stats.cgi", NESTED)]);
    let row = told.miner.unwrap();
    for (column, cell) in [
        (miner::POWER_ESTIMATED_MILLIWATTS, Cell::from(3_310_000i64)),
        (miner::POWER_MODE, "0".into()),
        (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 120_000_000_000_000i64.into()),
        (miner::FAN_3_RPM, 3510i64.into()),
        (miner::FAN_4_RPM, 0i64.into()),
        (miner::BOARDS_FOUND, 1i64.into()),
        (miner::PCB_TEMP_MAX_CELSIUS, 58i64.into()),
    ] {
        assert_eq!(*row.cell(column), cell, "{}", row.table().columns[column].name);
    }
    // Three boards: one answers, one says 0, of one there is no word.
    assert_eq!(told.boards.len(), 3);
    assert_eq!(told.judged, Some((State::Fault, Some("dead board"))));
    let first = &told.boards[0];
    for (column, cell) in [
        (board::HASHRATE_HASHES_PER_SECOND, Cell::from(40_044_210_000_000i64)),
        (board::HASHRATE_EXPECTED_HASHES_PER_SECOND, 40_708_000_000_000i64.into()),
        (board::CHIP_OK, ints(&[1, 1, 1, 0])),
        (board::CHIP_TEMP_MAX_CELSIUS, 63i64.into()),
        (board::CHIP_TEMP_MIN_CELSIUS, 32i64.into()),
        (board::PCB_TEMPS_CELSIUS, ints(&[27, 27, 58, 58, 17, 17, 48, 48])),
        (board::BOARD_SERIAL, "YNAHYR5BCJCBG0NMS".into()),
    ] {
        assert_eq!(*first.cell(column), cell, "{}", first.table().columns[column].name);
    }
    let indexes: Vec<&Cell> = told.boards.iter().map(|row| row.cell(board::BOARD_INDEX)).collect();
    assert_eq!(indexes, [&0i64.into(), &1i64.into(), &2i64.into()]);
}

#[test]
fn with_the_cgminer_port_closed_the_web_tells_the_rest() {
    let pools = br#"{"STATUS":{"STATUS":"S"},"POOLS":[
        {"index":0,"url":"stratum+tcp://pool.example:3333","user":"u","status":"Alive","priority":0,"accepted":12,
         "rejected":2,"discarded":7,"stale":1,"diff":"2048.0000","diffa":1000,"diffr":10,"diffs":1,"lsdiff":0},
        {"index":1,"url":"","user":"","status":"Dead","priority":1,"accepted":3,"rejected":0,"discarded":0,"stale":0,
         "diff":"","diffa":24,"diffr":0,"diffs":0}]}"#;
    let summary = br#"{"STATUS":{"STATUS":"S"},"INFO":{"type":"Antminer S19Pro+"},"SUMMARY":[{"elapsed":17065,
        "rate_5s":121.0,"rate_30m":120.5,"rate_avg":121.5,"rate_ideal":120.0,"rate_unit":"TH/s","hw_all":9,
        "bestshare":77,"status":[{"type":"rate","status":"s","code":0,"msg":""},
        {"type":"temp","status":"e","code":4,"msg":"P:1"}]}]}"#;
    let mut replies = replies(&[
        ("summary.cgi", summary),
        ("pools.cgi", pools),
        ("get_miner_conf.cgi", br#"{"bitmain-work-mode":"0"}"#),
    ]);
    replies.add("summary", Err(Trouble::NoConnection("the port is closed")));
    let told = Antminer.read(&replies, &mut Antminer.memory());
    let row = told.miner.unwrap();
    for (column, cell) in [
        (miner::HASHRATE_5S_HASHES_PER_SECOND, Cell::from(121_000_000_000_000i64)),
        (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, 120_000_000_000_000i64.into()),
        (miner::HARDWARE_ERRORS, 9i64.into()),
        (miner::ACCEPTED_SHARES, 15i64.into()),
        (miner::REJECTED_SHARES, 2i64.into()),
        (miner::STALE_SHARES, 1i64.into()),
        (miner::ACCEPTED_DIFFICULTY, 1024.0.into()),
        (miner::BEST_SHARE_DIFFICULTY, 77.0.into()),
        (miner::UPTIME_SECONDS, 17_065i64.into()),
        (miner::POOL_URL, "stratum+tcp://pool.example:3333".into()),
        (miner::POOLS_CONFIGURED, 1i64.into()),
        (miner::POOL_DIFFICULTY, 2048.0.into()),
        (miner::POWER_MODE, "0".into()),
    ] {
        assert_eq!(*row.cell(column), cell, "{}", row.table().columns[column].name);
    }
    assert!(row.has_failed(miner::BLOCKS_FOUND) && row.has_failed(miner::FAN_1_RPM));
    assert_eq!(row.fail_code(), Some(fail_code::UNREACHABLE));
    assert_eq!(told.lifetime, [None], "the sum over the pools is no counter");
    let errors = told.errors.unwrap();
    assert_eq!((errors.len(), errors[0].component, errors[0].code), (1, "temperature", 4));
}

#[test]
fn asleep_sensors_are_null_and_have_not_failed() {
    let conf = br#"{"miner-mode":1,"pools":[{"url":"u","user":"u","pass":"p"}]}"#.as_slice();
    let summary = changed(S19_SUMMARY, "\"GHS 5s\": 110566.89", "\"GHS 5s\": 0.0");
    let recorded = [("summary", summary.as_slice()), ("stats", S19_STATS), ("get_miner_conf.cgi", conf)];
    let told = told(&Antminer, &recorded);
    let row = told.miner.unwrap();
    assert_eq!(told.judged, Some((State::Sleeping, Some("standby"))));
    assert_eq!(*row.cell(miner::POWER_MODE), "1".into());
    assert!(*row.cell(miner::CHIP_TEMP_MAX_CELSIUS) == Cell::Null && !row.has_failed(miner::CHIP_TEMP_MAX_CELSIUS));
    let board = &told.boards[0];
    assert!(*board.cell(board::CHIP_TEMP_MAX_CELSIUS) == Cell::Null);
    assert!(!board.has_failed(board::CHIP_TEMP_MAX_CELSIUS) && !board.is_unsupported(board::CHIP_TEMP_MAX_CELSIUS));
}

#[test]
fn a_board_that_dies_keeps_its_row() {
    let mut memory = Antminer.memory();
    told_after(&Antminer, &[("summary", S19_SUMMARY), ("stats", S19_STATS)], &mut memory);
    let mut dead = S19_STATS.to_vec();
    for (from, to) in [
        ("\"chain_acn2\": 114", "\"chain_acn2\": 0"),
        ("\"chain_rate2\": \"35536.22\"", "\"chain_rate2\": \"\""),
        ("\"temp_chip2\": \"52-55-70-71\"", "\"temp_chip2\": \"0-0-0-0\""),
        ("\"temp2_2\": 71", "\"temp2_2\": 0"),
        ("\"miner_count\": 3", "\"miner_count\": 2"),
    ] {
        dead = changed(&dead, from, to);
    }
    let told = told_after(&Antminer, &[("summary", S19_SUMMARY), ("stats", &dead)], &mut memory);
    assert_eq!(told.judged, Some((State::Fault, Some("dead board"))));
    assert_eq!(told.boards.len(), 3);
    let board = &told.boards[1];
    assert_eq!(*board.cell(board::CHIPS_FOUND), 0i64.into());
    assert!(board.has_failed(board::HASHRATE_HASHES_PER_SECOND), "it told one before");
    assert!(board.has_failed(board::CHIP_TEMP_MAX_CELSIUS), "0 is no temperature");
    assert_eq!(*board.cell(board::HARDWARE_ERRORS), 195i64.into(), "what it tells is kept");
}

#[test]
fn units_are_read_and_not_guessed() {
    let rate = |told: &Told, column: usize| told.miner.as_ref().unwrap().cell(column).clone();
    let mega = with("stats", &changed(S19_STATS, "\"rate_unit\": \"GH\"", "\"rate_unit\": \"MH\""));
    assert_eq!(rate(&mega, miner::HASHRATE_EXPECTED_HASHES_PER_SECOND), 110_000_000_000i64.into());
    assert_eq!(rate(&mega, miner::HASHRATE_5S_HASHES_PER_SECOND), 110_566_890_000i64.into());
    let odd = with("stats", &changed(S19_STATS, "\"rate_unit\": \"GH\"", "\"rate_unit\": \"W\""));
    let row = odd.miner.unwrap();
    assert!(row.has_failed(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND));
    assert!(odd.boards[0].has_failed(board::HASHRATE_HASHES_PER_SECOND));
    // The L3+ says GHS and means megahashes.
    let l3 = changed(L9_STATS, "Antminer L9", "Antminer L3+");
    let row = told(&Antminer, &[("stats", &l3)]).miner.unwrap();
    assert_eq!(*row.cell(miner::HASHRATE_5S_HASHES_PER_SECOND), 11_480_000i64.into());
}

#[test]
fn what_firmwares_get_wrong_costs_one_reading_and_not_the_reply() {
    // A comma is missing between the entries of STATS, a number is none, a string has a raw newline, text follows.
    let mut stats = changed(S19_STATS, "    },\n    {\n      \"Calls\"", "    }\n    {\n      \"Calls\"");
    stats = changed(&stats, "\"chain_hw1\": 183", "\"chain_hw1\": nan");
    stats = changed(&stats, "\"temp_pcb1\": \"73-45-64-65\"", "\"temp_pcb1\": \"73-\n45-x-65\"");
    stats = changed(&stats, "\"fan2\": 5880", "\"fan2\": 65535");
    stats = changed(&stats, "\"freq1\": 525", "\"freq1\": {}");
    stats.extend_from_slice(b"\0 and so on }");
    let told = with("stats", &stats);
    let (row, board) = (told.miner.unwrap(), &told.boards[0]);
    assert!(board.has_failed(board::HARDWARE_ERRORS));
    assert_eq!(
        *board.cell(board::PCB_TEMPS_CELSIUS),
        Cell::List(vec![Some(73), Some(45), None, Some(65), Some(63), Some(35), Some(54), Some(55),])
    );
    assert!(row.has_failed(miner::FAN_2_RPM));
    assert!(board.is_unsupported(board::FREQUENCY_KILOHERTZ), "the first reply that it is missing in");
    assert_eq!(*row.cell(miner::FAN_3_RPM), 5040i64.into());
    assert_eq!(*board.cell(board::CHIPS_FOUND), 114i64.into());
}

#[test]
fn a_command_without_a_reply_fails_its_own_columns_only() {
    let told = with("stats", b"");
    let row = told.miner.unwrap();
    assert!(told.boards.is_empty());
    assert!(row.has_failed(miner::FAN_1_RPM) && row.has_failed(miner::CHIP_TEMP_MAX_CELSIUS));
    assert_eq!(*row.cell(miner::HASHRATE_30M_HASHES_PER_SECOND), 111_878_260_000_000i64.into());
    assert_eq!(told.judged, Some((State::Mining, None)));
    let row = with("summary", b"").miner.unwrap();
    assert_eq!(*row.cell(miner::HASHRATE_5S_HASHES_PER_SECOND), 110_566_890_000_000i64.into());
    assert_eq!(*row.cell(miner::HARDWARE_ERRORS), 562i64.into());
    assert_eq!(*row.cell(miner::ACCEPTED_SHARES), 4057i64.into(), "the sum over the pools");
    assert!(row.has_failed(miner::BLOCKS_FOUND));
    assert!(with("pools", b"").miner.unwrap().has_failed(miner::POOLS_ALIVE));
    assert!(told_after(&Antminer, &[("summary", b""), ("stats", b"{}")], &mut Antminer.memory()).miner.is_none());
}

/// Keys that are read, for JSON that holds anything.
const KEYS: &[&str] = &[
    "STATS",
    "SUMMARY",
    "POOLS",
    "chain",
    "chain_acn1",
    "chain_acs1",
    "temp_chip1",
    "rate_unit",
    "GHS 5s",
    "fan",
    "fan_num",
    "fan1",
    "miner_count",
    "index",
    "status",
    "temp_pcb",
    "miner-mode",
    "Diff",
    "URL",
];

proptest! {
    #[test]
    fn any_json_gives_rows(parts in prop::collection::vec(any_json(KEYS), 6)) {
        let commands = ["summary", "stats", "stats new_api", "pools", "summary.cgi", "get_system_info.cgi"];
        let mut replies = Replies::default();
        for (command, reply) in commands.into_iter().zip(parts) {
            replies.add(command, Ok(reply));
        }
        let told = Antminer.read(&replies, &mut Antminer.memory());
        prop_assert!(told.boards.len() <= 64);
    }
}
