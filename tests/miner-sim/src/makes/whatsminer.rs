//! Whatsminer: version 2 of its interface on cgminer's port, and version 3 behind a length.

use super::{Firmware, Login, Question, Transport, question, recorded};
use crate::body::{Build, Moment, Work};
use crate::fault::Fault;
use crate::template::{Hole, list, quoted, tenths, whole};

pub(super) static V2: Firmware = Firmware {
    build: Build {
        boards: 3,
        chips: 135,
        board_ghs: 41_600.0,
        megahertz: 600.0,
        watts: 3200.0,
        volts: 12.9,
        fans_rpm: [5400.0, 5280.0, 0.0, 0.0],
        chip_celsius: 72.0,
        pcb_celsius: 65.0,
        inlet_celsius: 28.5,
        difficulty: 65_536.0,
        accepted: 5412,
        uptime: 25_000,
        pool_url: "stratum+tcp://btc.example.pool:3333",
    },
    login: Login::Open,
    questions: &[
        Question {
            counts: true,
            ..question(Transport::Rpc, "summary", recorded!("whatsminer/v2/summary"), &[WHEN, SUMMARY])
        },
        question(Transport::Rpc, "devs", recorded!("whatsminer/v2/devs"), &[WHEN, DEVS]),
        question(Transport::Rpc, "edevs", recorded!("whatsminer/v2/devs"), &[WHEN, DEVS]),
        question(Transport::Rpc, "pools", recorded!("whatsminer/v2/pools"), &[WHEN, POOLS]),
        question(Transport::Rpc, "status", recorded!("whatsminer/v2/status"), &[OWN_WHEN, STATUS]),
        question(Transport::Rpc, "get_error_code", recorded!("whatsminer/v2/get_error_code"), &[OWN_WHEN, ERRORS]),
        question(Transport::Rpc, "get_psu", recorded!("whatsminer/v2/get_psu"), &[OWN_WHEN, PSU]),
        question(Transport::Rpc, "get_version", recorded!("whatsminer/v2/get_version"), &[OWN_WHEN]),
        question(Transport::Rpc, "get_miner_info", recorded!("whatsminer/v2/get_miner_info"), &[OWN_WHEN, INFO]),
        question(Transport::Rpc, "version", VERSION, &[WHEN]),
        question(Transport::Rpc, "devdetails", DEVDETAILS, &[WHEN]),
    ],
};

/// To cgminer's shape; not recorded.
const VERSION: &str = r#"{"STATUS":[{"STATUS":"S","When":0,"Code":22,"Msg":"CGMiner versions","Description":"cgminer 4.9.2"}],
"VERSION":[{"CGMiner":"4.9.2","API":"3.7"}],"id":1}"#;
/// To cgminer's shape; not recorded.
const DEVDETAILS: &str = r#"{"STATUS":[{"STATUS":"S","When":0,"Code":69,"Msg":"Device Details","Description":"cgminer 4.9.2"}],
"DEVDETAILS":[{"DEVDETAILS":0,"Name":"SM","ID":0,"Driver":"bitmicro","Kernel":"","Model":"M30S+_VE40"},
{"DEVDETAILS":1,"Name":"SM","ID":1,"Driver":"bitmicro","Kernel":"","Model":"M30S+_VE40"},
{"DEVDETAILS":2,"Name":"SM","ID":2,"Driver":"bitmicro","Kernel":"","Model":"M30S+_VE40"}],"id":1}"#;

const WHEN: &[Hole] = &[("/STATUS/0/When", |m, _| whole(m.clock))];
const OWN_WHEN: &[Hole] = &[("/When", |m, _| whole(m.clock))];

