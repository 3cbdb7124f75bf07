//! What the collector and its NVML worker say to each other: orders one way, reports the other, each one bounded frame.
//!
//! A frame is a length (u32, little-endian) and a body whose first byte says what it is. Rows cross as in the journal, by
//! the name of the table and the catalog's ids, so that a new column needs nothing here. Both ends are one program; the
//! hello makes sure of it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use racklake_schemas::catalog::CATALOG_VERSION;
use racklake_schemas::{Row, Table};

use crate::place::locked;
use crate::source::{Call, EventDraft, Found, Identity, Reading, SourceError};
use crate::spool::row_bytes::{In, Out};

/// Changes whenever a frame does.
const PROTOCOL: u32 = 1;
/// Largest body; a longer one is a mistake.
pub(super) const FRAME_MAX: usize = 1024 * 1024;
/// Names of events that differ; beyond it they are told as `nvml_event`.
const NAMES_MAX: usize = 1024;

/// What the collector says.
#[derive(Debug, PartialEq)]
pub(super) enum Order {
    /// First of all.
    Hello(Hello),
    /// Which GPUs are there, by the library of that path.
    Discover { id: u64, library: String },
    /// Read a GPU for a tier.
    Read { id: u64, address: String, table: &'static Table },
}

/// What the worker says.
#[derive(Debug)]
pub(super) enum Report {
    /// First of all.
    Hello(Hello),
    /// Answer to `Discover`.
    Found { id: u64, result: Result<Vec<Found>, SourceError> },
    /// Answer to `Read`.
    Reading { id: u64, reading: Reading },
    /// NVML has told an event.
    Event(EventDraft),
    /// A thread has been in a call for a while; `None`: it is out of it. The subject is an address, or says which thread.
    Call { subject: String, call: Option<Call> },
}

/// What one end is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hello {
    protocol: u32,
    build: String,
}

impl Hello {
    /// This program's.
    pub(super) fn own() -> Hello {
        Hello { protocol: PROTOCOL, build: format!("{} catalog {CATALOG_VERSION}", env!("CARGO_PKG_VERSION")) }
    }

    /// Why the other end cannot be spoken to, if so.
    pub(super) fn objection(&self) -> Option<String> {
        let own = Hello::own();
        (*self != own).then(|| {
            format!(
                "the NVML worker is {:?} with protocol {}, the collector {:?} with protocol {}: start both from one file",
                self.build, self.protocol, own.build, own.protocol
            )
        })
    }
}

/// Sends a body.
///
/// # Errors
/// When the other end is gone, or takes nothing for a while.
pub(super) fn send(mut stream: &UnixStream, body: &[u8]) -> io::Result<()> {
    if body.len() > FRAME_MAX {
        return Err(io::Error::other(format!("a frame of {} bytes is above {FRAME_MAX}", body.len())));
    }
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame)
}

/// The next body; `None` when the other end has closed.
///
/// # Errors
/// When the stream breaks within a frame, or announces one that is too long.
pub(super) fn receive(mut stream: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes is announced, {FRAME_MAX} is the most")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(body))
}

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        match self {
            Order::Hello(hello) => put_hello(&mut out, hello),
            Order::Discover { id, library } => {
                out.byte(1);
                out.i64(*id as i64);
                out.text(library);
            }
            Order::Read { id, address, table } => {
                out.byte(2);
                out.i64(*id as i64);
                out.text(address);
                out.text(table.name);
            }
        }
        out.0
    }

    pub(super) fn decode(body: &[u8]) -> Option<Order> {
        let mut body = In(body);
        Some(match body.byte()? {
            0 => Order::Hello(take_hello(&mut body)?),
            1 => Order::Discover { id: body.i64()? as u64, library: body.text()? },
            2 => Order::Read { id: body.i64()? as u64, address: body.text()?, table: body.table()? },
            _ => return None,
        })
    }
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        match self {
            Report::Hello(hello) => put_hello(&mut out, hello),
            Report::Found { id, result } => {
                out.byte(1);
                out.i64(*id as i64);
                put_found(&mut out, result);
            }
            Report::Reading { id, reading } => {
                out.byte(2);
                out.i64(*id as i64);
                put_reading(&mut out, reading);
            }
            Report::Event(draft) => {
                out.byte(3);
                put_event(&mut out, draft);
            }
            Report::Call { subject, call } => {
                out.byte(4);
                out.text(subject);
                put_option(&mut out, call.as_ref(), |out, call| {
                    out.text(&call.name);
                    out.i64(call.since);
                });
            }
        }
        out.0
    }

    pub(super) fn decode(body: &[u8]) -> Option<Report> {
        let mut body = In(body);
        Some(match body.byte()? {
            0 => Report::Hello(take_hello(&mut body)?),
            1 => Report::Found { id: body.i64()? as u64, result: take_found(&mut body)? },
            2 => Report::Reading { id: body.i64()? as u64, reading: take_reading(&mut body)? },
            3 => Report::Event(take_event(&mut body)?),
            4 => {
                let subject = body.text()?;
                let call = take_option(&mut body, |body| Some(Call { name: body.text()?, since: body.i64()? }))?;
                Report::Call { subject, call }
            }
            _ => return None,
        })
    }
}

