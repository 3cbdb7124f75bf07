//! What an Antminer tells over the web only, to those who have a password.

use super::super::exchange::Trouble;
use super::super::json::Json;
use super::super::session::Session;
use super::super::web::{Http, Login};

/// The hashrates and the list of errors.
pub(super) const SUMMARY: &str = "summary.cgi";
/// The pools.
pub(super) const POOLS: &str = "pools.cgi";
/// The settings, among them the mode.
pub(super) const CONF: &str = "get_miner_conf.cgi";
/// Serial number, MAC, host name and firmware.
pub(super) const SYSTEM: &str = "get_system_info.cgi";
/// Names of the mode in the settings: 0 is normal, 1 asleep, 2 high, 3 low.
pub(super) const MODES: [&str; 2] = ["miner-mode", "bitmain-work-mode"];

/// The reply of a page.
pub(super) async fn get(session: &mut Session<'_>, page: &str) -> Result<Json, Trouble> {
    session.http_json(Http::get(&format!("/cgi-bin/{page}"), Login::Digest)).await
}
