//! Stock Antminer S19 Pro: cgminer's port and a web interface with digest authentication.

use super::{Firmware, Login, Question, Transport, question, recorded};
use crate::body::{Board, Build, Moment, Work};
use crate::template::{Hole, hundredths, list, quoted, whole};

/// What a fan that stands still tells.
const STANDS_STILL: i64 = 0;

pub(super) static S19_PRO: Firmware = Firmware {
    build: Build {
        boards: 3,
        chips: 114,
        board_ghs: 36_855.0,
        megahertz: 525.0,
        watts: 3250.0,
        volts: 13.8,
        fans_rpm: [6000.0, 5880.0, 5040.0, 5040.0],
        chip_celsius: 64.0,
        pcb_celsius: 58.0,
        inlet_celsius: 27.0,
        difficulty: 524_288.0,
        accepted: 4057,
        uptime: 50_474,
        pool_url: "stratum+tcp://btc.global.luxor.tech:700",
    },
    login: Login::Digest,
    questions: &[
        Question {
            counts: true,
            ..question(Transport::Rpc, "summary", recorded!("antminer/v2020/summary"), &[WHEN, SUMMARY])
        },
        question(Transport::Rpc, "stats", recorded!("antminer/v2020/stats"), &[WHEN, STATS]),
        question(Transport::Rpc, "pools", recorded!("antminer/v2020/pools"), &[WHEN, POOLS]),
        question(Transport::Rpc, "devs", recorded!("antminer/v2020/devs"), &[WHEN]),
        question(Transport::Rpc, "version", recorded!("antminer/v2020/version"), &[WHEN]),
        question(Transport::Http, "/cgi-bin/get_system_info.cgi", recorded!("antminer/v2020/system_info"), &[SYSTEM]),
        question(Transport::Http, "/cgi-bin/get_miner_conf.cgi", MINER_CONF, &[CONF]),
        question(Transport::Http, "/cgi-bin/summary.cgi", WEB_SUMMARY, &[SUMMARY_CGI]),
        question(Transport::Http, "/cgi-bin/stats.cgi", WEB_STATS, &[STATS_CGI]),
        question(
            Transport::Http,
            "/cgi-bin/miner_type.cgi",
            r#"{"miner_type":"Antminer S19 Pro","subtype":"CVCtrl_BHB42XXX","fw_version":"49.0.1.3"}"#,
            &[],
        ),
        question(Transport::Http, "/cgi-bin/get_blink_status.cgi", r#"{"blink":false}"#, &[]),
    ],
};

const WHEN: &[Hole] = &[("/STATUS/0/When", |m, _| whole(m.clock))];

const SUMMARY: &[Hole] = &[
    ("/SUMMARY/0/Accepted", |m, _| whole(m.accepted)),
    ("/SUMMARY/0/Rejected", |m, _| whole(m.rejected)),
    ("/SUMMARY/0/Stale", |m, _| whole(m.stale)),
    ("/SUMMARY/0/Difficulty Accepted", |m, _| hundredths(m.accepted as f64 * m.build.difficulty)),
    ("/SUMMARY/0/Difficulty Rejected", |m, _| hundredths(m.rejected as f64 * m.build.difficulty)),
    ("/SUMMARY/0/Difficulty Stale", |m, _| hundredths(m.stale as f64 * m.build.difficulty)),
    ("/SUMMARY/0/Hardware Errors", |m, _| whole(m.hardware_errors())),
    ("/SUMMARY/0/Discarded", |m, _| whole(m.accepted * 1116)),
    ("/SUMMARY/0/Elapsed", |m, _| whole(m.uptime)),
    ("/SUMMARY/0/GHS 5s", |m, _| hundredths(m.ghs(0, 0.02))),
    ("/SUMMARY/0/GHS av", |m, _| hundredths(m.ghs(1, 0.001))),
    ("/SUMMARY/0/GHS 30m", |m, _| hundredths(m.ghs(2, 0.004))),
];

const STATS: &[Hole] = &[
    ("/STATS/1/Elapsed", |m, _| whole(m.uptime)),
    ("/STATS/1/GHS 5s", |m, _| hundredths(m.ghs(0, 0.02))),
    ("/STATS/1/GHS av", |m, _| hundredths(m.ghs(1, 0.001))),
    ("/STATS/1/total rate", |m, _| hundredths(m.ghs(1, 0.001))),
    ("/STATS/1/rate_30m", |m, _| hundredths(m.ghs(2, 0.004))),
    ("/STATS/1/fan1", |m, _| whole(m.fans_rpm[0])),
    ("/STATS/1/fan2", |m, _| whole(m.fans_rpm[1])),
    ("/STATS/1/fan3", |m, _| whole(m.fans_rpm[2])),
    ("/STATS/1/fan4", |m, _| whole(m.fans_rpm[3])),
    ("/STATS/1/no_matching_work", |m, _| whole(m.hardware_errors())),
    ("/STATS/1/total_acn", |m, _| whole(m.boards.iter().map(Board::found).sum::<usize>())),
    ("/STATS/1/miner_id", |m, _| quoted(&m.mac.replace(':', ""))),
    ("/STATS/1/chain_acn@", |m, b| whole(m.boards[b].found())),
    ("/STATS/1/chain_acs@", |m, b| quoted(&chip_map(&m.boards[b]))),
    ("/STATS/1/chain_hw@", |m, b| whole(m.boards[b].hardware_errors)),
    ("/STATS/1/chain_rate@", |m, b| quoted(&hundredths(m.board_ghs(b, 0, 0.01)))),
    ("/STATS/1/temp_chip@", |m, b| quoted(&sensors(m, b, 1.0))),
    ("/STATS/1/temp_pcb@", |m, b| quoted(&sensors(m, b, 0.9))),
    ("/STATS/1/temp_pic@", |m, b| quoted(&sensors(m, b, 0.8))),
    ("/STATS/1/temp@", |m, b| whole(m.boards[b].pcb_celsius as i64)),
    ("/STATS/1/temp2_@", |m, b| whole(m.boards[b].chip_celsius as i64)),
];

const POOLS: &[Hole] = &[
    ("/POOLS/0/Accepted", |m, _| whole(m.accepted)),
    ("/POOLS/0/Rejected", |m, _| whole(m.rejected)),
    ("/POOLS/0/Stale", |m, _| whole(m.stale)),
    ("/POOLS/0/URL", |m, _| quoted(&m.pool_url)),
    ("/POOLS/0/Stratum Active", |m, _| whole(m.has_pool())),
    ("/POOLS/0/Status", |m, _| alive(m)),
    ("/POOLS/1/Status", |m, _| alive(m)),
    ("/POOLS/2/Status", |m, _| alive(m)),
];

const SYSTEM: &[Hole] = &[
    ("/serinum", |m, _| quoted(&m.serial)),
    ("/macaddr", |m, _| quoted(&m.mac)),
    ("/minertype", |_, _| quoted("Antminer S19 Pro")),
];

/// To the shape of the firmware's own configuration; not recorded.
const MINER_CONF: &str = r#"{"pools":[{"url":"","user":"farm.worker","pass":"x"}],"api-listen":true,"api-network":true,
"api-groups":"A:stats:pools:devs:summary:version","api-allow":"A:0/0,W:*","bitmain-fan-ctrl":false,"bitmain-fan-pwm":"100",
"bitmain-use-vil":true,"bitmain-freq":"525","bitmain-voltage":"1380","bitmain-ccdelay":"1","bitmain-pwth":"1",
"bitmain-work-mode":"0","bitmain-freq-level":"100"}"#;

