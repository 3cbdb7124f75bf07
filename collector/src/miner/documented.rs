//! The tables of `docs/miners.md`: which columns each make fills, by what its recorded replies become, and which reader
//! reads each recording. Run with `RACKLAKE_BLESS=1` to write them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use racklake_schemas::tables::{HASHBOARD_SAMPLE, MINER_SAMPLE};
use racklake_schemas::tables::{hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Row, Table};

use super::exchange::Trouble;
use super::json::Json;
use super::reader::{Replies, Told};
use super::readers::reader;
use super::testing::recordings;
use crate::config::Make;

/// Recorded sets: a make, the set's name in the table, its folder, and each command with its file. A file is in the
/// folder and ends in `.json`.
type Set = (Make, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const SETS: &[Set] = &[
    (
        Make::Avalon,
        "Avalon 1246",
        "avalon_1246",
        &[
            ("stats", "stats"),
            ("summary", "adapted/summary"),
            ("pools", "adapted/pools"),
            ("version", "adapted/version"),
        ],
    ),
    (
        Make::Avalon,
        "Avalon Q",
        "avalon_q",
        &[("stats", "stats"), ("summary", "summary"), ("pools", "pools"), ("version", "version")],
    ),
    (
        Make::Antminer,
        "Antminer S19",
        "antminer/v2020",
        &[
            ("stats", "stats"),
            ("summary", "summary"),
            ("pools", "pools"),
            ("version", "version"),
            ("get_system_info.cgi", "system_info"),
        ],
    ),
    (
        Make::Antminer,
        "Antminer L9",
        "antminer/v2023_07",
        &[("stats", "l9_stats"), ("summary", "l9_summary"), ("version", "l9_version")],
    ),
    (
        Make::Whatsminer,
        "Whatsminer 1",
        "whatsminer/v1",
        &[
            ("summary", "summary"),
            ("devs", "devs"),
            ("pools", "pools"),
            ("status", "status"),
            ("get_psu", "get_psu"),
            ("get_version", "get_version"),
        ],
    ),
    (
        Make::Whatsminer,
        "Whatsminer 2",
        "whatsminer/v2",
        &[
            ("summary", "summary"),
            ("devs", "devs"),
            ("edevs", "devs"),
            ("pools", "pools"),
            ("status", "status"),
            ("get_psu", "get_psu"),
            ("get_version", "get_version"),
            ("get_miner_info", "get_miner_info"),
            ("get_error_code", "get_error_code"),
        ],
    ),
    (
        Make::Whatsminer,
        "Whatsminer 3",
        "whatsminer/v3",
        &[
            ("get.device.info", "get_device_info"),
            ("get.miner.status summary", "get_miner_status_summary"),
            ("get.miner.status edevs", "get_miner_status_edevs"),
            ("get.miner.status pools", "get_miner_status_pools"),
        ],
    ),
    (
        Make::Braiins,
        "Braiins REST",
        "braiins/v26_04",
        &[
            ("miner/details", "miner_details"),
            ("miner/stats", "miner_stats"),
            ("miner/hw/hashboards", "miner_hw_hashboards"),
            ("cooling/state", "cooling_state"),
            ("pools", "pools"),
            ("performance/tuner-state", "performance_tuner_state"),
            ("network", "network"),
            ("version", "version"),
        ],
    ),
    (
        Make::Braiins,
        "Braiins GraphQL",
        "braiins/v25_05",
        &[("system", "gql_system"), ("boards", "gql_boards"), ("pools", "gql_pools"), ("events", "gql_events")],
    ),
    (
        Make::Luxos,
        "LuxOS",
        "luxminer/v1",
        &[
            ("summary", "summary"),
            ("devs", "devs"),
            ("stats", "stats"),
            ("pools", "pools"),
            ("power", "power"),
            ("temps", "temps"),
            ("fans", "fans"),
            ("config", "config"),
            ("events", "events"),
            ("voltageget 0", "voltageget_0"),
            ("voltageget 1", "voltageget_1"),
            ("voltageget 2", "voltageget_2"),
            ("healthchipget 0", "healthchipget_0"),
            ("healthchipget 1", "healthchipget_1"),
            ("healthchipget 2", "healthchipget_2"),
        ],
    ),
    (
        Make::Epic,
        "ePIC",
        "epic/v1",
        &[
            ("summary", "summary"),
            ("temps", "temps"),
            ("temps/chip", "chip_temps"),
            ("voltages", "chip_voltages"),
            ("clocks", "chip_clocks"),
            ("hashrate", "chip_hashrates"),
        ],
    ),
    (
        Make::Auradine,
        "Auradine",
        "auradine/v1",
        &[
            ("summary", "summary"),
            ("devs", "devs"),
            ("pools", "pools"),
            ("asccount", "asccount"),
            ("mode", "mode"),
            ("psu", "psu"),
            ("fan", "fan"),
            ("temperature", "temperature"),
            ("voltage", "voltage"),
            ("frequency", "frequency"),
        ],
    ),
    (
        Make::Sealminer,
        "Sealminer",
        "sealminer/v2025",
        &[("summary", "summary"), ("stats", "stats"), ("pools", "pools"), ("miner-psu-status", "miner_psu_status")],
    ),
    (
        Make::Elphapex,
        "Elphapex",
        "elphapex/v1",
        &[("stats", "stats"), ("summary", "summary"), ("pools", "pools"), ("get_power", "get_power")],
    ),
    (
        Make::Proto,
        "Proto",
        "proto/v1",
        &[
            ("mining", "mining"),
            ("telemetry", "telemetry_full"),
            ("cooling", "cooling"),
            ("pools", "pools"),
            ("errors", "errors"),
        ],
    ),
    (Make::Bitaxe, "Bitaxe", "bitaxe/v2_0_0", &[("system/info", "system_info")]),
    (Make::Forgeaxe, "Forgeaxe", "forgeaxe/v1_1_0", &[("system/info", "system_info")]),
];

/// Columns for which the data of asic-rs 0.8.6 has a field. It drops what a firmware tells about any other.
const OF_ASIC_RS: [usize; 21] = [
    miner::ACCEPTED_SHARES,
    miner::REJECTED_SHARES,
    miner::HASHRATE_HASHES_PER_SECOND,
    miner::HASHRATE_EXPECTED_HASHES_PER_SECOND,
    miner::POWER_MILLIWATTS,
    miner::POWER_ESTIMATED_MILLIWATTS,
    miner::POWER_LIMIT_MILLIWATTS,
    miner::FAN_1_RPM,
    miner::FAN_2_RPM,
    miner::FAN_3_RPM,
    miner::FAN_4_RPM,
    miner::FAN_5_RPM,
    miner::FAN_6_RPM,
    miner::PSU_FAN_RPM,
    miner::UPTIME_SECONDS,
    miner::POOL_URL,
    miner::POOL_STATUS,
    miner::POOLS_ALIVE,
    miner::POOLS_CONFIGURED,
    miner::BOARDS_FOUND,
    miner::BEST_SHARE_DIFFICULTY,
];
const OF_ASIC_RS_BOARD: [usize; 15] = [
    board::HASHRATE_HASHES_PER_SECOND,
    board::HASHRATE_EXPECTED_HASHES_PER_SECOND,
    board::PCB_TEMP_MAX_CELSIUS,
    board::CHIP_TEMP_MAX_CELSIUS,
    board::INLET_TEMP_CELSIUS,
    board::CHIPS_FOUND,
    board::CHIPS_EXPECTED,
    board::BOARD_SERIAL,
    board::VOLTAGE_MILLIVOLTS,
    board::FREQUENCY_KILOHERTZ,
    board::CHIP_TEMPS_CELSIUS,
    board::CHIP_VOLTAGES_MILLIVOLTS,
    board::CHIP_FREQUENCIES_KILOHERTZ,
    board::CHIP_HASHRATES_MEGAHASHES_PER_SECOND,
    board::CHIP_OK,
];

/// Recordings that no reader asks for, by the beginning of their path, and why. All others are read.
const NOT_READ: &[(&str, &str)] = &[
    ("antminer/v2020/devs.json", "tells of the whole miner what `summary` tells, and its hashrates are 0"),
    ("auradine/v1/led.json", "the lamp, which is no reading"),
    ("avalon_q/devs.json", "tells less of the same than `stats`"),
    ("avalon_q/litestats.json", "a part of `stats`"),
    ("avalonminer/ascset_", "the reply to an action"),
    ("avalonminer/avalon_a_stats_parsed.json", "parsed output of a library, no reply"),
    ("avalonminer/litestats_parsed.json", "parsed output of a library, no reply"),
    ("avalonminer/stats_empty_parsed.json", "parsed output of a library, no reply"),
    ("avalonminer/stats_parsed.json", "parsed output of a library, no reply"),
    ("avalonminer/check.json", "whether a command is there"),
    ("avalonminer/coin.json", "which coin and block are mined"),
    ("avalonminer/config.json", "settings"),
    ("avalonminer/devdetails.json", "names of the driver; tells no reading"),
    ("braiins/v25_07/actions_locate.json", "the lamp, which is no reading"),
    ("braiins/v25_11/actions_locate.json", "the lamp, which is no reading"),
    ("braiins/v26_04/actions_locate.json", "the lamp, which is no reading"),
    ("braiins/v25_07/configuration_miner.json", "settings"),
    ("braiins/v25_11/configuration_miner.json", "settings"),
    ("braiins/v26_04/configuration_miner.json", "settings"),
    (
        "braiins/v25_07/miner_errors.json",
        "a log of the past: its last message is read where the miner has suspended itself",
    ),
    (
        "braiins/v25_11/miner_errors.json",
        "a log of the past: its last message is read where the miner has suspended itself",
    ),
    (
        "braiins/v26_04/miner_errors.json",
        "a log of the past: its last message is read where the miner has suspended itself",
    ),
    ("braiins/v21_09/gql_tuning.json", "settings; the power limit is in `gql_system` too"),
    ("braiins/v24_09/gql_tuning.json", "settings; the power limit is in `gql_system` too"),
    ("braiins/v25_03/gql_tuning.json", "settings; the power limit is in `gql_system` too"),
    ("braiins/v25_05/gql_tuning.json", "settings; the power limit is in `gql_system` too"),
    ("elphapex/v1/blink.json", "the reply to an action"),
    ("elphapex/v1/chart.json", "hashrates of the past"),
    ("elphapex/v1/get_blink_status.json", "the lamp, which is no reading"),
    ("elphapex/v1/get_miner_conf.json", "settings"),
    ("elphapex/v1/get_network_info.json", "settings; the MAC is in `get_system_info` too"),
    ("elphapex/v1/get_wifi", "wireless networks near the miner"),
    ("elphapex/v1/set_", "the reply to an action"),
    ("elphapex/v1/webif.json", "time servers"),
    ("elphapex/v1/wifi_connect.json", "the reply to an action"),
    ("luxminer/v1/profiles.json", "settings that could be chosen"),
];

fn told(set: &Set) -> Option<Told> {
    let (make, _, folder, files) = set;
    let reader = reader(*make)?;
    let mut replies = Replies::default();
    for (command, file) in *files {
        let path = recordings().join(folder).join(format!("{file}.json"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let reply = match Json::parse(&bytes) {
            Some(json) => Ok(json),
            None => Err(Trouble::Unreadable),
        };
        replies.add(*command, reply);
    }
    Some(reader.read(&replies, &mut reader.memory()))
}

fn filled(rows: &[&Row], column: usize) -> bool {
    rows.iter().any(|row| *row.cell(column) != Cell::Null)
}

fn columns_table(table: &'static Table, of_asic_rs: &[usize], all: &[(&str, Told)]) -> String {
    let rows = |told: &'_ Told| -> Vec<Row> {
        if std::ptr::eq(table, &MINER_SAMPLE) { told.miner.iter().cloned().collect() } else { told.boards.clone() }
    };
    let sets: Vec<(&str, Vec<Row>)> = all.iter().map(|(name, told)| (*name, rows(told))).collect();
    let mut text = format!("| `{}` |", table.name);
    for (name, _) in &sets {
        let _ = write!(text, " {name} |");
    }
    let _ = write!(text, " asic-rs 0.8.6 |\n|---|{}---|\n", "---|".repeat(sets.len()));
    for (index, column) in table.columns.iter().enumerate().filter(|(_, column)| column.bit.is_some()) {
        // The source sets these for every make.
        if std::ptr::eq(table, &MINER_SAMPLE) && [miner::STATE, miner::ERROR_CODES].contains(&index) {
            continue;
        }
        let marks: Vec<bool> = sets.iter().map(|(_, rows)| filled(&rows.iter().collect::<Vec<_>>(), index)).collect();
        let _ = write!(text, "| {} |", column.name);
        for mark in &marks {
            text.push_str(if *mark { " x |" } else { " |" });
        }
        let is_dropped = marks.contains(&true) && !of_asic_rs.contains(&index);
        text.push_str(if is_dropped { " drops it |\n" } else { " |\n" });
    }
    text
}

/// Files of a folder and those below it, by their ending.
fn gather(folder: &Path, end: &str, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, end, all);
        } else if path.extension().is_some_and(|extension| extension == end) {
            all.push(path);
        }
    }
}

