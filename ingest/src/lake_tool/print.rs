//! Prints a proof, and dead letters, for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use racklake_storage::verify::{Gap, Reason, StreamReport, TableReport};

use super::Answer;
use super::letters::Letter;
use super::proof::Proof;
use super::replay::Replayed;

/// Streams in all tables up to which every one is listed.
const STREAMS_LISTED: usize = 64;
/// Lines that one kind of finding takes in one stream.
const LINES_MAX: usize = 10;

/// The proof: tables, streams, findings, answer.
pub(super) fn proof(lake: &str, proof: &Proof, all: bool) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _never = write_proof(&mut text, lake, proof, all);
    text
}

/// A line per letter.
pub(super) fn letters(letters: &[Letter]) -> String {
    let mut text = String::new();
    let _never = write_letters(&mut text, letters);
    text
}

/// What became of a replay, or would.
pub(super) fn replayed(replayed: &Replayed, dry_run: bool) -> String {
    let mut text = String::new();
    let _never = lines(&mut text, &replayed.not_sent, |text, (place, why)| writeln!(text, "{place}: not sent: {why}"));
    let (chosen, not_sent) = (replayed.chosen, replayed.not_sent.len());
    let _never = match dry_run {
        true => {
            writeln!(text, "{chosen} letters chosen, {} would be sent, {not_sent} cannot be", chosen - not_sent as u64)
        }
        false => {
            writeln!(text, "{chosen} letters chosen, {} sent and acknowledged, {not_sent} not sent", replayed.sent)
        }
    };
    text
}

fn write_proof(text: &mut String, lake: &str, proof: &Proof, all: bool) -> std::fmt::Result {
    write_tables(text, proof)?;
    write_streams(text, &proof.report.tables, all)?;
    for table in &proof.report.tables {
        write_findings(text, table)?;
    }
    write_waiting(text, proof)?;
    let doubts = proof.report.tables.iter().flat_map(|table| &table.doubts).chain(&proof.report.doubts);
    for doubt in doubts {
        writeln!(text, "could not read: {doubt}")?;
    }
    write_answer(text, lake, proof)
}

fn write_tables(text: &mut String, proof: &Proof) -> std::fmt::Result {
    let head = ["table", "version", "rows", "files", "streams", "frames", "missing", "short", "doubled", "orphans"];
    writeln!(
        text,
        "{:<17} {:>8} {:>12} {:>6} {:>7} {:>9} {:>8} {:>6} {:>7} {:>7}",
        head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9]
    )?;
    for table in &proof.report.tables {
        let sum = |count: fn(&StreamReport) -> u64| table.streams.iter().map(count).sum::<u64>();
        writeln!(
            text,
            "{:<17} {:>8} {:>12} {:>6} {:>7} {:>9} {:>8} {:>6} {:>7} {:>7}",
            table.table,
            table.version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            table.rows,
            table.files,
            table.streams.len(),
            sum(|stream| stream.frames),
            sum(frames_missing),
            sum(|stream| stream.short.len() as u64),
            sum(|stream| stream.doubled.len() as u64),
            table.orphans.len(),
        )?;
    }
    for (table, received) in proof.received.iter().filter(|(_, received)| received.all != Default::default()) {
        let (duplicates, letters) = (received.all.duplicates, received.all.dead_letters);
        writeln!(text, "{table}: {duplicates} frames came again and were dropped, {letters} dead letters")?;
    }
    Ok(())
}

fn write_streams(text: &mut String, tables: &[TableReport], all: bool) -> std::fmt::Result {
    let count: usize = tables.iter().map(|table| table.streams.len()).sum();
    if count == 0 {
        return Ok(());
    }
    let every = all || count <= STREAMS_LISTED;
    let listed = |stream: &&StreamReport| every || stream.is_faulty();
    let mut streams: Vec<(&StreamReport, &str)> = tables
        .iter()
        .flat_map(|table| table.streams.iter().filter(listed).map(|stream| (stream, table.table.as_str())))
        .collect();
    streams.sort_by(|a, b| (&a.0.node, &a.0.stream_id).cmp(&(&b.0.node, &b.0.stream_id)));
    if !streams.is_empty() {
        writeln!(text, "\n{:<16} {:<32} {:<17} {:>12}  seq", "node", "stream", "table", "rows")?;
    }
    for (stream, table) in &streams {
        let node = if stream.node.is_empty() { "-" } else { &stream.node };
        let seqs = match (stream.seq_first, stream.seq_last) {
            (Some(first), Some(last)) => range(first, last),
            _ => "none".to_owned(),
        };
        let of =
            if stream.seq_last == Some(stream.seq_known) { "".to_owned() } else { format!(" of {}", stream.seq_known) };
        let faulty = if stream.is_faulty() { "  <- see below" } else { "" };
        writeln!(text, "{node:<16} {:<32} {table:<17} {:>12}  {seqs}{of}{faulty}", stream.stream_id, stream.rows)?;
    }
    if !every {
        let whole = count - streams.len();
        writeln!(text, "{whole} streams of which nothing is missing are not listed; --all lists them")?;
    }
    Ok(())
}

