//! What the loop does with a message: rows, nothing where it was received before, or a dead letter that its partition
//! waits for.

use std::time::Duration;

use racklake_schemas::clock::Clock;
use racklake_schemas::wire::{self, DecodeError, FrameHeader, Received};
use racklake_schemas::{Rows, Table};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use tokio::time::Instant;

use super::{Finished, Pipeline};
use crate::buffer::Part;
use crate::consumer::Place;
use crate::dead_letter::{Letter, Refusal};
use crate::failure::back_off;
use crate::metrics::{OfColumn, OfLetter, OfTable};
use crate::own_events::Suspects;
use crate::received::{Admission, FrameId, ReceivedSet};

/// What became of a frame.
#[derive(Debug)]
enum Decoded {
    /// Its rows were added, some of them perhaps with times that cannot be right.
    Rows(Received, Suspects),
    /// It had been received before.
    Duplicate(FrameHeader),
}

impl Pipeline {
    /// Takes a message in, unless it is of an assignment that has ended.
    pub(super) fn take_in(&mut self, place: Place, epoch: u64, message: OwnedMessage) {
        let table = &mut self.tables[place.topic];
        let Some(part) = table.buffer.part_mut(place.partition).filter(|part| part.epoch == epoch) else { return };
        if part.letter.is_some() {
            part.held.push_back(message);
        } else {
            self.decode(place, epoch, message);
        }
    }

    fn decode(&mut self, place: Place, epoch: u64, message: OwnedMessage) {
        let topic = &self.topics[place.topic];
        let buffer = &mut self.tables[place.topic].buffer;
        let offset = message.offset();
        if buffer.part(place.partition).is_none_or(|part| part.has(offset)) {
            return;
        }
        let age_max = self.config.received.stream_age_max;
        let fill = |rows: &mut Rows, received: &mut ReceivedSet| decode(topic.table, &message, rows, received, age_max);
        match buffer.add(place.partition, offset, is_replayed(&message), fill) {
            None => {}
            Some(Ok(Decoded::Rows(received, suspects))) => {
                self.count(topic.table, &received, suspects, &message);
                let clock = self.notable.suspects(&received, suspects, Instant::now());
                let columns = self.notable.columns(&received);
                clock.into_iter().chain(columns).for_each(|event| self.events.tell(event));
            }
            Some(Ok(Decoded::Duplicate(frame))) => {
                self.metrics.duplicates.get_or_create(&OfTable { table: topic.table.name }).inc();
                let (stream_id, seq) = (frame.stream_id, frame.seq);
                tracing::debug!(topic = topic.name, partition = place.partition, offset, stream_id, seq, "duplicate");
            }
            Some(Err(refusal)) => {
                let labels = OfLetter { table: topic.table.name, reason: refusal.reason() };
                self.metrics.dead_letters.get_or_create(&labels).inc();
                tracing::warn!(topic = topic.name, partition = place.partition, offset, %refusal, "dead letter");
                if let Some(part) = buffer.part_mut(place.partition) {
                    part.letter = Some(offset);
                }
                self.send_letter(place, epoch, Letter { message, refusal }, 1);
            }
        }
    }

    fn count(&self, table: &'static Table, received: &Received, suspects: Suspects, message: &OwnedMessage) {
        let labels = OfTable { table: table.name };
        self.metrics.frames.get_or_create(&labels).inc();
        self.metrics.rows.get_or_create(&labels).inc_by(received.rows.len() as u64);
        self.metrics.bytes.get_or_create(&labels).inc_by(message.payload().map_or(0, <[u8]>::len) as u64);
        if suspects.rows > 0 {
            self.metrics.clock_suspect_rows.get_or_create(&labels).inc_by(suspects.rows);
        }
        for column in &received.unknown_columns {
            let labels = OfColumn { table: table.name, column: *column };
            self.metrics.unknown_columns.get_or_create(&labels).inc();
        }
    }

