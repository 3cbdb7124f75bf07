//! Miners read from sockets of simulated ones.

mod keys;

use std::path::Path;
use std::time::{Duration, Instant};

use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};
use racklake_schemas::tables::{MINER_SAMPLE, device, hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Row, fail_code, row_status};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::MinerSource;
use crate::config::{Make, MinerConfig, MinersConfig};
use crate::source::{Reading, Source};

const TERA: i64 = 1_000_000_000_000;
const TIMEOUT: Duration = Duration::from_millis(600);

/// Simulated miners and the source that reads them.
struct Site {
    sim: MinerSim,
    source: MinerSource,
    config: MinersConfig,
    folder: TempDir,
}

impl Site {
    fn new(units: Vec<Unit>) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let sim = MinerSim::start(units, &folder.path().join("account")).unwrap();
        let config = |address: std::net::SocketAddr| MinerConfig {
            port: address.port(),
            make: Some(Make::Avalon),
            rack: Some("r7".to_owned()),
            ..MinerConfig::at(&address.ip().to_string())
        };
        let miners = sim.addresses().into_iter().map(config).collect();
        let config =
            MinersConfig { period: Duration::from_secs(30), timeout: TIMEOUT, miners, ..MinersConfig::default() };
        let source = MinerSource::new(&config, mpsc::channel(1).0);
        Site { sim, source, config, folder }
    }

    /// The same miners with another number of connections at once.
    fn limit_connections(&mut self, connections_max: usize) {
        self.config.connections_max = connections_max;
        self.source.change(&self.config);
    }

    async fn read(&self, unit: usize) -> Reading {
        self.source.read(&self.sim.addresses()[unit].to_string(), &MINER_SAMPLE).await
    }
}

fn verbatim(profile: Profile) -> Unit {
    Unit { verbatim: true, ..Unit::new("m", profile) }
}

fn text(row: &Row, column: usize) -> Option<&str> {
    match row.cell(column) {
        Cell::Text(text) => Some(text),
        _ => None,
    }
}

fn state(row: &Row) -> (Option<&str>, Option<&str>) {
    (text(row, miner::STATE), text(row, miner::STATE_REASON))
}

/// Every value column of the table is as wanted, or null where nothing is, so that none is forgotten.
fn assert_row(row: &Row, wanted: &[(&str, Cell)]) {
    let columns = row.table().columns.iter().enumerate();
    for (index, column) in columns.filter(|(_, column)| column.id >= 32 && column.name != "reply_json") {
        let cell = wanted.iter().find(|(name, _)| *name == column.name).map(|(_, cell)| cell);
        assert_eq!(row.cell(index), cell.unwrap_or(&Cell::Null), "{}", column.name);
    }
}

fn bits(row: &Row, columns: &[usize]) -> i64 {
    columns.iter().filter_map(|&column| row.table().columns[column].bit).map(|bit| 1 << bit).sum()
}

