//! Braiins OS+ of 2025 on an Antminer S19 XP: REST with a session token, and the version on cgminer's port.

use super::{Firmware, Login, Question, Transport, question, recorded};
use crate::body::{Build, Moment, Work};
use crate::fault::Fault;
use crate::template::{Hole, list, quoted, tenths, whole};

pub(super) static REST: Firmware = Firmware {
    build: Build {
        boards: 3,
        chips: 110,
        board_ghs: 40_000.0,
        megahertz: 404.0,
        watts: 2472.0,
        volts: 12.606,
        fans_rpm: [5879.0, 5819.0, 5909.0, 5909.0],
        chip_celsius: 63.0,
        pcb_celsius: 55.0,
        inlet_celsius: 42.0,
        difficulty: 131_072.0,
        accepted: 5048,
        uptime: 20_359,
        pool_url: "stratum+tcp://example.pool.com:3333",
    },
    login: Login::Token,
    questions: &[
        Question {
            counts: true,
            ..question(Transport::Http, "/api/v1/miner/stats", recorded!("braiins/v25_11/miner_stats"), &[STATS])
        },
        question(Transport::Http, "/api/v1/miner/details", recorded!("braiins/v25_11/miner_details"), &[DETAILS]),
        question(
            Transport::Http,
            "/api/v1/miner/hw/hashboards",
            recorded!("braiins/v25_11/miner_hw_hashboards"),
            &[BOARDS],
        ),
        question(Transport::Http, "/api/v1/miner/errors", r#"{"errors":[]}"#, &[ERRORS]),
        question(Transport::Http, "/api/v1/cooling/state", recorded!("braiins/v25_11/cooling_state"), &[COOLING]),
        question(Transport::Http, "/api/v1/pools", recorded!("braiins/v25_11/pools"), &[POOLS]),
        question(Transport::Http, "/api/v1/pools/", recorded!("braiins/v25_11/pools"), &[POOLS]),
        question(
            Transport::Http,
            "/api/v1/performance/tuner-state",
            recorded!("braiins/v25_11/performance_tuner_state"),
            &[],
        ),
        question(Transport::Http, "/api/v1/configuration/miner", recorded!("braiins/v25_11/configuration_miner"), &[]),
        question(Transport::Http, "/api/v1/network", recorded!("braiins/v25_11/network"), &[NETWORK]),
        question(Transport::Http, "/api/v1/network/", recorded!("braiins/v25_11/network"), &[NETWORK]),
        question(Transport::Http, "/api/v1/version", recorded!("braiins/v25_11/version"), &[]),
        question(Transport::Http, "/api/v1/version/", recorded!("braiins/v25_11/version"), &[]),
        question(Transport::Http, "/api/v1/actions/locate", recorded!("braiins/v25_11/actions_locate"), &[]),
        question(Transport::Rpc, "version", recorded!("braiins/v25_05/version"), &[WHEN]),
        question(Transport::Rpc, "devdetails", DEVDETAILS, &[WHEN]),
    ],
};

/// To cgminer's shape; not recorded.
const DEVDETAILS: &str = r#"{"STATUS":[{"STATUS":"S","When":0,"Code":69,"Msg":"3 Device Details","Description":"BOSer boser-buildroot"}],
"DEVDETAILS":[{"DEVDETAILS":0,"Name":"","ID":1,"Driver":"","Kernel":"","Model":"Antminer S19 XP","Chips":110},
{"DEVDETAILS":1,"Name":"","ID":2,"Driver":"","Kernel":"","Model":"Antminer S19 XP","Chips":110},
{"DEVDETAILS":2,"Name":"","ID":3,"Driver":"","Kernel":"","Model":"Antminer S19 XP","Chips":110}],"id":1}"#;

const WHEN: &[Hole] = &[("/STATUS/0/When", |m, _| whole(m.clock))];

const STATS: &[Hole] = &[
    ("/pool_stats/accepted_shares", |m, _| whole(m.accepted)),
    ("/pool_stats/rejected_shares", |m, _| whole(m.rejected)),
    ("/pool_stats/stale_shares", |m, _| whole(m.stale)),
    ("/power_stats/approximated_consumption/watt", |m, _| whole(m.watts as i64)),
    ("/miner_stats/real_hashrate/last_5s/gigahash_per_second", |m, _| long(m.ghs(0, 0.02))),
    ("/miner_stats/real_hashrate/last_1m/gigahash_per_second", |m, _| long(m.ghs(1, 0.01))),
    ("/miner_stats/real_hashrate/last_5m/gigahash_per_second", |m, _| long(m.ghs(2, 0.005))),
    ("/miner_stats/real_hashrate/last_15m/gigahash_per_second", |m, _| long(m.ghs(3, 0.004))),
    ("/miner_stats/real_hashrate/last_30m/gigahash_per_second", |m, _| long(m.ghs(4, 0.003))),
    ("/miner_stats/real_hashrate/last_1h/gigahash_per_second", |m, _| long(m.ghs(5, 0.002))),
    ("/miner_stats/real_hashrate/last_24h/gigahash_per_second", |m, _| long(m.ghs(6, 0.001))),
    ("/miner_stats/real_hashrate/since_restart/gigahash_per_second", |m, _| long(m.ghs(7, 0.001))),
];