const SUMMARY: &[Hole] = &[
    ("/SUMMARY/0/Accepted", |m, _| whole(m.accepted)),
    ("+/SUMMARY/0/Rejected", |m, _| whole(m.rejected)),
    ("/SUMMARY/0/Elapsed", |m, _| whole(m.uptime)),
    ("/SUMMARY/0/Uptime", |m, _| whole(m.uptime + 500)),
    ("/SUMMARY/0/MHS av", |m, _| tenths(m.ghs(0, 0.001) * 1000.0)),
    ("+/SUMMARY/0/MHS 5s", |m, _| tenths(m.ghs(1, 0.02) * 1000.0)),
    ("+/SUMMARY/0/MHS 1m", |m, _| tenths(m.ghs(2, 0.01) * 1000.0)),
    ("+/SUMMARY/0/MHS 5m", |m, _| tenths(m.ghs(3, 0.004) * 1000.0)),
    ("+/SUMMARY/0/MHS 15m", |m, _| tenths(m.ghs(4, 0.002) * 1000.0)),
    ("/SUMMARY/0/HS RT", |m, _| tenths(m.ghs(5, 0.02) * 1000.0)),
    ("/SUMMARY/0/Chip Temp Avg", |m, _| tenths(m.boards[0].chip_celsius)),
    ("/SUMMARY/0/Chip Temp Max", |m, _| tenths(hottest(m))),
    ("/SUMMARY/0/Chip Temp Min", |m, _| tenths(m.boards[0].chip_celsius - 10.0)),
    ("/SUMMARY/0/Env Temp", |m, _| tenths(m.inlet_celsius)),
    ("/SUMMARY/0/Fan Speed In", |m, _| whole(m.fans_rpm[0])),
    ("/SUMMARY/0/Fan Speed Out", |m, _| whole(m.fans_rpm[1])),
    ("+/SUMMARY/0/Power Fanspeed", |m, _| whole(if m.hashes() { 6000 + m.polls % 50 } else { 0 })),
    ("/SUMMARY/0/Power", |m, _| whole(m.watts as i64)),
    ("/SUMMARY/0/MAC", |m, _| quoted(&m.mac.to_uppercase())),
];

const DEVS: &[Hole] = &[
    ("/DEVS/#/Accepted", |m, b| whole(m.accepted / 3 + b as i64)),
    ("/DEVS/#/Rejected", |m, b| whole(m.rejected / (b as i64 + 1))),
    ("/DEVS/#/Device Elapsed", |m, _| whole(m.uptime)),
    ("/DEVS/#/Effective Chips", |m, b| whole(m.boards[b].found())),
    ("/DEVS/#/MHS av", |m, b| tenths(m.board_ghs(b, 0, 0.001) * 1000.0)),
    ("+/DEVS/#/MHS 5s", |m, b| tenths(m.board_ghs(b, 1, 0.02) * 1000.0)),
    ("+/DEVS/#/MHS 1m", |m, b| tenths(m.board_ghs(b, 2, 0.01) * 1000.0)),
    ("+/DEVS/#/MHS 5m", |m, b| tenths(m.board_ghs(b, 3, 0.004) * 1000.0)),
    ("+/DEVS/#/MHS 15m", |m, b| tenths(m.board_ghs(b, 4, 0.002) * 1000.0)),
    ("/DEVS/#/Chip Temp Avg", |m, b| tenths(m.boards[b].chip_celsius)),
    ("/DEVS/#/Chip Temp Max", |m, b| tenths(m.chip_max(b))),
    ("/DEVS/#/Chip Temp Min", |m, b| tenths(m.boards[b].chip_celsius - 9.0)),
    ("/DEVS/#/Temperature", |m, b| tenths(m.boards[b].pcb_celsius)),
    ("/DEVS/#/PCB SN", |m, b| quoted(&format!("{}B{b}", m.serial))),
    ("/DEVS/#/Status", |m, b| quoted(if m.boards[b].alive { "Alive" } else { "Dead" })),
    ("/DEVS/#/Fan Speed In", |m, _| whole(m.fans_rpm[0])),
    ("/DEVS/#/Fan Speed Out", |m, _| whole(m.fans_rpm[1])),
];