/// Every recording of the crates, by its path in the folder of recordings.
fn files() -> BTreeSet<String> {
    let mut all = Vec::new();
    gather(&recordings(), "json", &mut all);
    let short = |path: &PathBuf| path.strip_prefix(recordings()).unwrap().to_string_lossy().into_owned();
    let mut all: BTreeSet<String> = all.iter().map(short).collect();
    // Written for the tests of the 1246, after recordings of another model.
    all.retain(|path| !path.starts_with("avalon_1246/adapted/"));
    all
}

/// Which make's reader reads a recording; the folders of the crates have their own names.
fn reader_of(path: &str) -> &'static str {
    let folder = path.split('/').next().unwrap_or_default();
    match folder {
        "avalon_1246" | "avalon_q" | "avalonminer" => "avalon",
        "luxminer" => "luxos",
        other => Make::ALL.iter().map(|make| make.name()).find(|name| *name == other).unwrap_or("nobody"),
    }
}

fn files_table() -> String {
    let mut text = "| recording | read by | or why not |\n|---|---|---|\n".to_owned();
    for path in files() {
        let reason = NOT_READ.iter().find(|(begin, _)| path.starts_with(begin)).map(|(_, reason)| *reason);
        let _ = match reason {
            Some(reason) => writeln!(text, "| {path} | | {reason} |"),
            None => writeln!(text, "| {path} | {} | |", reader_of(&path)),
        };
    }
    text
}

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/miners.md")
}

