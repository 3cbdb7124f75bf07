//! LuxOS on an Antminer S19k Pro: everything on cgminer's port.

use super::{Firmware, Login, Question, Transport, question, recorded};
use crate::body::{Board, Build, Moment, Work};
use crate::template::{Hole, hundredths, list, quoted, tenths, whole};

pub(super) static S19K_PRO: Firmware = Firmware {
    build: Build {
        boards: 3,
        chips: 77,
        board_ghs: 20_300.0,
        megahertz: 300.0,
        watts: 1051.0,
        volts: 11.88,
        fans_rpm: [1920.0, 1920.0, 2340.0, 2340.0],
        chip_celsius: 55.0,
        pcb_celsius: 47.0,
        inlet_celsius: 33.0,
        difficulty: 32_768.0,
        accepted: 1483,
        uptime: 3453,
        pool_url: "stratum+tcp://ca.stratum.braiins.com:3333",
    },
    login: Login::Open,
    questions: &[
        Question {
            counts: true,
            ..question(Transport::Rpc, "summary", recorded!("luxminer/v1/summary"), &[WHEN, SUMMARY])
        },
        question(Transport::Rpc, "devs", recorded!("luxminer/v1/devs"), &[WHEN, DEVS]),
        question(Transport::Rpc, "stats", recorded!("luxminer/v1/stats"), &[WHEN, STATS]),
        question(Transport::Rpc, "pools", recorded!("luxminer/v1/pools"), &[WHEN, POOLS]),
        question(Transport::Rpc, "version", recorded!("luxminer/v1/version"), &[WHEN]),
        question(Transport::Rpc, "config", recorded!("luxminer/v1/config"), &[WHEN, CONFIG]),
        question(Transport::Rpc, "fans", recorded!("luxminer/v1/fans"), &[WHEN, FANS]),
        question(Transport::Rpc, "power", recorded!("luxminer/v1/power"), &[WHEN, POWER]),
        question(Transport::Rpc, "temps", recorded!("luxminer/v1/temps"), &[WHEN, TEMPS]),
        question(Transport::Rpc, "profiles", recorded!("luxminer/v1/profiles"), &[WHEN]),
        question(Transport::Rpc, "events", recorded!("luxminer/v1/events"), &[WHEN, EVENTS]),
        of_board(
            "voltageget",
            "0",
            recorded!("luxminer/v1/voltageget_0"),
            &[WHEN, &[("/VOLTAGE/0/Voltage", |m, _| voltage(m, 0))]],
        ),
        of_board(
            "voltageget",
            "1",
            recorded!("luxminer/v1/voltageget_1"),
            &[WHEN, &[("/VOLTAGE/0/Voltage", |m, _| voltage(m, 1))]],
        ),
        of_board(
            "voltageget",
            "2",
            recorded!("luxminer/v1/voltageget_2"),
            &[WHEN, &[("/VOLTAGE/0/Voltage", |m, _| voltage(m, 2))]],
        ),
        of_board(
            "healthchipget",
            "0",
            recorded!("luxminer/v1/healthchipget_0"),
            &[WHEN, &[("/CHIPS", |m, _| chips(m, 0))]],
        ),
        of_board(
            "healthchipget",
            "1",
            recorded!("luxminer/v1/healthchipget_1"),
            &[WHEN, &[("/CHIPS", |m, _| chips(m, 1))]],
        ),
        of_board(
            "healthchipget",
            "2",
            recorded!("luxminer/v1/healthchipget_2"),
            &[WHEN, &[("/CHIPS", |m, _| chips(m, 2))]],
        ),
    ],
};

const fn of_board(
    name: &'static str,
    board: &'static str,
    recording: &'static str,
    holes: &'static [&'static [Hole]],
) -> Question {
    Question { parameter: board, ..question(Transport::Rpc, name, recording, holes) }
}

const WHEN: &[Hole] = &[("/STATUS/0/When", |m, _| whole(m.clock))];

const SUMMARY: &[Hole] = &[
    ("/SUMMARY/0/Accepted", |m, _| whole(m.accepted)),
    ("/SUMMARY/0/Rejected", |m, _| whole(m.rejected)),
    ("/SUMMARY/0/Stale", |m, _| whole(m.stale)),
    ("/SUMMARY/0/Difficulty Accepted", |m, _| whole(m.accepted * 32_768)),
    ("/SUMMARY/0/Difficulty Rejected", |m, _| whole(m.rejected * 32_768)),
    ("/SUMMARY/0/Difficulty Stale", |m, _| whole(m.stale * 32_768)),
    ("/SUMMARY/0/Hardware Errors", |m, _| whole(m.hardware_errors())),
    ("/SUMMARY/0/Elapsed", |m, _| whole(m.uptime)),
    ("/SUMMARY/0/GHS 5s", |m, _| hundredths(m.ghs(0, 0.02))),
    ("/SUMMARY/0/GHS 1m", |m, _| hundredths(m.ghs(1, 0.01))),
    ("/SUMMARY/0/GHS 5m", |m, _| hundredths(m.ghs(2, 0.005))),
    ("/SUMMARY/0/GHS 15m", |m, _| hundredths(m.ghs(3, 0.004))),
    ("/SUMMARY/0/GHS 30m", |m, _| hundredths(m.ghs(4, 0.003))),
    ("/SUMMARY/0/GHS 24h", |m, _| hundredths(m.ghs(5, 0.001))),
    ("/SUMMARY/0/GHS av", |m, _| hundredths(m.ghs(6, 0.001))),
];

