//! One connection to a unit, by each of the ways in which miners are asked.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fault::Fault;
use crate::http::{self, Request};
use crate::machine::Asked;
use crate::makes::Transport;
use crate::profile::Profile;
use crate::server::{Answer, Counted, Server};
use crate::spoil::Then;

/// cgminer reads no longer request.
const REQUEST_MAX: usize = 8191;
/// A request that is not whole by then is answered as it is.
const REQUEST_WAIT: Duration = Duration::from_secs(2);
/// Time between two bytes of a slow answer.
const DRIP: Duration = Duration::from_millis(100);

/// Serves it until one side has had enough. It is no longer counted once the unit is about to close it.
pub(crate) async fn serve(server: &Server, stream: TcpStream, port: usize, counted: Counted<'_>) {
    match server.ports[port].transport {
        Transport::Rpc => serve_rpc(server, stream, port, counted).await,
        Transport::Http => serve_http(server, stream, port, counted).await,
        Transport::Framed => serve_framed(server, stream, counted).await,
    }
}

/// cgminer's way: one command, one answer, closed by the miner.
async fn serve_rpc(server: &Server, mut stream: TcpStream, port: usize, counted: Counted<'_>) {
    let Some(request) = read_command(&mut stream).await else { return };
    let asked = Asked { transport: Transport::Rpc, name: &request.name, parameter: &request.parameter };
    let Some(mut answer) = answered(server, &asked, None).await else { return };
    if matches!(answer.fault, Some(Fault::Http401 | Fault::Redirect)) {
        // A web server on cgminer's port.
        answer.spoilt.bytes = web_refusal(answer.fault, server, port).into_bytes();
    } else if answer.fault == Some(Fault::NoNul) {
        answer.spoilt.then = Then::KeepOpen;
    } else if answer.spoilt.then == Then::Go {
        answer.spoilt.bytes.push(0);
    }
    if send(&mut stream, &answer, b"").await && !matches!(answer.spoilt.then, Then::KeepOpen) {
        drop(counted);
        let _ = stream.shutdown().await;
    } else {
        linger(&mut stream, &answer).await;
    }
}

/// HTTP/1.1: as many requests as the client wants.
async fn serve_http(server: &Server, mut stream: TcpStream, port: usize, counted: Counted<'_>) {
    while let Some(request) = Request::read(&mut stream).await {
        let settings = server.settings();
        let mut extra = String::new();
        let fault = settings.fault_of(&request.path);
        let instead = match request.enter(server.login, &settings, &server.token) {
            _ if matches!(fault, Some(Fault::Http401)) => {
                extra = format!("WWW-Authenticate: {}\r\n", http::challenge(&server.token));
                Some((401, "{}".to_owned()))
            }
            _ if request.path == "/" && server.profile == Profile::Epic => Some((200, http::EPIC_PAGE.to_owned())),
            _ if fault == Some(Fault::Redirect) && request.path != http::ELSEWHERE => {
                extra = format!("Location: http://{}{}\r\n", server.ports[port].address, http::ELSEWHERE);
                Some((302, "{}".to_owned()))
            }
            http::Entry::Granted => None,
            http::Entry::Session(status, body) => Some((status, body)),
            http::Entry::Refused(challenge) => {
                if let Some(challenge) = challenge {
                    extra = format!("WWW-Authenticate: {challenge}\r\n");
                }
                Some((401, "{}".to_owned()))
            }
        };
        let asked = Asked { transport: Transport::Http, name: &request.path, parameter: "" };
        let Some(answer) = answered(server, &asked, instead).await else { return };
        let head = match answer.fault {
            Some(Fault::Hang | Fault::Empty | Fault::Garbage) => String::new(),
            Some(Fault::Endless) => http::head(200, None, &extra),
            _ => http::head(answer.status, Some(answer.spoilt.promised), &extra),
        };
        if !send(&mut stream, &answer, head.as_bytes()).await || answer.spoilt.then != Then::Go {
            linger(&mut stream, &answer).await;
            break;
        }
    }
    drop(counted);
    let _ = stream.shutdown().await;
}

