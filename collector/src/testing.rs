//! What the tests of this crate share: rows to send, a reader of what went out, and a source whose reads take as long as
//! the test says.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int8Type, Int64Type, TimestampMicrosecondType};
use racklake_schemas::tables::{self, GPU_SAMPLE, MINER_SAMPLE, coverage, device, gpu_sample};
use racklake_schemas::{Row, Rows, Table, ValueType, row_status, wire};

use crate::config::FramesConfig;
use crate::coverage::Tally;
use crate::frames::Frame;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::place::{DeviceLabels, Place};
use crate::route::Route;
use crate::source::{BoxFuture, BurstSettings, Call, Found, Identity, Reading, Source, SourceError};

pub(crate) fn place() -> Place {
    place_of(&"0af1".repeat(8))
}

/// The place of another stream.
pub(crate) fn place_of(stream_id: &str) -> Place {
    let route = Arc::new(Route { prefix: "t".to_owned(), partitions: 4 });
    Place { site: "test".to_owned(), node: "n1".to_owned(), rack: None, stream_id: stream_id.to_owned(), route }
}

/// A closed frame of 100 bytes that nobody can decode.
pub(crate) fn frame(table: &'static Table, seq: i64) -> Frame {
    let Place { stream_id, node, route, .. } = place();
    let (payload, tally, partition) = (Some(vec![0; 100].into()), Tally::default(), route.partition(&node));
    Frame { table, stream_id, node, route, partition, seq, rows: 3, bytes: 100, payload, closed_at: 0, tally }
}

pub(crate) fn outlet(limits: FramesConfig) -> Arc<Outlet> {
    Arc::new(Outlet::new(place(), limits, Arc::new(Metrics::new()), Arc::new(Health::default())))
}

/// A row of gpu_sample as the sampler would send it.
pub(crate) fn gpu_row(device_id: &str, ts: i64) -> Row {
    let labels = DeviceLabels { device_id: device_id.to_owned(), session_id: 1, rack: None };
    let mut row = Row::new(&GPU_SAMPLE);
    place().stamp(&mut row, ts, Some(&labels));
    row
}

pub(crate) fn decode(frame: &Frame) -> RecordBatch {
    let mut rows = Rows::new(frame.table);
    wire::decode(frame.payload.as_ref().unwrap(), 1, |_| &mut rows).unwrap();
    rows.into_batch().unwrap()
}

pub(crate) fn texts(batch: &RecordBatch, column: usize) -> Vec<String> {
    batch.column(column).as_string::<i32>().iter().map(|text| text.unwrap_or("null").to_owned()).collect()
}

fn ints(batch: &RecordBatch, column: usize) -> Vec<Option<i64>> {
    let array = batch.column(column);
    match batch.column(column).data_type() {
        arrow::datatypes::DataType::Int8 => array.as_primitive::<Int8Type>().iter().map(|v| v.map(i64::from)).collect(),
        arrow::datatypes::DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().iter().collect(),
        _ => array.as_primitive::<Int64Type>().iter().collect(),
    }
}

/// Everything that waits for Kafka behind an outlet, decoded.
pub(crate) struct Account {
    frames: Vec<(&'static str, i64, RecordBatch)>,
}

/// Sums of the coverage rows of a table.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) expected: i64,
    pub(crate) collected: i64,
    pub(crate) failed: i64,
    pub(crate) stale: i64,
    pub(crate) late: i64,
    pub(crate) dropped: i64,
    pub(crate) lost_in_flight: i64,
    pub(crate) spooled: i64,
}

impl Account {
    pub(crate) fn of(outlet: &Outlet) -> Account {
        let mut frames = Vec::new();
        while let Some(queued) = outlet.take(|_| true, usize::MAX) {
            let payload = outlet.payload(&queued).unwrap();
            let mut rows = Rows::new(queued.frame.table);
            wire::decode(&payload, 1, |_| &mut rows).unwrap();
            frames.push((queued.frame.table.name, queued.frame.seq, rows.into_batch().unwrap()));
            outlet.published(&queued);
        }
        frames.sort_by_key(|(table, seq, _)| (*table, *seq));
        Account { frames }
    }