/// The recording tells board 2 first, then 0 and 1.
const ORDER: [usize; 3] = [2, 0, 1];

const DEVS: &[Hole] = &[
    ("/DEVS/#/Accepted", |m, b| whole(m.accepted / 3 + ORDER[b] as i64)),
    ("/DEVS/#/Rejected", |m, b| whole(m.rejected / (ORDER[b] as i64 + 1))),
    ("/DEVS/#/Hardware Errors", |m, b| whole(m.boards[ORDER[b]].hardware_errors)),
    ("/DEVS/#/Device Elapsed", |m, _| whole(m.uptime)),
    ("/DEVS/#/MHS 5s", |m, b| mega(m, b, 0, 0.02)),
    ("/DEVS/#/MHS 1m", |m, b| mega(m, b, 1, 0.01)),
    ("/DEVS/#/MHS 5m", |m, b| mega(m, b, 2, 0.005)),
    ("/DEVS/#/MHS 15m", |m, b| mega(m, b, 3, 0.004)),
    ("/DEVS/#/MHS av", |m, b| mega(m, b, 6, 0.001)),
    ("/DEVS/#/Temperature", |m, b| tenths(m.boards[ORDER[b]].pcb_celsius)),
    ("/DEVS/#/SerialNumber", |m, b| quoted(&format!("{}B{}", m.serial, ORDER[b]))),
    ("/DEVS/#/IsUserShutdown", |_, _| whole(false)),
    ("/DEVS/#/IsRamping", |m, _| whole(m.work == Work::Starting)),
    ("/DEVS/#/Status", |m, b| quoted(if m.boards[ORDER[b]].alive { "Alive" } else { "Dead" })),
];

const STATS: &[Hole] = &[
    ("/STATS/1/Elapsed", |m, _| whole(m.uptime)),
    ("/STATS/1/GHS 5s", |m, _| hundredths(m.ghs(0, 0.02))),
    ("/STATS/1/GHS av", |m, _| hundredths(m.ghs(6, 0.001))),
    ("/STATS/1/rate_30m", |m, _| hundredths(m.ghs(4, 0.003))),
    ("/STATS/1/fan1", |m, _| whole(m.fans_rpm[0])),
    ("/STATS/1/fan2", |m, _| whole(m.fans_rpm[1])),
    ("/STATS/1/fan3", |m, _| whole(m.fans_rpm[2])),
    ("/STATS/1/fan4", |m, _| whole(m.fans_rpm[3])),
    ("/STATS/1/miner_id", |m, _| quoted(&m.mac.replace(':', ""))),
    ("/STATS/1/chain_acn@", |m, b| whole(m.boards[b].found())),
    ("/STATS/1/chain_acs@", |m, b| quoted(&chip_map(&m.boards[b]))),
    ("/STATS/1/chain_hw@", |m, b| whole(m.boards[b].hardware_errors)),
    ("/STATS/1/chain_rate@", |m, b| quoted(&hundredths(m.board_ghs(b, 0, 0.02)))),
    ("/STATS/1/temp_chip@", |m, b| quoted(&corners(m, b).map(|celsius| whole(celsius as i64)).join("-"))),
    ("/STATS/1/temp_pcb@", |m, b| quoted(&corners(m, b).map(|celsius| whole(celsius as i64)).join("-"))),
    ("/STATS/1/temp_pic@", |m, b| quoted(&corners(m, b).map(|celsius| whole(celsius as i64)).join("-"))),
];

const POOLS: &[Hole] = &[
    ("/POOLS/0/Accepted", |m, _| whole(m.accepted)),
    ("/POOLS/0/Rejected", |m, _| whole(m.rejected)),
    ("/POOLS/0/Stale", |m, _| whole(m.stale)),
    ("/POOLS/0/URL", |m, _| quoted(&m.pool_url)),
    ("/POOLS/0/Stratum Active", |m, _| whole(m.has_pool())),
    ("/POOLS/0/Status", alive),
    ("/POOLS/2/Status", alive),
    ("/POOLS/3/Status", alive),
];

