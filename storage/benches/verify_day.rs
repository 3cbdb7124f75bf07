//! Times the proof of a day of `gpu_sample`: key columns filled, readings null, a row per device and second.
//!
//! Run it with `cargo bench -p racklake-storage --bench verify_day -- --devices 1000 --file-seconds 50`; it prints rows,
//! files, time and rows per second for both kinds of proof. A file holds as many seconds as are asked for, so that files
//! can be given the size that they have at another number of devices. With `--lake DIR` the day stays there, and is not
//! written again by a second run, whose peak memory is then that of the proof alone. It measures reading, not the first
//! touch of a cold disk.

#![allow(clippy::unwrap_used, reason = "a bench stops where something is not as it should be")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use racklake_schemas::tables::GPU_SAMPLE;
use racklake_storage::verify::{Question, Report, Verdict, verify};
use racklake_storage::{Lake, LakeTable};

/// 2026-11-24 00:00:00 UTC.
const MIDNIGHT: i64 = 1_795_478_400_000_000;
const SECOND: i64 = 1_000_000;
const GPUS: i64 = 8;
const FRAME_SECONDS: i64 = 10;

struct Size {
    devices: i64,
    seconds: i64,
    file_seconds: i64,
    threads: usize,
}

impl Size {
    fn of_arguments() -> Size {
        let arguments: Vec<String> = std::env::args().collect();
        let number = |name: &str, default: i64| {
            let place = arguments.iter().position(|argument| argument == name);
            place.map_or(default, |place| arguments[place + 1].parse().unwrap())
        };
        Size {
            devices: number("--devices", 104),
            seconds: number("--seconds", 86_400),
            file_seconds: number("--file-seconds", 500),
            threads: number("--threads", std::thread::available_parallelism().unwrap().get() as i64) as usize,
        }
    }
}

fn main() {
    let size = Size::of_arguments();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::args().skip_while(|argument| argument != "--lake").nth(1);
    let location = kept.unwrap_or_else(|| folder.path().display().to_string());
    let lake = Lake::open(&location, &BTreeMap::new()).unwrap();
    let begin = Instant::now();
    if !std::path::Path::new(&location).join(GPU_SAMPLE.name).exists() {
        write(&lake, &size);
    }
    let bytes: u64 = lake.table(&GPU_SAMPLE).unwrap().contents().unwrap().bytes;
    println!(
        "{} devices, {} s, {} s per file: {} MB written in {:.0} s",
        size.devices,
        size.seconds,
        size.file_seconds,
        bytes / 1_000_000,
        begin.elapsed().as_secs_f64()
    );
    for (name, keys) in [("counting frames", false), ("counting frames, comparing keys", true)] {
        let begin = Instant::now();
        let report = verify(&lake, Question { keys, threads: size.threads, testimony: Vec::new(), watch: &|_| {} });
        tell(name, &report, begin.elapsed().as_secs_f64(), size.threads);
    }
}

fn tell(name: &str, report: &Report, seconds: f64, threads: usize) {
    assert_eq!(report.verdict(), Verdict::Complete, "the day that was written is whole");
    let table = &report.tables[0];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    println!(
        "{name}: {} rows, {} files, {} streams in {seconds:.2} s with {threads} threads: {:.1} M rows/s, peak memory {peak}",
        table.rows,
        table.files,
        table.streams.len(),
        table.rows as f64 / seconds / 1e6,
    );
}

fn write(lake: &Lake, size: &Size) {
    let mut table = lake.table(&GPU_SAMPLE).unwrap();
    for (number, begin) in (0..size.seconds).step_by(size.file_seconds as usize).enumerate() {
        let end = (begin + size.file_seconds).min(size.seconds);
        commit(&mut table, rows(size.devices, begin, end), number as i64);
    }
}

fn commit(table: &mut LakeTable, rows: RecordBatch, number: i64) {
    let files = table.write(&[rows], &[]).unwrap();
    let began_at = (number > 0).then_some(number);
    let span = racklake_storage::Span { app_id: "day/-/0".to_owned(), began_at, next: number + 1, domain: None };
    table.commit(&files, &[span]).unwrap();
}

/// The rows of all devices in some seconds, whole frames.
fn rows(devices: i64, begin: i64, end: i64) -> RecordBatch {
    let row = |device: i64| (begin..end).map(move |second| (device, second));
    let all: Vec<(i64, i64)> = (0..devices).flat_map(row).collect();
    let frame_rows = |device: i64| (GPUS.min(devices - device / GPUS * GPUS) * FRAME_SECONDS) as i32;
    let time = |value: fn(i64, i64) -> i64| {
        let values = all.iter().map(|(device, second)| MIDNIGHT + value(*device, *second));
        Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC")) as ArrayRef
    };
    let text = |value: fn(i64) -> String| {
        let texts: Vec<String> = (0..devices).map(value).collect();
        Arc::new(StringArray::from_iter_values(all.iter().map(|(device, _)| &texts[*device as usize]))) as ArrayRef
    };
    let i64s = |value: fn(i64, i64) -> i64| {
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(device, second)| value(*device, *second)))) as ArrayRef
    };
    let columns = GPU_SAMPLE.columns.iter().map(|column| match column.name {
        "ts" => time(|device, second| second * SECOND + (device * 7919 + second * 104_729) % 3000),
        "received_at" => time(|_, second| (second / FRAME_SECONDS + 1) * FRAME_SECONDS * SECOND),
        "site" => text(|_| "hall-1".to_owned()),
        "rack" => text(|device| format!("r{:03}", device / 64)),
        "node" => text(|device| format!("gpu-{:05}", device / GPUS)),
        "device_id" => text(|device| format!("GPU-{:08x}-5f1c-4a7e-9d3b-{:012x}", device * 2_654_435, device)),
        "stream_id" => text(|device| format!("{:032x}", (device / GPUS + 1) as u128 * 0x9e37_79b9_7f4a_7c15_f39c)),
        "seq" => i64s(|_, second| second / FRAME_SECONDS + 1),
        "session_id" => i64s(|device, _| MIDNIGHT + device),
        "frame_rows" => Arc::new(Int32Array::from_iter_values(all.iter().map(|(device, _)| frame_rows(*device)))),
        "read_us" => Arc::new(Int32Array::from_iter_values(
            all.iter().map(|(device, second)| 900 + ((device * 31 + second * 17) % 400) as i32),
        )),
        "row_status" => Arc::new(Int8Array::from_value(0, all.len())),
        "unsupported_mask" | "failed_mask" => i64s(|_, _| 0),
        _ => new_null_array(&column.arrow_type(), all.len()),
    });
    RecordBatch::try_new(GPU_SAMPLE.arrow_schema(), columns.collect()).unwrap()
}
