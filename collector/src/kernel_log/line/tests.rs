//! Lines as the driver prints them, old and new, and what they tell.

use proptest::prelude::*;

use super::*;

fn event(line: &str) -> GpuEvent {
    Parser::default().parse(line).unwrap_or_else(|| panic!("no event: {line}"))
}

#[test]
fn code_and_address_are_read_in_every_form() {
    for (line, code, address) in [
        ("[Sun Feb 23 16:24:18 2025] NVRM: Xid (PCI:0000:9b:00): 119, pid=1, name=a, Timeout", 119, "0000:9b:00"),
        ("[  130.456250] [ T1946] NVRM: Xid (PCI:0000:3B:00): 31, Ch 00000010", 31, "0000:3b:00"),
        ("Feb 01 14:25:31 host kernel: NVRM: Xid (0000:03:00): 14, Channel 00000001", 14, "0000:03:00"),
        ("kern  :warn  : 2025-01-21T04:41:44,285060+00:00 NVRM: Xid (PCI:0018:01:00): 154, x", 154, "0018:01:00"),
        ("NVRM: Xid (PCI:0000:c1:00): 149 NETIR_LINK_EVT", 149, "0000:c1:00"),
        ("NVRM: Xid (PCI:0000:01:00): 79, ", 79, "0000:01:00"),
        ("NVRM: Xid (PCI:0000:01:00): 79", 79, "0000:01:00"),
        ("NVRM: Xid (PCI:00000000:9B:00.0): 48, DBE", 48, "0000:9b:00.0"),
        ("NVRM: Xid (PCI:0000:3b:00 GPU-I:01 GPU-CI:02): 13, pid=9, name=a, Graphics Exception", 13, "0000:3b:00"),
    ] {
        let event = event(line);
        assert_eq!((event.kind, event.code, event.pci_bus_id.as_deref()), (Kind::Xid, Some(code), Some(address)));
        assert!(event.message.starts_with("NVRM: Xid ("), "{}", event.message);
    }
}

#[test]
fn process_and_text_are_told_apart() {
    for (rest, pid, process, text) in [
        ("119, pid=2024380, name=nvidia-smi, Timeout after 6s", Some(2024380), Some("nvidia-smi"), "Timeout after 6s"),
        ("79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", None, None, "GPU has fallen off the bus."),
        ("94, pid=7194, Contained: CE User Channel (0x9).", Some(7194), None, "Contained: CE User Channel (0x9)."),
        ("43, pid=51, name=ray::train fn, channel 0x00000010", Some(51), Some("ray::train fn"), "channel 0x00000010"),
        ("45, pid=7, name=python3", Some(7), Some("python3"), ""),
        ("63, Row Remapper: New row marked", None, None, "Row Remapper: New row marked"),
    ] {
        let event = event(&format!("NVRM: Xid (PCI:0000:9b:00): {rest}"));
        assert_eq!((event.pid, event.process.as_deref(), event.text.as_str()), (pid, process, text));
    }
}

#[test]
fn nvlink_errors_tell_unit_link_registers_and_sub_code() {
    for (rest, unit, fatal, link, sub_code, registers) in [
        ("149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000)", "NETIR_LINK_EVT", true, 9, 37, 2),
        ("149, NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x026001c6 0x00000000 0x0)", "NETIR_LINK_EVT", true, 0, 38, 3),
        ("145, RLW_REMAP Nonfatal XC0 i0 Link 03 (0x00000004 0x00000001)", "RLW_REMAP", false, 3, 0, 2),
        ("149, NETIR_LINK_EVT Fatal XC 1 i 2 Link 01 [0x0210000a]", "NETIR_LINK_EVT", true, 1, 33, 1),
        ("144, pid=5, name=a, SAW_MVB Nonfatal XC0 i0 Link -1 (0x00100001)", "SAW_MVB", false, -1, 1, 1),
    ] {
        let event = event(&format!("NVRM: Xid (PCI:0008:01:00): {rest}"));
        assert_eq!((event.unit.as_deref(), event.fatal, event.link), (Some(unit), Some(fatal), Some(link)), "{rest}");
        assert_eq!((event.sub_code, event.registers.len()), (Some(sub_code), registers), "{rest}");
    }
    let old = event(
        "NVRM: Xid (PCI:0000:d9:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link \
         6(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
    );
    assert_eq!((old.link, old.registers.len(), old.sub_code), (Some(6), 7, None));
}

#[test]
fn what_else_a_line_tells_is_taken_along() {
    let line = |rest: &str| event(&format!("NVRM: Xid (PCI:0000:82:00 GPU-I:05): {rest}"));
    let fault = line(
        "31, pid=12, name=a, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ \
         0x7f7e_1a000000. Fault is of type FAULT_PDE ACCESS_TYPE_READ",
    );
    assert_eq!(fault.fault_address.as_deref(), Some("0x7f7e_1a000000"));
    assert_eq!((fault.channel.as_deref(), fault.gpu_instance), (Some("00000008"), Some(5)));
    let exception = line("13, pid=1, name=a, Graphics Exception: ESR 0x504730=0x10e 0x504734=0x4 0x504728=0x4c1eb72");
    assert_eq!(exception.registers, ["0x504730=0x10e", "0x504734=0x4", "0x504728=0x4c1eb72"]);
    let halt = line("62, 32260b5e 00000154 00000000 2026da96");
    assert_eq!(halt.registers, ["32260b5e", "00000154", "00000000", "2026da96"]);
    let action = line("154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)");
    assert_eq!(action.recovery_action, Some((0, 4)));
    assert_eq!(
        line("32, pid=2, name=train.3, Channel ID 0000000d intr0 00040000").channel.as_deref(),
        Some("0000000d")
    );
}

