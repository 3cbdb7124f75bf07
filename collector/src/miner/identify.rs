//! Finds out which firmware answers at an address.
//!
//! One connection after another, five at most but for a miner that answers none of its ports as expected, and never a
//! user or password: what a firmware tells only with one is not asked. A firmware that replaces another one may leave the
//! replies of the cgminer API as they were, so an Antminer is asked for its first page too.

pub(super) mod marks;
mod talk;
#[cfg(test)]
pub(super) mod tests;

use super::exchange::Trouble;
use super::json::Json;
use crate::config::{Make, MinerConfig};

use marks::Said;
use talk::{SILENT, talk};

pub(crate) use talk::Patience;

/// Port of Whatsminer's newest firmware, which answers in frames.
const FRAMED_PORT: u16 = 4433;
/// Port of web interfaces of all makes that have one where this looks for it.
const HTTP_PORT: u16 = 80;

/// The make of the miner at an address.
///
/// # Errors
/// The most telling of what was seen, where no make that is known answers there.
pub(super) async fn identify(miner: &MinerConfig, patience: Patience) -> Result<Make, Trouble> {
    let mut inquiry = Inquiry { miner, patience, seen: SILENT };
    match inquiry.run().await {
        Some(make) => Ok(make),
        None => Err(inquiry.seen),
    }
}

struct Inquiry<'a> {
    miner: &'a MinerConfig,
    patience: Patience,
    /// The most telling of what was seen.
    seen: Trouble,
}

/// What the cgminer port says.
enum Heard {
    Make(Make),
    /// A web server is there.
    Web,
    /// Something is there that is of no known make.
    Something,
    /// There is a connection, and no answer.
    Silence,
    /// There is no connection.
    Nothing,
}

impl Inquiry<'_> {
    async fn run(&mut self) -> Option<Make> {
        let heard = self.ask(r#"{"command":"version"}"#).await;
        match heard {
            Heard::Make(Make::Antminer) => return Some(self.replaced().await.unwrap_or(Make::Antminer)),
            Heard::Make(make) => return Some(make),
            Heard::Web => {
                if let Some(make) = self.capabilities().await {
                    return Some(make);
                }
            }
            Heard::Something => {
                for request in [r#"{"cmd":"get_version"}"#, r#"{"command":"devdetails"}"#] {
                    if let Heard::Make(make) = self.ask(request).await {
                        return Some(make);
                    }
                }
            }
            Heard::Silence | Heard::Nothing => {}
        }
        if let Some(make) = self.page().await {
            return Some(make);
        }
        match heard {
            // A web server waits for the end of what it takes for a head.
            Heard::Silence => self.capabilities().await,
            _ if self.seen == SILENT => None,
            _ => self.framed().await,
        }
    }

    /// Asks the web server that ePIC has on the cgminer port.
    async fn capabilities(&mut self) -> Option<Make> {
        let endpoint = self.miner.endpoint();
        let bytes = self.talk(&endpoint, get(&endpoint, "/capabilities").as_bytes(), is_page).await.ok()?;
        marks::of_capabilities(&bytes)
    }

    /// Asks on the cgminer port.
    async fn ask(&mut self, request: &str) -> Heard {
        let bytes = match self.talk(&self.miner.endpoint(), request.as_bytes(), is_reply).await {
            Ok(bytes) => bytes,
            Err(Trouble::NoConnection(_)) => return Heard::Nothing,
            Err(_) => return Heard::Silence,
        };
        if bytes.starts_with(b"HTTP/1.") {
            return Heard::Web;
        }
        match Json::parse_joined(&bytes).and_then(|reply| marks::of_reply(&reply)) {
            Some(make) => Heard::Make(make),
            None => Heard::Something,
        }
    }

    /// The firmware that has replaced that of an Antminer, where its page says so.
    async fn replaced(&mut self) -> Option<Make> {
        let own = [Make::Braiins, Make::Luxos, Make::Vnish, Make::Marathon, Make::Epic];
        self.page().await.filter(|make| own.contains(make))
    }

    /// Asks for the first page.
    async fn page(&mut self) -> Option<Make> {
        let endpoint = MinerConfig { port: self.miner.http_port.unwrap_or(HTTP_PORT), ..self.miner.clone() }.endpoint();
        let bytes = self.talk(&endpoint, get(&endpoint, "/").as_bytes(), is_page).await.ok()?;
        match marks::of_page(&bytes)? {
            Said::Make(make) => Some(make),
            Said::Refused => {
                self.seen = Trouble::Refused;
                None
            }
            Said::Other => None,
        }
    }

    /// Asks in frames.
    async fn framed(&mut self) -> Option<Make> {
        let endpoint = MinerConfig { port: FRAMED_PORT, ..self.miner.clone() }.endpoint();
        let text = br#"{"cmd":"get.device.info"}"#;
        let request = [&(text.len() as u32).to_le_bytes()[..], text].concat();
        let bytes = self.talk(&endpoint, &request, is_frame).await.ok()?;
        marks::of_framed(&Json::parse(bytes.get(4..)?)?)
    }

    async fn talk(&mut self, endpoint: &str, request: &[u8], is_whole: fn(&[u8]) -> bool) -> Result<Vec<u8>, Trouble> {
        let told = talk(endpoint, request, is_whole, self.patience).await;
        let seen = told.as_ref().err().copied().unwrap_or(Trouble::Unreadable);
        if weight(seen) > weight(self.seen) {
            self.seen = seen;
        }
        told
    }
}

/// How much a trouble says about what is there.
fn weight(trouble: Trouble) -> u8 {
    match trouble {
        SILENT => 0,
        Trouble::NoConnection(_) => 1,
        Trouble::NoAnswer(_) => 2,
        Trouble::Refused => 4,
        _ => 3,
    }
}

fn get(endpoint: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nAccept: */*\r\nConnection: close\r\n\r\n")
}

/// Whether a reply has come to its end: firmwares say NUL, close, or neither.
fn is_reply(bytes: &[u8]) -> bool {
    let last = bytes.iter().rev().find(|byte| !byte.is_ascii_whitespace());
    match last {
        Some(0) => true,
        Some(b'}') => Json::parse(bytes).is_some(),
        // A web server has said enough with its first line.
        _ => bytes.starts_with(b"HTTP/1.") && bytes.contains(&b'\n'),
    }
}

/// Whether a page has come to its end, as far as it says where that is; servers that close say so by that.
fn is_page(bytes: &[u8]) -> bool {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n");
    let Some(head) = head else { return false };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => bytes.len() - (head + 4) >= length,
        None => bytes.ends_with(b"\r\n0\r\n\r\n"),
    }
}

/// Whether a frame has come to its end.
fn is_frame(bytes: &[u8]) -> bool {
    let Some((length, text)) = bytes.split_first_chunk::<4>() else { return false };
    text.len() >= u32::from_le_bytes(*length) as usize
}