const CONFIG: &[Hole] = &[
    ("/CONFIG/0/SerialNumber", |m, _| quoted(&m.serial)),
    ("/CONFIG/0/MACAddr", |m, _| quoted(&m.mac)),
    ("/CONFIG/0/CurtailMode", |m, _| quoted(if is_off(m) { "Sleep" } else { "None" })),
    ("/CONFIG/0/IsPowerSupplyOn", |m, _| whole(!is_off(m))),
    ("/CONFIG/0/SystemStatus", |m, _| {
        quoted(match m.work {
            Work::Working | Work::NoPool => "Normal",
            Work::Starting => "Starting",
            Work::Asleep | Work::Curtailed => "Sleeping",
            Work::Overheated => "Overheated",
        })
    }),
];

const FANS: &[Hole] = &[
    ("/FANS/0/RPM", |m, _| whole(m.fans_rpm[0])),
    ("/FANS/1/RPM", |m, _| whole(m.fans_rpm[1])),
    ("/FANS/2/RPM", |m, _| whole(m.fans_rpm[2])),
    ("/FANS/3/RPM", |m, _| whole(m.fans_rpm[3])),
    ("/FANS/0/Speed", |m, _| whole(m.fan_percent)),
    ("/FANS/1/Speed", |m, _| whole(m.fan_percent)),
    ("/FANS/2/Speed", |m, _| whole(m.fan_percent)),
    ("/FANS/3/Speed", |m, _| whole(m.fan_percent)),
];

const POWER: &[Hole] = &[("/POWER/0/Watts", |m, _| whole(m.watts as i64))];

const TEMPS: &[Hole] = &[
    ("/TEMPS/#/BottomLeft", |m, b| tenths(corners(m, b)[0])),
    ("/TEMPS/#/BottomRight", |m, b| tenths(corners(m, b)[1])),
    ("/TEMPS/#/TopRight", |m, b| tenths(corners(m, b)[2])),
    ("/TEMPS/#/TopLeft", |m, b| tenths(corners(m, b)[3])),
];

/// What has happened of late; most machines have nothing to tell.
const EVENTS: &[Hole] = &[("/EVENTS", |m, _| {
    let overheated = (m.work == Work::Overheated).then(|| {
        r#"{"Code":"TEMP_PANIC","CreatedAt":"2026-04-08T03:38:27+00:00","Description":"Miner shutdown due to its temperature.","Target":"MINER"}"#.to_owned()
    });
    list(overheated)
})];

/// This firmware knows one way to sleep.
fn is_off(m: &Moment) -> bool {
    matches!(m.work, Work::Curtailed | Work::Asleep)
}

fn mega(m: &Moment, place: usize, n: u64, spread: f64) -> String {
    format!("{:.6}", m.board_ghs(ORDER[place], n, spread) * 1000.0)
}

fn voltage(m: &Moment, board: usize) -> String {
    hundredths(m.boards[board].volts)
}

/// Exhaust at the left, intake at the right.
fn corners(m: &Moment, board: usize) -> [f64; 4] {
    let (exhaust, intake) = (m.boards[board].pcb_celsius, m.inlet_celsius);
    [exhaust, intake, intake + 0.5, exhaust - 0.5]
}

fn chips(m: &Moment, board: usize) -> String {
    let one = |(chip, ok): (usize, &bool)| {
        let rate = if *ok { 263.6 * m.flicker(1000 + (board * 256 + chip) as u64, 0.05) } else { 0.0 };
        format!(
            r#"{{"Board":{board},"Chip":{chip},"Column":{},"Domain":{},"Frequency":300,"GHS 15m":{rate:.2},"GHS 1m":{:.2},"GHS 5m":{rate:.2},"HashCount":{},"HashExpected":451,"HashMin":91,"Healthy":"{}","IsChecking":false,"Row":{},"Score":{:.2},"When":{}}}"#,
            chip % 7,
            chip / 7,
            rate * 0.98,
            (rate * 1.7) as i64,
            if *ok { "Y" } else { "N" },
            chip / 7,
            rate / 2.636,
            m.clock * 1000,
        )
    };
    list(m.boards[board].chips.iter().enumerate().map(one))
}

/// ` oooo oxoo`: a mark per chip in groups of four.
fn chip_map(board: &Board) -> String {
    let group = |chips: &[bool]| chips.iter().map(|ok| if *ok { 'o' } else { 'x' }).collect::<String>();
    board.chips.chunks(4).map(|chips| format!(" {}", group(chips))).collect()
}

fn alive(m: &Moment, _: usize) -> String {
    quoted(if m.has_pool() { "Alive" } else { "Dead" })
}
