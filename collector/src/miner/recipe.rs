//! Tables of where readings stand in a firmware's replies, and the walk that fills a row from them.
//!
//! A make is mostly data: this column, from that reply, along this path, in that unit. What is no table stays in the
//! make's own file.

use racklake_schemas::{Cell, fail_code};

use super::decimal::shifted;
use super::exchange::Trouble;
use super::filler::Filler;
use super::json::Json;
use super::pool_url::without_secrets;
use super::reader::Replies;

/// Longest list of values per chip that is a reading.
const CHIPS_MAX: usize = 10_000;

/// Where one column of a row is told. Places of one column that follow each other are alternatives, best first.
pub(super) struct Place {
    column: usize,
    /// The reply that tells it.
    from: &'static str,
    /// Members and positions on the way to it, with `/` between them.
    path: &'static str,
    form: Form,
}

/// How a value is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A printed decimal; the exponent of ten takes it to the unit of the column.
    Integer(i32),
    /// A printed decimal with its unit behind it, `245.00V`.
    Measure(i32),
    /// A printed decimal in which zero says that there is no sensor.
    NonZero(i32),
    Float,
    Word,
    PoolUrl,
}

/// One line of a table of places.
pub(super) const fn at(column: usize, from: &'static str, path: &'static str, form: Form) -> Place {
    Place { column, from, path, form }
}

/// Parts of replies by the name that places know them under.
pub(super) struct Views<'a> {
    all: Vec<(&'a str, Result<&'a Json, Trouble>)>,
}

impl<'a> Views<'a> {
    /// Whole replies, by command.
    pub(super) fn of(replies: &'a Replies) -> Views<'a> {
        Views { all: replies.iter().collect() }
    }

    /// Parts that were taken out of replies.
    pub(super) fn parts(all: Vec<(&'a str, Result<&'a Json, Trouble>)>) -> Views<'a> {
        Views { all }
    }

    fn get(&self, name: &str) -> Option<Result<&'a Json, Trouble>> {
        self.all.iter().find(|(known, _)| *known == name).map(|(_, view)| *view)
    }

    /// The value at a place; null is none.
    fn value(&self, place: &Place) -> Option<&'a Json> {
        walk(self.get(place.from)?.ok()?, place.path).filter(|value| **value != Json::Null)
    }
}

/// The value along a path; an empty path is the value itself.
pub(super) fn walk<'a>(json: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('/').filter(|step| !step.is_empty()).try_fold(json, |json, step| match json {
        Json::List(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

/// The text along a path.
pub(super) fn text_at<'a>(json: &'a Json, path: &str) -> Option<&'a str> {
    walk(json, path).and_then(Json::text)
}

/// The integer along a path, shifted by a power of ten.
pub(super) fn integer_at(json: &Json, path: &str, shift: i32) -> Option<i64> {
    shifted(text_at(json, path)?, shift).ok()
}

/// The truth along a path, also where it is written as a word or a digit.
pub(super) fn truth_at(json: &Json, path: &str) -> Option<bool> {
    match walk(json, path)? {
        Json::Bool(truth) => Some(*truth),
        other => match other.text()?.to_ascii_lowercase().as_str() {
            "true" | "y" | "yes" | "on" | "1" => Some(true),
            "false" | "n" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
    }
}

/// Reads every place of a table whose column has no value yet. A column whose reply was not asked for stays empty; one whose command the firmware
/// does not know is what the model lacks.
pub(super) fn fill(filler: &mut Filler<'_>, views: &Views<'_>, places: &[Place]) {
    let mut rest = places;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|place| place.column == first.column).count();
        let (column, after) = rest.split_at(same);
        fill_column(filler, views, first.column, column);
        rest = after;
    }
}

fn fill_column(filler: &mut Filler<'_>, views: &Views<'_>, column: usize, places: &[Place]) {
    if *filler.row.cell(column) != Cell::Null {
        return;
    }
    if let Some((place, value)) = places.iter().find_map(|place| Some((place, views.value(place)?))) {
        return match value.text() {
            Some(text) => put(filler, place, text),
            None => filler.row.fail(column, fail_code::UNPARSABLE),
        };
    }
    let asked: Vec<Result<&Json, Trouble>> = places.iter().filter_map(|place| views.get(place.from)).collect();
    let trouble = asked.iter().filter_map(|view| view.err()).find(|trouble| *trouble != Trouble::Declined);
    match trouble {
        Some(trouble) => filler.fail(&[column], trouble),
        None if asked.is_empty() => {}
        None => filler.absent(column),
    }
}

