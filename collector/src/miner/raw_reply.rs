//! The replies of a poll as one text to keep, without users and passwords, and when it is worth keeping.
//!
//! What a firmware says is kept when it says it in another shape than before, when something in it cannot be read, and
//! every hour: enough to read old rows anew with a better reader, and little enough to store.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::json::Json;
use super::pool_url::without_secrets;
use super::reader::Replies;
use crate::place::locked;

/// Longest text.
const BYTES_MAX: usize = 64 * 1024;
/// How often a text is kept where nothing happens.
const PERIOD: Duration = Duration::from_secs(3600);
/// A miner whose replies change at every poll is not kept more often than this.
const APART: Duration = Duration::from_secs(300);
/// Most shapes that are known by sight, of all miners.
const SHAPES_MAX: usize = 4096;
/// Most secrets of one poll that are looked for everywhere, and the shortest of them.
const SECRETS_MAX: usize = 64;
const SECRET_LENGTH_MIN: usize = 4;
/// What stands in the place of a secret.
const REMOVED: &str = "(removed)";
/// Parts of names of members that hold who works for whom, or how to log in.
const SECRET_NAMES: [&str; 12] =
    ["user", "worker", "login", "pass", "pwd", "token", "secret", "auth", "wallet", "salt", "account", "cookie"];

/// Shapes that some miner has had since the start: of a hall of equal miners, one tells all that is new.
#[derive(Debug, Default)]
pub(super) struct Shapes(Mutex<BTreeSet<u64>>);

/// What of one miner was kept, and when.
#[derive(Debug, Default)]
pub(super) struct Kept {
    shape: Option<u64>,
    failed: i64,
    next: Option<Instant>,
    last: Option<Instant>,
}

impl Kept {
    /// The text of a poll, if it is to be kept. `failed` has a bit for each reading that could not be made.
    pub(super) fn take(&mut self, replies: &Replies, failed: i64, address: &str, shapes: &Shapes) -> Option<String> {
        let now = Instant::now();
        let shape = shape_of(replies);
        let is_unknown = {
            let mut known = locked(&shapes.0);
            known.len() < SHAPES_MAX && known.insert(shape)
        };
        // Those that are first seen together come at different times of the hour.
        let next = *self.next.get_or_insert_with(|| now + PERIOD.mul_f64(phase(address)));
        let is_other = self.shape.is_some_and(|before| before != shape);
        let is_worse = failed & !self.failed != 0;
        let is_wanted = is_unknown || next <= now || is_other || is_worse;
        (self.shape, self.failed) = (Some(shape), failed);
        if !is_wanted || self.last.is_some_and(|last| now - last < APART) {
            return None;
        }
        (self.last, self.next) = (Some(now), Some(now + PERIOD));
        Some(text(replies))
    }
}

/// A place in the hour, from 0 to 1, the same at every start.
fn phase(address: &str) -> f64 {
    f64::from(hash_of(&address) as u32) / f64::from(u32::MAX)
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What the replies are made of, whatever their values are.
fn shape_of(replies: &Replies) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (command, reply) in replies.iter() {
        command.hash(&mut hasher);
        match reply {
            Ok(reply) => shape(reply).hash(&mut hasher),
            Err(trouble) => trouble.reason().hash(&mut hasher),
        }
    }
    hasher.finish()
}

fn shape(json: &Json) -> u64 {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 1,
        Json::Text(text) if text.contains('[') => {
            hash_of(&text.split('[').map(|part| part.rsplit(']').next()).collect::<Vec<_>>())
        }
        Json::Text(_) => 2,
        // Lists of equal items differ in nothing but their length.
        Json::List(items) => hash_of(&items.iter().map(shape).collect::<BTreeSet<u64>>()),
        Json::Object(members) => hash_of(&members.iter().map(|(name, value)| (name, shape(value))).collect::<Vec<_>>()),
    }
}

/// The replies by command, in JSON. A reply that there is no room for is cut, and `cut` names it.
fn text(replies: &Replies) -> String {
    let mut secrets = BTreeSet::new();
    for (_, reply) in replies.iter() {
        if let Ok(reply) = reply {
            gather(reply, "", &mut secrets);
        }
    }
    let mut all = Map::new();
    let (mut room, mut cut) = (BYTES_MAX, Vec::new());
    for (command, reply) in replies.iter() {
        let value = match reply {
            Ok(reply) => clean(reply, "", &secrets),
            Err(trouble) => Value::from(format!("({})", trouble.reason())),
        };
        let length = value.to_string().len() + command.len();
        if length <= room {
            room -= length;
            all.insert(command.to_owned(), value);
        } else {
            let text = value.to_string();
            // What is kept is put in quotes, and each quote in it becomes two bytes.
            let mut left = room / 2;
            let fits = |c: &char| {
                let fits = c.len_utf8() <= left;
                left = left.saturating_sub(c.len_utf8());
                fits
            };
            let begin: String = text.chars().take_while(fits).collect();
            room = 0;
            cut.push(Value::from(command));
            all.insert(command.to_owned(), Value::from(begin));
        }
    }
    if !cut.is_empty() {
        all.insert("cut".to_owned(), Value::from(cut));
    }
    Value::Object(all).to_string()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Collects the secrets, since a firmware may repeat them elsewhere.
fn gather(json: &Json, name: &str, secrets: &mut BTreeSet<String>) {
    match json {
        Json::Object(members) => members.iter().for_each(|(name, value)| gather(value, name, secrets)),
        Json::List(items) => items.iter().for_each(|item| gather(item, name, secrets)),
        Json::Text(text) | Json::Number(text) if is_secret(name) => {
            let is_one = text.len() >= SECRET_LENGTH_MIN && text.chars().any(|c| c.is_ascii_alphabetic());
            if is_one && secrets.len() < SECRETS_MAX && !matches!(text.as_str(), "true" | "false" | "null") {
                secrets.insert(text.clone());
            }
        }
        _ => {}
    }
}

/// A value without what must not be kept.
fn clean(json: &Json, name: &str, secrets: &BTreeSet<String>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::from(*flag),
        Json::List(items) => items.iter().map(|item| clean(item, name, secrets)).collect(),
        Json::Object(members) => {
            let member = |(name, value): &(String, Json)| (without(name, secrets), clean(value, name, secrets));
            Value::Object(members.iter().map(member).collect())
        }
        Json::Text(_) | Json::Number(_) if is_secret(name) => Value::from(REMOVED),
        // Digits are kept as they are, which a number with a point might not do.
        Json::Number(text) => match text.parse::<i64>() {
            Ok(number) if number.to_string() == *text => Value::from(number),
            _ => Value::from(without(text, secrets)),
        },
        Json::Text(text) => Value::from(clean_text(text, secrets)),
    }
}