/// The row of the recorded 1246, by hand from its replies.
fn row_of_the_1246() -> Vec<(&'static str, Cell)> {
    vec![
        ("accepted_shares", 1746.into()),
        ("rejected_shares", 4.into()),
        ("stale_shares", 1.into()),
        ("hardware_errors", 2735.into()),
        ("accepted_difficulty", 457_703_424.0.into()),
        ("rejected_difficulty", 1_048_576.0.into()),
        ("hashrate_hashes_per_second", (81 * TERA + 72_680_000_000).into()),
        ("hashrate_average_hashes_per_second", (79 * TERA + 656_630_000_000).into()),
        ("hashrate_5s_hashes_per_second", (81 * TERA + 72_680_000_000).into()),
        ("hashrate_1m_hashes_per_second", (80 * TERA + 911_542_370_000).into()),
        ("hashrate_5m_hashes_per_second", (80 * TERA + 240_118_090_000).into()),
        ("hashrate_15m_hashes_per_second", (79 * TERA + 985_023_500_000).into()),
        ("hashrate_expected_hashes_per_second", (83 * TERA + 923_040_000_000).into()),
        ("power_milliwatts", 3_504_000.into()),
        ("power_output_milliwatts", 3_189_000.into()),
        ("power_limit_milliwatts", 3_200_000.into()),
        ("psu_output_millivolts", 13_160.into()),
        ("psu_output_milliamperes", 242_000.into()),
        ("psu_error_code", 0.into()),
        ("inlet_temp_celsius", 30.into()),
        ("chip_temp_max_celsius", 77.into()),
        ("chip_temp_average_celsius", 65.into()),
        ("fan_1_rpm", 5344.into()),
        ("fan_2_rpm", 5392.into()),
        ("fan_3_rpm", 5349.into()),
        ("fan_4_rpm", 5309.into()),
        ("fan_duty_percent", 72.into()),
        ("frequency_kilohertz", 502_410.into()),
        ("uptime_seconds", 24_684.into()),
        ("state", "mining".into()),
        ("state_reason", Cell::Null),
        ("pool_url", "stratum+tcp://pool1.example.com:4444".into()),
        ("pool_status", "Alive".into()),
        ("pools_alive", 2.into()),
        ("pool_ping_milliseconds", 443.into()),
        ("pool_difficulty", 262_144.0.into()),
        ("boards_found", 3.into()),
        ("error_mask", 0.into()),
        ("stale_difficulty", 262_144.0.into()),
        ("discarded_work", 0.into()),
        ("blocks_found", 0.into()),
        ("best_share_difficulty", 354_914_572.0.into()),
        ("pools_configured", 3.into()),
        ("power_mode", "1".into()),
    ]
}

#[tokio::test]
async fn the_recorded_1246_gives_the_values_that_its_replies_hold() {
    let site = Site::new(vec![verbatim(Profile::Avalon1246)]);
    let reading = site.read(0).await;
    let row = &reading.rows[0];
    assert_row(row, &row_of_the_1246());
    assert_eq!((row.status(), row.failed_mask()), (row_status::OK, 0));
    // Whatever has no value is something that the firmware does not tell.
    let nulls: Vec<usize> = (0..row.table().columns.len()).filter(|&column| *row.cell(column) == Cell::Null).collect();
    assert_eq!(row.unsupported_mask(), bits(row, &nulls));
    assert_eq!(reading.lifetime, [Some(24_684)]);

    assert_eq!(reading.rows.len(), 4);
    let last = &reading.rows[3];
    assert_eq!((last.status(), last.failed_mask()), (row_status::OK, 0));
    for (column, value) in [
        (board::BOARD_INDEX, 2),
        (board::HASHRATE_AVERAGE_HASHES_PER_SECOND, 26 * TERA + 724_560_000_000),
        (board::HARDWARE_ERRORS, 1039),
        (board::CRC_ERRORS, 0),
        (board::CHIP_TEMP_MAX_CELSIUS, 76),
        (board::CHIP_TEMP_AVERAGE_CELSIUS, 64),
        (board::CHIPS_FOUND, 120),
        (board::CHIPS_EXPECTED, 120),
        (board::BOARD_ERROR_MASK, 0),
    ] {
        assert_eq!(*last.cell(column), Cell::from(value), "{}", last.table().columns[column].name);
    }
    for (column, first, end) in [
        (board::CHIP_TEMPS_CELSIUS, [66, 68, 62], [64, 63, 64]),
        (board::CHIP_VOLTAGES_MILLIVOLTS, [304, 309, 311], [305, 306, 308]),
        (board::CHIP_NONCES, [702, 606, 673], [572, 653, 609]),
    ] {
        let Cell::List(items) = last.cell(column) else { panic!("no list") };
        assert_eq!((items.len(), &items[..3], &items[117..]), (120, &first.map(Some)[..], &end.map(Some)[..]));
    }

    let identity = reading.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("avalon:02010000cbd2fd6d"));
    assert_eq!(text(&identity.row, device::MAC), Some("b4:a2:eb:3e:11:9c"));
    assert_eq!(text(&identity.row, device::MODEL), Some("AvalonMiner 1246"));
    assert_eq!(
        (identity.row.cell(device::BOARDS_EXPECTED), identity.row.cell(device::CHIPS_EXPECTED)),
        (&3.into(), &360.into())
    );
    assert!(reading.events.is_empty());
}