const CONF: &[Hole] = &[
    ("/pools/0/url", |m, _| quoted(&m.pool_url)),
    ("/bitmain-work-mode", |m, _| quoted(if matches!(m.work, Work::Asleep | Work::Curtailed) { "1" } else { "0" })),
];

/// To the shape that the web interface of 2020 answers with, with the values of the recorded machine; not recorded.
const WEB_SUMMARY: &str = r#"{"STATUS":{"STATUS":"S","when":0,"Msg":"summary","api_version":"1.0.0"},
"INFO":{"miner_version":"49.0.1.3","CompileTime":"Tue Dec  6 16:12:30 CST 2022","type":"Antminer S19 Pro"},
"SUMMARY":[{"elapsed":0,"rate_5s":0,"rate_30m":0,"rate_avg":0,"rate_ideal":110000.0,"rate_unit":"GH/s","hw_all":0,
"bestshare":12904207043,"status":[{"type":"rate","status":"s","code":0,"msg":""},{"type":"network","status":"s","code":0,
"msg":""},{"type":"fans","status":"s","code":0,"msg":""},{"type":"temp","status":"s","code":0,"msg":""}]}]}"#;

const SUMMARY_CGI: &[Hole] = &[
    ("/STATUS/when", |m, _| whole(m.clock)),
    ("/SUMMARY/0/elapsed", |m, _| whole(m.uptime)),
    ("/SUMMARY/0/rate_5s", |m, _| hundredths(m.ghs(0, 0.02))),
    ("/SUMMARY/0/rate_30m", |m, _| hundredths(m.ghs(2, 0.004))),
    ("/SUMMARY/0/rate_avg", |m, _| hundredths(m.ghs(1, 0.001))),
    ("/SUMMARY/0/hw_all", |m, _| whole(m.hardware_errors())),
    ("/SUMMARY/0/status", |m, _| {
        let is_wrong = |kind: &str| match kind {
            "rate" => matches!(m.work, Work::NoPool | Work::Overheated),
            "network" => m.work == Work::NoPool,
            "fans" => m.fans_rpm.contains(&STANDS_STILL),
            _ => m.work == Work::Overheated,
        };
        list(["rate", "network", "fans", "temp"].map(|kind| {
            let (status, code, message) = match (is_wrong(kind), kind) {
                (false, _) => ("s", 0, ""),
                (true, "temp") => ("e", 1, "temp too high"),
                (true, "fans") => ("e", 1, "fan lost"),
                (true, _) => ("e", 1, "error"),
            };
            format!(r#"{{"type":"{kind}","status":"{status}","code":{code},"msg":"{message}"}}"#)
        }))
    }),
];

/// To the shape that the web interface of 2020 answers with; not recorded.
const WEB_STATS: &str = r#"{"STATUS":{"STATUS":"S","when":0,"Msg":"stats","api_version":"1.0.0"},
"INFO":{"miner_version":"49.0.1.3","CompileTime":"Tue Dec  6 16:12:30 CST 2022","type":"Antminer S19 Pro"},
"STATS":[{"elapsed":0,"rate_5s":0,"rate_30m":0,"rate_avg":0,"rate_ideal":110000.0,"rate_unit":"GH/s","chain_num":3,
"fan_num":4,"fan":[],"hwp_total":0.0,"miner-mode":0,"freq-level":100,"watt":0,"chain":[]}]}"#;