fn without(text: &str, secrets: &BTreeSet<String>) -> String {
    let found = secrets.iter().filter(|secret| text.contains(secret.as_str()));
    found.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REMOVED))
}

/// A text; within `Key[value] Key[value]` each value is looked at by its key.
fn clean_text(text: &str, secrets: &BTreeSet<String>) -> String {
    let text = without(text, secrets);
    if !text.contains('[') {
        return clean_url(&text);
    }
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('[') {
        let Some((value, next)) = after.split_once(']') else { break };
        let key = before.rsplit(|c: char| c.is_whitespace() || c == '{').next().unwrap_or_default();
        cleaned.push_str(before);
        cleaned.push('[');
        cleaned.push_str(&if is_secret(key) { REMOVED.to_owned() } else { clean_url(value) });
        cleaned.push(']');
        rest = next;
    }
    cleaned.push_str(&clean_url(rest));
    cleaned
}

/// What may be a URL keeps its host alone.
fn clean_url(text: &str) -> String {
    if text.contains("://") || text.contains('@') {
        without_secrets(text).unwrap_or_else(|| REMOVED.to_owned())
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(list: &[(&str, &str)]) -> Replies {
        let mut replies = Replies::default();
        for (command, text) in list {
            replies.add(*command, Json::parse(text.as_bytes()).ok_or(super::super::exchange::Trouble::Endless));
        }
        replies
    }

    #[test]
    fn users_and_passwords_are_in_no_text_that_is_kept() {
        let text = text(&replies(&[
            (
                "pools",
                r#"{"POOLS":[{"URL":"stratum+tcp://me.7:hunter2@pool:3333/x","User":"wallet.rig7","Pass":"hunter2"}]}"#,
            ),
            (
                "stats",
                r#"{"STATS":[{"MM":"Ver[1] PoolUser[wallet.rig7] PVT[1 2] Url[tcp://a:hunter2@b:1] Name[wallet.rig7]"}]}"#,
            ),
            ("epic", r#"{"StratumConfigs":[{"login":"other.rig8","pool":"pool:1"}]}"#),
            ("conf", r#"{"pools":[["a@b","x"]],"note":"as wallet.rig7 said","bitmain-user":["wallet.rig7"],"x":1.50}"#),
        ]));
        for secret in ["hunter2", "wallet.rig7", "rig7", "other.rig8", "me.7", "a@b"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        for kept in ["stratum+tcp://pool:3333", "PVT[1 2]", "Url[tcp://b:1]", "1.50", "as (removed) said"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }

    #[test]
    fn a_text_is_bounded_and_says_what_is_cut() {
        let long = format!(r#"{{"a":"{}"}}"#, "\\\"é".repeat(40_000));
        let text = text(&replies(&[("summary", r#"{"Elapsed":7}"#), ("stats", &long), ("pools", "{")]));
        assert!(text.len() <= BYTES_MAX + 200, "{}", text.len());
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&read["summary"]["Elapsed"], &read["cut"]), (&7.into(), &serde_json::json!(["stats", "pools"])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_is_kept_for_a_new_shape_for_a_new_failure_and_hourly() {
        let shapes = Shapes::default();
        let (mut one, mut two) = (Kept::default(), Kept::default());
        let plain = replies(&[("summary", r#"{"Elapsed":7,"chips":[1,2]}"#)]);
        let same = replies(&[("summary", r#"{"Elapsed":8,"chips":[3]}"#)]);
        let other = replies(&[("summary", r#"{"Elapsed":9,"chips":[3],"new":1}"#)]);
        assert!(one.take(&plain, 0, "a:1", &shapes).is_some());
        assert!(two.take(&same, 0, "b:1", &shapes).is_none(), "another miner has shown this shape");
        assert!(one.take(&same, 0, "a:1", &shapes).is_none());
        tokio::time::advance(APART).await;
        assert!(one.take(&other, 0, "a:1", &shapes).is_some());
        assert!(one.take(&same, 0, "a:1", &shapes).is_none(), "too soon");
        tokio::time::advance(APART).await;
        assert!(one.take(&same, 6, "a:1", &shapes).is_some());
        tokio::time::advance(APART).await;
        assert!(one.take(&same, 2, "a:1", &shapes).is_none());
        tokio::time::advance(PERIOD).await;
        assert!(one.take(&same, 2, "a:1", &shapes).is_some());
        assert!(two.take(&same, 0, "b:1", &shapes).is_some());
    }
}
