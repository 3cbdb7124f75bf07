//! What Braiins OS+ is asked, and where.

use super::{ERRORS, Interface, Known, SUSPENDED};
use crate::miner::exchange::Trouble;
use crate::miner::json::Json;
use crate::miner::others::form_text;
use crate::miner::reader::{Replies, Wants};
use crate::miner::recipe::{integer_at, text_at, walk};
use crate::miner::session::{Http, Login, Session};

/// What the REST interface is asked with every poll; the path is the name of the reply.
const REST_SAMPLE: [&str; 6] =
    ["miner/details", "miner/stats", "miner/hw/hashboards", "cooling/state", "pools", "performance/tuner-state"];
const REST_IDENTITY: [&str; 2] = ["network", "version"];

const SYSTEM: &str = "{ bos { hostname info { version { full } } uptime { durationS } } bosminer { info { \
     workSolver { realHashrate { mhs5S } nominalMhs } fans { name speed rpm } \
     summary { power { limitW approxConsumptionW } } } } }";
const BOARDS_WITH_SERIALS: &str = "{ bosminer { info { workSolver { childSolvers { name realHashrate { mhs5S } \
     nominalMhs hwDetails { chips frequencyMhz voltageV hbSerialNumber } temperatures { name degreesC } } } } } }";
const BOARDS: &str = "{ bosminer { info { workSolver { childSolvers { name realHashrate { mhs5S } \
     nominalMhs hwDetails { chips frequencyMhz voltageV } temperatures { name degreesC } } } } } }";
const POOLS: &str = "{ bosminer { info { poolGroups { name pools { url status active \
     shares { acceptedSolutions rejectedSolutions } } } } } }";
const EVENTS: &str = "{ events { appeals { id kind message timestamp } } }";
const MODEL: &str = "{ bosminer { info { modelName } } }";

/// Asks for what is wanted, where this miner can be asked for it.
pub(super) async fn ask(session: &mut Session<'_>, wants: Wants, known: &mut Known) -> Replies {
    let mut replies = Replies::default();
    if known.interface != Interface::GraphQl && session.credentials().is_some() {
        if ask_rest(session, wants, known, &mut replies).await {
            return replies;
        }
        replies = Replies::default();
    }
    ask_graphql(session, wants, known, &mut replies).await;
    replies
}

/// Asks the REST interface; false where this firmware has none.
async fn ask_rest(session: &mut Session<'_>, wants: Wants, known: &mut Known, replies: &mut Replies) -> bool {
    if known.token.is_none() {
        match log_in(session).await {
            Ok(token) => known.token = Some(token),
            Err(Trouble::Refused) => {
                replies.add(REST_SAMPLE[0], Err(Trouble::Refused));
                return known.interface == Interface::Rest;
            }
            Err(Trouble::NoConnection(cause)) => {
                replies.add(REST_SAMPLE[0], Err(Trouble::NoConnection(cause)));
                return true;
            }
            Err(_) if known.interface == Interface::Unknown => {
                known.interface = Interface::GraphQl;
                return false;
            }
            Err(trouble) => {
                replies.add(REST_SAMPLE[0], Err(trouble));
                return true;
            }
        }
    }
    let paths = REST_SAMPLE.iter().filter(|_| wants.sample).chain(REST_IDENTITY.iter().filter(|_| wants.identity));
    for path in paths {
        let reply = get(session, known, path).await;
        let is_over = matches!(reply, Err(Trouble::NoConnection(_) | Trouble::Refused));
        known.interface = if reply.is_ok() { Interface::Rest } else { known.interface };
        replies.add(*path, reply);
        if is_over {
            break;
        }
    }
    // The log says why a miner has suspended itself; otherwise it tells of the past.
    if replies.ok("miner/details").and_then(|details| integer_at(details, "status", 0)) == Some(SUSPENDED) {
        replies.add(ERRORS, get(session, known, ERRORS).await);
    }
    true
}

