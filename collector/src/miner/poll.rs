//! One poll of one miner: what is asked, and what the replies mean beside the polls before.

use std::time::Duration;

use racklake_schemas::tables::{MINER_SAMPLE, device, miner_sample};
use racklake_schemas::{Row, fail_code, row_status};
use tokio::time::Instant;

use super::chip_lists::ChipLists;
use super::errors::{self, Errors};
use super::exchange::Trouble;
use super::hostile::Hostile;
use super::raw_reply::{Kept, Shapes};
use super::reader::{Memory, MinerError, Reader, Replies, Told, Wants};
use super::session::{Allowance, Peer, Session};
use super::state::{self, Judged, State};
use crate::source::{EventDraft, Identity, Reading};

/// How often the identity is read again while nothing calls for it.
const IDENTITY_PERIOD: Duration = Duration::from_secs(3600);
/// So many polls without an answer make a miner one that is not waited for long; every so many it gets the full time all
/// the same, since it may have become slow.
const SILENT_POLLS: u32 = 3;
const FULL_POLLS_APART: u32 = 8;

/// What is known of a miner from earlier polls.
pub(super) struct Known {
    /// Whose memory it is.
    make: &'static str,
    /// What its reader knows.
    pub(super) memory: Memory,
    state: Option<State>,
    /// When the identity was last read.
    identified: Option<Instant>,
    /// Something has happened since that calls for reading it again.
    is_doubtful: bool,
    mark: Option<String>,
    uptime: Option<i64>,
    /// How many counters the reader tells beside the uptime.
    counters: usize,
    /// Bits that the last row with all replies had no support for.
    unsupported_mask: i64,
    /// Polls in a row in which it was unreachable.
    silent_polls: u32,
    errors: Errors,
    kept: Kept,
    chip_lists: ChipLists,
    hostile: Hostile,
}

impl Known {
    /// Nothing is known yet.
    pub(super) fn new(reader: &dyn Reader) -> Known {
        Known {
            make: reader.make(),
            memory: reader.memory(),
            state: None,
            identified: None,
            is_doubtful: false,
            mark: None,
            uptime: None,
            counters: 0,
            unsupported_mask: 0,
            silent_polls: 0,
            errors: Errors::default(),
            kept: Kept::default(),
            chip_lists: ChipLists::default(),
            hostile: Hostile::default(),
        }
    }

    /// Whether the miner has not answered for so long that it should cost little.
    pub(super) fn is_suspect(&self) -> bool {
        self.silent_polls >= SILENT_POLLS && !self.silent_polls.is_multiple_of(FULL_POLLS_APART)
    }

    /// Forgets what another reader knew of the miner, so that this one can begin.
    pub(super) fn fit(&mut self, reader: &dyn Reader) {
        if self.make != reader.make() {
            let (state, silent_polls, errors) =
                (self.state.take(), self.silent_polls, std::mem::take(&mut self.errors));
            *self = Known { state, silent_polls, errors, is_doubtful: true, ..Known::new(reader) };
        }
    }

    fn wants_identity(&self) -> bool {
        self.is_doubtful || self.identified.is_none_or(|when| when.elapsed() >= IDENTITY_PERIOD)
    }
}

/// One poll of one miner.
pub(super) struct Poll<'a> {
    pub(super) peer: &'a Peer,
    pub(super) reader: &'static dyn Reader,
    pub(super) allowance: Allowance,
    /// Shapes of replies that any miner has had.
    pub(super) shapes: &'a Shapes,
}

impl Poll<'_> {
    /// Asks and reads. Always gives a row.
    pub(super) async fn run(&self, known: &mut Known) -> Reading {
        let address = self.peer.address.as_str();
        let mut session = Session::new(self.peer, self.allowance);
        let wants = Wants { sample: true, identity: known.wants_identity(), chips: known.chip_lists.are_due() };
        let mut replies = self.reader.ask(&mut session, wants, &mut known.memory).await;
        let mut told = self.reader.read(&replies, &mut known.memory);
        let is_other = known.doubts(&told);
        if told.miner.is_some() && !wants.identity && known.wants_identity() {
            let wants = Wants { identity: true, ..Wants::default() };
            replies.extend(self.reader.ask(&mut session, wants, &mut known.memory).await);
            told = self.reader.read(&replies, &mut known.memory);
        }
        let troubles: Vec<Trouble> =
            replies.iter().map(|(_, reply)| reply.err().unwrap_or(Trouble::Unreadable)).collect();
        let judged = if told.miner.is_some() { told.judged } else { Some(state::without_replies(&troubles)) };
        let is_unreachable = judged.is_some_and(|(state, _)| state == State::Unreachable);
        known.silent_polls = if is_unreachable { known.silent_polls.saturating_add(1) } else { 0 };
        let identity = self.identity(&mut told, judged, is_other, known);
        let cause = replies.iter().next().and_then(|(_, reply)| reply.err()).and_then(Trouble::cause);
        let mut events: Vec<EventDraft> = known.follow(address, judged, cause).into_iter().collect();
        if told.miner.is_some() {
            known.counters = told.lifetime.len();
            events.extend(known.hostile.follow(address, &replies));
        }
        if is_other {
            events.extend(known.errors.close(address, "device_replaced"));
        }
        if let Some(raised) = &told.errors {
            events.extend(known.errors.follow(address, raised));
        }
        let mut lifetime = vec![told.uptime];
        lifetime.append(&mut told.lifetime);
        lifetime.resize(1 + known.counters, None);
        let raised = told.errors.take();
        let mut rows = rows(told, &replies, judged, &troubles, known);
        if let Some(row) = rows.first_mut().filter(|row| row.status() != row_status::UNREACHABLE) {
            known.tell_errors(row, raised.as_deref());
            let text = known.kept.take(&replies, row.failed_mask(), address, self.shapes);
            row.set(miner_sample::REPLY_JSON, text);
        }
        Reading { rows, identity, lifetime, events, ..Reading::default() }
    }

    /// The identity that was read, where it says more than is known.
    fn identity(&self, told: &mut Told, judged: Option<Judged>, is_other: bool, known: &mut Known) -> Option<Identity> {
        if judged.is_some_and(|(state, _)| state == State::Unreachable) {
            known.is_doubtful = true;
            return None;
        }
        let mut identity = told.identity.take()?;
        if !told.is_identity_partial {
            known.identified = Some(Instant::now());
            known.is_doubtful = false;
        } else if identity.device_id.is_none() || known.identified.is_some() && !is_other {
            return None;
        }
        identity.row.set(device::DEVICE_KIND, "miner");
        identity.row.set(device::ADDRESS, self.peer.address.as_str());
        Some(identity)
    }
}