fn write_findings(text: &mut String, table: &TableReport) -> std::fmt::Result {
    let name = &table.table;
    lines(text, &table.files_missing, |text, path| writeln!(text, "{name}: file missing: {path}"))?;
    lines(text, &table.files_altered, |text, file| {
        let (rows, bytes) = (file.rows, file.bytes);
        let (told, bytes_told) = (file.rows_told, file.bytes_told);
        writeln!(
            text,
            "{name}: file altered: {} has {rows} rows in {bytes} bytes, the log says {told} in {bytes_told}",
            file.path
        )
    })?;
    for stream in table.streams.iter().filter(|stream| stream.is_faulty()) {
        let node = if stream.node.is_empty() { "-" } else { &stream.node };
        let of = format!("{name}: node {node}, stream {}", stream.stream_id);
        let gaps: Vec<&Gap> = stream.gaps.iter().filter(|gap| gap.reason != Reason::Expired).collect();
        lines(text, &gaps, |text, gap| {
            writeln!(text, "{of}: seq {} missing: {}", range(gap.seq_first, gap.seq_last), gap.reason)
        })?;
        lines(text, &stream.short, |text, (seq, rows, due)| {
            writeln!(text, "{of}: seq {seq} short: {rows} of {due} rows")
        })?;
        lines(text, &stream.doubled, |text, (seq, rows)| {
            writeln!(text, "{of}: seq {seq} doubled: {rows} rows too many or repeated")
        })?;
        lines(text, &stream.contradictory, |text, seq| {
            writeln!(text, "{of}: seq {seq} contradictory: its rows do not agree on how many there are")
        })?;
    }
    let expired: u64 = table.streams.iter().map(|stream| frames_of(stream, true)).sum();
    if expired > 0 {
        writeln!(text, "{name}: {expired} frames are expired: their days were removed for their age")?;
    }
    if table.files_removed > 0 {
        writeln!(text, "{name}: {} files were merged or are expired, and wait to be swept", table.files_removed)?;
    }
    lines(text, &table.orphans, |text, (path, bytes)| {
        writeln!(text, "{name}: orphan, no fault: {path}, {bytes} bytes, which no live commit names")
    })
}

fn write_waiting(text: &mut String, proof: &Proof) -> std::fmt::Result {
    if proof.waiting.is_empty() {
        return Ok(());
    }
    let noted = proof.waiting.iter().filter(|of| of.is_missing() || of.ahead() > 0);
    for of in noted {
        let place = format!("{}/{}", of.topic, of.partition);
        let at = of.next.map_or_else(|| "nothing".to_owned(), |next| format!("everything before {next}"));
        writeln!(text, "kafka: {place} holds {}..{}, the lake has {at}:", of.low, of.high)?;
        if of.waiting() > 0 {
            writeln!(text, "  {} messages wait to be brought in", of.waiting())?;
        }
        if of.overtaken() > 0 {
            writeln!(text, "  {} messages were removed by retention before they were in the lake", of.overtaken())?;
        }
        if of.ahead() > 0 {
            writeln!(text, "  the broker has lost {} messages that the lake has", of.ahead())?;
        }
    }
    let waiting: i64 = proof.waiting.iter().map(|of| of.waiting()).sum();
    writeln!(text, "kafka: {} partitions, {waiting} messages wait", proof.waiting.len())
}

fn write_answer(text: &mut String, lake: &str, proof: &Proof) -> std::fmt::Result {
    let tables = &proof.report.tables;
    let rows: u64 = tables.iter().map(|table| table.rows).sum();
    let streams = tables.iter().flat_map(|table| &table.streams);
    let nodes: BTreeSet<&str> = streams.clone().map(|stream| stream.node.as_str()).collect();
    let seconds = proof.took.as_secs_f64();
    let read = format!("{rows} rows of {} nodes in {} tables, read in {seconds:.1} s", nodes.len(), tables.len());
    match proof.answer() {
        Answer::Complete => writeln!(text, "\ncomplete: every frame is there, whole, once ({read})"),
        Answer::Unknown => writeln!(text, "\ncould not tell: {lake} cannot be read as a whole ({read})"),
        Answer::Incomplete => {
            let missing: u64 = streams.clone().map(frames_missing).sum();
            let short: usize = streams.clone().map(|stream| stream.short.len()).sum();
            let doubled: usize = streams.map(|stream| stream.doubled.len()).sum();
            writeln!(
                text,
                "\nnot complete: {missing} frames missing, {short} short, {doubled} doubled; each is named above ({read})"
            )
        }
    }
}

fn write_letters(text: &mut String, letters: &[Letter]) -> std::fmt::Result {
    for letter in letters {
        let node = letter.node.as_deref().unwrap_or("-");
        let stream = letter.stream_id.as_deref().unwrap_or("-");
        let seq = letter.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        writeln!(text, "{}  {}: {}", letter.place, letter.reason, letter.error)?;
        writeln!(text, "    node {node}, stream {stream}, seq {seq}, {} bytes", letter.bytes)?;
    }
    writeln!(text, "{} dead letters", letters.len())
}

/// Writes the first few, and how many more there are.
fn lines<T>(text: &mut String, all: &[T], write_one: impl Fn(&mut String, &T) -> std::fmt::Result) -> std::fmt::Result {
    for one in all.iter().take(LINES_MAX) {
        write_one(text, one)?;
    }
    match all.len().saturating_sub(LINES_MAX) {
        0 => Ok(()),
        more => writeln!(text, "  and {more} more of the kind; --json lists them all"),
    }
}

fn frames_missing(stream: &StreamReport) -> u64 {
    frames_of(stream, false)
}

fn frames_of(stream: &StreamReport, expired: bool) -> u64 {
    stream.gaps.iter().filter(|gap| (gap.reason == Reason::Expired) == expired).map(Gap::frames).sum()
}

fn range(first: i64, last: i64) -> String {
    if first == last { first.to_string() } else { format!("{first}..{last}") }
}