#[test]
fn each_line_of_an_sxid_is_an_event_of_the_switch() {
    for (rest, fatal, link, registers) in [
        ("28006, Non-fatal, Link 46 MC TS crumbstore MCTO (First)", Some(false), Some(46), 0),
        ("20034, Fatal, Link 30 LTSSM Fault Up", Some(true), Some(30), 0),
        ("28006, Severity 0 Engine instance 46 Sub-engine instance 00", None, None, 0),
        ("28006, Data {0x50610002, 0x10610002, 0x00000000}", None, None, 3),
    ] {
        let event = event(&format!("[ 11.7] nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): {rest}"));
        assert_eq!((event.kind, event.pci_bus_id.as_deref()), (Kind::SwitchXid, Some("0000:c1:00.0")));
        assert_eq!((event.fatal, event.link, event.registers.len()), (fatal, link, registers), "{rest}");
        assert_eq!(event.switch.as_deref(), Some("nvidia-nvswitch3"));
        assert!(event.message.starts_with("nvidia-nvswitch3: SXid"));
    }
}

#[test]
fn a_gpu_that_fell_off_the_bus_is_told_once_on_one_line_or_three() {
    for (log, address) in [
        ("[ 8.5] NVRM: GPU 0000:05:00.0: GPU has fallen off the bus.", Some("0000:05:00.0")),
        ("NVRM: GPU at PCI:0000:05:00 has fallen off the bus.", Some("0000:05:00")),
        (
            "[ 8.5] NVRM: The NVIDIA GPU 0000:0a:00.0\n[ 8.5] NVRM: (PCI ID: 10de:2330) installed in this system has\n\
             [ 8.5] NVRM: fallen off the bus and is not responding to commands.",
            Some("0000:0a:00.0"),
        ),
        (
            "NVRM: The NVIDIA GPU 0000:0a:00.0 (PCI ID: 10de:2330)\nusb 1-1: new device\n\
             NVRM: installed in this system has fallen off the bus and is not responding to commands.",
            Some("0000:0a:00.0"),
        ),
        (
            "NVRM: The NVIDIA GPU 0000:0a:00.0\nNVRM: a\nNVRM: b\nNVRM: c\nNVRM: fallen off the bus and is not responding.",
            None,
        ),
    ] {
        let mut parser = Parser::default();
        let events: Vec<_> = log.lines().filter_map(|line| parser.parse(line)).collect();
        assert_eq!(events.len(), 1, "{log}");
        assert_eq!((events[0].kind, events[0].pci_bus_id.as_deref()), (Kind::FellOffTheBus, address), "{log}");
    }
    let mut parser = Parser::default();
    let whole: Vec<_> = ["NVRM: The NVIDIA GPU 0000:0a:00.0", "NVRM: has", "NVRM: fallen off the bus."].to_vec();
    let event = whole.into_iter().filter_map(|line| parser.parse(line)).next().unwrap();
    assert_eq!(event.message, "NVRM: The NVIDIA GPU 0000:0a:00.0 has fallen off the bus.");
}

#[test]
fn the_loading_of_the_driver_tells_its_version() {
    for (line, version) in [
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build", "570.124.06"),
    ] {
        let event = event(line);
        assert_eq!((event.kind, event.driver_version.as_deref()), (Kind::DriverLoaded, Some(version)));
    }
}

#[test]
fn what_is_no_event_is_none() {
    for line in [
        "",
        "NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d",
        "NVRM: GPU Board Serial Number: 1650124014249",
        "NVRM: Xid error: xyz, invalid data",
        "NVRM: Xid (PCI:0000:9b:00): abc, text",
        "NVRM: Xid (PCI:0000:9b:00): 99999999999999999999, text",
        "NVRM: Xid (PCI:0000:9b:00",
        "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:9b:00 (printing 1 of every 30).",
        "nvidia-nvswitch2: open (major=510)",
        "a user says that a GPU has fallen off the bus",
    ] {
        assert_eq!(Parser::default().parse(line), None, "{line}");
    }
}

#[test]
fn a_line_without_end_is_cut() {
    let event = event(&format!("NVRM: Xid (PCI:0000:9b:00): 13, {}", "ä".repeat(100_000)));
    assert!(event.message.len() <= LINE_MAX && event.code == Some(13));
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(
        lines in proptest::collection::vec(
            "(\\PC{0,20}|NVRM: |Xid \\(|SXid \\(|PCI:|0000:9b:00|\\.0|\\)|: |149|154|74|31|, |pid=|name=|'|Link |0x[0-9a-f]{0,20}|=|@ \
             |\\(|\\{|from |to |Ch |ID |GPU-I:|The NVIDIA GPU |fallen off the bus|loading NVIDIA|é){0,12}",
            0..6,
        ),
    ) {
        let mut parser = Parser::default();
        for line in lines {
            if let Some(event) = parser.parse(&line) {
                prop_assert!(event.message.len() <= 6 * LINE_MAX);
            }
        }
    }
}
