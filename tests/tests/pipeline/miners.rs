//! A farm of many makes: what healthy miners served is in the lake exactly once, whatever the others do, and what the
//! others do is told.

use std::time::Duration;

use racklake_miner_sim::Fault;
use racklake_tests::farm::{Farm, MAKES, Make};
use racklake_tests::process::Process;
use racklake_tests::site::{Ingest, Site};
use racklake_tests::{lake_tool, python, repository, turn, turn_alone, wait_for};

const TABLES: [&str; 5] = ["miner_sample", "hashboard_sample", "event", "device", "coverage"];

/// A healthy miner, one of whose boards loses chips.
const LOSES_CHIPS: usize = 1;

/// A fault, the state that it must be told as, and the reasons that are right for it.
type Told = (Fault, &'static str, &'static [Option<&'static str>]);

const NO_ANSWER: &[Option<&str>] = &[Some("no answer")];
const PARTIAL: &[Option<&str>] = &[Some("partial answer")];
const UNREADABLE: &[Option<&str>] = &[Some("unreadable answer")];
const ENDLESS: &[Option<&str>] = &[Some("endless answer")];
const DENIED: &[Option<&str>] = &[Some("access denied")];

/// Hangs, refuses, drips, cuts, corrupts.
const UNRESPONSIVE: [Told; 5] = [
    (Fault::Hang, "unreachable", NO_ANSWER),
    (Fault::RefuseConnection, "unreachable", NO_ANSWER),
    (Fault::SlowDrip, "unreachable", PARTIAL),
    (Fault::HalfJson, "unreachable", PARTIAL),
    (Fault::Garbage, "unreachable", UNREADABLE),
];

/// Ways to hang, refuse or lie.
const BAD: [Told; 10] = [
    (Fault::Hang, "unreachable", NO_ANSWER),
    (Fault::RefuseConnection, "unreachable", NO_ANSWER),
    (Fault::Empty, "unreachable", NO_ANSWER),
    (Fault::SlowDrip, "unreachable", PARTIAL),
    (Fault::HalfJson, "unreachable", PARTIAL),
    (Fault::Stall, "unreachable", PARTIAL),
    (Fault::Garbage, "unreachable", UNREADABLE),
    // It is cut in its depths.
    (Fault::DeepNesting, "unreachable", &[Some("unreadable answer"), Some("endless answer"), Some("partial answer")]),
    (Fault::Endless, "unreachable", ENDLESS),
    (Fault::AccessDenied, "refused", DENIED),
];

/// A miner by its make, what happens to it, and what it must be told as.
const STATES: [(&str, Told); 11] = [
    ("avalon", (Fault::Idle, "sleeping", &[Some("standby")])),
    ("avalon", (Fault::Overheat, "fault", &[Some("overheat")])),
    ("antminer", (Fault::Idle, "sleeping", &[Some("standby")])),
    ("antminer", (Fault::DeadBoard, "fault", &[Some("dead board")])),
    ("antminer", (Fault::NoPool, "fault", &[Some("no pool")])),
    ("antminer", (Fault::Starting, "mining", &[Some("starting")])),
    ("antminer", (Fault::Overheat, "fault", &[Some("overheat")])),
    ("luxos", (Fault::Curtailed, "sleeping", &[Some("curtailed")])),
    ("luxos", (Fault::DeadBoard, "fault", &[Some("dead board")])),
    ("whatsminer", (Fault::Idle, "sleeping", &[Some("standby")])),
    ("whatsminer", (Fault::Curtailed, "sleeping", &[Some("curtailed")])),
];

/// A farm, its collector and its ingest.
struct Running {
    site: Site,
    ingest: Ingest,
    collector: Process,
    farm: Farm,
    period: Duration,
}

impl Running {
    /// Starts all of it and waits until every miner was read twice.
    fn start(name: &str, net: u8, count: usize, makes: &[Make], period: Duration, timeout: Duration) -> Running {
        let site = Site::new(name).unwrap();
        let ingest = site.start_ingest("ingest", &name.replace('_', "-")).unwrap();
        TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
        let farm = Farm::start(&site.folder, net, count, makes).unwrap();
        let config = format!("[frames]\nage_max = \"2s\"\n{}", farm.config(&site, period, timeout).unwrap());
        let collector = site.start_collector("gateway-1", "", &config).unwrap();
        // The first poll of each brings who it is; the second one is like all that follow.
        let sim = &farm.sim;
        wait_for("every miner to be asked", 120, || (0..count).all(|unit| sim.calls(unit) > 0).then_some(())).unwrap();
        std::thread::sleep(period.mul_f64(1.5));
        Running { site, ingest, collector, farm, period }
    }

    fn wait_periods(&self, periods: f64) {
        std::thread::sleep(self.period.mul_f64(periods));
    }

    /// Ends all of it and checks the lake.
    fn finish(mut self) -> Site {
        assert!(self.collector.is_running(), "{}", self.collector.tail());
        assert!(self.collector.terminate(60).unwrap().success(), "{}", self.collector.tail());
        let changes = self.farm.write_changes(&self.site.folder).unwrap().display().to_string();
        let account = self.farm.account.display().to_string();
        self.farm.sim.stop();
        self.site.wait_until_drained(&self.ingest, &TABLES, 120).unwrap();
        self.site.stop_ingest(self.ingest).unwrap();
        let (code, report) = lake_tool::verify(&self.site).unwrap();
        assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
        let lake = self.site.lake().display().to_string();
        let period = self.period.as_micros().to_string();
        println!("{}", python::run("check_farm.py", &[&lake, &account, &changes, &period]).unwrap());
        self.site
    }
}

#[test]
fn two_thousand_miners_of_six_makes_are_read_while_one_in_ten_hangs_refuses_or_lies() {
    const COUNT: usize = 2000;
    // It needs all cores.
    let _turn = turn_alone();
    let mut running = Running::start("miners", 21, COUNT, &MAKES, Duration::from_secs(20), Duration::from_secs(2));
    // A step that shares no divisor with the number of makes reaches all of them.
    let bad: Vec<usize> = (0..COUNT).filter(|unit| (unit / MAKES.len()) % 10 == 3).collect();
    for (i, unit) in bad.iter().enumerate() {
        let (fault, state, reasons) = BAD[(i + i / MAKES.len()) % BAD.len()];
        running.farm.change(*unit, Some(fault), state, reasons);
    }
    running.farm.sim.set_chips_lost(LOSES_CHIPS, &[0, 4]);
    running.wait_periods(1.6);
    running.farm.sim.set_chips_lost(LOSES_CHIPS, &[0, 11]);
    bad.iter().for_each(|unit| running.farm.change(*unit, None, "mining", &[None]));
    running.wait_periods(1.6);
    let site = running.finish();
    let [lake, joules, chips] = [site.lake(), query("j_per_th"), query("chips_lost")].map(|p| p.display().to_string());
    let account = site.folder.join("miners.jsonl").display().to_string();
    let loser = format!("{}-{LOSES_CHIPS}", MAKES[LOSES_CHIPS].1);
    println!(
        "{}",
        python::run("check_farm_queries.py", &[&lake, &account, &joules, &chips, &loser, "1", "11"]).unwrap()
    );
}

fn query(name: &str) -> std::path::PathBuf {
    repository().join("docs/queries").join(name).with_extension("sql")
}

#[test]
fn miners_that_hang_refuse_drip_cut_or_corrupt_are_told_as_such_and_states_are_told_apart() {
    const COUNT: usize = 120;
    let _turn = turn();
    let mut running = Running::start("miner_states", 22, COUNT, &MAKES, Duration::from_secs(4), Duration::from_secs(1));
    for unit in 0..45 {
        let (fault, state, reasons) = UNRESPONSIVE[(unit + unit / MAKES.len()) % UNRESPONSIVE.len()];
        running.farm.change(unit, Some(fault), state, reasons);
    }
    let mut free: Vec<usize> = (45..COUNT).collect();
    for (make, (fault, state, reasons)) in STATES {
        let place = free.iter().position(|unit| running.farm.make(*unit) == make).unwrap();
        running.farm.change(free.remove(place), Some(fault), state, reasons);
    }
    running.wait_periods(4.0);
    let _ = running.finish();
}