/// One reply of the REST interface. A token that is no longer accepted is replaced once.
async fn get(session: &mut Session<'_>, known: &mut Known, path: &str) -> Result<Json, Trouble> {
    let full = format!("/api/v1/{path}");
    for attempt in 0..2 {
        let token = match &known.token {
            Some(token) => token.clone(),
            None => log_in(session).await?,
        };
        let reply = session.http_json(Http::get(&full, Login::Token(&token))).await;
        known.token = if reply == Err(Trouble::Refused) { None } else { Some(token) };
        if attempt == 1 || reply != Err(Trouble::Refused) {
            return reply;
        }
    }
    Err(Trouble::Refused)
}

/// A token for the credentials of the config.
async fn log_in(session: &mut Session<'_>) -> Result<String, Trouble> {
    let credentials = session.credentials().ok_or(Trouble::Refused)?;
    let body = serde_json::json!({ "username": credentials.user, "password": credentials.password });
    let reply = session.http_json(Http::post("/api/v1/auth/login", body.to_string(), Login::None)).await?;
    text_at(&reply, "token").map(str::to_owned).ok_or(Trouble::Unreadable)
}

/// Asks GraphQL and BOSminer's cgminer API, neither of which wants a login for what they tell.
async fn ask_graphql(session: &mut Session<'_>, wants: Wants, known: &mut Known, replies: &mut Replies) {
    if wants.identity {
        known.unknown.clear();
        known.lacks_rpc = false;
    }
    if wants.sample {
        let system = query(session, SYSTEM).await;
        let is_connected = !matches!(system, Err(Trouble::NoConnection(_)));
        replies.add("system", system);
        if !is_connected {
            return;
        }
        let mut boards = query_known(session, known, BOARDS_WITH_SERIALS).await;
        if boards == Err(Trouble::Declined) {
            boards = query(session, BOARDS).await;
        }
        replies.add("boards", boards);
        replies.add("pools", query(session, POOLS).await);
        let events = query_known(session, known, EVENTS).await;
        replies.add("events", events);
        if !known.lacks_rpc {
            let summary = session.rpc("summary").await;
            known.lacks_rpc = matches!(summary, Err(Trouble::NoConnection(_)));
            if !known.lacks_rpc {
                replies.add("summary", summary);
            }
        }
    }
    if wants.identity {
        replies.add("model", query(session, MODEL).await);
        if !known.lacks_rpc {
            replies.add("version", session.rpc("version").await);
        }
        replies.add("net_conf", net_conf(session).await);
    }
}

/// The MAC is told by the web interface of older firmwares only, and only to one who logs in.
async fn net_conf(session: &mut Session<'_>) -> Result<Json, Trouble> {
    let credentials = session.credentials().ok_or(Trouble::Refused)?;
    let form =
        format!("luci_username={}&luci_password={}", form_text(&credentials.user), form_text(&credentials.password));
    let answer = session.http(Http::post("/cgi-bin/luci", form, Login::None)).await?;
    let cookie = answer.cookies.iter().find(|cookie| cookie.starts_with("session_id=")).ok_or(Trouble::Declined)?;
    let path = "/cgi-bin/luci/admin/network/iface_status/lan";
    session.http_json(Http::get(path, Login::Header("Cookie", cookie))).await
}

/// A query that some firmwares do not know, and are then not asked again before the identity is.
async fn query_known(session: &mut Session<'_>, known: &mut Known, text: &'static str) -> Result<Json, Trouble> {
    if known.unknown.contains(&text) {
        return Err(Trouble::Declined);
    }
    let reply = query(session, text).await;
    if reply == Err(Trouble::Declined) {
        known.unknown.push(text);
    }
    reply
}

/// The reply to a GraphQL query. One that holds errors and no data declines the query or refuses the asker.
async fn query(session: &mut Session<'_>, text: &str) -> Result<Json, Trouble> {
    let body = serde_json::json!({ "query": text }).to_string();
    judged(session.http_json(Http::post("/graphql", body, Login::None)).await?)
}

/// A GraphQL reply that holds data, or why it does not.
pub(super) fn judged(reply: Json) -> Result<Json, Trouble> {
    if walk(&reply, "data").is_some_and(|data| *data != Json::Null) {
        return Ok(reply);
    }
    let message = text_at(&reply, "errors/0/message").map(str::to_ascii_lowercase);
    Err(match message {
        Some(message) if ["auth", "login", "permission"].iter().any(|word| message.contains(word)) => Trouble::Refused,
        Some(_) => Trouble::Declined,
        None => Trouble::Unreadable,
    })
}
