//! What a value costs on the wire: time to encode and decode, and bytes, by ticks per frame.
//!
//! `cargo bench -p racklake-schemas`. Rows are those of `bench60`, 8 devices per frame; a value is one of its 60
//! readings, while identity, time and masks are paid for but not counted. Decoding gathers frames until 32 Ki rows wait,
//! as ingest does, and ends at the record batch.

use std::hint::black_box;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use racklake_schemas::bench60::{DEVICES, Node, VALUES};
use racklake_schemas::wire::{self, FrameHeader};
use racklake_schemas::{Rows, tables};

const TICKS: [usize; 3] = [1, 10, 60];
/// Rows that ingest gathers before it makes a batch of them.
const GATHERED: usize = 32 * 1024;
/// Ticks that are encoded in turn, so that none is in a cache by habit.
const ENCODED_TICKS: usize = 3000;

criterion_group!(benches, encode, decode, sizes);
criterion_main!(benches);

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.sample_size(50).sampling_mode(SamplingMode::Flat);
    for ticks in TICKS {
        let batches = batches(ticks, ENCODED_TICKS / ticks);
        group.throughput(Throughput::Elements((batches.len() * ticks * DEVICES * VALUES) as u64));
        group.bench_with_input(BenchmarkId::from_parameter(ticks), &batches, |b, batches| {
            let encode_all = || batches.iter().for_each(|(header, batch)| drop(black_box(wire::encode(header, batch))));
            b.iter_custom(|times| cpu_time(times, encode_all));
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(50).sampling_mode(SamplingMode::Flat);
    for ticks in TICKS {
        let frames = frames(ticks, GATHERED / (ticks * DEVICES));
        group.throughput(Throughput::Elements((frames.len() * ticks * DEVICES * VALUES) as u64));
        group.bench_with_input(BenchmarkId::from_parameter(ticks), &frames, |b, frames| {
            b.iter_custom(|times| cpu_time(times, || drop(black_box(gather(frames)))));
        });
    }
    group.finish();
}

/// Time on the processor, not on the wall: what else runs on the machine costs caches but no waiting.
fn cpu_time(times: u64, work: impl Fn()) -> Duration {
    let start = (on_cpu(), Instant::now());
    (0..times).for_each(|_| work());
    match (start.0, on_cpu()) {
        (Some(start), Some(end)) => end.saturating_sub(start),
        _ => start.1.elapsed(), // not Linux
    }
}

fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn gather(frames: &[Vec<u8>]) -> RecordBatch {
    let mut rows = Rows::new(&tables::BENCH60);
    for frame in frames {
        if let Err(error) = wire::decode(frame, 1, |_| &mut rows) {
            eprintln!("a frame of the bench does not decode: {error}");
            std::process::exit(1);
        }
    }
    match rows.into_batch() {
        Ok(batch) => batch,
        Err(error) => {
            eprintln!("the rows of the bench make no batch: {error}");
            std::process::exit(1);
        }
    }
}

/// Prints bytes per value, which need no timing, beside the times; each frame compressed alone, which is an upper
/// bound, since Kafka compresses several together.
fn sizes(_: &mut Criterion) {
    for ticks in TICKS {
        let frames = frames(ticks, 600 / ticks);
        let values = (frames.len() * ticks * DEVICES * VALUES) as f64;
        let raw: usize = frames.iter().map(Vec::len).sum();
        let zstd: usize = frames.iter().filter_map(|frame| zstd::bulk::compress(frame, 1).ok()).map(|f| f.len()).sum();
        println!("size/{ticks}: {:.3} B/value raw, {:.3} with zstd-1", raw as f64 / values, zstd as f64 / values);
    }
}

fn frames(ticks: usize, count: usize) -> Vec<Vec<u8>> {
    batches(ticks, count).iter().map(|(header, batch)| wire::encode(header, batch)).collect()
}

/// Frames of five nodes in turn, one of which is idle.
fn batches(ticks: usize, count: usize) -> Vec<(FrameHeader, RecordBatch)> {
    let mut nodes: Vec<Node> = (0..5).map(|number| Node::new(60, number)).collect();
    (0..count)
        .filter_map(|i| {
            let node = &mut nodes[i % 5];
            let header = FrameHeader {
                table: &tables::BENCH60,
                stream_id: format!(
                    "{:032x}",
                    0x9e37_79b9_7f4a_7c15_u128.wrapping_mul(0xd6e8_feb8_6659_fd93 + i as u128 % 5)
                ),
                seq: i as i64 / 5 + 1,
                node: node.name(),
            };
            node.next(ticks).into_wire_batch().ok().map(|batch| (header, batch))
        })
        .collect()
}
