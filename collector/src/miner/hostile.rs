//! Replies that are no replies while the rest of the miner answers: endless, cut off, not to be read.
//!
//! A miner that answers nothing else is told by its state. Where only one command goes wrong its state may be as ever, so
//! the first such reply is an event of its own, and the next one not before the command was answered well for a while.

use std::collections::BTreeMap;

use serde_json::json;

use super::exchange::Trouble;
use super::reader::Replies;
use crate::source::EventDraft;

/// Polls in a row that a command must be answered well in to be told of again.
const POLLS_GOOD: u32 = 20;
/// Most commands that are followed.
const COMMANDS_MAX: usize = 32;

/// The commands of one miner that went wrong, each with the polls since then.
#[derive(Debug, Default)]
pub(super) struct Hostile(BTreeMap<String, u32>);

impl Hostile {
    /// Takes the replies of a poll; gives an event for each command that has newly gone wrong.
    pub(super) fn follow(&mut self, address: &str, replies: &Replies) -> Vec<EventDraft> {
        let mut events = Vec::new();
        for (command, reply) in replies.iter() {
            let Some(trouble) = reply.err().filter(|trouble| is_hostile(*trouble)) else {
                if self.0.get_mut(command).is_some_and(|good| {
                    *good += 1;
                    *good >= POLLS_GOOD
                }) {
                    self.0.remove(command);
                }
                continue;
            };
            let is_new = !self.0.contains_key(command);
            if is_new && self.0.len() >= COMMANDS_MAX {
                continue;
            }
            self.0.insert(command.to_owned(), 0);
            if is_new {
                events.push(event(address, command, trouble));
            }
        }
        events
    }
}

fn is_hostile(trouble: Trouble) -> bool {
    matches!(trouble, Trouble::Endless | Trouble::Unreadable | Trouble::Partial(_))
}

fn event(address: &str, command: &str, trouble: Trouble) -> EventDraft {
    let reason = trouble.reason();
    let message = format!("the miner at {address} gives no reply to {command} that can be read: {reason}");
    let details = json!({ "command": command, "reason": reason, "cause": trouble.cause() });
    EventDraft {
        details_json: Some(details.to_string()),
        ..EventDraft::new("miner_reply_unreadable", "miner", "warning", message).about(address)
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::Json;
    use super::*;

    #[test]
    fn a_command_that_goes_wrong_is_told_once_until_it_was_well_for_a_while() {
        let mut hostile = Hostile::default();
        let mut poll = |stats: Result<Json, Trouble>| {
            let mut replies = Replies::default();
            replies.add("summary", Ok(Json::Null));
            replies.add("stats", stats);
            hostile.follow("a:1", &replies).len()
        };
        assert_eq!(poll(Err(Trouble::Declined)), 0);
        assert_eq!([poll(Err(Trouble::Endless)), poll(Err(Trouble::Endless)), poll(Ok(Json::Null))], [1, 0, 0]);
        assert_eq!(poll(Err(Trouble::Unreadable)), 0, "it was well for one poll only");
        for _ in 0..POLLS_GOOD {
            assert_eq!(poll(Ok(Json::Null)), 0);
        }
        assert_eq!(poll(Err(Trouble::Partial("cut"))), 1);
    }
}
