//! Prints a proof as one JSON object, and dead letters as one object a line, for programs.
//!
//! Keys are only ever added.

use racklake_storage::verify::{AlteredFile, Gap, Reason, StreamReport, TableReport};
use serde_json::{Value, json};

use super::Answer;
use super::letters::Letter;
use super::proof::{Counted, Proof, Received};
use super::replay::Replayed;

/// The proof.
pub(super) fn proof(proof: &Proof) -> String {
    let answer = match proof.answer() {
        Answer::Complete => "complete",
        Answer::Incomplete => "incomplete",
        Answer::Unknown => "unknown",
    };
    let waiting = proof.waiting.iter().map(|of| {
        json!({"topic": of.topic, "partition": of.partition, "next": of.next, "low": of.low, "high": of.high,
            "waiting": of.waiting(), "overtaken": of.overtaken(), "ahead": of.ahead()})
    });
    let received = proof.received.iter().map(|(table, received)| {
        let counts = json!({"duplicates": received.all.duplicates, "dead_letters": received.all.dead_letters});
        ((*table).to_owned(), counts)
    });
    let tables = proof.report.tables.iter().map(|of| table(of, proof.received.get(of.table.as_str())));
    let whole = json!({
        "answer": answer,
        "exit_code": proof.answer().exit_code(),
        "seconds": proof.took.as_secs_f64(),
        "tables": tables.collect::<Vec<_>>(),
        "kafka": waiting.collect::<Vec<_>>(),
        "received": received.collect::<serde_json::Map<_, _>>(),
        "doubts": proof.report.doubts,
    });
    format!("{whole}\n")
}

/// A line per letter.
pub(super) fn letters(letters: &[Letter]) -> String {
    let line = |letter: &Letter| {
        let whole = json!({"place": letter.place, "table": letter.table, "reason": letter.reason, "error": letter.error,
            "node": letter.node, "stream_id": letter.stream_id, "seq": letter.seq, "bytes": letter.bytes});
        format!("{whole}\n")
    };
    letters.iter().map(line).collect()
}

/// What became of a replay.
pub(super) fn replayed(replayed: &Replayed, dry_run: bool) -> String {
    let not_sent = |(place, why): &(String, String)| json!({"place": place, "why": why});
    let whole = json!({"chosen": replayed.chosen, "sent": replayed.sent, "dry_run": dry_run,
        "not_sent": replayed.not_sent.iter().map(not_sent).collect::<Vec<_>>()});
    format!("{whole}\n")
}

fn table(table: &TableReport, received: Option<&Received>) -> Value {
    let counted = |of: &StreamReport| received.and_then(|received| received.streams.get(&of.stream_id)).copied();
    let streams = table.streams.iter().map(|of| stream(of, counted(of).unwrap_or_default()));
    let orphan = |(path, bytes): &(String, u64)| json!({"path": path, "bytes": bytes});
    json!({
        "table": table.table,
        "version": table.version,
        "rows": table.rows,
        "files": table.files,
        "streams": streams.collect::<Vec<_>>(),
        "files_missing": table.files_missing,
        "files_altered": table.files_altered.iter().map(altered).collect::<Vec<_>>(),
        "files_removed": table.files_removed,
        "orphans": table.orphans.iter().map(orphan).collect::<Vec<_>>(),
        "doubts": table.doubts,
    })
}

fn altered(file: &AlteredFile) -> Value {
    json!({"path": file.path, "rows": file.rows, "rows_told": file.rows_told, "bytes": file.bytes,
        "bytes_told": file.bytes_told})
}

fn stream(stream: &StreamReport, counted: Counted) -> Value {
    let short = |(seq, rows, due): &(i64, u32, u32)| json!({"seq": seq, "rows": rows, "frame_rows": due});
    let doubled = |(seq, rows): &(i64, u64)| json!({"seq": seq, "rows": rows});
    json!({
        "node": stream.node,
        "stream_id": stream.stream_id,
        "rows": stream.rows,
        "frames": stream.frames,
        "seq_first": stream.seq_first,
        "seq_last": stream.seq_last,
        "seq_known": stream.seq_known,
        "duplicates": counted.duplicates,
        "dead_letters": counted.dead_letters,
        "gaps": stream.gaps.iter().map(gap).collect::<Vec<_>>(),
        "short": stream.short.iter().map(short).collect::<Vec<_>>(),
        "doubled": stream.doubled.iter().map(doubled).collect::<Vec<_>>(),
        "contradictory": stream.contradictory,
    })
}

fn gap(gap: &Gap) -> Value {
    let (reason, detail) = match &gap.reason {
        Reason::Expired => ("expired", None),
        Reason::Lost => ("lost", None),
        Reason::Dropped(why) => ("dropped", Some(why)),
        Reason::DeadLetter(why) => ("dead_letter", Some(why)),
        Reason::Uncommitted => ("uncommitted", None),
        Reason::Unexplained => ("unexplained", None),
    };
    json!({"seq_first": gap.seq_first, "seq_last": gap.seq_last, "frames": gap.frames(), "reason": reason,
        "detail": detail})
}
