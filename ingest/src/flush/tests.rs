//! Two that read one partition and write into one lake, as after a rebalance that one of them has not heard of.

use std::collections::BTreeMap;

use racklake_schemas::wire::{self, FrameHeader, encode};
use racklake_schemas::{Cell, Row, ValueType, tables};
use racklake_storage::Lake;

use super::*;
use crate::buffer::Buffer;
use crate::positions::app_id;
use crate::received::{Admission, FrameId, domain_name};

const TABLE: &Table = &tables::COVERAGE;
const TOPIC: &str = "racklake.coverage";
const STREAM: &str = "0123456789abcdef0123456789abcdef";
const AGE_MAX: Duration = Duration::from_secs(15 * 86_400);

/// One ingest: what it has read and where it stands.
struct Reader {
    buffer: Buffer,
    lake: Option<LakeTable>,
}

/// The message at an offset: one row, frame `offset + 1` of the stream.
fn message(offset: i64) -> Vec<u8> {
    let mut row = Row::new(TABLE);
    for (index, column) in TABLE.columns.iter().enumerate().filter(|(_, column)| !column.nullable) {
        row.set(index, if column.value_type == ValueType::Text { Cell::from("a") } else { Cell::I64(offset) });
    }
    let mut rows = Rows::new(TABLE);
    rows.push(row);
    let header = FrameHeader { table: TABLE, stream_id: STREAM.to_owned(), seq: offset + 1, node: "n1".to_owned() };
    encode(&header, &rows.into_batch().unwrap())
}

impl Reader {
    /// Begins where the lake stands.
    fn begin(lake: &Lake) -> Reader {
        let mut reader = Reader { buffer: Buffer::new(TABLE, TOPIC.to_owned()), lake: None };
        let table = lake.table(TABLE).unwrap();
        let position = table.position(&app_id(TOPIC, "id", 0)).unwrap();
        let received = ReceivedSet::read(&table, &domain_name(TOPIC, 0)).unwrap();
        reader.lake = Some(table);
        reader.begin_at(position, received);
        reader
    }

    fn begin_at(&mut self, position: Option<i64>, received: ReceivedSet) {
        self.buffer.begin(0, app_id(TOPIC, "id", 0), 1, position, received);
    }

    /// Reads messages; gives how many of them were duplicates.
    fn read(&mut self, offsets: std::ops::Range<i64>) -> usize {
        let mut duplicates = 0;
        for offset in offsets {
            let fill = |rows: &mut Rows, set: &mut ReceivedSet| {
                let frame = FrameId::new(STREAM, offset + 1).unwrap();
                if set.judge(frame) == Admission::Duplicate {
                    duplicates += 1;
                    set.add_duplicate(frame, 0, AGE_MAX);
                } else {
                    wire::decode(&message(offset), 0, |_| rows)?;
                    set.add(frame, 0, AGE_MAX);
                }
                Ok::<(), wire::DecodeError>(())
            };
            self.buffer.add(0, offset, false, fill).unwrap().unwrap();
        }
        duplicates
    }

    fn take(&mut self) -> Job {
        Job::new(TABLE, 0, TOPIC.to_owned(), None, self.buffer.take()).unwrap()
    }

    fn run(&mut self, job: Job) -> Verdict {
        let done = job.run(self.lake.take().unwrap(), None);
        self.lake = Some(done.table);
        done.verdict
    }

    fn flush(&mut self) -> Verdict {
        let job = self.take();
        self.run(job)
    }
}

/// Rows, next offset, and received intervals of the lake.
fn standing(lake: &Lake) -> (u64, Option<i64>, Vec<(i64, i64)>) {
    let table = lake.table(TABLE).unwrap();
    let set = ReceivedSet::read(&table, &domain_name(TOPIC, 0)).unwrap();
    let received = set.streams().flat_map(|(_, stream)| stream.received().to_vec()).collect();
    (table.contents().unwrap().rows, table.position(&app_id(TOPIC, "id", 0)).unwrap(), received)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_has_read_further_than_its_successor_has_committed_discards_and_reads_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&folder.path().display().to_string(), &BTreeMap::new()).unwrap();
    let mut zombie = Reader::begin(&lake);
    zombie.read(0..5);
    assert!(matches!(zombie.flush(), Verdict::Committed { .. }));
    // It has read to 20, and one more flush behind the first, when it is held back.
    zombie.read(5..20);
    let held = zombie.take();
    zombie.read(20..25);
    let behind = zombie.take();
    let mut successor = Reader::begin(&lake);
    successor.read(5..12);
    assert!(matches!(successor.flush(), Verdict::Committed { .. }));

    let Verdict::Moved(moved) = zombie.run(held) else { panic!("the overlap 5..12 would be doubled") };
    assert_eq!(standing(&lake), (12, Some(12), vec![(1, 12)]), "nothing of the zombie");
    // Also the one behind it, whose beginning the lake never had.
    assert!(matches!(zombie.run(behind), Verdict::Moved(_)));
    // The zombie goes on from where its successor is; the partition is given back to it.
    let [Moved { position, received, .. }] = <[Moved; 1]>::try_from(moved).unwrap();
    assert_eq!(position, Some(12));
    zombie.begin_at(position, received);
    assert_eq!(zombie.read(12..25), 0);
    assert!(matches!(zombie.flush(), Verdict::Committed { .. }));
    // And the successor, which does not know that yet, has become the zombie.
    successor.read(12..14);
    assert!(matches!(successor.flush(), Verdict::Moved(_)));
    assert_eq!(standing(&lake), (25, Some(25), vec![(1, 25)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_whose_span_ends_where_its_successor_is_by_now_adds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&folder.path().display().to_string(), &BTreeMap::new()).unwrap();
    let mut zombie = Reader::begin(&lake);
    zombie.read(0..10);
    let held = zombie.take();
    let mut successor = Reader::begin(&lake);
    for offsets in [0..4, 4..10] {
        successor.read(offsets);
        assert!(matches!(successor.flush(), Verdict::Committed { .. }));
    }
    // Position and set are those that it would have left: what it wanted is in the lake, by another's commits.
    let verdict = zombie.run(held);
    assert!(matches!(verdict, Verdict::Committed { .. } | Verdict::Moved(_)), "{verdict:?}");
    assert_eq!(standing(&lake), (10, Some(10), vec![(1, 10)]));
}