fn put(filler: &mut Filler<'_>, place: &Place, text: &str) {
    match place.form {
        Form::Integer(shift) => filler.integer(place.column, Some(text), shift),
        Form::Measure(shift) => filler.integer(place.column, Some(number_of(text)), shift),
        Form::NonZero(_) if is_zero(text) => filler.absent(place.column),
        Form::NonZero(shift) => filler.integer(place.column, Some(text), shift),
        Form::Float => filler.float(place.column, Some(text)),
        Form::Word if text.trim().is_empty() => filler.absent(place.column),
        Form::Word => filler.word(place.column, Some(text)),
        Form::PoolUrl => match without_secrets(text) {
            Some(url) => filler.word(place.column, Some(&url)),
            None => filler.row.fail(place.column, fail_code::UNPARSABLE),
        },
    }
}

/// The number in front of a unit.
pub(super) fn number_of(text: &str) -> &str {
    text.trim().trim_end_matches(|c: char| c.is_alphabetic() || c.is_whitespace() || matches!(c, '%' | '°'))
}

fn is_zero(text: &str) -> bool {
    text.trim().parse::<f64>() == Ok(0.0)
}

/// A value per chip: the number along the path in each item, shifted; null where there is none. `None` where there are
/// more than a board can have.
pub(super) fn per_chip(items: &[Json], path: &str, shift: i32) -> Option<Vec<Option<i32>>> {
    let one = |item: &Json| integer_at(item, path, shift).and_then(|value| i32::try_from(value).ok());
    (items.len() <= CHIPS_MAX).then(|| items.iter().map(one).collect())
}

/// Sets a list per chip, or says why there is none.
pub(super) fn put_chips(filler: &mut Filler<'_>, column: usize, items: Option<&[Json]>, path: &str, shift: i32) {
    match items.map(|items| per_chip(items, path, shift)) {
        None => filler.absent(column),
        Some(Some(values)) => filler.read(column, values),
        Some(None) => filler.row.fail(column, fail_code::OUT_OF_RANGE),
    }
}

/// Marks what no reply has told as what the model lacks, but for columns that stay empty for another reason: nothing
/// was asked for, or there is nothing now that could be read.
pub(super) fn finish(filler: &mut Filler<'_>, empty: &[usize]) {
    for (column, spec) in filler.row.table().columns.iter().enumerate() {
        let is_open = spec.bit.is_some() && *filler.row.cell(column) == Cell::Null;
        if is_open && !empty.contains(&column) && !filler.row.has_failed(column) && !filler.row.is_unsupported(column) {
            filler.absent(column);
        }
    }
}

/// A temperature, unless it is one of the numbers by which firmwares say that a sensor does not answer.
pub(super) fn sensor(value: &str) -> Option<i32> {
    shifted(value, 0).ok().and_then(|value| i32::try_from(value).ok()).filter(|value| !matches!(value, 0 | -40 | 255))
}

/// The firmware's number of an error, or one that stands for its name where errors have names only: equal names have
/// equal numbers.
pub(super) fn error_code(name: &str) -> i64 {
    let name = name.trim();
    let hashed = || name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let hexadecimal = |digits: &str| i64::from_str_radix(digits, 16).ok();
    let number = name.strip_prefix("0x").map_or_else(|| name.parse().ok(), hexadecimal);
    number.filter(|code| (0..=i64::from(i32::MAX)).contains(code)).unwrap_or_else(|| i64::from(hashed() >> 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_through_members_and_positions() {
        let json = Json::parse(br#"{"a":[{"b c":1.5},{"b c":"x"}],"d":"Y"}"#).unwrap();
        assert_eq!(text_at(&json, "a/0/b c"), Some("1.5"));
        assert_eq!(integer_at(&json, "a/0/b c", 3), Some(1500));
        assert_eq!(walk(&json, "a/2"), None);
        assert_eq!(walk(&json, "d/0"), None);
        assert_eq!(walk(&json, ""), Some(&json));
        assert_eq!(truth_at(&json, "d"), Some(true));
    }

    #[test]
    fn a_unit_behind_a_number_is_not_part_of_it() {
        assert_eq!(number_of("4052.00 RPM"), "4052.00");
        assert_eq!(number_of("-0.5°C"), "-0.5");
        assert_eq!(number_of("none"), "");
    }
}