#[tokio::test]
async fn a_sleeping_miner_tells_no_temperatures_of_the_time_before() {
    let site = Site::new(vec![verbatim(Profile::AvalonQ)]);
    let reading = site.read(0).await;
    let [row, boards @ ..] = &reading.rows[..] else { panic!("no row") };
    assert_eq!(state(row), (Some("sleeping"), Some("standby")));
    assert_eq!((row.status(), row.failed_mask()), (row_status::OK, 0));
    assert_eq!(*row.cell(miner::CHIP_TEMP_MAX_CELSIUS), Cell::Null);
    assert_eq!(*row.cell(miner::HASHRATE_HASHES_PER_SECOND), 0.into());
    assert_eq!(*row.cell(miner::INLET_TEMP_CELSIUS), 26.into());
    assert_eq!(*row.cell(miner::POWER_MILLIWATTS), 146_000.into());
    let [only] = boards else { panic!("one board") };
    assert_eq!(*only.cell(board::CHIP_TEMPS_CELSIUS), Cell::Null);
    let lacking = |row: &Row| {
        [board::CHIP_TEMP_MAX_CELSIUS, board::CHIP_TEMP_AVERAGE_CELSIUS, board::CHIP_TEMPS_CELSIUS]
            .map(|column| row.is_unsupported(column))
    };
    assert_eq!(lacking(only), [true, true, false]);
    assert_eq!((only.failed_mask(), only.cell(board::CHIPS_EXPECTED)), (0, &160.into()));
    assert_eq!(reading.events.len(), 1, "the first state is told since it is not mining");
}

/// The account's reply to a command at the last poll of a unit.
fn last_reply(folder: &Path, unit: &str, command: &str) -> Value {
    let account = std::fs::read_to_string(folder.join("account")).unwrap();
    let mut lines = account.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.rfind(|line| line["unit"] == unit && line["command"] == command).unwrap()["reply"].clone()
}

/// The value of a key in an Avalon's text, with blanks as they are.
fn told(stats: &Value, key: &str) -> String {
    let entry = stats["STATS"][0].as_object().unwrap();
    let texts = entry.values().filter_map(Value::as_str).map(|text| text.replace('{', " "));
    let all = texts.collect::<Vec<_>>().join(" ");
    let (_, rest) =
        format!(" {all}").split_once(&format!(" {key}[")).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    rest.split(']').next().unwrap().to_owned()
}

fn scaled(text: &str, factor: f64) -> Cell {
    ((text.trim_end_matches('%').parse::<f64>().unwrap() * factor).round() as i64).into()
}

fn list(text: &str) -> Cell {
    Cell::List(text.split_whitespace().map(|item| Some(item.parse().unwrap())).collect())
}

fn assert_summary(row: &Row, summary: &Value) {
    for (column, key, factor) in [
        (miner::ACCEPTED_SHARES, "Accepted", 1.0),
        (miner::REJECTED_SHARES, "Rejected", 1.0),
        (miner::STALE_SHARES, "Stale", 1.0),
        (miner::HARDWARE_ERRORS, "Hardware Errors", 1.0),
        (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, "MHS av", 1e6),
        (miner::HASHRATE_5S_HASHES_PER_SECOND, "MHS 5s", 1e6),
        (miner::HASHRATE_1M_HASHES_PER_SECOND, "MHS 1m", 1e6),
        (miner::HASHRATE_5M_HASHES_PER_SECOND, "MHS 5m", 1e6),
        (miner::HASHRATE_15M_HASHES_PER_SECOND, "MHS 15m", 1e6),
        (miner::UPTIME_SECONDS, "Elapsed", 1.0),
    ] {
        assert_eq!(*row.cell(column), scaled(&summary["SUMMARY"][0][key].to_string(), factor), "{key}");
    }
    for (column, key) in
        [(miner::ACCEPTED_DIFFICULTY, "Difficulty Accepted"), (miner::REJECTED_DIFFICULTY, "Difficulty Rejected")]
    {
        assert_eq!(*row.cell(column), summary["SUMMARY"][0][key].as_f64().into(), "{key}");
    }
}

