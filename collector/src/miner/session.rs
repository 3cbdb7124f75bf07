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

/// One poll's connections to one miner.
pub(super) struct Session<'a> {
    peer: &'a Peer,
    /// What one command may take.
    timeout: Duration,
    /// The poll is over by then.
    end: Instant,
    web: Web<'a>,
}

impl<'a> Session<'a> {
    /// A session in which a command may take `timeout` and which is over at `end`.
    pub(super) fn new(peer: &'a Peer, timeout: Duration, end: Instant) -> Session<'a> {
        Session { peer, timeout, end, web: Web::new(&peer.http_address, peer.credentials.as_ref()) }
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
        exchange::ask(&self.peer.address, request, self.left()).await
    }

    /// The reply to a JSON request on a port where four bytes of length, little endian, come before each message
    /// (Whatsminer's newest interface).
    pub(super) async fn framed(&mut self, port: u16, request: &str) -> Result<Json, Trouble> {
        self.web.close();
        let host = self.peer.address.rsplit_once(':').map_or(self.peer.address.as_str(), |(host, _)| host);
        exchange::ask_framed(&format!("{host}:{port}"), request, self.left()).await
    }

    /// The answer to a request to the web port, on the connection of the request before where it is still open.
    /// [`Trouble::Refused`] for 401 and 403, [`Trouble::Unreadable`] for a redirect.
    pub(super) async fn http(&mut self, request: Http<'_>) -> Result<Answer, Trouble> {
        let left = self.left();
        self.web.ask(&request, left).await
    }

    /// The same, read as JSON: [`Trouble::Declined`] where there is no such page, [`Trouble::Unreadable`] for any other
    /// status that is no success.
    pub(super) async fn http_json(&mut self, request: Http<'_>) -> Result<Json, Trouble> {
        let body = self.http(request).await?.ok()?;
        Json::parse_joined(&body).ok_or(Trouble::Unreadable)
    }

    /// How long the next command may take.
    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now()).min(self.timeout)
    }
}