const STATS_CGI: &[Hole] = &[
    ("/STATUS/when", |m, _| whole(m.clock)),
    ("/STATS/0/elapsed", |m, _| whole(m.uptime)),
    ("/STATS/0/rate_5s", |m, _| hundredths(m.ghs(0, 0.02))),
    ("/STATS/0/rate_30m", |m, _| hundredths(m.ghs(2, 0.004))),
    ("/STATS/0/rate_avg", |m, _| hundredths(m.ghs(1, 0.001))),
    ("/STATS/0/watt", |m, _| whole(m.watts as i64)),
    ("/STATS/0/miner-mode", |m, _| whole(i32::from(matches!(m.work, Work::Asleep | Work::Curtailed)))),
    ("/STATS/0/fan", |m, _| list(m.fans_rpm.iter().map(whole))),
    ("/STATS/0/chain", |m, _| list((0..m.boards.len()).map(|board| chain(m, board)))),
];

fn chain(m: &Moment, index: usize) -> String {
    let board = &m.boards[index];
    let temps = |share: f64| format!("[{}]", sensors(m, index, share).replace('-', ","));
    format!(
        r#"{{"index":{index},"freq_avg":525,"rate_ideal":36670.0,"rate_real":{:.2},"asic_num":{},"asic":{},"temp_pic":{},"temp_pcb":{},"temp_chip":{},"hw":{},"eeprom_loaded":true,"sn":"PCB{}{index}"}}"#,
        m.board_ghs(index, 0, 0.01),
        board.found(),
        quoted(&chip_map(board)),
        temps(0.8),
        temps(0.9),
        temps(1.0),
        board.hardware_errors,
        m.serial,
    )
}

/// ` ooo oxo`: a mark per chip in groups of three.
fn chip_map(board: &Board) -> String {
    if !board.alive {
        return String::new();
    }
    let group = |chips: &[bool]| chips.iter().map(|ok| if *ok { 'o' } else { 'x' }).collect::<String>();
    board.chips.chunks(3).map(|chips| format!(" {}", group(chips))).collect()
}

/// Four sensors in one string.
fn sensors(m: &Moment, index: usize, share: f64) -> String {
    let board = &m.boards[index];
    if !board.alive {
        return "0-0-0-0".to_owned();
    }
    let nonsense = m.fault == Some(crate::Fault::NonsenseSensors) && index == 0;
    let places = [6.0, -18.0, 0.0, 2.0].map(|by| ((board.chip_celsius + by) * share) as i64);
    let places = if nonsense { [places[0], 255, 0, places[3]] } else { places };
    places.map(|celsius| celsius.to_string()).join("-")
}

fn alive(m: &Moment) -> String {
    quoted(if m.has_pool() { "Alive" } else { "Dead" })
}