/// `inlet` is the model's name for the temperature of the air.
fn assert_stats(row: &Row, stats: &Value, inlet: &str) {
    let supply = told(stats, "PS");
    let supply: Vec<&str> = supply.split(' ').collect();
    for (column, item, factor) in [
        (miner::PSU_ERROR_CODE, 0, 1.0),
        (miner::PSU_OUTPUT_MILLIVOLTS, 2, 10.0),
        (miner::PSU_OUTPUT_MILLIAMPERES, 3, 1000.0),
        (miner::POWER_OUTPUT_MILLIWATTS, 4, 1000.0),
        (miner::POWER_MILLIWATTS, 6, 1000.0),
    ] {
        assert_eq!(*row.cell(column), scaled(supply[item], factor), "PS {item}");
    }
    for (column, key, factor) in [
        (miner::HASHRATE_HASHES_PER_SECOND, "GHSspd", 1e9),
        (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, "GHSmm", 1e9),
        (miner::POWER_LIMIT_MILLIWATTS, "MPO", 1000.0),
        (miner::INLET_TEMP_CELSIUS, inlet, 1.0),
        (miner::CHIP_TEMP_MAX_CELSIUS, "TMax", 1.0),
        (miner::CHIP_TEMP_AVERAGE_CELSIUS, "TAvg", 1.0),
        (miner::FAN_1_RPM, "Fan1", 1.0),
        (miner::FAN_2_RPM, "Fan2", 1.0),
        (miner::FAN_3_RPM, "Fan3", 1.0),
        (miner::FAN_4_RPM, "Fan4", 1.0),
        (miner::FAN_DUTY_PERCENT, "FanR", 1.0),
        (miner::FREQUENCY_KILOHERTZ, "Freq", 1000.0),
        (miner::POOL_PING_MILLISECONDS, "PING", 1.0),
        (miner::ERROR_MASK, "ECMM", 1.0),
    ] {
        assert_eq!(*row.cell(column), scaled(&told(stats, key), factor), "{key}");
    }
}

#[tokio::test]
async fn rows_are_what_the_account_says_was_answered() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246), Unit::new("b", Profile::AvalonQ)]);
    for (poll, (unit, name)) in [(0, "a"), (1, "b"), (0, "a"), (1, "b")].into_iter().enumerate() {
        let reading = site.read(unit).await;
        let reply = |command| last_reply(site.folder.path(), name, command);
        let (summary, stats, pools) = (reply("summary"), reply("stats"), reply("pools"));
        let row = &reading.rows[0];
        assert_eq!((row.status(), state(row)), (row_status::OK, (Some("mining"), None)));
        assert_summary(row, &summary);
        assert_stats(row, &stats, if unit == 0 { "Temp" } else { "ITemp" });
        assert_eq!(text(row, miner::POOL_URL), pools["POOLS"][0]["URL"].as_str());
        for (index, row) in reading.rows[1..].iter().enumerate() {
            for (column, key) in [
                (board::CHIP_TEMPS_CELSIUS, "PVT_T"),
                (board::CHIP_VOLTAGES_MILLIVOLTS, "PVT_V"),
                (board::CHIP_NONCES, "MW"),
            ] {
                // Of chips that answer as before nothing is kept for an hour.
                let wanted = if poll < 2 { list(&told(&stats, &format!("{key}{index}"))) } else { Cell::Null };
                assert_eq!(*row.cell(column), wanted, "{key}{index}");
                assert!(!row.has_failed(column) && !row.is_unsupported(column), "{key}{index}");
            }
            let per_board = |key: &str| told(&stats, key).split(' ').nth(index).unwrap().to_owned();
            assert_eq!(*row.cell(board::HASHRATE_AVERAGE_HASHES_PER_SECOND), scaled(&per_board("MGHS"), 1e9));
            assert_eq!(*row.cell(board::HARDWARE_ERRORS), scaled(&per_board("MH"), 1.0));
        }
        assert_eq!(reading.rows.len(), if unit == 0 { 4 } else { 2 });
    }
}

