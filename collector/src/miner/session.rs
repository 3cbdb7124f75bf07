//! The conversation with one miner in one poll: commands over its cgminer port, requests over its web port.
//!
//! There is never more than one connection to a miner, whatever a reader asks for, and nothing lasts beyond the end of
//! the poll. No byte of an answer and no credential is in an error.

use std::time::Duration;

use tokio::time::Instant;

use super::exchange::{self, Trouble};
use super::json::Json;
use super::web::Web;
pub(super) use super::web::{Answer, Http, Login};
use crate::config::Credentials;

/// Where a miner is, and who may read it.
#[derive(Debug)]
pub(super) struct Peer {
    /// `host:port` of the cgminer API; the miner's address everywhere else.
    pub(super) address: String,
    /// `host:port` of its web interface.
    pub(super) http_address: String,
    /// User and password, where the config names any.
    pub(super) credentials: Option<Credentials>,
}

/// How long a miner is waited for that has not answered for a while.
pub(super) const SHORT: Duration = Duration::from_secs(2);
/// Part of the time for a command that is left for the next ones, once a port has kept silent.
const AFTER_SILENCE: u32 = 4;
/// With less time left nothing more is asked: a connection that is given up at once only burdens the miner.
const LEAST: Duration = Duration::from_millis(20);

/// How long a miner is waited for in one poll.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// What one command may take.
    pub(super) timeout: Duration,
    /// The poll is over by then.
    pub(super) end: Instant,
    /// It has not answered for several polls: each port is tried once, and not for long.
    pub(super) is_short: bool,
}

/// One poll's connections to one miner.
pub(super) struct Session<'a> {
    peer: &'a Peer,
    allowance: Allowance,
    web: Web<'a>,
    /// What each port has done so far, the one for commands first.
    ports: [Port; 2],
}

/// What a port has done in this poll.
#[derive(Debug, Clone, Copy, Default)]
struct Port {
    has_answered: bool,
    /// It has let the time pass; since then nothing has come.
    silence: Option<Trouble>,
}

const RPC: usize = 0;
const WEB: usize = 1;

impl<'a> Session<'a> {
    /// A session with a miner.
    pub(super) fn new(peer: &'a Peer, allowance: Allowance) -> Session<'a> {
        let web = Web::new(&peer.http_address, peer.credentials.as_ref());
        Session { peer, allowance, web, ports: Default::default() }
    }

    /// `host:port` of the cgminer API.
    pub(super) fn address(&self) -> &'a str {
        &self.peer.address
    }

    /// User and password for this miner, where the config names any.
    pub(super) fn credentials(&self) -> Option<&'a Credentials> {
        self.peer.credentials.as_ref()
    }

    /// The whole reply to a cgminer command. [`Trouble::Refused`] and [`Trouble::Declined`] where its `STATUS` says so.
    pub(super) async fn rpc(&mut self, command: &str) -> Result<Json, Trouble> {
        self.rpc_with(command, None).await
    }

    /// The same with a parameter.
    pub(super) async fn rpc_with(&mut self, command: &str, parameter: Option<&str>) -> Result<Json, Trouble> {
        self.rpc_json(&exchange::command(command, parameter)).await
    }

    /// The reply to a request in the firmware's own JSON on the cgminer port, such as `{"cmd":"get_psu"}`.
    pub(super) async fn rpc_json(&mut self, request: &str) -> Result<Json, Trouble> {
        self.web.close();
        let limit = self.limit(RPC)?;
        let reply = exchange::ask(&self.peer.address, request, limit).await;
        self.note(RPC, reply)
    }

    /// The reply to a JSON request on a port where four bytes of length, little endian, come before each message
    /// (Whatsminer's newest interface).
    pub(super) async fn framed(&mut self, port: u16, request: &str) -> Result<Json, Trouble> {
        self.web.close();
        let host = self.peer.address.rsplit_once(':').map_or(self.peer.address.as_str(), |(host, _)| host);
        let limit = self.limit(RPC)?;
        let reply = exchange::ask_framed(&format!("{host}:{port}"), request, limit).await;
        self.note(RPC, reply)
    }

    /// The answer to a request to the web port, on the connection of the request before where it is still open.
    /// [`Trouble::Refused`] for 401 and 403.
    pub(super) async fn http(&mut self, request: Http<'_>) -> Result<Answer, Trouble> {
        let limit = self.limit(WEB)?;
        let answer = self.web.ask(&request, limit).await;
        self.note(WEB, answer)
    }

    /// The same, read as JSON: [`Trouble::Declined`] where there is no such page, [`Trouble::Unreadable`] for any other
    /// status that is no success, such as a redirect.
    pub(super) async fn http_json(&mut self, request: Http<'_>) -> Result<Json, Trouble> {
        let body = self.http(request).await?.ok()?;
        Json::parse_joined(&body).ok_or(Trouble::Unreadable)
    }

    /// How long the next command may take; a port that kept silent is not asked again where the allowance is short.
    fn limit(&self, port: usize) -> Result<Duration, Trouble> {
        let Allowance { timeout, end, is_short } = self.allowance;
        let left = end.saturating_duration_since(Instant::now()).min(timeout);
        let Port { has_answered, silence } = self.ports[port];
        if left < LEAST {
            return Err(silence.unwrap_or(Trouble::NoAnswer(exchange::TIMEOUT)));
        }
        match silence {
            Some(trouble) if is_short => Err(trouble),
            Some(_) => Ok(left.min(timeout / AFTER_SILENCE)),
            None if is_short && !has_answered => Ok(left.min(SHORT)),
            None => Ok(left),
        }
    }

    /// Remembers whether the port answers.
    fn note<T>(&mut self, port: usize, answer: Result<T, Trouble>) -> Result<T, Trouble> {
        let port = &mut self.ports[port];
        match &answer {
            Err(trouble) if trouble.is_silence() => {
                if !port.has_answered {
                    port.silence = Some(*trouble);
                }
            }
            Err(Trouble::NoConnection(_)) => {}
            _ => *port = Port { has_answered: true, silence: None },
        }
        answer
    }
}