    fn batches(&self, table: &str) -> impl Iterator<Item = &RecordBatch> {
        self.frames.iter().filter(move |frame| frame.0 == table).map(|frame| &frame.2)
    }

    pub(crate) fn seqs(&self, table: &str) -> BTreeSet<i64> {
        self.frames.iter().filter(|frame| frame.0 == table).map(|frame| frame.1).collect()
    }

    pub(crate) fn rows(&self, table: &str) -> usize {
        self.batches(table).map(RecordBatch::num_rows).sum()
    }

    pub(crate) fn texts(&self, table: &str, column: usize) -> Vec<String> {
        self.batches(table).flat_map(|batch| texts(batch, column)).collect()
    }

    pub(crate) fn ints(&self, table: &str, column: usize) -> Vec<Option<i64>> {
        self.batches(table).flat_map(|batch| ints(batch, column)).collect()
    }

    /// Row statuses of a device, in the order of time.
    pub(crate) fn statuses(&self, device_id: &str) -> Vec<i64> {
        let devices = self.texts("gpu_sample", gpu_sample::DEVICE_ID);
        let times = self.ints("gpu_sample", gpu_sample::TS);
        let statuses = self.ints("gpu_sample", gpu_sample::ROW_STATUS);
        let rows = devices.into_iter().zip(times).zip(statuses).filter(|((device, _), _)| device == device_id);
        let by_time: BTreeMap<_, _> = rows.map(|((_, ts), status)| (ts, status.unwrap())).collect();
        by_time.into_values().collect()
    }

    pub(crate) fn coverage(&self, table: &str) -> Sums {
        let names = self.texts("coverage", coverage::TABLE);
        let sum = |column: usize| {
            let values = names.iter().zip(self.ints("coverage", column));
            values.filter(|(name, _)| *name == table).filter_map(|(_, value)| value).sum::<i64>()
        };
        let sums = Sums {
            expected: sum(coverage::EXPECTED),
            collected: sum(coverage::COLLECTED),
            failed: sum(coverage::FAILED),
            stale: sum(coverage::STALE),
            late: sum(coverage::LATE),
            dropped: sum(coverage::DROPPED),
            lost_in_flight: sum(coverage::LOST_IN_FLIGHT),
            spooled: sum(coverage::SPOOLED),
        };
        let told = sums.collected + sums.failed + sums.dropped + sums.lost_in_flight;
        assert_eq!(sums.expected, told, "{sums:?}");
        sums
    }
}

/// A source whose devices, durations and values the test sets while it runs.
#[derive(Default)]
pub(crate) struct FakeSource {
    pub(crate) state: Mutex<FakeState>,
}

#[derive(Default)]
pub(crate) struct FakeState {
    /// Address and device id of what is there; an error where the source fails.
    pub(crate) found: Vec<(String, String)>,
    pub(crate) failure: Option<String>,
    /// None is 1 s.
    pub(crate) period: Option<Duration>,
    /// Where set, there is a second tier, whose table stands for any.
    pub(crate) slow_period: Option<Duration>,
    pub(crate) pause: Option<&'static str>,
    pub(crate) burst: Option<BurstSettings>,
    pub(crate) is_listed_by_config: bool,
    /// None is 1 s.
    pub(crate) deadline: Option<Duration>,
    /// How long the next reads of an address take; none is 10 ms.
    pub(crate) durations: HashMap<String, VecDeque<Duration>>,
    /// Status that reads of an address give; none is ok.
    pub(crate) statuses: HashMap<String, i8>,
    pub(crate) uptime: i64,
    pub(crate) reads: u64,
    /// When each read began.
    pub(crate) begun: Vec<(String, tokio::time::Instant)>,
    pub(crate) in_flight: BTreeSet<(String, &'static str)>,
}

impl FakeSource {
    pub(crate) fn with(addresses: &[&str]) -> Arc<FakeSource> {
        let fake = FakeSource::default();
        fake.state.lock().unwrap().found = addresses.iter().map(|a| ((*a).to_owned(), format!("GPU-{a}"))).collect();
        Arc::new(fake)
    }