#[tokio::test]
async fn every_fault_has_its_state_and_reason() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246)]);
    let known = site.read(0).await.rows.remove(0);
    let mut nonsense = None;
    let unreachable = |reason| (Some("unreachable"), Some(reason), row_status::UNREACHABLE);
    for (fault, (state_wanted, reason, status), code) in [
        (Fault::RefuseConnection, unreachable("no answer"), Some(fail_code::UNREACHABLE)),
        (Fault::Hang, unreachable("no answer"), Some(fail_code::DEADLINE)),
        (Fault::Empty, unreachable("no answer"), Some(fail_code::UNREACHABLE)),
        (Fault::SlowDrip, unreachable("partial answer"), Some(fail_code::DEADLINE)),
        (Fault::HalfJson, unreachable("partial answer"), Some(fail_code::UNPARSABLE)),
        (Fault::Stall, unreachable("partial answer"), Some(fail_code::DEADLINE)),
        (Fault::Endless, unreachable("endless answer"), Some(fail_code::UNPARSABLE)),
        (Fault::Garbage, unreachable("unreadable answer"), Some(fail_code::UNPARSABLE)),
        (Fault::AccessDenied, (Some("refused"), Some("access denied"), row_status::PARTIAL), Some(fail_code::REFUSED)),
        (Fault::Http401, (Some("refused"), Some("access denied"), row_status::PARTIAL), Some(fail_code::REFUSED)),
        (Fault::Idle, (Some("sleeping"), Some("standby"), row_status::OK), None),
        (Fault::Overheat, (Some("fault"), Some("overheat"), row_status::OK), None),
        (Fault::NoNul, (Some("mining"), None, row_status::OK), None),
        (Fault::RawNewline, (Some("mining"), None, row_status::OK), None),
        (Fault::TextAfterEnd, (Some("mining"), None, row_status::OK), None),
        (Fault::Nan, (Some("mining"), None, row_status::PARTIAL), Some(fail_code::UNPARSABLE)),
        (Fault::NonsenseSensors, (Some("mining"), None, row_status::PARTIAL), Some(fail_code::OUT_OF_RANGE)),
    ] {
        site.sim.set_fault(0, Some(fault), &[]);
        let began = Instant::now();
        let reading = site.read(0).await;
        assert!(began.elapsed() < TIMEOUT * 3 + Duration::from_millis(500), "{fault:?} took {:?}", began.elapsed());
        let row = &reading.rows[0];
        assert_eq!((state(row), row.status(), row.fail_code()), ((state_wanted, reason), status, code), "{fault:?}");
        let last = reading.events.last().map(|event| event.message.clone()).unwrap_or_default();
        if status == row_status::UNREACHABLE {
            assert_eq!((reading.rows.len(), &reading.lifetime[..]), (1, &[None][..]), "{fault:?}: {last}");
            let all = row.table().columns.iter().filter_map(|column| column.bit).map(|bit| 1i64 << bit).sum::<i64>();
            assert_eq!(row.failed_mask(), all & !bits(row, &[miner::STATE]) & !row.unsupported_mask(), "{fault:?}");
            assert_eq!(row.unsupported_mask(), known.unsupported_mask(), "{fault:?}");
        }
        nonsense = Some(reading);
    }
    let nonsense = nonsense.unwrap();
    let failed = bits(&nonsense.rows[0], &[miner::FAN_1_RPM, miner::CHIP_TEMP_MAX_CELSIUS]);
    assert_eq!(nonsense.rows[0].failed_mask(), failed);
    let Cell::List(temps) = nonsense.rows[1].cell(board::CHIP_TEMPS_CELSIUS) else { panic!("no list") };
    assert_eq!(temps[..3], [Some(0), None, None]);
}

