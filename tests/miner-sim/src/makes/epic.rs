//! ePIC's PowerPlay on an Antminer S19 XP: HTTP on cgminer's port, and a page on the web port.

use super::{Firmware, Login, Question, Transport, question, recorded};
use crate::body::{Board, Build, Moment, Work};
use crate::template::{Hole, list, quoted, tenths, whole};

pub(super) static POWER_PLAY: Firmware = Firmware {
    build: Build {
        boards: 2,
        chips: 110,
        board_ghs: 49_500.0,
        megahertz: 487.5,
        watts: 2166.0,
        volts: 12.6,
        fans_rpm: [5971.0, 5900.0, 5942.0, 5745.0],
        chip_celsius: 64.0,
        pcb_celsius: 64.0,
        inlet_celsius: 52.0,
        difficulty: 262_144.0,
        accepted: 1862,
        uptime: 23_170,
        pool_url: "mine.ocean.xyz:3334",
    },
    login: Login::Open,
    questions: &[
        Question { counts: true, ..question(Transport::Http, "/summary", recorded!("epic/v1/summary"), &[SUMMARY]) },
        question(Transport::Http, "/capabilities", recorded!("epic/v1/capabilities"), &[CAPABILITIES]),
        question(Transport::Http, "/network", recorded!("epic/v1/network"), &[NETWORK]),
        question(Transport::Http, "/temps", recorded!("epic/v1/temps"), &[TEMPS]),
        question(Transport::Http, "/temps/chip", recorded!("epic/v1/chip_temps"), &[]),
        question(Transport::Http, "/voltages", recorded!("epic/v1/chip_voltages"), &[]),
        question(Transport::Http, "/hashrate", recorded!("epic/v1/chip_hashrates"), &[HASHRATES]),
        question(Transport::Http, "/clocks", recorded!("epic/v1/chip_clocks"), &[]),
    ],
};

/// Of the three boards of the recorded machine one has failed; this one has the other two, which are 1 and 2 there.
const SUMMARY: &[Hole] = &[
    ("/Session/Accepted", |m, _| whole(m.accepted)),
    ("/Session/Rejected", |m, _| whole(m.rejected)),
    ("/Session/Submitted", |m, _| whole(m.accepted + m.rejected)),
    ("/Session/Uptime", |m, _| whole(m.uptime)),
    ("/Session/Startup Timestamp", |m, _| whole(m.clock - m.uptime)),
    ("/Session/Average MHs", |m, _| tenths(m.ghs(0, 0.001) * 1000.0)),
    ("/Session/Active HBs", |m, _| whole(m.boards.iter().filter(|board| board.alive).count())),
    ("/Power Supply Stats/Input Power", |m, _| format!("{:.4}", m.watts)),
    ("/Fans Rpm/Fans Speed 1", |m, _| whole(m.fans_rpm[0])),
    ("/Fans Rpm/Fans Speed 2", |m, _| whole(m.fans_rpm[1])),
    ("/Fans Rpm/Fans Speed 3", |m, _| whole(m.fans_rpm[2])),
    ("/Fans Rpm/Fans Speed 4", |m, _| whole(m.fans_rpm[3])),
    ("/Fans/Fans Speed", |m, _| whole(m.fan_percent)),
    ("/HBs/#/Hashrate/0", |m, b| tenths(m.board_ghs(b, 0, 0.02) * 1000.0)),
    ("/HBs/#/Temperature", |m, b| format!("{:.3}", m.boards[b].pcb_celsius)),
    ("/HBs/#/Input Voltage", |m, b| format!("{:.3}", m.boards[b].volts)),
    ("/HBStatus", |m, _| {
        let one = |(i, board): (usize, &Board)| {
            format!(r#"{{"Detected":true,"Enabled":{},"Index":{}}}"#, board.alive, i + 1)
        };
        list(m.boards.iter().enumerate().map(one))
    }),
    ("/Stratum/IsPoolConnected", |m, _| whole(m.has_pool())),
    ("/Stratum/Current Pool", |m, _| quoted(&m.pool_url)),
    ("/StratumConfigs/0/pool", |m, _| quoted(&format!("stratum+tcp://{}", m.pool_url))),
    ("/Status/Operating State", |m, _| {
        quoted(match m.work {
            Work::Working => "Mining",
            Work::Starting => "Initializing",
            Work::Overheated => "Error",
            Work::Asleep | Work::Curtailed | Work::NoPool => "Idling",
        })
    }),
    ("/Status/Last Error", |m, _| {
        if m.work == Work::Overheated { quoted("Shutdown temperature exceeded") } else { "null".to_owned() }
    }),
];

const CAPABILITIES: &[Hole] = &[
    ("/Max HBs", |m, _| whole(m.boards.len())),
    ("/Control Board Version/cpuSerial", |m, _| quoted(&m.serial)),
    ("/Board Serial Numbers/#", |m, b| quoted(&format!("{}B{b}", m.serial))),
];

const NETWORK: &[Hole] = &[("/dhcp/mac_address", |m, _| quoted(&m.mac.to_uppercase()))];

/// Part 0 of the machine is entry 1 of the recording.
const TEMPS: &[Hole] = &[
    ("/@/Data/0", |m, b| format!("{:.3}", m.boards[b].pcb_celsius - 12.0)),
    ("/@/Data/1", |m, b| format!("{:.3}", m.boards[b].pcb_celsius)),
];

const HASHRATES: &[Hole] = &[("/#/Data", |m, b| {
    let chips = m.boards[b].chips.iter().enumerate();
    list(chips.map(|(chip, ok)| if *ok { rate(m, b, chip) } else { "[0.0,0.0,0.0]".to_owned() }))
})];

fn rate(m: &Moment, board: usize, chip: usize) -> String {
    let mega = if m.hashes() { 450_000.0 * m.flicker(2000 + (board * 128 + chip) as u64, 0.1) } else { 0.0 };
    format!("[{mega:.2},{:.1},{:.1}]", mega / 4500.0, mega / 112_000.0)
}
