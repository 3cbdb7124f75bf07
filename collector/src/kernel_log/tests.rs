//! A kernel log that is read, interrupted, overrun and not there.

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

use racklake_schemas::tables::event;

use super::*;
use crate::config::FramesConfig;
use crate::metrics::Metrics;
use crate::testing::{Account, outlet};

fn shared(outlet: &Arc<Outlet>) -> Shared {
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let devices = Arc::new(Devices::new("n1", "boot-1".to_owned(), vec![known_gpu()]));
    Shared::new(outlet, &devices, &health, &metrics)
}

fn known_gpu() -> crate::state::Remembered {
    crate::state::Remembered {
        source: "nvml".to_owned(),
        address: "0000:9b:00.0".to_owned(),
        device_id: "GPU-1".to_owned(),
        identified: true,
        session_id: 17,
        ..Default::default()
    }
}

fn xid_line(seq: usize) -> String {
    format!("4,{seq},{seq},-;NVRM: Xid (PCI:0000:9b:00): 13, pid={seq}, name=a, Graphics Exception\n SUBSYSTEM=pci\n")
}

fn noise(seq: usize) -> String {
    format!("6,{seq},{seq},-;usb 1-1: new device\n")
}

/// Reads what a log file holds, and ends.
async fn read_all(log: &Path, boot_id: &str, shared: Shared) {
    let stop = CancellationToken::new();
    stop.cancel();
    KernelLog::new(log, boot_id, shared).run(stop).await;
}

fn pids(account: &Account) -> Vec<i64> {
    let details = account.texts("event", event::DETAILS_JSON);
    let pid = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap()["pid"].as_i64();
    details.iter().filter_map(pid).collect()
}

#[tokio::test]
async fn a_row_has_the_device_the_line_and_nvidias_advice() {
    let log = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(log.path(), xid_line(5)).unwrap();
    let outlet = outlet(FramesConfig::default());
    read_all(log.path(), "boot-1", shared(&outlet)).await;
    let account = Account::of(&outlet);
    let text = |column| account.texts("event", column).concat();
    assert_eq!((text(event::EVENT), text(event::SOURCE)), ("xid".to_owned(), "kmsg".to_owned()));
    assert_eq!((text(event::DEVICE_ID), text(event::PCI_BUS_ID)), ("GPU-1".to_owned(), "0000:9b:00".to_owned()));
    assert_eq!(text(event::MESSAGE), "NVRM: Xid (PCI:0000:9b:00): 13, pid=5, name=a, Graphics Exception");
    let details: serde_json::Value = serde_json::from_str(&text(event::DETAILS_JSON)).unwrap();
    assert_eq!((&details["action"], &details["catalogue"]), (&"RESTART_APP".into(), &catalogue::VERSION.into()));
    assert_eq!((&details["seq"], &details["boot_id"]), (&5.into(), &"boot-1".into()));
    assert_eq!(account.ints("event", event::SESSION_ID), [Some(17)]);
}

#[tokio::test]
async fn a_reader_that_begins_again_neither_loses_nor_doubles_a_line() {
    let mut log = tempfile::NamedTempFile::new().unwrap();
    let outlet = outlet(FramesConfig::default());
    for start in [0, 500, 1000] {
        (start..start + 500)
            .for_each(|seq| log.write_all((xid_line(2 * seq) + &noise(2 * seq + 1)).as_bytes()).unwrap());
        read_all(log.path(), "boot-1", shared(&outlet)).await;
    }
    assert_eq!(pids(&Account::of(&outlet)), (0..1500).map(|seq| 2 * seq).collect::<Vec<_>>());
    // Another boot numbers its lines anew.
    std::fs::write(log.path(), xid_line(3)).unwrap();
    read_all(log.path(), "boot-2", shared(&outlet)).await;
    assert_eq!(pids(&Account::of(&outlet)), [3]);
}

#[tokio::test]
async fn lines_that_were_overwritten_are_counted_and_told() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let outlet = outlet(FramesConfig::default());
    let shared = shared(&outlet);
    let metrics = Arc::clone(&shared.metrics);
    std::fs::write(log.path(), [noise(900), xid_line(901), xid_line(950), noise(951)].concat()).unwrap();
    read_all(log.path(), "boot-1", shared).await;
    let account = Account::of(&outlet);
    assert_eq!(account.texts("event", event::EVENT), ["xid", "kernel_log_gap", "xid"]);
    let gap: serde_json::Value = serde_json::from_str(&account.texts("event", event::DETAILS_JSON)[1]).unwrap();
    assert_eq!((&gap["lines"], &gap["seq_first"], &gap["seq"]), (&48.into(), &902.into(), &949.into()));
    assert_eq!(metrics.kernel_log_lines_lost.get(), 48);
    assert_eq!(outlet.kernel_log_position().unwrap().seq, 951);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_there_is_told_once_and_read_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, outlet, stop) = (folder.path().join("kmsg"), outlet(FramesConfig::default()), CancellationToken::new());
    let shared = shared(&outlet);
    let health = Arc::clone(&shared.health);
    let running = tokio::spawn(KernelLog::new(&path, "boot-1", shared).run(stop.clone()));
    sleep(Duration::from_secs(200)).await;
    assert!(health.problems().is_empty() && health.notes()[0].contains("[kernel_log]"), "{:?}", health.notes());
    std::fs::write(&path, xid_line(1)).unwrap();
    sleep(Duration::from_secs(61)).await;
    assert!(health.notes().is_empty());
    stop.cancel();
    running.await.unwrap();
    let told = Account::of(&outlet).texts("event", event::EVENT);
    assert_eq!(
        told.iter().map(String::as_str).collect::<Vec<_>>(),
        ["kernel_log_failed", "kernel_log_recovered", "xid"]
    );
}