#[tokio::test]
async fn a_command_that_fails_leaves_the_others_their_values() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246)]);
    for (command, lost, code) in [
        ("summary", miner::ACCEPTED_SHARES, fail_code::UNPARSABLE),
        ("stats", miner::POWER_MILLIWATTS, fail_code::UNPARSABLE),
        ("pools", miner::POOL_URL, fail_code::UNPARSABLE),
    ] {
        site.sim.set_fault(0, Some(Fault::HalfJson), &[command]);
        let reading = site.read(0).await;
        let row = &reading.rows[0];
        assert_eq!((state(row), row.status()), ((Some("mining"), None), row_status::PARTIAL), "{command}");
        for column in [miner::ACCEPTED_SHARES, miner::POWER_MILLIWATTS, miner::POOL_URL] {
            assert_eq!(*row.cell(column) == Cell::Null, column == lost, "{command}");
        }
        assert_ne!(row.failed_mask() & bits(row, &[lost]), 0);
        assert_eq!(row.fail_code(), Some(code));
    }
}

#[tokio::test]
async fn a_hung_miner_delays_no_other_and_changes_of_state_are_told_once() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246), Unit::new("b", Profile::Avalon1246)]);
    site.sim.set_fault(0, Some(Fault::Hang), &[]);
    let healthy = async {
        let began = Instant::now();
        let reading = site.read(1).await;
        (reading, began.elapsed())
    };
    let (hung, (healthy, took)) = tokio::join!(site.read(0), healthy);
    assert!(took < TIMEOUT, "{took:?}");
    assert_eq!(state(&healthy.rows[0]).0, Some("mining"));
    assert!(healthy.events.is_empty());
    let told =
        |reading: &Reading| reading.events.iter().filter_map(|event| event.details_json.clone()).collect::<Vec<_>>();
    let details: Value = serde_json::from_str(&told(&hung)[0]).unwrap();
    assert_eq!(
        (&details["from"], &details["to"], &details["reason"]),
        (&Value::Null, &"unreachable".into(), &"no answer".into())
    );
    assert!(told(&site.read(0).await).is_empty());
    site.sim.set_fault(0, None, &[]);
    let back = site.read(0).await;
    let details: Value = serde_json::from_str(&told(&back)[0]).unwrap();
    assert_eq!((&details["from"], &details["to"]), (&"unreachable".into(), &"mining".into()));
    assert!(back.identity.is_some(), "the identity is read again after an absence");
}

#[tokio::test]
async fn another_machine_at_the_address_is_noticed_and_the_identity_is_read_no_oftener_than_needed() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246)]);
    assert!(site.read(0).await.identity.is_some());
    assert!(site.read(0).await.identity.is_none());
    site.sim.replace(0, "0201000012345678", "02:00:00:00:00:07");
    let identity = site.read(0).await.identity.unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("avalon:0201000012345678"));
    assert_eq!(site.sim.calls(0), 3 * 3 + 2, "three commands a poll and `version` twice");
}