    fn send_letter(&mut self, place: Place, epoch: u64, letter: Letter, attempt: u32) {
        let letters = self.letters.clone();
        let wait = if attempt == 1 { Duration::ZERO } else { back_off(attempt - 1) };
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let result = letters.send(&letter).await;
            Ok(Finished::Letter { place, epoch, letter, attempt, result })
        });
    }

    /// The position passes an acknowledged letter, and what came after it is taken in; any other is sent again.
    pub(super) fn on_letter(
        &mut self,
        place: Place,
        epoch: u64,
        letter: Letter,
        attempt: u32,
        result: Result<(), String>,
    ) {
        let offset = letter.message.offset();
        let topic = &self.topics[place.topic];
        let name = format!("dead letter {}/{}", topic.name, place.partition);
        let buffer = &mut self.tables[place.topic].buffer;
        let of_now = |part: &&mut Part| part.epoch == epoch && part.letter == Some(offset);
        let Some(part) = buffer.part_mut(place.partition).filter(of_now) else { return };
        if let Err(error) = result {
            tracing::warn!(what = name, offset, error, attempt, "not written; its partition waits");
            self.health.set(&name, format!("offset {offset} cannot be set aside, its partition waits: {error}"));
            return self.send_letter(place, epoch, letter, attempt + 1);
        }
        tracing::debug!(what = name, offset, "set aside");
        self.health.clear(&name);
        part.letter = None;
        let (frame, age_max) = (frame_of(topic.table, &letter), self.config.received.stream_age_max);
        let at = time_of(&letter.message);
        buffer.pass(place.partition, offset, |received| received.add_letter(frame, at, age_max));
        while let Some(message) = self.next_held(place) {
            self.decode(place, epoch, message);
        }
    }

    fn next_held(&mut self, place: Place) -> Option<OwnedMessage> {
        let part = self.tables[place.topic].buffer.part_mut(place.partition)?;
        if part.letter.is_some() { None } else { part.held.pop_front() }
    }
}

/// Adds the rows of a frame that must be of this table, and records the frame; one that was received before adds none.
fn decode(
    table: &'static Table,
    message: &OwnedMessage,
    rows: &mut Rows,
    set: &mut ReceivedSet,
    stream_age_max: Duration,
) -> Result<Decoded, Refusal> {
    if let Some(name) = header(message, wire::header::TABLE)
        && name != table.name.as_bytes()
    {
        return Err(Refusal::WrongTable(String::from_utf8_lossy(name).chars().take(64).collect()));
    }
    let payload = message.payload().filter(|payload| !payload.is_empty()).ok_or(Refusal::Empty)?;
    // Who it is says the frame itself; the headers only repeat it.
    let frame = wire::peek(payload)?;
    if !std::ptr::eq(frame.table, table) {
        return Err(Refusal::WrongTable(frame.table.name.to_owned()));
    }
    let id = FrameId::new(&frame.stream_id, frame.seq).ok_or(DecodeError::BadHeader("stream_id"))?;
    let at = time_of(message);
    match set.judge(id) {
        Admission::New => {
            let received = wire::decode(payload, Clock::now_us(), |_| &mut *rows)?;
            set.add(id, at, stream_age_max);
            let suspects = Suspects::among(rows, received.rows.clone(), is_replayed(message));
            Ok(Decoded::Rows(received, suspects))
        }
        Admission::Duplicate => {
            set.add_duplicate(id, at, stream_age_max);
            Ok(Decoded::Duplicate(frame))
        }
        Admission::Closed { closed_to } => Err(Refusal::StreamClosed { closed_to }),
        Admission::TooMany => Err(Refusal::TooManyStreams),
    }
}

/// Whether a message is marked as one that has waited: its rows are older than their arrival by right.
fn is_replayed(message: &OwnedMessage) -> bool {
    header(message, wire::header::REPLAY) == Some(b"1")
}

/// When Kafka got a message, µs UTC: the clock that streams are closed by. A time that is still to come is not believed.
fn time_of(message: &OwnedMessage) -> i64 {
    let now = Clock::now_us();
    message.timestamp().to_millis().map_or(now, |ms| ms.saturating_mul(1000)).clamp(0, now.max(0))
}

/// Which frame of the table a dead letter was, where its headers or its payload say so.
fn frame_of(table: &'static Table, letter: &Letter) -> Option<FrameId> {
    if matches!(letter.refusal, Refusal::WrongTable(_)) {
        return None;
    }
    let text = |key| header(&letter.message, key).and_then(|value| std::str::from_utf8(value).ok());
    let told = text(wire::header::STREAM_ID).zip(text(wire::header::SEQ).and_then(|seq| seq.parse().ok()));
    let told = told.and_then(|(stream_id, seq)| FrameId::new(stream_id, seq));
    told.or_else(|| {
        let frame = wire::peek(letter.message.payload()?).ok().filter(|frame| std::ptr::eq(frame.table, table))?;
        FrameId::new(&frame.stream_id, frame.seq)
    })
}

