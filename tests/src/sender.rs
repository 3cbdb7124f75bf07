//! Sends frames of made-up GPU rows to Kafka and remembers what was sent: a collector whose every row is known.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use racklake_schemas::clock::Clock;
use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample as c};
use racklake_schemas::wire::{self, FrameHeader, header};
use racklake_schemas::{Row, Rows, identity};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

/// Devices per frame; two rows of each.
const DEVICES: usize = 4;
/// Rows per frame.
pub const ROWS: usize = DEVICES * 2;

/// A stream of frames of one node.
pub struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
    partitions: i32,
    node: String,
    stream_id: String,
    seq: i64,
    energy: i64,
    sent: BTreeMap<i64, Vec<i64>>,
    /// The bytes of each frame, by seq.
    frames: BTreeMap<i64, Vec<u8>>,
}

impl Sender {
    /// A new stream for the node; frames go to `<prefix>.gpu_sample`.
    ///
    /// # Errors
    /// When the producer cannot be made.
    pub fn new(client: &ClientConfig, prefix: &str, partitions: i32, node: &str) -> Result<Sender> {
        // Distinct per node and start; the tests have no need of randomness.
        let mut random = [0u8; 16];
        random[..8].copy_from_slice(&Clock::now_us().to_le_bytes());
        for (byte, letter) in random[8..].iter_mut().zip(node.bytes().rev()) {
            *byte = letter;
        }
        Ok(Sender {
            producer: producer(client)?,
            topic: format!("{prefix}.gpu_sample"),
            partitions,
            node: node.to_owned(),
            stream_id: identity::stream_id(random),
            seq: 0,
            energy: 0,
            sent: BTreeMap::new(),
            frames: BTreeMap::new(),
        })
    }

    /// Goes on with a new producer, as a collector does that restarts and still has its spool.
    ///
    /// # Errors
    /// When the producer cannot be made.
    pub fn restart(&mut self, client: &ClientConfig) -> Result<()> {
        self.producer = producer(client)?;
        Ok(())
    }

    /// Why its producer can send no more, if so: librdkafka gives up its idempotence when it cannot tell what arrived. The
    /// remedy is the collector's: a new producer, and all that may not have arrived again.
    pub fn fatal_error(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, reason)| format!("{code:?}: {reason}"))
    }

    /// Hands the next frame to Kafka.
    ///
    /// # Errors
    /// When librdkafka's queue refuses it.
    pub fn send(&mut self) -> Result<()> {
        let seq = self.prepare()?;
        self.resend(seq)
    }

    /// Makes the next frame, which counts as sent, and gives its seq; `resend` hands it to Kafka.
    ///
    /// # Errors
    /// When the rows are no frame.
    pub fn prepare(&mut self) -> Result<i64> {
        self.prepare_at(Clock::now_us())
    }

    /// The same with rows of another time, µs UTC; each a microsecond after the one before it.
    ///
    /// # Errors
    /// When the rows are no frame.
    pub fn prepare_at(&mut self, ts: i64) -> Result<i64> {
        self.seq += 1;
        let mut rows = Rows::new(&GPU_SAMPLE);
        let mut energies = Vec::new();
        for i in 0..ROWS {
            self.energy += 1;
            energies.push(self.energy);
            let mut row = Row::new(&GPU_SAMPLE);
            // Rows of one device at one time would be the same row.
            row.set(c::TS, ts + i as i64);
            row.set(c::SITE, "test");
            row.set(c::DEVICE_ID, format!("GPU-{}-{}", self.node, i / 2));
            row.read(c::ENERGY_MILLIJOULES, self.energy);
            row.read(c::GPU_TEMP_CELSIUS, 40 + (i as i32));
            rows.push(row);
        }
        let header = FrameHeader {
            table: &GPU_SAMPLE,
            stream_id: self.stream_id.clone(),
            seq: self.seq,
            node: self.node.clone(),
        };
        self.frames.insert(self.seq, wire::encode(&header, &batch_of(rows)?));
        self.sent.insert(self.seq, energies);
        Ok(self.seq)
    }

    /// Hands a frame to Kafka, perhaps once more: the same bytes under the same name.
    ///
    /// # Errors
    /// When there is no such frame, or librdkafka's queue refuses it.
    pub fn resend(&self, seq: i64) -> Result<()> {
        self.send_raw(self.payload(seq)?, self.headers(seq))
    }

    /// Hands a frame to Kafka as one that has waited in a spool.
    ///
    /// # Errors
    /// When there is no such frame, or librdkafka's queue refuses it.
    pub fn replay(&self, seq: i64) -> Result<()> {
        let mark = Header { key: header::REPLAY, value: Some("1") };
        self.send_raw(self.payload(seq)?, self.headers(seq).insert(mark))
    }

    /// The bytes of a frame.
    ///
    /// # Errors
    /// When there is no such frame.
    pub fn payload(&self, seq: i64) -> Result<&[u8]> {
        self.frames.get(&seq).map(Vec::as_slice).with_context(|| format!("no frame {seq} was made"))
    }

    /// The headers of a frame.
    pub fn headers(&self, seq: i64) -> OwnedHeaders {
        let seq = seq.to_string();
        let headers = [
            (header::TABLE, "gpu_sample"),
            (header::FORMAT, "1"),
            (header::CATALOG_VERSION, "1"),
            (header::NODE, &self.node),
            (header::STREAM_ID, &self.stream_id),
            (header::SEQ, &seq),
        ];
        headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }))
    }

    /// The seq of the newest frame; 0 before the first.
    pub fn last_seq(&self) -> i64 {
        self.seq
    }

    /// Hands any bytes to the stream's partition.
    ///
    /// # Errors
    /// When librdkafka's queue refuses them.
    pub fn send_raw(&self, payload: &[u8], headers: OwnedHeaders) -> Result<()> {
        let partition = identity::partition_of(&self.node, self.partitions);
        let record = BaseRecord::to(&self.topic).key(&self.node).partition(partition).payload(payload).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).context("handing a frame to librdkafka")
    }

    /// Waits until Kafka has acknowledged everything.
    ///
    /// # Errors
    /// When that takes more than a minute.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(Duration::from_secs(60)).context("flushing the sender")
    }

    /// How many rows were sent.
    pub fn rows(&self) -> usize {
        self.sent.values().map(Vec::len).sum()
    }

    /// Writes what was sent, for `check_sent.py`: one JSON object per stream.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_account(senders: &[&Sender], path: &Path) -> Result<()> {
        let streams: Vec<_> = senders
            .iter()
            .map(|s| serde_json::json!({ "stream_id": s.stream_id, "node": s.node, "frames": s.sent }))
            .collect();
        Ok(std::fs::write(path, serde_json::to_vec(&streams)?)?)
    }
}

fn producer(client: &ClientConfig) -> Result<ThreadedProducer<DefaultProducerContext>> {
    let mut client = client.clone();
    client.set("enable.idempotence", "true").set("linger.ms", "5").set("message.timeout.ms", "0");
    Ok(client.create_with_context(DefaultProducerContext)?)
}

fn batch_of(rows: Rows) -> Result<arrow::array::RecordBatch> {
    // The encoder takes the columns that travel; those that ingest and the header fill in are absent and not null.
    Ok(rows.into_wire_batch()?)
}
