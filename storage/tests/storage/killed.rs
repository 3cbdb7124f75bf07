//! A process that writes, seals, expires, sweeps and checkpoints is killed at random moments; the lake stays whole.
//!
//! The process is this test binary again. `RACKLAKE_KILLS` says how often it is killed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use racklake_schemas::clock::{DAY, MINUTE};
use racklake_schemas::{Cell, Rows, catalog};
use racklake_storage::verify::{Question, Verdict, verify};
use racklake_storage::{Lake, LakeTable, SealRules, Sealed};
use uuid::Uuid;

use crate::support::{TEN_O_CLOCK, ago, span};
use crate::verify::{DEVICES, row, stream, table};

const TABLE: &str = "gpu_sample";
const LAKE: &str = "RACKLAKE_KILLED_LAKE";
const GO: ControlFlow<()> = ControlFlow::Continue(());
/// No step takes so long.
const LONG: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn open(location: &str) -> (Lake, LakeTable) {
    let lake = Lake::open(location, &BTreeMap::new()).unwrap();
    let table = lake.table(catalog::table(TABLE).unwrap()).unwrap();
    (lake, table)
}

fn position(table: &LakeTable) -> i64 {
    table.position("t/0").unwrap().unwrap_or(0)
}

/// What the process has begun, a line each.
fn steps_of(location: &str) -> PathBuf {
    PathBuf::from(format!("{location}.steps"))
}

fn steps(location: &str) -> Vec<String> {
    std::fs::read_to_string(steps_of(location)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Time of a frame: a minute for each, so that hours and days go by.
fn time_of(seq: i64) -> i64 {
    TEN_O_CLOCK + seq * MINUTE
}

fn write(table: &mut LakeTable) {
    let at = position(table);
    let seq = at + 1;
    let mut rows = Rows::new(catalog::table(TABLE).unwrap());
    for device in DEVICES {
        let mut row = row(TABLE, seq, DEVICES.len() as i64, Some(device));
        for name in ["ts", "received_at"] {
            row.set(catalog::table(TABLE).unwrap().column(name).unwrap(), Cell::I64(time_of(seq)));
        }
        rows.push(row);
    }
    let files = table.write(&[rows.into_batch().unwrap()], &[]).unwrap();
    table.commit(&files, &[span("t/0", (at > 0).then_some(at), seq)]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is what the test below kills"]
async fn child() {
    let Ok(location) = std::env::var(LAKE) else { return };
    std::panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        std::process::exit(1);
    }));
    let (lake, mut writing) = open(&location);
    std::thread::spawn({
        let lake = lake.clone();
        move || {
            let _lake = lake;
            loop {
                write(&mut writing);
                std::thread::sleep(Duration::from_millis(15));
            }
        }
    });
    let table = catalog::table(TABLE).unwrap();
    let (_, mut opened) = open(&location);
    let steps = std::fs::File::options().create(true).append(true).open(steps_of(&location)).unwrap();
    // In one piece, whenever the kill comes.
    let says = move |what: &str| (&steps).write_all(format!("{what}\n").as_bytes()).unwrap();
    let rules = SealRules { day_quiet: Duration::ZERO, files_max: 20, ..SealRules::default() };
    tokio::task::spawn_blocking(move || {
        loop {
            opened.refresh().unwrap();
            let now = time_of(position(&opened));
            for seal in opened.plan_seals(&rules, now).unwrap() {
                says(if seal.hour().is_some() { "sealing an hour" } else { "merging a day" });
                let sealed = opened.seal(&seal, &|_| GO).unwrap();
                assert!(!matches!(sealed, Sealed::Repeated { .. }), "{sealed:?}");
            }
            says("expiring");
            opened.expire((now / DAY) as i32 - 1, &|_| ()).unwrap();
            says("checkpointing");
            opened.checkpoint().unwrap();
            says("sweeping");
            lake.vacuum(table, WEEK, false, &|| GO).unwrap();
            says("cutting the log");
            lake.clean_log(table, WEEK, false).unwrap();
        }
    })
    .await
    .unwrap();
}

/// Makes everything in the lake but the newest commits old, so that a sweep finds something to do.
fn age(folder: &Path, newest: u64) {
    let old = ago(2 * WEEK);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let version = entry.file_name().to_string_lossy().get(..20).and_then(|name| name.parse::<u64>().ok());
        if path.is_dir() {
            age(&path, newest);
        } else if version.is_none_or(|version| version + 50 < newest) {
            std::fs::File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_whose_keeper_is_killed_at_any_moment_stays_whole() {
    let kills: u32 = std::env::var("RACKLAKE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("lake").display().to_string();
    let mut killed_at: BTreeMap<String, u32> = BTreeMap::new();
    let (mut before, mut swept) = (0, 0);
    for kill in 1..=kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["killed::child", "--exact", "--ignored", "--nocapture"])
            .env(LAKE, &location)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It is killed a moment after it has begun another few steps.
        let random = Uuid::new_v4().as_u128() as u64;
        let (due, begin) = (steps(&location).len() + 1 + (random % 9) as usize, Instant::now());
        while steps(&location).len() < due && begin.elapsed() < LONG && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(random / 9 % 120));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(ended.is_none(), "it ended by itself: {}", String::from_utf8_lossy(&output.stderr));
        assert!(begin.elapsed() < LONG, "it does not go on: {:?}", steps(&location).last());
        let doing = steps(&location).pop().unwrap_or_else(|| "starting".to_owned());
        *killed_at.entry(doing).or_default() += 1;

        let (lake, mut opened) = open(&location);
        // The frame that was being flushed is still in Kafka, and comes again.
        write(&mut opened);
        let question = Question { keys: true, threads: 1, testimony: Vec::new(), watch: &|_| {} };
        let report = verify(&lake, question);
        assert_eq!(report.verdict(), Verdict::Complete, "kill {kill}: {report:?}");
        let last = position(&opened);
        assert!(last >= before, "kill {kill}");
        if last > 0 {
            assert_eq!(stream(&report).seq_known, last, "kill {kill}: every frame that was committed is known");
        }
        swept += table(&report, TABLE).orphans.len();
        before = last;
        opened.refresh().unwrap();
        age(&folder.path().join("lake"), opened.version());
    }
    let contents = open(&location).1.contents().unwrap();
    println!("{kills} kills, {before} frames, {swept} orphans seen, {contents:?}; killed while {killed_at:?}");
}
