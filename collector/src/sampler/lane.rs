//! One tier of a device: its grid of ticks, the read in flight, and what its rows have in common.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use racklake_schemas::clock::Clock;
use racklake_schemas::{Bits, Row, Table, row_status};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::grid::{first_due, step};
use crate::source::{Reading, Source};

/// Two rows of a lane this close (µs) are put one after another; a larger step back is the clock's and stays.
const TS_COLLISION: i64 = 1000;

/// A tier of one device.
pub(super) struct Lane {
    pub(super) table: &'static Table,
    pub(super) in_flight: Option<InFlight>,
    pub(super) next_due: Instant,
    /// The period that ends with `next_due`; another one may be in force by now.
    period: Duration,
    /// The tick of the grid that a tick in between was put before.
    then: Option<Instant>,
    /// When the last read began.
    began: Option<Instant>,
    ts_last: i64,
    /// Bits that the device has never supported, for rows without values.
    unsupported: Bits,
}

/// A read that has not returned.
pub(super) struct InFlight {
    read: JoinHandle<Finished>,
    pub(super) began: Instant,
    deadline: Instant,
    /// When it counts as stalled.
    hard_deadline: Option<Instant>,
    /// When it was due, µs UTC.
    pub(super) due: i64,
    pub(super) given_up: bool,
    pub(super) is_stalled: bool,
}

/// What a read gave, and when it ended.
pub(super) struct Finished {
    pub(super) reading: Reading,
    pub(super) ts: i64,
    pub(super) read_us: i32,
}

/// A tick that is due.
pub(super) struct Tick {
    pub(super) served: Instant,
    /// When it was due, µs UTC.
    pub(super) due: i64,
    /// Ticks before it that nobody came to.
    pub(super) missed: i64,
    /// When the next one is due, µs UTC.
    pub(super) next: i64,
    /// By which period the following ones come.
    pub(super) period: Duration,
}

impl Lane {
    /// The lane of a table, with its first tick.
    pub(super) fn new(table: &'static Table, source: &dyn Source, origin: Instant, address: &str) -> Lane {
        let period = source.period(table);
        let next_due = first_due(origin, period, address, Instant::now());
        Lane {
            table,
            in_flight: None,
            next_due,
            period,
            then: None,
            began: None,
            ts_last: 0,
            unsupported: Bits::default(),
        }
    }

    /// Takes the tick that is due. What was due until now goes by the period in force until now, the next tick by `next`.
    pub(super) fn take_tick(&mut self, next: Duration, address: &str) -> Tick {
        let (now, period) = (Instant::now(), self.period);
        let missed = (now - self.next_due).as_nanos() / period.as_nanos().max(1);
        let served = self.next_due + period * missed as u32;
        self.period = next;
        let on_the_grid = self.then.take().filter(|then| *then > now);
        self.next_due = on_the_grid.unwrap_or_else(|| served + step(period, next, address));
        let due = Clock::now_us() - (now - served).as_micros() as i64;
        let next = due + (self.next_due - served).as_micros() as i64;
        Tick { served, due, missed: missed as i64, next, period: self.period }
    }

    /// Puts the next tick before its time; the grid goes on from it.
    pub(super) fn hurry(&mut self, due: Instant) {
        self.next_due = self.next_due.min(due);
    }

    /// Puts a tick between those of the grid, no sooner than `apart` after the last read began.
    pub(super) fn put_between(&mut self, now: Instant, apart: Duration) {
        let due = self.began.map_or(now, |began| now.max(began + apart));
        if due < self.next_due {
            self.then.get_or_insert(self.next_due);
            self.next_due = due;
        }
    }

    /// Begins a read, in a task of its own.
    pub(super) fn begin(&mut self, source: &Arc<dyn Source>, address: &str, tick: &Tick) {
        let (table, began) = (self.table, Instant::now());
        self.began = Some(began);
        let deadline = tick.served + source.deadline(table);
        let hard_deadline = source.hard_deadline().map(|hard| tick.served + hard);
        let (source, address) = (Arc::clone(source), address.to_owned());
        let read = tokio::spawn(async move {
            let began = Instant::now();
            let reading = source.read(&address, table).await;
            // The source may have measured nearer to the device.
            let ts = reading.ended_at.unwrap_or_else(Clock::now_us);
            let read_us = reading.read_us.unwrap_or_else(|| microseconds(began.elapsed()));
            Finished { reading, ts, read_us }
        });
        let due = tick.due;
        self.in_flight =
            Some(InFlight { read, began, deadline, hard_deadline, due, given_up: false, is_stalled: false });
    }

    /// When something is to be said about the read in flight: that it is late, or that it is stalled.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let read = self.in_flight.as_ref()?;
        let soft = (!read.given_up).then_some(read.deadline);
        let hard = read.hard_deadline.filter(|_| !read.is_stalled);
        soft.into_iter().chain(hard).min()
    }

    /// Whether the deadline has just passed, so that the tick gets its row now while the read goes on: when it was due and
    /// how long it has been waited for.
    pub(super) fn gives_up(&mut self, now: Instant) -> Option<(i64, Duration)> {
        let read = self.in_flight.as_mut().filter(|read| !read.given_up && read.deadline <= now)?;
        read.given_up = true;
        Some((read.due, read.began.elapsed()))
    }

    /// Whether the hard deadline has just passed: when the read was due.
    pub(super) fn stalls(&mut self, now: Instant) -> Option<i64> {
        let passed = |read: &&mut InFlight| !read.is_stalled && read.hard_deadline.is_some_and(|hard| hard <= now);
        let read = self.in_flight.as_mut().filter(passed)?;
        read.is_stalled = true;
        Some(read.due)
    }

    /// Whether nothing is awaited any more.
    pub(super) fn is_over(&self) -> bool {
        self.in_flight.as_ref().is_none_or(|read| read.given_up)
    }

    /// A row that knows what the device does not have.
    pub(super) fn row_without_values(&self) -> Row {
        let mut row = Row::new(self.table);
        row.unsupported_where(self.unsupported);
        row
    }

    /// Learns from rows what the device does not have.
    pub(super) fn learn(&mut self, rows: &[Row]) {
        if let Some(first) = rows.first().filter(|first| has_values(first)) {
            self.unsupported = first.unsupported_bits();
        }
    }

    /// Rows of a device are told apart by ts within a frame.
    pub(super) fn after_the_last(&mut self, ts: i64) -> i64 {
        let collides = (0..TS_COLLISION).contains(&(self.ts_last - ts));
        self.ts_last = if collides { self.ts_last + 1 } else { ts };
        self.ts_last
    }
}

/// The next read to return, with the number of its lane; `None` where the source itself failed.
pub(super) async fn finish(lanes: &mut [Lane]) -> (usize, Option<Finished>) {
    std::future::poll_fn(|context| {
        for (number, lane) in lanes.iter_mut().enumerate() {
            if let Some(read) = &mut lane.in_flight
                && let Poll::Ready(finished) = std::pin::Pin::new(&mut read.read).poll(context)
            {
                return Poll::Ready((number, finished.ok()));
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether the row holds what a read gave, rather than that there was nothing to read.
pub(super) fn has_values(row: &Row) -> bool {
    matches!(row.status(), row_status::OK | row_status::PARTIAL)
}

pub(super) fn microseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_micros()).unwrap_or(i32::MAX)
}