    pub(crate) fn takes(&self, address: &str, millis: &[u64]) {
        let durations = millis.iter().map(|ms| Duration::from_millis(*ms)).collect();
        self.state.lock().unwrap().durations.insert(address.to_owned(), durations);
    }

    pub(crate) fn identity(device_id: &str) -> Identity {
        let mut row = Row::new(&tables::DEVICE);
        row.set(device::DEVICE_KIND, "gpu");
        row.set(device::UUID, device_id);
        Identity { device_id: Some(device_id.to_owned()), row }
    }
}

impl Source for FakeSource {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn tiers(&self) -> &'static [&'static Table] {
        const TIERS: [&Table; 2] = [&GPU_SAMPLE, &MINER_SAMPLE];
        if self.state.lock().unwrap().slow_period.is_some() { &TIERS } else { &TIERS[..1] }
    }

    fn period(&self, table: &'static Table) -> Duration {
        let state = self.state.lock().unwrap();
        let slow = state.slow_period.filter(|_| *table != GPU_SAMPLE);
        slow.or(state.period).unwrap_or(Duration::from_secs(1))
    }

    fn hard_deadline(&self) -> Option<Duration> {
        Some(Duration::from_secs(10))
    }

    fn call_in_progress(&self, _address: Option<&str>) -> Option<Call> {
        Some(Call { name: "nvmlDeviceGetPowerUsage".to_owned(), since: 5 })
    }

    fn burst(&self) -> Option<BurstSettings> {
        self.state.lock().unwrap().burst
    }

    fn pause(&self) -> Option<&'static str> {
        self.state.lock().unwrap().pause
    }

    fn is_listed_by_config(&self) -> bool {
        self.state.lock().unwrap().is_listed_by_config
    }

    fn deadline(&self, _table: &'static Table) -> Duration {
        self.state.lock().unwrap().deadline.unwrap_or(Duration::from_secs(1))
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        let state = self.state.lock().unwrap();
        let found = match &state.failure {
            Some(message) => Err(SourceError { message: message.clone(), code: Some(9), devices_absent: true }),
            None => Ok(state
                .found
                .iter()
                .map(|(address, id)| Found {
                    address: address.clone(),
                    rack: None,
                    identity: Some(FakeSource::identity(id)),
                })
                .collect()),
        };
        Box::pin(async { found })
    }

    fn read<'a>(&'a self, address: &'a str, table: &'static Table) -> BoxFuture<'a, Reading> {
        Box::pin(async move {
            let duration = {
                let mut state = self.state.lock().unwrap();
                let is_first = state.in_flight.insert((address.to_owned(), table.name));
                assert!(is_first, "two reads of {address} in flight");
                state.reads += 1;
                state.begun.push((address.to_owned(), tokio::time::Instant::now()));
                let next = state.durations.get_mut(address).and_then(VecDeque::pop_front);
                next.unwrap_or(Duration::from_millis(10))
            };
            tokio::time::sleep(duration).await;
            let mut state = self.state.lock().unwrap();
            state.in_flight.remove(&(address.to_owned(), table.name));
            state.uptime += 1;
            let status = state.statuses.get(address).copied().unwrap_or(row_status::OK);
            let mut row = Row::new(table);
            if status == row_status::OK && *table == GPU_SAMPLE {
                row.read(gpu_sample::ENERGY_MILLIJOULES, state.uptime);
                row.unsupported(gpu_sample::FAN_SPEED_PERCENT);
            }
            row.set_status(status);
            debug_assert_eq!(GPU_SAMPLE.columns[gpu_sample::ENERGY_MILLIJOULES].value_type, ValueType::I64);
            Reading { rows: vec![row], lifetime: vec![Some(state.uptime)], ..Reading::default() }
        })
    }
}
