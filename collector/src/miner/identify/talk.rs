//! One request to one port of an address that nothing is known of, and what comes back within a bound on bytes and time.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::exchange::Trouble;

/// Most bytes that are read; the words that tell a firmware are near the beginning.
const BYTES_MAX: usize = 128 * 1024;

/// Nothing answers at the address, not even to say that the port is closed.
pub(super) const SILENT: Trouble = Trouble::NoConnection("the time was over");

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Making a connection.
    pub(crate) connect: Duration,
    /// One answer.
    pub(crate) answer: Duration,
    /// All of it is over by then.
    pub(crate) end: Instant,
}

/// Sends a request and gives what came back, which may be a part only. `is_whole` says when that is enough; the end of
/// the connection and of the time are enough too.
///
/// # Errors
/// When there is no connection, or not one byte.
pub(super) async fn talk(
    endpoint: &str,
    request: &[u8],
    is_whole: fn(&[u8]) -> bool,
    patience: Patience,
) -> Result<Vec<u8>, Trouble> {
    let now = Instant::now();
    let mut stream = match timeout_at(patience.end.min(now + patience.connect), TcpStream::connect(endpoint)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Trouble::NoConnection(words(error.kind()))),
        Err(_) => return Err(SILENT),
    };
    let mut bytes = Vec::new();
    let left = patience.end.saturating_duration_since(Instant::now()).min(patience.answer);
    let ended = timeout(left, exchange(&mut stream, request, is_whole, &mut bytes)).await;
    match ended {
        _ if !bytes.is_empty() => Ok(bytes),
        Ok(()) => Err(Trouble::NoAnswer("the miner closed the connection")),
        Err(_) => Err(Trouble::NoAnswer("the time was over")),
    }
}

async fn exchange(stream: &mut TcpStream, request: &[u8], is_whole: fn(&[u8]) -> bool, bytes: &mut Vec<u8>) {
    if stream.write_all(request).await.is_err() {
        return;
    }
    let mut part = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut part).await {
        bytes.extend_from_slice(&part[..read]);
        if bytes.len() >= BYTES_MAX || is_whole(bytes) {
            return;
        }
    }
}

fn words(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::ConnectionRefused => "the port is closed",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "there is no route to it",
        _ => "the connection cannot be made",
    }
}
