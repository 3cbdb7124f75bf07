//! Errors that a miner raises: each is an episode, from the first poll that tells it until it is told no more.
//!
//! Firmwares raise and drop an error from one poll to the next while its cause lasts, so an episode ends with the second
//! poll in a row without it. A poll that says nothing about errors changes nothing.

use std::collections::BTreeMap;

use racklake_schemas::Cell;
use serde_json::json;

use super::filler::plain;
use super::reader::MinerError;
use crate::source::EventDraft;

/// Polls without an error after which it is over.
const POLLS_GONE: u8 = 2;
/// Most errors of one miner that are followed. More at once are a firmware gone wrong; the row has their codes.
const OPEN_MAX: usize = 16;
/// Most codes that a row has.
const CODES_MAX: usize = 64;

/// The errors of one miner that are raised now.
#[derive(Debug, Default)]
pub(super) struct Errors {
    open: BTreeMap<Key, Open>,
    /// Whether the firmware has ever said which errors it raises.
    pub(super) are_told: bool,
}

/// What makes an error another one.
type Key = (i64, Option<i32>);

#[derive(Debug)]
struct Open {
    episode_id: String,
    error: MinerError,
    gone: u8,
}

impl Errors {
    /// Takes what a poll has told; gives the events of that.
    pub(super) fn follow(&mut self, address: &str, raised: &[MinerError]) -> Vec<EventDraft> {
        self.are_told = true;
        for open in self.open.values_mut() {
            open.gone += 1;
        }
        let mut events = Vec::new();
        for error in raised {
            let key = (error.code, error.board);
            if let Some(open) = self.open.get_mut(&key) {
                open.gone = 0;
            } else if self.open.len() < OPEN_MAX {
                let open = Open { episode_id: episode_id(), error: error.clone(), gone: 0 };
                events.push(open.event("start", address, None));
                self.open.insert(key, open);
            }
        }
        self.open.retain(|_, open| {
            let is_over = open.gone >= POLLS_GONE;
            if is_over {
                events.push(open.event("end", address, None));
            }
            !is_over
        });
        events
    }

    /// Ends all episodes, since another machine is at the address.
    pub(super) fn close(&mut self, address: &str, reason: &str) -> Vec<EventDraft> {
        std::mem::take(&mut self.open).values().map(|open| open.event("end", address, Some(reason))).collect()
    }
}

impl Open {
    fn event(&self, phase: &'static str, address: &str, reason: Option<&str>) -> EventDraft {
        let MinerError { code, message, component, board } = &self.error;
        let what = plain(message);
        let (severity, text) = match phase {
            "start" => ("error", format!("the miner at {address} raises error {code}: {what}")),
            _ => ("info", format!("the miner at {address} no longer raises error {code}: {what}")),
        };
        let mut details = json!({ "component": component, "board": board, "message": what });
        if let (Some(reason), Some(details)) = (reason, details.as_object_mut()) {
            details.insert("reason".to_owned(), reason.into());
        }
        EventDraft {
            phase: Some(phase),
            episode_id: Some(self.episode_id.clone()),
            details_json: Some(details.to_string()),
            ..EventDraft::new("miner_error", "miner", severity, text).about(address).with_code(*code)
        }
    }
}

/// The list for `error_codes`: each code once, in order.
pub(super) fn codes(raised: &[MinerError]) -> Cell {
    let mut codes: Vec<i32> = raised.iter().filter_map(|error| i32::try_from(error.code).ok()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.truncate(CODES_MAX);
    Cell::List(codes.into_iter().map(Some).collect())
}

/// A name that no other episode has.
fn episode_id() -> String {
    let mut bytes = [0; 16];
    // Without randomness the address of the bytes and the code must do; an episode is still one of its device.
    let _ = getrandom::fill(&mut bytes);
    format!("miner-{:032x}", u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i64, board: Option<i32>) -> MinerError {
        MinerError { code, message: "Fan 1\nis slow".to_owned(), component: "fan", board }
    }

    /// Code, phase and id of each event.
    fn told(events: &[EventDraft]) -> Vec<(i64, &'static str, String)> {
        let told = |event: &EventDraft| (event.code?, event.phase?, event.episode_id.clone()?).into();
        events.iter().filter_map(told).collect()
    }

    #[test]
    fn an_error_is_one_episode_until_two_polls_have_not_told_it() {
        let mut errors = Errors::default();
        let started = errors.follow("a:1", &[error(110, None), error(530, Some(1)), error(530, Some(1))]);
        let [fan, board] = &told(&started)[..] else { panic!("{started:?}") };
        assert_eq!((fan.0, fan.1, board.0, board.1), (110, "start", 530, "start"));
        assert_eq!(started[0].message, "the miner at a:1 raises error 110: Fan 1 is slow");
        assert!(errors.follow("a:1", &[error(530, Some(1))]).is_empty());
        assert!(errors.follow("a:1", &[error(110, None), error(530, Some(1))]).is_empty(), "it was gone for one poll");
        errors.follow("a:1", &[error(530, Some(1))]);
        let ended = errors.follow("a:1", &[error(530, Some(1))]);
        assert_eq!(told(&ended), [(110, "end", fan.2.clone())]);
        let closed = errors.close("a:1", "device_replaced");
        assert_eq!(told(&closed), [(530, "end", board.2.clone())]);
        assert!(closed[0].details_json.as_ref().unwrap().contains(r#""reason":"device_replaced""#));
        assert!(errors.follow("a:1", &[]).is_empty());
    }

    #[test]
    fn a_firmware_that_raises_everything_is_bounded() {
        let mut errors = Errors::default();
        let all: Vec<MinerError> = (0..1000).rev().map(|code| error(code, None)).collect();
        assert_eq!(errors.follow("a:1", &all).len(), OPEN_MAX);
        let Cell::List(codes) = codes(&all) else { panic!("no list") };
        assert_eq!((codes.len(), codes[0]), (CODES_MAX, Some(0)));
    }
}
