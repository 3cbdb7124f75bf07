//! The conversation with one miner in one poll: commands over its cgminer port, requests over its web port.
//!
//! There is never more than one connection to a miner, whatever a reader asks for, and nothing lasts beyond the end of
//! the poll. No byte of an answer and no credential is in an error.

use std::time::Duration;

use tokio::time::Instant;

use super::exchange::{self, Trouble};
use super::json::Json;
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
}

impl<'a> Session<'a> {
    /// A session in which a command may take `timeout` and which is over at `end`.
    pub(super) fn new(peer: &'a Peer, timeout: Duration, end: Instant) -> Session<'a> {
        Session { peer, timeout, end }
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
        exchange::ask(&self.peer.address, request, self.left()).await
    }

    /// How long the next command may take.
    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now()).min(self.timeout)
    }
}
