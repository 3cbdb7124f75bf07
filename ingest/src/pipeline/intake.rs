//! What the loop does with a message: rows, or a dead letter that its partition waits for.

use std::time::Duration;

use racklake_schemas::clock::Clock;
use racklake_schemas::wire::{self, Received};
use racklake_schemas::{Rows, Table};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};

use super::{Finished, Pipeline};
use crate::consumer::Place;
use crate::dead_letter::{Letter, Refusal};
use crate::failure::back_off;
use crate::metrics::{OfColumn, OfLetter, OfTable};

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
        let decoded = buffer.add(place.partition, offset, |rows| decode(topic.table, &message, rows));
        match decoded {
            None => {}
            Some(Ok(received)) => self.count(topic.table, &received, &message),
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

    fn count(&self, table: &'static Table, received: &Received, message: &OwnedMessage) {
        let labels = OfTable { table: table.name };
        self.metrics.frames.get_or_create(&labels).inc();
        self.metrics.rows.get_or_create(&labels).inc_by(received.rows.len() as u64);
        self.metrics.bytes.get_or_create(&labels).inc_by(message.payload().map_or(0, <[u8]>::len) as u64);
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
        let name = format!("dead letter {}/{}", self.topics[place.topic].name, place.partition);
        let buffer = &mut self.tables[place.topic].buffer;
        let of_now = |part: &&mut crate::buffer::Part| part.epoch == epoch && part.letter == Some(offset);
        let Some(part) = buffer.part_mut(place.partition).filter(of_now) else { return };
        if let Err(error) = result {
            tracing::warn!(what = name, offset, error, attempt, "not written; its partition waits");
            self.health.set(&name, format!("offset {offset} cannot be set aside, its partition waits: {error}"));
            return self.send_letter(place, epoch, letter, attempt + 1);
        }
        tracing::debug!(what = name, offset, "set aside");
        self.health.clear(&name);
        part.letter = None;
        buffer.pass(place.partition, offset);
        while let Some(message) = self.next_held(place) {
            self.decode(place, epoch, message);
        }
    }

    fn next_held(&mut self, place: Place) -> Option<OwnedMessage> {
        let part = self.tables[place.topic].buffer.part_mut(place.partition)?;
        if part.letter.is_some() { None } else { part.held.pop_front() }
    }
}

/// Adds the rows of a frame that must be of this table.
fn decode(table: &'static Table, message: &OwnedMessage, rows: &mut Rows) -> Result<Received, Refusal> {
    if let Some(name) = header(message, wire::header::TABLE)
        && name != table.name.as_bytes()
    {
        return Err(Refusal::WrongTable(String::from_utf8_lossy(name).chars().take(64).collect()));
    }
    let payload = message.payload().filter(|payload| !payload.is_empty()).ok_or(Refusal::Empty)?;
    let mut others = None;
    let received = wire::decode(payload, Clock::now_us(), |named| {
        if std::ptr::eq(named, table) { rows } else { others.insert(Rows::new(named)) }
    })?;
    if others.is_some() {
        return Err(Refusal::WrongTable(received.header.table.name.to_owned()));
    }
    Ok(received)
}

fn header<'m>(message: &'m OwnedMessage, key: &str) -> Option<&'m [u8]> {
    message.headers()?.iter().find(|header| header.key == key)?.value
}

#[cfg(test)]
mod tests {
    use racklake_schemas::wire::{FrameHeader, encode};
    use racklake_schemas::{Cell, Row, ValueType, tables};
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

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
        assert_eq!(decode(&tables::COVERAGE, &of_coverage, &mut rows).unwrap().rows, 0..1);
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn anything_else_is_refused_with_its_reason_and_adds_nothing() {
        let mut rows = Rows::new(&tables::COVERAGE);
        let cases = [
            (message(None, None), "empty"),
            (message(Some(Vec::new()), None), "empty"),
            (message(Some(b"\xff\xff\xff".to_vec()), None), "truncated"),
            (message(Some(frame(&tables::COVERAGE)), Some("event")), "wrong_table"),
            (message(Some(frame(&tables::DEVICE)), None), "wrong_table"),
        ];
        for (message, reason) in cases {
            assert_eq!(decode(&tables::COVERAGE, &message, &mut rows).unwrap_err().reason(), reason);
            assert!(rows.is_empty());
        }
    }
}