#[tokio::test]
async fn a_driver_that_was_loaded_begins_new_sessions() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let line = "5,1,1,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n";
    std::fs::write(log.path(), line).unwrap();
    let outlet = outlet(FramesConfig::default());
    let shared = shared(&outlet);
    let devices = Arc::clone(&shared.devices);
    let seen = crate::device_registry::Seen {
        source: "nvml",
        address: "0000:9b:00.0",
        rack: None,
        identity: None,
        lifetime: &[],
        returned: false,
        ts: Clock::now_us(),
    };
    let before = devices.observe(seen).labels.session_id;
    assert_eq!(devices.observe(seen).labels.session_id, before);
    read_all(log.path(), "boot-1", shared).await;
    // The line is from the first microsecond of this boot, before the device was seen.
    assert_eq!(devices.observe(seen).labels.session_id, before);
    devices.driver_loaded(before + 1);
    let after = devices.observe(seen).labels.session_id;
    assert!(after > before, "{after} {before}");
    assert_eq!(devices.observe(seen).labels.session_id, after);
}

/// A socket gives one record per read, as the device does.
#[tokio::test]
async fn a_device_that_gives_one_record_per_read_is_read_as_it_comes() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let outlet = outlet(FramesConfig::default());
    let mut reader = Reader::of(std::fs::File::from(std::os::fd::OwnedFd::from(theirs)));
    let stop = CancellationToken::new();
    let mut log = KernelLog::new(Path::new("/dev/kmsg"), "boot-1", shared(&outlet));
    let following = tokio::spawn({
        let stop = stop.clone();
        async move { log.follow(&mut reader, &stop, &mut Duration::from_secs(1)).await }
    });
    for seq in 0..1000 {
        while ours.send(xid_line(seq).as_bytes()).is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    }
    while outlet.kernel_log_position().is_none_or(|position| position.seq < 999) {
        sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    following.await.unwrap().unwrap();
    assert_eq!(pids(&Account::of(&outlet)), (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_overrun_is_told_with_the_number_of_lines_that_are_lost() {
    let outlet = outlet(FramesConfig::default());
    let overrun = || Err(std::io::Error::from_raw_os_error(libc::EPIPE));
    let lines = [vec![Ok(xid_line(7)), overrun(), Ok(xid_line(1007)), Ok(xid_line(1008)), overrun()], vec![overrun()]];
    let mut reader = Reader::scripted(lines.into_iter().flatten().chain([Ok(xid_line(1009))]).collect());
    let shared = shared(&outlet);
    let metrics = Arc::clone(&shared.metrics);
    let mut log = KernelLog::new(Path::new("/dev/kmsg"), "boot-1", shared);
    let stop = CancellationToken::new();
    stop.cancel();
    log.follow(&mut reader, &stop, &mut Duration::from_secs(1)).await.unwrap();
    let account = Account::of(&outlet);
    assert_eq!(account.texts("event", event::EVENT), ["xid", "kernel_log_gap", "xid", "xid", "xid"]);
    let gap: serde_json::Value = serde_json::from_str(&account.texts("event", event::DETAILS_JSON)[1]).unwrap();
    assert_eq!((&gap["lines"], &gap["seq_first"], &gap["seq"]), (&999.into(), &8.into(), &1006.into()));
    assert_eq!(metrics.kernel_log_lines_lost.get(), 999);
}

/// Fills the kernel's log until it overwrites what was not read. It needs root and `sysctl kernel.printk_devkmsg=on`, and it
/// throws away what the kernel has logged.
#[tokio::test]
#[ignore = "it overwrites the kernel log of this host"]
async fn the_kernels_own_overrun_is_counted() {
    let path = Path::new("/dev/kmsg");
    let mut reader = Reader::open(path).unwrap();
    while reader.read().unwrap() != Got::Nothing {}
    let mut writer = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let write = |writer: &mut std::fs::File, text: &str| writer.write_all(text.as_bytes()).unwrap();
    let outlet = outlet(FramesConfig::default());
    let mut log = KernelLog::new(path, "boot-1", shared(&outlet));
    let stop = CancellationToken::new();
    stop.cancel();
    write(&mut writer, "<4>NVRM: Xid (PCI:0000:9b:00): 13, pid=1, name=a, a line of a test\n");
    log.follow(&mut reader, &stop, &mut Duration::from_secs(1)).await.unwrap();
    for number in 0..20_000 {
        write(&mut writer, &format!("<7>racklake: line {number} of a test {}\n", "x".repeat(400)));
    }
    write(&mut writer, "<4>NVRM: Xid (PCI:0000:9b:00): 13, pid=2, name=a, a line of a test\n");
    log.follow(&mut reader, &stop, &mut Duration::from_secs(1)).await.unwrap();
    let account = Account::of(&outlet);
    assert_eq!(account.texts("event", event::EVENT), ["xid", "kernel_log_gap", "xid"]);
    assert_eq!(pids(&account), [1, 2]);
    let gap: serde_json::Value = serde_json::from_str(&account.texts("event", event::DETAILS_JSON)[1]).unwrap();
    assert!((1..20_000).contains(&gap["lines"].as_i64().unwrap()), "{gap}");
}