#[tokio::test]
async fn users_and_passwords_of_pools_get_nowhere() {
    let url = "stratum+tcp://worker.7:hunter2@pool.example.com:3333/key?token=hunter2";
    let site = Site::new(vec![Unit { pool_url: Some(url.to_owned()), ..Unit::new("a", Profile::Avalon1246) }]);
    let reading = site.read(0).await;
    assert_eq!(text(&reading.rows[0], miner::POOL_URL), Some("stratum+tcp://pool.example.com:3333"));
    let kept = text(&reading.rows[0], miner::REPLY_JSON).unwrap();
    assert!(kept.contains("pool.example.com") && !kept.contains("hunter2") && !kept.contains("worker.7"), "{kept}");
    for fault in [Fault::HalfJson, Fault::Garbage, Fault::AccessDenied, Fault::TextAfterEnd] {
        site.sim.set_fault(0, Some(fault), &["pools"]);
        let all = format!("{:?}", site.read(0).await);
        assert!(!all.contains("hunter2") && !all.contains("worker"), "{fault:?}: {all}");
    }
}

#[tokio::test]
async fn a_miner_that_stays_silent_is_waited_for_less_and_comes_back_at_once() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246)]);
    site.read(0).await;
    site.sim.set_fault(0, Some(Fault::Hang), &[]);
    let calls = |site: &Site| site.sim.calls(0);
    let mut asked = Vec::new();
    for _ in 0..5 {
        let before = calls(&site);
        let reading = site.read(0).await;
        assert_eq!(state(&reading.rows[0]), (Some("unreachable"), Some("no answer")));
        assert_eq!(reading.rows[0].status(), row_status::UNREACHABLE);
        asked.push(calls(&site) - before);
    }
    assert!(asked[0] > 1 && asked[3..] == [1, 1], "one command is enough for a silent miner: {asked:?}");
    site.sim.set_fault(0, None, &[]);
    assert_eq!(state(&site.read(0).await.rows[0]), (Some("mining"), None));
}

#[tokio::test]
async fn miners_that_hang_leave_connections_to_those_that_answer() {
    let units = (0..12).map(|i| Unit::new(format!("m{i}").as_str(), Profile::AvalonQ)).collect();
    let mut site = Site::new(units);
    site.limit_connections(4);
    for hung in 0..8 {
        site.sim.set_fault(hung, Some(Fault::Hang), &[]);
    }
    for _ in 0..3 {
        futures::future::join_all((0..8).map(|hung| site.read(hung))).await;
    }
    let began = Instant::now();
    let healthy = async {
        futures::future::join_all((8..12).map(|unit| site.read(unit))).await;
        began.elapsed()
    };
    let (_, healthy) = tokio::join!(futures::future::join_all((0..8).map(|hung| site.read(hung))), healthy);
    let all = began.elapsed();
    assert!(healthy * 2 < all, "healthy ones took {healthy:?} of {all:?}");
}

#[tokio::test]
async fn a_command_that_is_answered_without_end_is_an_event_though_the_miner_mines_on() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246)]);
    site.read(0).await;
    site.sim.set_fault(0, Some(Fault::Endless), &["pools"]);
    let reading = site.read(0).await;
    assert_eq!(state(&reading.rows[0]), (Some("mining"), None));
    let [event] = &reading.events[..] else { panic!("{:?}", reading.events) };
    assert_eq!(event.event, "miner_reply_unreadable");
    assert!(event.message.ends_with("no reply to pools that can be read: endless answer"), "{}", event.message);
    assert!(site.read(0).await.events.is_empty());
}

#[tokio::test]
async fn configured_miners_are_there_whether_they_answer_or_not() {
    let site = Site::new(vec![Unit::new("a", Profile::Avalon1246)]);
    site.sim.set_fault(0, Some(Fault::RefuseConnection), &[]);
    let found = site.source.discover().await.unwrap();
    assert_eq!(found[0].address, site.sim.addresses()[0].to_string());
    assert_eq!((found[0].rack.as_deref(), &found[0].identity), (Some("r7"), &None));
    assert_eq!(site.sim.calls(0), 0);
    assert_eq!(site.source.read("nowhere:1", &MINER_SAMPLE).await.rows[0].status(), row_status::UNREACHABLE);
}