fn put_hello(out: &mut Out, hello: &Hello) {
    out.byte(0);
    out.u32(hello.protocol);
    out.text(&hello.build);
}

fn take_hello(body: &mut In<'_>) -> Option<Hello> {
    Some(Hello { protocol: body.u32()?, build: body.text()? })
}

fn put_option<T>(out: &mut Out, value: Option<T>, put: impl FnOnce(&mut Out, T)) {
    out.byte(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn take_option<'a, T>(body: &mut In<'a>, take: impl FnOnce(&mut In<'a>) -> Option<T>) -> Option<Option<T>> {
    match body.byte()? {
        0 => Some(None),
        _ => take(body).map(Some),
    }
}

fn put_list<T>(out: &mut Out, items: &[T], mut put: impl FnMut(&mut Out, &T)) {
    out.u32(items.len() as u32);
    items.iter().for_each(|item| put(out, item));
}

fn take_list<'a, T>(body: &mut In<'a>, mut take: impl FnMut(&mut In<'a>) -> Option<T>) -> Option<Vec<T>> {
    let length = body.u32()?;
    // It ends with the first that is not there, so a length that is a mistake allocates nothing.
    (0..length).map(|_| take(body)).collect()
}

fn put_text(out: &mut Out, text: Option<&str>) {
    put_option(out, text, |out, text| out.text(text));
}

fn put_number(out: &mut Out, number: Option<i64>) {
    put_option(out, number, |out, number| out.i64(number));
}

fn put_identity(out: &mut Out, identity: Option<&Identity>) {
    put_option(out, identity, |out, identity| {
        put_text(out, identity.device_id.as_deref());
        out.row(&identity.row);
    });
}

fn take_identity(body: &mut In<'_>) -> Option<Option<Identity>> {
    take_option(body, |body| Some(Identity { device_id: take_option(body, In::text)?, row: body.row()? }))
}

fn put_found(out: &mut Out, result: &Result<Vec<Found>, SourceError>) {
    match result {
        Ok(found) => {
            out.byte(1);
            put_list(out, found, |out, found| {
                out.text(&found.address);
                put_identity(out, found.identity.as_ref());
            });
        }
        Err(error) => {
            out.byte(0);
            out.text(&error.message);
            put_number(out, error.code);
            out.byte(u8::from(error.devices_absent));
        }
    }
}

fn take_found(body: &mut In<'_>) -> Option<Result<Vec<Found>, SourceError>> {
    Some(match body.byte()? {
        0 => {
            let (message, code) = (body.text()?, take_option(body, In::i64)?);
            Err(SourceError { message, code, devices_absent: body.byte()? != 0 })
        }
        _ => Ok(take_list(body, |body| {
            Some(Found { address: body.text()?, rack: None, identity: take_identity(body)? })
        })?),
    })
}

fn put_reading(out: &mut Out, reading: &Reading) {
    put_list(out, &reading.rows, |out, row: &Row| out.row(row));
    put_identity(out, reading.identity.as_ref());
    put_list(out, &reading.lifetime, |out, value| put_number(out, *value));
    put_list(out, &reading.events, put_event);
    put_number(out, reading.ended_at);
    put_number(out, reading.read_us.map(i64::from));
}

fn take_reading(body: &mut In<'_>) -> Option<Reading> {
    Some(Reading {
        rows: take_list(body, In::row)?,
        identity: take_identity(body)?,
        lifetime: take_list(body, |body| take_option(body, In::i64))?,
        events: take_list(body, take_event)?,
        ended_at: take_option(body, In::i64)?,
        read_us: take_option(body, In::i64)?.and_then(|us| i32::try_from(us).ok()),
    })
}

fn put_event(out: &mut Out, draft: &EventDraft) {
    [draft.event, draft.source, draft.severity].into_iter().for_each(|name| out.text(name));
    out.i64(draft.ts);
    put_text(out, draft.address.as_deref());
    put_number(out, draft.code);
    put_text(out, draft.phase);
    put_text(out, draft.episode_id.as_deref());
    put_text(out, draft.pci_bus_id.as_deref());
    out.text(&draft.message);
    put_text(out, draft.details_json.as_deref());
}

fn take_event(body: &mut In<'_>) -> Option<EventDraft> {
    let (event, source, severity) = (name(&body.text()?), name(&body.text()?), name(&body.text()?));
    Some(EventDraft {
        event,
        source,
        severity,
        ts: body.i64()?,
        address: take_option(body, In::text)?,
        code: take_option(body, In::i64)?,
        phase: take_option(body, In::text)?.map(|phase| name(&phase)),
        episode_id: take_option(body, In::text)?,
        pci_bus_id: take_option(body, In::text)?,
        message: body.text()?,
        details_json: take_option(body, In::text)?,
    })
}

/// The name as one that lives as long as the program; the other end has them in its code, so they are few.
fn name(text: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = locked(&NAMES);
    if let Some(known) = names.get(text) {
        return known;
    }
    if names.len() >= NAMES_MAX {
        return "nvml_event";
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{DEVICE, GPU_SAMPLE, device, gpu_sample};

    use super::*;

    fn identity() -> Identity {
        let mut row = Row::new(&DEVICE);
        row.set(device::SERIAL, "165");
        Identity { device_id: Some("GPU-1".to_owned()), row }
    }

    #[test]
    fn a_reading_arrives_as_it_was_sent() {
        let mut row = Row::new(&GPU_SAMPLE);
        row.read(gpu_sample::ENERGY_MILLIJOULES, 7i64);
        row.fail(gpu_sample::POWER_MILLIWATTS, 999);
        row.unsupported(gpu_sample::FAN_SPEED_PERCENT);
        let event =
            EventDraft { phase: Some("end"), ..EventDraft::new("xid", "nvml", "critical", "XID 79").with_code(79) };
        let reading = Reading {
            rows: vec![row],
            identity: Some(identity()),
            lifetime: vec![Some(7), None],
            events: vec![event],
            ended_at: Some(5),
            read_us: Some(6),
        };
        let body = Report::Reading { id: 3, reading: reading.clone() }.encode();
        let Some(Report::Reading { id: 3, reading: back }) = Report::decode(&body) else { panic!("no reading") };
        assert_eq!(back, reading);
        (0..body.len()).for_each(|end| assert!(Report::decode(&body[..end]).is_none(), "cut at {end}"));
    }

    #[test]
    fn a_list_of_gpus_and_an_error_arrive_as_they_were_sent() {
        let found = Found { address: "0000:1b:00.0".to_owned(), rack: None, identity: Some(identity()) };
        let error = SourceError { message: "no driver".to_owned(), code: Some(9), devices_absent: true };
        for result in [Ok(vec![found]), Err(error)] {
            let told = format!("{result:?}");
            let Some(Report::Found { result, .. }) = Report::decode(&Report::Found { id: 1, result }.encode()) else {
                panic!("{told}")
            };
            assert_eq!(format!("{result:?}"), told);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
        assert!(receive(&[255, 255, 255, 255, 0][..]).is_err());
        assert!(receive(&[2, 0, 0, 0, 1][..]).is_err(), "it ends within a frame");
        assert_eq!(receive(&[][..]).unwrap(), None);
    }

    #[test]
    fn another_build_is_refused_with_both_names() {
        let other = Hello { protocol: PROTOCOL + 1, build: "0.0.1".to_owned() };
        assert!(other.objection().is_some_and(|told| told.contains("0.0.1") && told.contains("one file")));
        assert_eq!(Hello::own().objection(), None);
    }
}