const DETAILS: &[Hole] = &[
    ("/bosminer_uptime_s", |m, _| whole(m.uptime)),
    ("/system_uptime", |m, _| whole(m.uptime + 1000)),
    ("/system_uptime_s", |m, _| whole(m.uptime + 1000)),
    ("/serial_number", |m, _| quoted(&m.serial)),
    ("/mac_address", |m, _| quoted(&m.mac)),
    ("/status", |m, _| {
        whole(match m.work {
            Work::Working | Work::NoPool | Work::Starting => 2,
            Work::Asleep => 1,
            Work::Curtailed => 3,
            Work::Overheated => 4,
        })
    }),
];

const BOARDS: &[Hole] = &[
    ("/hashboards/#/enabled", |m, b| whole(m.boards[b].alive)),
    ("/hashboards/#/chips_count", |m, b| whole(m.boards[b].found())),
    ("/hashboards/#/serial_number", |m, b| quoted(&format!("{}B{b}", m.serial))),
    ("/hashboards/#/board_temp/degree_c", |m, b| tenths(m.boards[b].pcb_celsius)),
    ("/hashboards/#/highest_chip_temp/temperature/degree_c", |m, b| tenths(m.chip_max(b))),
    ("/hashboards/#/highest_outlet_temp/degree_c", |m, b| tenths(m.boards[b].pcb_celsius)),
    ("/hashboards/#/lowest_inlet_temp/degree_c", |m, _| tenths(m.inlet_celsius)),
    ("/hashboards/#/current_voltage/volt", |m, b| long(m.boards[b].volts)),
    ("/hashboards/#/current_frequency/hertz", |m, b| tenths(m.boards[b].megahertz * 1e6)),
    ("/hashboards/#/stats/real_hashrate/last_5s/gigahash_per_second", |m, b| long(m.board_ghs(b, 0, 0.02))),
    ("/hashboards/#/stats/real_hashrate/last_1m/gigahash_per_second", |m, b| long(m.board_ghs(b, 1, 0.01))),
    ("/hashboards/#/stats/real_hashrate/last_5m/gigahash_per_second", |m, b| long(m.board_ghs(b, 2, 0.005))),
    ("/hashboards/#/stats/real_hashrate/last_15m/gigahash_per_second", |m, b| long(m.board_ghs(b, 3, 0.004))),
    ("/hashboards/#/stats/real_hashrate/since_restart/gigahash_per_second", |m, b| long(m.board_ghs(b, 7, 0.001))),
];

const ERRORS: &[Hole] = &[("/errors", |m, _| {
    let mut raised: Vec<(String, &str)> = m.errors.iter().map(|code| (format!("{code}"), "simulated error")).collect();
    match m.fault {
        Some(Fault::Overheat) => raised.push(("40".to_owned(), "Hash board overheated")),
        Some(Fault::FanStuck) => raised.push(("30".to_owned(), "Fan is not working")),
        _ => {}
    }
    let one = |(code, message): (String, &str)| {
        format!(
            r#"{{"timestamp":"2026-01-15T10:30:00.000000Z","message":"{message}","error_codes":[{{"code":"{code}","reason":"{message}","hint":null}}],"components":[]}}"#
        )
    };
    list(raised.into_iter().map(one))
})];

const COOLING: &[Hole] = &[
    ("/fans/0/rpm", |m, _| whole(m.fans_rpm[0])),
    ("/fans/1/rpm", |m, _| whole(m.fans_rpm[1])),
    ("/fans/2/rpm", |m, _| whole(m.fans_rpm[2])),
    ("/fans/3/rpm", |m, _| whole(m.fans_rpm[3])),
    ("/fans/0/target_speed_ratio", ratio),
    ("/fans/1/target_speed_ratio", ratio),
    ("/fans/2/target_speed_ratio", ratio),
    ("/fans/3/target_speed_ratio", ratio),
    ("/highest_temperature/temperature/degree_c", |m, _| tenths(m.chip_max(0))),
];

const POOLS: &[Hole] = &[
    ("/0/pools/0/stats/accepted_shares", |m, _| whole(m.accepted)),
    ("/0/pools/0/stats/rejected_shares", |m, _| whole(m.rejected)),
    ("/0/pools/0/stats/stale_shares", |m, _| whole(m.stale)),
    ("/0/pools/0/url", |m, _| quoted(&m.pool_url)),
    ("/0/pools/0/active", |m, _| whole(m.has_pool())),
    ("/0/pools/0/alive", |m, _| whole(m.has_pool())),
    ("/0/pools/1/alive", |m, _| whole(m.has_pool())),
];

const NETWORK: &[Hole] = &[("/mac_address", |m, _| quoted(&m.mac))];

fn ratio(m: &Moment, _: usize) -> String {
    format!("{:.2}", m.fan_percent as f64 / 100.0)
}

/// As long as the firmware prints them.
fn long(value: f64) -> String {
    format!("{value:.9}")
}
