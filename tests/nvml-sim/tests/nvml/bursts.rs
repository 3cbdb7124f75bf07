//! XIDs by the thousand: NVML and the kernel log tell the same ones.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::raw::Raw;
use crate::support::{Node, PATIENCE};

/// Number, PCI address, XID and pid of every line.
fn lines(text: &str) -> Vec<(u64, String, u64, u64)> {
    let record = |line: &str| {
        let (head, text) = line.split_once(";NVRM: Xid (PCI:")?;
        let (pci, rest) = text.split_once("): ")?;
        let (code, rest) = rest.split_once(", pid=")?;
        let seq = head.split(',').nth(1)?.parse().ok()?;
        Some((seq, pci.to_owned(), code.parse().ok()?, rest.split_once(',')?.0.parse().ok()?))
    };
    text.lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| record(line).unwrap_or_else(|| panic!("{line}")))
        .collect()
}

fn scenario(count: u32) -> String {
    format!(
        "kmsg = \"kmsg\"\n[[gpu]]\n[[gpu]]\n[[gpu.burst]]\ncode = 94\ncount = {count}\npid = 100\n\
         [[gpu.burst]]\ncode = 31\nkmsg = false\n[[gpu.burst]]\ncode = 119\nnvml = false\ngpu_instance = 5\n"
    )
}

#[test]
fn a_burst_is_told_by_nvml_and_by_the_kernel_log() {
    let node = Node::new(&scenario(3000));
    let raw = Raw::new(&node);
    let gpu = raw.gpu(1);
    let set = raw.events(gpu);
    let mut codes = Vec::new();
    while let Some(event) = raw.event(set, 200) {
        assert_eq!((event.device, event.eventType, event.gpuInstanceId), (gpu, 8, u32::MAX));
        codes.push(event.eventData);
    }
    let of = |code| codes.iter().filter(|told| **told == code).count();
    assert_eq!((codes.len(), of(94), of(31)), (3001, 3000, 1));
    let told = lines(&std::fs::read_to_string(node.folder.path().join("kmsg")).unwrap());
    assert_eq!(told.len(), 3001);
    assert!(told.iter().enumerate().all(|(i, line)| line.0 == i as u64), "a number is missing");
    let pids: Vec<_> = told.iter().filter(|line| line.2 == 94).map(|line| line.3).collect();
    assert!(pids.iter().copied().eq(100..3100), "a line is missing or out of turn");
    assert_eq!(told.iter().find(|line| line.2 == 119).unwrap().1, "0000:43:00 GPU-I:05");
    assert!(told.iter().filter(|line| line.2 == 94).all(|line| line.1 == "0000:43:00"));
}

#[test]
fn a_line_comes_at_its_time() {
    let node = Node::new("kmsg = \"kmsg\"\nline = [{ at = 0.3, text = \"NVRM: fallen off the bus\" }]\n[[gpu]]\n");
    let raw = Raw::new(&node);
    let log = || std::fs::read_to_string(node.folder.path().join("kmsg")).unwrap_or_default();
    assert_eq!(log(), "");
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(raw.power(raw.gpu(0)).0, 0);
    let log = log();
    assert!(log.starts_with("4,0,") && log.contains(",-;NVRM: fallen off the bus\n"), "{log}");
}

#[test]
fn a_fifo_gets_every_line_as_fast_as_it_is_read() {
    let node = Node::new(&scenario(3000));
    let path = node.folder.path().join("kmsg");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let raw = Raw::new(&node);
    let gpu = raw.gpu(0);
    // Nobody reads yet, and no call waits for that.
    assert_eq!(raw.power(gpu).0, 0);
    let text = read(&path, 3001, || assert_eq!(raw.power(gpu).0, 0));
    let told = lines(&text);
    assert!(told.iter().map(|line| line.0).eq(0..3001), "a line is missing, twice there or out of turn");
}

/// Reads so many records of a FIFO; calls go on meanwhile.
fn read(path: &Path, count: usize, call: impl Fn()) -> String {
    const O_NONBLOCK: i32 = 0o4000;
    let mut fifo = std::fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).unwrap();
    let (began, mut text, mut buffer) = (Instant::now(), Vec::new(), vec![0; 65536]);
    while text.iter().filter(|byte| **byte == b'\n').count() < 2 * count {
        assert!(began.elapsed() < PATIENCE, "the lines do not come");
        call();
        if let Ok(got) = fifo.read(&mut buffer) {
            text.extend_from_slice(&buffer[..got]);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    String::from_utf8(text).unwrap()
}
