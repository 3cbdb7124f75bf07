//! A recorded reply with holes in it: rendering one costs a copy, whatever the size of the recording.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::body::Moment;

/// What fills a hole: JSON text, from the machine at this moment and the number of the part that the hole belongs to.
pub(crate) type Say = fn(&Moment, usize) -> String;

/// A place in a recording, as a JSON pointer, and what is said there. `#` in it stands for the number of a board from
/// 0, `@` for the same from 1; a pointer with either is repeated for every board. A leading `+` adds a member that the
/// recording lacks.
pub(crate) type Hole = (&'static str, Say);

/// A reply that can be rendered.
pub(crate) struct Template {
    pieces: Vec<Piece>,
    last: String,
}

/// Text, and what comes after it.
struct Piece {
    before: String,
    say: Say,
    number: usize,
}

impl Template {
    /// Makes the holes.
    pub(crate) fn new(recording: &str, holes: &[&[Hole]], boards: usize) -> Result<Template> {
        let mut tree: Value = serde_json::from_str(recording)?;
        let mut says: Vec<(Say, usize)> = Vec::new();
        for (pattern, say) in holes.iter().copied().flatten() {
            let repeated = pattern.contains(['#', '@']);
            for number in 0..if repeated { boards } else { 1 } {
                let pointer = pattern.replace('#', &number.to_string()).replace('@', &(number + 1).to_string());
                let mark = Value::String(format!("\u{1}{}\u{1}", says.len()));
                put(&mut tree, &pointer, mark)?;
                says.push((*say, number));
            }
        }
        let text = tree.to_string();
        let mut pieces = Vec::with_capacity(says.len());
        let mut rest = text.as_str();
        // serde_json escapes the mark's control character, which no recording has.
        while let Some((before, after)) = rest.split_once("\"\\u0001") {
            let (index, after) = after.split_once("\\u0001\"").context("a mark without an end")?;
            let (say, number) = says[index.parse::<usize>()?];
            pieces.push(Piece { before: before.to_owned(), say, number });
            rest = after;
        }
        ensure!(pieces.len() == says.len(), "two holes at one place");
        Ok(Template { last: rest.to_owned(), pieces })
    }

    /// The reply at this moment.
    pub(crate) fn render(&self, moment: &Moment) -> String {
        let mut text =
            String::with_capacity(self.last.len() + self.pieces.iter().map(|p| p.before.len() + 12).sum::<usize>());
        for piece in &self.pieces {
            text.push_str(&piece.before);
            text.push_str(&(piece.say)(moment, piece.number));
        }
        text.push_str(&self.last);
        text
    }
}

fn put(tree: &mut Value, pointer: &str, value: Value) -> Result<()> {
    if let Some(added) = pointer.strip_prefix('+') {
        let (parent, name) = added.rsplit_once('/').context("a pointer begins with /")?;
        let parent = tree.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.with_context(|| format!("no object to add {added} to"))?.insert(name.to_owned(), value);
        return Ok(());
    }
    *tree.pointer_mut(pointer).with_context(|| format!("the recording has no {pointer}"))? = value;
    Ok(())
}

/// A number as it is.
pub(crate) fn whole(value: impl ToString) -> String {
    value.to_string()
}

/// A number with one decimal.
pub(crate) fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

/// A number with two decimals.
pub(crate) fn hundredths(value: f64) -> String {
    format!("{value:.2}")
}

/// A text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A list of things that are JSON already.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}