impl Known {
    /// Compares a poll with that before; true where another machine answers. Doubts who it is then, and after a restart.
    fn doubts(&mut self, told: &Told) -> bool {
        let is_restarted = matches!((told.uptime, self.uptime), (Some(now), Some(last)) if now < last);
        let is_other = matches!((&told.mark, &self.mark), (Some(now), Some(last)) if now != last);
        self.uptime = told.uptime.or(self.uptime);
        if told.mark.is_some() {
            self.mark.clone_from(&told.mark);
        }
        self.is_doubtful |= is_restarted || is_other;
        is_other
    }

    /// Fills in the codes that are raised.
    fn tell_errors(&self, row: &mut Row, raised: Option<&[MinerError]>) {
        match raised {
            Some(raised) => row.read(miner_sample::ERROR_CODES, errors::codes(raised)),
            None if row.is_unsupported(miner_sample::ERROR_CODES) && !self.errors.are_told => {}
            None if self.errors.are_told => row.fail(miner_sample::ERROR_CODES, fail_code::MISSING),
            None => row.unsupported(miner_sample::ERROR_CODES),
        }
    }

    /// The event that tells of another state than that of before. The first one is told unless it is mining.
    fn follow(&mut self, address: &str, judged: Option<Judged>, cause: Option<&'static str>) -> Option<EventDraft> {
        let (state, reason) = judged?;
        let before = self.state.replace(state);
        if before.unwrap_or(State::Mining) == state {
            return None;
        }
        let words: Vec<&str> = [reason, cause].into_iter().flatten().collect();
        let why = if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
        let details = serde_json::json!({
            "from": before.map(State::name), "to": state.name(), "reason": reason, "cause": cause,
        });
        let message = format!("the miner at {address} is {}{why}", state.name());
        let draft = EventDraft::new("miner_state", "miner", state.severity(), message).about(address);
        Some(EventDraft { details_json: Some(details.to_string()), ..draft })
    }
}

/// The row of the miner, then those of its boards.
fn rows(told: Told, replies: &Replies, judged: Option<Judged>, troubles: &[Trouble], known: &mut Known) -> Vec<Row> {
    let first = troubles.first().copied().unwrap_or(Trouble::Unreadable);
    let Some(mut row) = told.miner else {
        let judged = judged.unwrap_or((State::Unreachable, Some(first.reason())));
        return vec![unreachable_row(judged, first, known.unsupported_mask)];
    };
    if replies.iter().all(|(_, reply)| reply.is_ok()) || known.unsupported_mask == 0 {
        known.unsupported_mask = row.unsupported_mask();
    }
    match judged {
        Some((state, reason)) => {
            row.set(miner_sample::STATE, state.name());
            row.set(miner_sample::STATE_REASON, reason);
        }
        None => {
            let trouble = replies.iter().find_map(|(_, reply)| reply.err());
            row.fail(miner_sample::STATE, trouble.map_or(fail_code::UNPARSABLE, Trouble::code));
        }
    }
    let mut rows = vec![row];
    rows.extend(told.boards);
    known.chip_lists.thin(&mut rows[1..]);
    rows
}

/// The row of a miner that told nothing.
pub(super) fn unreachable_row((state, reason): Judged, trouble: Trouble, unsupported_mask: i64) -> Row {
    let mut row = Row::new(&MINER_SAMPLE);
    for (index, column) in MINER_SAMPLE.columns.iter().enumerate() {
        if column.bit.is_some_and(|bit| unsupported_mask & (1 << bit) != 0) {
            row.unsupported(index);
        }
    }
    row.set(miner_sample::STATE, state.name());
    row.set(miner_sample::STATE_REASON, reason);
    row.fail_all(if state == State::Refused { fail_code::REFUSED } else { trouble.code() });
    if state == State::Unreachable {
        row.set_status(row_status::UNREACHABLE);
    }
    row
}