const POOLS: &[Hole] = &[
    ("/POOLS/0/Accepted", |m, _| whole(m.accepted)),
    ("/POOLS/0/Rejected", |m, _| whole(m.rejected)),
    ("/POOLS/0/URL", |m, _| quoted(&m.pool_url)),
    ("/POOLS/0/Stratum Active", |m, _| whole(m.has_pool())),
    ("/POOLS/0/Status", |m, _| alive(m)),
    ("/POOLS/1/Status", |m, _| alive(m)),
    ("/POOLS/2/Status", |m, _| alive(m)),
];

const STATUS: &[Hole] = &[
    ("/Msg/mineroff", |m, _| quoted(if is_off(m) { "true" } else { "false" })),
    ("/Msg/mineroff_reason", |m, _| {
        quoted(match m.work {
            Work::Asleep => "power off by api",
            Work::Curtailed => "demand response",
            Work::Overheated => "over temperature",
            _ => "",
        })
    }),
];

const ERRORS: &[Hole] = &[("/Msg/error_code", |m, _| {
    list(codes(m).into_iter().map(|code| format!(r#"{{"{code}":"2026-01-15 10:30:00"}}"#)))
})];

const PSU: &[Hole] = &[
    ("/Msg/fan_speed", |m, _| quoted(&whole(if m.hashes() { 6000 + m.polls % 50 } else { 0 }))),
    ("+/Msg/iin", |m, _| quoted(&whole((m.watts / 223.75 * 1000.0) as i64))),
    ("+/Msg/vin", |_, _| quoted("22375")),
    ("+/Msg/temp0", |m, _| quoted(&tenths(m.inlet_celsius + 8.0))),
    ("+/Msg/serial_no", |m, _| quoted(&format!("PSU{}", m.serial))),
    ("+/Msg/vendor", |_, _| quoted("7")),
];

const INFO: &[Hole] = &[
    ("/Msg/mac", |m, _| quoted(&m.mac.to_uppercase())),
    ("+/Msg/minersn", |m, _| quoted(&m.serial)),
    ("+/Msg/powersn", |m, _| quoted(&format!("PSU{}", m.serial))),
];

pub(super) static V3: Firmware = Firmware {
    build: Build { boards: 3, chips: 75, board_ghs: 57_100.0, megahertz: 625.0, ..V2_BUILD },
    login: Login::Open,
    questions: &[
        question(Transport::Framed, "get.device.info", recorded!("whatsminer/v3/get_device_info"), &[WHEN_3, INFO_3]),
        Question {
            parameter: "summary",
            ..question(
                Transport::Framed,
                "get.miner.status",
                recorded!("whatsminer/v3/get_miner_status_summary"),
                &[WHEN_3, SUMMARY_3],
            )
        },
        Question {
            parameter: "edevs",
            ..question(
                Transport::Framed,
                "get.miner.status",
                recorded!("whatsminer/v3/get_miner_status_edevs"),
                &[WHEN_3, EDEVS_3],
            )
        },
        Question {
            parameter: "pools",
            ..question(
                Transport::Framed,
                "get.miner.status",
                recorded!("whatsminer/v3/get_miner_status_pools"),
                &[WHEN_3, POOLS_3],
            )
        },
    ],
};

const V2_BUILD: Build = Build {
    boards: 3,
    chips: 135,
    board_ghs: 41_600.0,
    megahertz: 600.0,
    watts: 3156.0,
    volts: 12.9,
    fans_rpm: [5400.0, 5280.0, 0.0, 0.0],
    chip_celsius: 75.0,
    pcb_celsius: 41.0,
    inlet_celsius: 28.5,
    difficulty: 65_536.0,
    accepted: 5412,
    uptime: 50_000,
    pool_url: "stratum+tcp://btc.example.pool:3333",
};

const WHEN_3: &[Hole] = &[("/when", |m, _| whole(m.clock))];

const INFO_3: &[Hole] = &[
    ("/msg/miner/miner-sn", |m, _| quoted(&m.serial)),
    ("/msg/miner/working", |m, _| quoted(if is_off(m) { "false" } else { "true" })),
    ("/msg/network/mac", |m, _| quoted(&m.mac.to_uppercase())),
    ("+/msg/error-code", |m, _| {
        list(codes(m).into_iter().map(|code| format!(r#"{{"{code}":"2026-01-15 10:30:00","reason":"simulated"}}"#)))
    }),
];

const SUMMARY_3: &[Hole] = &[
    ("/msg/summary/elapsed", |m, _| whole(m.uptime)),
    ("/msg/summary/hash-realtime", |m, _| format!("{:.3}", m.ghs(0, 0.02) / 1000.0)),
    ("/msg/summary/hash-average", |m, _| format!("{:.3}", m.ghs(1, 0.001) / 1000.0)),
    ("/msg/summary/hash-1min", |m, _| format!("{:.3}", m.ghs(2, 0.01) / 1000.0)),
    ("/msg/summary/hash-15min", |m, _| format!("{:.3}", m.ghs(3, 0.002) / 1000.0)),
    ("/msg/summary/chip-temp-avg", |m, _| tenths(m.boards[0].chip_celsius)),
    ("/msg/summary/chip-temp-max", |m, _| tenths(hottest(m))),
    ("/msg/summary/chip-temp-min", |m, _| tenths(m.boards[0].chip_celsius - 8.0)),
    ("/msg/summary/environment-temperature", |m, _| tenths(m.inlet_celsius)),
    ("/msg/summary/fan-speed-in", |m, _| whole(m.fans_rpm[0])),
    ("/msg/summary/fan-speed-out", |m, _| whole(m.fans_rpm[1])),
    ("/msg/summary/power-realtime", |m, _| tenths(m.watts)),
];

const EDEVS_3: &[Hole] = &[
    ("/msg/edevs/#/chip-temp-avg", |m, b| tenths(m.boards[b].chip_celsius)),
    ("/msg/edevs/#/chip-temp-max", |m, b| tenths(m.chip_max(b))),
    ("/msg/edevs/#/chip-temp-min", |m, b| tenths(m.boards[b].chip_celsius - 9.0)),
    ("/msg/edevs/#/effective-chips", |m, b| whole(m.boards[b].found())),
    ("/msg/edevs/#/hash-average", |m, b| tenths(m.board_ghs(b, 0, 0.001) / 1000.0)),
    ("/msg/edevs/#/hash-realtime", |m, b| tenths(m.board_ghs(b, 1, 0.02) / 1000.0)),
    ("/msg/edevs/#/status", |m, b| quoted(if m.boards[b].alive { "alive" } else { "dead" })),
];

const POOLS_3: &[Hole] = &[
    ("/msg/pools/0/url", |m, _| quoted(&m.pool_url)),
    ("/msg/pools/0/stratum-active", |m, _| whole(m.has_pool())),
    ("/msg/pools/0/status", |m, _| alive(m).to_lowercase()),
    ("/msg/pools/1/status", |m, _| alive(m).to_lowercase()),
    ("/msg/pools/2/status", |m, _| alive(m).to_lowercase()),
];

/// The codes of the scenario, and those that the firmware raises by itself.
fn codes(m: &Moment) -> Vec<u32> {
    let mut codes = m.errors.clone();
    match m.fault {
        Some(Fault::Overheat) => codes.push(350),
        Some(Fault::FanStuck) => codes.push(110),
        Some(Fault::PowerSupply) => codes.push(205),
        Some(Fault::DeadBoard) => codes.push(531),
        Some(Fault::NoPool) => codes.push(2010),
        _ => {}
    }
    codes
}

fn is_off(m: &Moment) -> bool {
    matches!(m.work, Work::Asleep | Work::Curtailed | Work::Overheated)
}

fn hottest(m: &Moment) -> f64 {
    (0..m.boards.len()).map(|board| m.chip_max(board)).fold(0.0, f64::max)
}

fn alive(m: &Moment) -> String {
    quoted(if m.has_pool() { "Alive" } else { "Dead" })
}
