//! `xid`: reads a saved kernel log and prints what it says about GPUs, for a program or for a human.
//!
//! It takes what dmesg and journalctl print, whatever they put before a message, and the format of `/dev/kmsg`.

use std::io::{self, BufRead, ErrorKind, Read as _, Write};

use serde::Serialize;

use super::catalogue::{self, Explanation};
use super::line::{GpuEvent, Kind, Parser};
use super::{record, rows};

/// Longest line that is read, bytes; what follows counts as another line.
const LINE_MAX: u64 = 64 * 1024;

/// An event as one JSON object. Every member is always there.
#[derive(Serialize)]
struct Decoded<'a> {
    event: &'static str,
    code: Option<i64>,
    sub_code: Option<i64>,
    severity: &'static str,
    pci_bus_id: Option<&'a str>,
    pid: Option<i64>,
    process: Option<&'a str>,
    mnemonic: Option<&'a str>,
    meaning: Option<&'a str>,
    action: Option<&'a str>,
    investigatory_action: Option<&'a str>,
    unit: Option<&'a str>,
    fatal: Option<bool>,
    link: Option<i64>,
    channel: Option<&'a str>,
    fault_address: Option<&'a str>,
    recovery_action_before: Option<i64>,
    recovery_action: Option<i64>,
    registers: Option<&'a [String]>,
    gpu_instance: Option<i64>,
    compute_instance: Option<i64>,
    switch: Option<&'a str>,
    /// What the log puts before the message: a time, a host.
    logged: Option<&'a str>,
    /// Sequence number in the kernel's log.
    seq: Option<i64>,
    /// Line of the input, from 1.
    line: u64,
    text: &'a str,
    message: &'a str,
    catalogue: &'static str,
}

/// Prints the events of a log and says how many there were. The loading of the driver is no error and is left out.
///
/// # Errors
/// When the log cannot be read or the output cannot be written; an output that nobody reads any more is none.
pub fn decode(mut log: impl BufRead, output: &mut impl Write, as_json: bool) -> io::Result<u64> {
    let (mut parser, mut bytes, mut events) = (Parser::default(), Vec::new(), 0);
    for number in 1.. {
        bytes.clear();
        if log.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes);
        let record = record::parse(&line);
        let text = record.as_ref().map_or(line.as_ref(), |record| record.text.as_str());
        for text in text.lines() {
            let Some(event) = parser.parse(text).filter(|event| event.kind != Kind::DriverLoaded) else { continue };
            let logged =
                text.find(&event.message).map(|start| text[..start].trim()).filter(|logged| !logged.is_empty());
            let decoded = Decoded { logged, seq: record.as_ref().map(|record| record.seq), ..decoded(&event, number) };
            events += 1;
            let written = if as_json { write_json(output, &decoded) } else { write_row(output, &decoded, events) };
            match written {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(events),
                written => written?,
            }
        }
    }
    output.flush().or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
    Ok(events)
}

fn decoded(event: &GpuEvent, line: u64) -> Decoded<'_> {
    let explanation = event.code.filter(|_| event.kind == Kind::Xid).and_then(catalogue::find);
    let said = |member: fn(&Explanation) -> &str| explanation.map(member);
    Decoded {
        event: event.kind.name(),
        code: event.code,
        sub_code: event.sub_code,
        severity: rows::severity(event),
        pci_bus_id: event.pci_bus_id.as_deref(),
        pid: event.pid,
        process: event.process.as_deref(),
        mnemonic: said(|explanation| &explanation.mnemonic),
        meaning: said(|explanation| &explanation.meaning),
        action: explanation.and_then(|explanation| explanation.action.as_deref()),
        investigatory_action: explanation.and_then(|explanation| explanation.investigatory_action.as_deref()),
        unit: event.unit.as_deref(),
        fatal: event.fatal,
        link: event.link,
        channel: event.channel.as_deref(),
        fault_address: event.fault_address.as_deref(),
        recovery_action_before: event.recovery_action.map(|(before, _)| before),
        recovery_action: event.recovery_action.map(|(_, now)| now),
        registers: (!event.registers.is_empty()).then_some(&event.registers),
        gpu_instance: event.gpu_instance,
        compute_instance: event.compute_instance,
        switch: event.switch.as_deref(),
        logged: None,
        seq: None,
        line,
        text: &event.text,
        message: &event.message,
        catalogue: catalogue::VERSION,
    }
}

