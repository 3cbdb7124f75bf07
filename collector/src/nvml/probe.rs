//! The process that a probe starts: it reads each GPU once, on a thread of its own, and tells line by line what it got.
//!
//! It is a process apart, because one that hangs in the driver may not be able to end: whoever asked must.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use racklake_schemas::tables::{GPU_LINK_SAMPLE, gpu_link_sample};
use racklake_schemas::{Cell, Row, row_status};

use super::memory::{Memory, Place};
use super::raw::Handle;
use super::worker::Library;
use super::{health, identity, sample, signals};
use crate::amd::AmdSource;
use crate::place::locked;
use crate::probe::{Column, Line, Outcome};
use crate::source::Reading;

/// GPM tells what happened between two samples.
const SECOND_READ_AFTER: Duration = Duration::from_millis(120);

/// What has been said so far goes out at once: whoever asked does not wait for the rest.
#[derive(Clone, Default)]
struct Speaker(Arc<Mutex<()>>);

impl Speaker {
    fn say(&self, line: &Line) {
        let Ok(text) = serde_json::to_string(line) else { return };
        let _one = locked(&self.0);
        // Whoever asked may be gone.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// Reads every GPU once for the process at the other end of standard output.
pub fn run_probe(library: &str, root: &Path) -> ExitCode {
    signals::end_with_parent();
    let speaker = Speaker::default();
    let amd = AmdSource::probe(root);
    let mut threads = Vec::new();
    match Library::load(library).and_then(|library| Ok((library.count()?, library))) {
        Ok((count, library)) => {
            speaker.say(&Line::Gpus { count: count as usize + amd.len() });
            let library = Arc::new(library);
            for index in 0..count {
                let (speaker, library) = (speaker.clone(), Arc::clone(&library));
                threads.extend(spawn(move || read_nvidia(&library, index, &speaker)));
            }
        }
        Err(error) if amd.is_empty() => {
            speaker.say(&Line::Error { message: error.to_string() });
            signals::exit_now(1);
        }
        Err(_) => speaker.say(&Line::Gpus { count: amd.len() }),
    }
    for (index, card) in amd.into_iter().enumerate() {
        let (speaker, index) = (speaker.clone(), index + AMD_FROM);
        threads.extend(spawn(move || {
            speaker.say(&Line::Found { index, address: card.address.clone() });
            speaker.say(&Line::Named { index, device_id: card.device_id.clone() });
            for reading in card.readings() {
                tell(&speaker, index, &reading, None);
            }
            speaker.say(&Line::Done { index });
        }));
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
    signals::exit_now(0)
}

/// Numbers of AMD GPUs begin here, those of NVML below.
const AMD_FROM: usize = 1 << 16;
/// Numbers of MIG instances begin here, so many for each GPU.
const INSTANCES_FROM: usize = 1 << 17;
const INSTANCES_MAX: usize = 1 << 8;

/// A thread; a GPU that gets none is told as one that did not answer.
fn spawn(read: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().spawn(read)
}

fn read_nvidia(library: &Library, index: u32, speaker: &Speaker) {
    let number = index as usize;
    let (address, handle) = match library.introduce(index) {
        Ok(introduced) => introduced,
        Err(reason) => {
            speaker.say(&Line::Refused { index: number, reason });
            return;
        }
    };
    read_part(library, (number, &address, handle), speaker);
    // A GPU that does not say how it is divided is read as it is.
    let instances = library.instances(&address, handle).unwrap_or_default();
    speaker.say(&Line::Instances { count: instances.len() });
    speaker.say(&Line::Done { index: number });
    for (place, (address, handle)) in instances.iter().enumerate() {
        let index = INSTANCES_FROM + number * INSTANCES_MAX + place;
        read_part(library, (index, address, *handle), speaker);
        speaker.say(&Line::Done { index });
    }
}

/// Reads a GPU or a MIG instance.
fn read_part(library: &Library, (index, address, handle): (usize, &str, Handle), speaker: &Speaker) {
    speaker.say(&Line::Found { index, address: address.to_owned() });
    let calls = library.calls(handle);
    let mut memory = Memory::default();
    memory.time_columns();
    let who = identity::read(&library.nvml, &calls, address);
    speaker.say(&Line::Named { index, device_id: who.device_id });
    let began = Instant::now();
    let mut reading = sample::read(&calls, &mut memory);
    if reading.rows.first().is_some_and(has_unread) {
        std::thread::sleep(SECOND_READ_AFTER.saturating_sub(began.elapsed()));
        reading = sample::read(&calls, &mut memory);
    }
    tell(speaker, index, &reading, Some(&memory));
    let reading = health::read(&calls, &mut memory);
    tell(speaker, index, &reading, Some(&memory));
}

/// Whether a column has neither a value nor a reason.
fn has_unread(row: &Row) -> bool {
    let unread = |column: usize| {
        let has_bit = row.table().columns[column].bit.is_some();
        has_bit && *row.cell(column) == Cell::Null && !row.has_failed(column) && !row.is_unsupported(column)
    };
    !matches!(row.status(), row_status::LOST | row_status::UNREACHABLE) && (0..row.table().columns.len()).any(unread)
}

fn tell(speaker: &Speaker, index: usize, reading: &Reading, memory: Option<&Memory<'_>>) {
    for row in &reading.rows {
        let link = match row.cell(gpu_link_sample::LINK) {
            Cell::I64(link) if *row.table() == GPU_LINK_SAMPLE => u32::try_from(*link).ok(),
            _ => None,
        };
        let measured = row.table().columns.iter().enumerate().filter(|(_, spec)| spec.bit.is_some());
        let columns = measured.map(|(column, spec)| {
            let place = Place::new(row.table(), link, column);
            let us = memory.and_then(|memory| memory.timing(place)).map(|took| took.as_micros() as u64);
            let code = memory.and_then(|memory| memory.code(place));
            Column { name: spec.name.to_owned(), us, outcome: Outcome::of(row, column, code) }
        });
        let (table, status) = (row.table().name.to_owned(), row.status());
        speaker.say(&Line::Read { index, table, link, status, columns: columns.collect() });
    }
}