fn header<'m>(message: &'m OwnedMessage, key: &str) -> Option<&'m [u8]> {
    message.headers()?.iter().find(|header| header.key == key)?.value
}

#[cfg(test)]
mod tests {
    use racklake_schemas::wire::encode;
    use racklake_schemas::{Cell, Row, ValueType, tables};
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    const AGE_MAX: Duration = Duration::from_secs(15 * 86_400);

    fn frame(table: &'static Table) -> Vec<u8> {
        let mut row = Row::new(table);
        for (index, column) in table.columns.iter().enumerate() {
            let cell = if column.value_type == ValueType::Text { Cell::from("a") } else { Cell::I64(1) };
            if !column.nullable {
                row.set(index, cell);
            }
        }
        let mut rows = Rows::new(table);
        rows.push(row);
        let stream_id = "0123456789abcdef0123456789abcdef".to_owned();
        let header = FrameHeader { table, stream_id, seq: 1, node: "n1".to_owned() };
        encode(&header, &rows.into_batch().unwrap())
    }

    fn message(payload: Option<Vec<u8>>, table_header: Option<&str>) -> OwnedMessage {
        let headers = table_header.map(|name| OwnedHeaders::new().insert(Header { key: "table", value: Some(name) }));
        OwnedMessage::new(payload, None, "racklake.coverage".to_owned(), Timestamp::NotAvailable, 0, 0, headers)
    }

    #[test]
    fn a_frame_of_its_topics_table_becomes_rows() {
        let mut rows = Rows::new(&tables::COVERAGE);
        let of_coverage = message(Some(frame(&tables::COVERAGE)), Some("coverage"));
        let mut set = ReceivedSet::default();
        let decoded = decode(&tables::COVERAGE, &of_coverage, &mut rows, &mut set, AGE_MAX).unwrap();
        assert!(matches!(decoded, Decoded::Rows(received, _) if received.rows == (0..1)));
        assert_eq!(rows.len(), 1);
        let again = decode(&tables::COVERAGE, &of_coverage, &mut rows, &mut set, AGE_MAX).unwrap();
        assert!(matches!(again, Decoded::Duplicate(frame) if frame.seq == 1));
        assert_eq!(rows.len(), 1, "a frame that was received before adds nothing");
    }

    #[test]
    fn a_dead_letter_is_named_by_its_headers_or_else_by_what_can_be_read_of_it() {
        let stream_id = "0123456789abcdef0123456789abcdef";
        let named = |seq| {
            let headers = [(wire::header::STREAM_ID, stream_id), (wire::header::SEQ, seq)];
            let add = |all: OwnedHeaders, (key, value)| all.insert(Header { key, value: Some(value) });
            let headers = headers.into_iter().fold(OwnedHeaders::new(), add);
            OwnedMessage::new(Some(vec![1]), None, "t".to_owned(), Timestamp::NotAvailable, 0, 0, Some(headers))
        };
        let of = |message, refusal| frame_of(&tables::COVERAGE, &Letter { message, refusal });
        assert_eq!(of(named("7"), DecodeError::Truncated.into()), FrameId::new(stream_id, 7));
        assert_eq!(of(named("x"), DecodeError::Truncated.into()), None);
        assert_eq!(of(named("7"), Refusal::WrongTable("event".to_owned())), None, "that seq is another table's");
        let closed = Refusal::StreamClosed { closed_to: 3 };
        assert_eq!(of(message(Some(frame(&tables::COVERAGE)), None), closed), FrameId::new(stream_id, 1));
    }

    #[test]
    fn anything_else_is_refused_with_its_reason_and_adds_nothing() {
        let (mut rows, mut set) = (Rows::new(&tables::COVERAGE), ReceivedSet::default());
        let cases = [
            (message(None, None), "empty"),
            (message(Some(Vec::new()), None), "empty"),
            (message(Some(b"\xff\xff\xff".to_vec()), None), "truncated"),
            (message(Some(frame(&tables::COVERAGE)), Some("event")), "wrong_table"),
            (message(Some(frame(&tables::DEVICE)), None), "wrong_table"),
        ];
        for (message, reason) in cases {
            let refusal = decode(&tables::COVERAGE, &message, &mut rows, &mut set, AGE_MAX).unwrap_err();
            assert_eq!(refusal.reason(), reason);
            assert!(rows.is_empty() && set == ReceivedSet::default());
        }
    }
}