fn write_json(output: &mut impl Write, decoded: &Decoded<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *output, decoded).map_err(io::Error::from)?;
    output.write_all(b"\n")
}

/// A row of a table; the head comes before the first.
fn write_row(output: &mut impl Write, decoded: &Decoded<'_>, number: u64) -> io::Result<()> {
    if number == 1 {
        let (code, gpu, process, action) = ("error", "pci address", "process", "action by NVIDIA");
        writeln!(output, "{:<5} {code:<9} {gpu:<13} {process:<24} {action:<20} meaning", "line")?;
    }
    let name = match decoded.event {
        "xid" => "XID",
        "sxid" => "SXid",
        _ => "no answer",
    };
    let sub_code = decoded.sub_code.map(|sub_code| format!(".{sub_code}")).unwrap_or_default();
    let code = decoded.code.map_or_else(|| name.to_owned(), |code| format!("{name} {code}{sub_code}"));
    let process = match (decoded.process, decoded.pid) {
        (Some(process), Some(pid)) => format!("{process} ({pid})"),
        (process, pid) => process.map(str::to_owned).or(pid.map(|pid| pid.to_string())).unwrap_or("-".to_owned()),
    };
    let (gpu, action) = (decoded.pci_bus_id.unwrap_or("-"), decoded.action.unwrap_or("-"));
    let meaning =
        decoded.meaning.map_or_else(|| decoded.text.to_owned(), |meaning| format!("{meaning}: {}", decoded.text));
    writeln!(output, "{:<5} {code:<9} {gpu:<13} {process:<24} {action:<20} {meaning}", decoded.line)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json(log: &str) -> Vec<Value> {
        let mut output = Vec::new();
        let events = decode(log.as_bytes(), &mut output, true).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events, lines.len() as u64);
        lines
    }

    #[test]
    fn a_recorded_log_is_decoded_line_by_line() {
        let lines = json(include_str!("../../data/kernel_logs/xid-119.dmesg.log"));
        let told = |member: &str| lines.iter().map(|line| line[member].clone()).collect::<Vec<_>>();
        assert_eq!(told("code"), [119; 5]);
        assert_eq!(told("pid"), [2024380, 2024380, 2024380, 1263500, 1240590]);
        assert_eq!(told("process"), ["nvidia-smi", "nvidia-smi", "nvidia-smi", "cache_mgr_main", "gpud"]);
        assert!(lines.iter().all(|line| line["pci_bus_id"] == "0000:9b:00" && line["action"] == "RESET_GPU"));
        assert_eq!(lines[0]["logged"], "[Sun Feb 23 16:24:18 2025]");
        assert_eq!(lines[0]["registers"], serde_json::json!(["0x2081", "0x4"]));
        assert_eq!((&lines[0]["line"], &lines[0]["sub_code"]), (&3.into(), &Value::Null));
    }

    #[test]
    fn logs_without_gpu_errors_give_nothing() {
        for log in [
            include_str!("../../data/kernel_logs/nvswitch.kmsg.log"),
            include_str!("../../data/kernel_logs/peermem.kmsg.log"),
            include_str!("../../data/kernel_logs/nccl.dmesg-iso.log"),
            "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n",
        ] {
            assert_eq!(json(log), [] as [Value; 0]);
        }
    }

    #[test]
    fn records_of_the_device_are_read_with_their_sequence_number() {
        let lines = json(
            "3,77,5000000,-;NVRM: The NVIDIA GPU 0000:0a:00.0\\x0aNVRM: (PCI ID: 10de:2330) installed in this system \
             has\\x0aNVRM: fallen off the bus and is not responding to commands.\n DEVICE=+pci:0000:0a:00.0\n",
        );
        assert_eq!((lines.len(), &lines[0]["seq"], &lines[0]["code"]), (1, &77.into(), &Value::Null));
        assert_eq!((&lines[0]["pci_bus_id"], &lines[0]["severity"]), (&"0000:0a:00.0".into(), &"critical".into()));
    }

    #[test]
    fn a_human_gets_a_table() {
        let mut output = Vec::new();
        let log = "NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n";
        decode(log.as_bytes(), &mut output, false).unwrap();
        let text = String::from_utf8(output).unwrap();
        assert!(text.starts_with("line ") && text.contains("XID 79    0000:05:00"), "{text}");
        assert!(text.contains("RESTART_BM"), "{text}");
    }
}