/// The document with a table put between its two marks.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("docs/miners.md lacks {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/miners.md lacks {end}"));
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_tables_of_the_document_are_what_the_recordings_give() {
    let all: Vec<(&str, Told)> = SETS.iter().filter_map(|set| Some((set.1, told(set)?))).collect();
    let before = std::fs::read_to_string(document()).unwrap();
    let mut after = with_table(&before, "miner columns", &columns_table(&MINER_SAMPLE, &OF_ASIC_RS, &all));
    let boards = columns_table(&HASHBOARD_SAMPLE, &OF_ASIC_RS_BOARD, &all);
    after = with_table(&after, "board columns", &boards);
    after = with_table(&after, "recordings", &files_table());
    if std::env::var_os("RACKLAKE_BLESS").is_some() {
        std::fs::write(document(), &after).unwrap();
    }
    assert!(before == after || std::env::var_os("RACKLAKE_BLESS").is_some(), "run again with RACKLAKE_BLESS=1");
}

#[test]
fn every_recording_is_read_or_has_a_reason() {
    let files = files();
    assert_eq!(files.len(), 183);
    for (begin, _) in NOT_READ {
        assert!(files.iter().any(|path| path.starts_with(begin)), "no recording begins with {begin}");
    }
    assert!(files.iter().all(|path| reader_of(path) != "nobody"));
    // What is called read is in a set here or is named by another test.
    let mut sources = Vec::new();
    gather(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/miner"), "rs", &mut sources);
    sources.retain(|path| !path.ends_with("documented.rs"));
    let sources: Vec<String> = sources.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for path in files.iter().filter(|path| !NOT_READ.iter().any(|(begin, _)| path.starts_with(begin))) {
        let name = Path::new(path).file_stem().unwrap().to_string_lossy().into_owned();
        let name = name.trim_start_matches("gql_").trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
        if reader_of(path) == "whatsminer" && reader(Make::Whatsminer).is_none() {
            continue;
        }
        let in_sets = SETS.iter().any(|set| set.3.iter().any(|(_, file)| path == &format!("{}/{file}.json", set.2)));
        assert!(in_sets || sources.iter().any(|text| text.contains(name)), "{path} is read by nothing");
    }
}

#[test]
fn no_recorded_reply_leaves_a_failed_reading() {
    // Of the stock firmwares some replies are not recorded, whose readings have failed here for that reason.
    for set in SETS.iter().filter(|set| ![Make::Antminer, Make::Whatsminer].contains(&set.0)) {
        let Some(told) = told(set) else { continue };
        let rows = told.miner.iter().chain(&told.boards);
        for row in rows {
            let failed: Vec<&str> = (0..row.table().columns.len())
                .filter(|column| row.has_failed(*column))
                .map(|column| row.table().columns[column].name)
                .collect();
            assert!(failed.is_empty(), "{}: {failed:?}", set.1);
        }
    }
}