/// Whatsminer's version 3: as many messages as the client wants, each behind its length.
async fn serve_framed(server: &Server, mut stream: TcpStream, counted: Counted<'_>) {
    while let Ok(length) = stream.read_u32_le().await {
        let mut bytes = vec![0; (length as usize).min(REQUEST_MAX)];
        if stream.read_exact(&mut bytes).await.is_err() {
            break;
        }
        let Some(request) = Command::of(&bytes) else { break };
        let asked = Asked { transport: Transport::Framed, name: &request.name, parameter: &request.parameter };
        let Some(answer) = answered(server, &asked, None).await else { return };
        let head = match answer.fault {
            Some(Fault::Hang | Fault::Empty) => Vec::new(),
            _ => u32::try_from(answer.spoilt.promised).unwrap_or(u32::MAX).to_le_bytes().to_vec(),
        };
        if !send(&mut stream, &answer, &head).await || answer.spoilt.then != Then::Go {
            linger(&mut stream, &answer).await;
            break;
        }
    }
    drop(counted);
    let _ = stream.shutdown().await;
}

/// The answer, in the account already; `None` where it could not be written there.
async fn answered(server: &Server, asked: &Asked<'_>, instead: Option<(u16, String)>) -> Option<Answer> {
    match server.answer(asked, instead).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            eprintln!("miner-sim: {}: {error:#}", server.name);
            None
        }
    }
}

/// Sends an answer, as slowly as its fault wants; says whether the client took it.
async fn send(stream: &mut TcpStream, answer: &Answer, head: &[u8]) -> bool {
    if answer.fault == Some(Fault::SlowDrip) {
        if stream.write_all(head).await.is_err() {
            return false;
        }
        for byte in &answer.spoilt.bytes {
            if stream.write_all(&[*byte]).await.is_err() {
                return false;
            }
            tokio::select! {
                () = is_closed(stream) => return false,
                () = tokio::time::sleep(DRIP) => {}
            }
        }
        return true;
    }
    // One write, so that a small answer is one packet.
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&answer.spoilt.bytes);
    if stream.write_all(&bytes).await.is_err() {
        return false;
    }
    if let Then::Repeat(limit) = answer.spoilt.then {
        let mut sent = answer.spoilt.bytes.len() as u64;
        while sent < limit {
            let part = &answer.spoilt.bytes[..answer.spoilt.bytes.len().min((limit - sent).min(1 << 20) as usize)];
            if stream.write_all(part).await.is_err() {
                return false;
            }
            sent += part.len() as u64;
        }
    }
    true
}

/// Waits until the client has closed the connection; for ever where it sends something instead.
pub(crate) async fn is_closed(stream: &TcpStream) {
    if stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
        std::future::pending::<()>().await;
    }
}

/// Keeps a connection open that its fault wants open, until the client closes it.
async fn linger(stream: &mut TcpStream, answer: &Answer) {
    if answer.spoilt.then == Then::KeepOpen {
        while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    }
}

fn web_refusal(fault: Option<Fault>, server: &Server, port: usize) -> String {
    match fault {
        Some(Fault::Redirect) => {
            let place = format!("Location: http://{}{}\r\n", server.ports[port].address, http::ELSEWHERE);
            http::head(302, Some(0), &place)
        }
        _ => http::head(401, Some(0), "WWW-Authenticate: Digest realm=\"miner\"\r\n"),
    }
}

/// A command and its parameter.
struct Command {
    name: String,
    parameter: String,
}

impl Command {
    /// `{"command": ..., "parameter": ...}`, or Whatsminer's `{"cmd": ..., "param": ...}`.
    fn of(request: &[u8]) -> Option<Command> {
        let tree = serde_json::from_slice::<Value>(request).ok()?;
        let text = |names: [&str; 2]| match names.iter().find_map(|name| tree.get(name)) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        Some(Command { name: text(["command", "cmd"]), parameter: text(["parameter", "param"]) })
    }
}

/// The command of a request; `None` when the client went away.
async fn read_command(stream: &mut TcpStream) -> Option<Command> {
    let mut request = Vec::new();
    let reading = async {
        while request.len() < REQUEST_MAX && Command::of(&request).is_none() {
            let mut part = [0; 1024];
            match stream.read(&mut part).await {
                Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(REQUEST_WAIT, reading).await;
    if request.is_empty() {
        return None;
    }
    Some(Command::of(&request).unwrap_or(Command { name: String::new(), parameter: String::new() }))
}
