//! A miner's web interface, as far as a collector needs it: requests in, JSON out, digest or token before it.

use digest_auth::{AuthContext, AuthorizationHeader, HttpMethod};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::makes::Login;
use crate::scenario::Settings;

/// Longest head and longest body that are read.
const HEAD_MAX: usize = 16_384;
const BODY_MAX: usize = 65_536;
/// Where a session begins.
const LOGIN_PATH: &str = "/api/v1/auth/login";
/// The path that a redirect points to.
pub(crate) const ELSEWHERE: &str = "/elsewhere";
/// What the page at `/` says on a machine of ePIC's.
pub(crate) const EPIC_PAGE: &str = "<html><head><title>Miner Web Dashboard</title></head></html>";

/// One request.
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without its query.
    pub(crate) path: String,
    uri: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

/// Whether a request may see what it asks for.
pub(crate) enum Entry {
    Granted,
    /// The answer to a login: status and body.
    Session(u16, String),
    /// A challenge to put into the head of a 401.
    Refused(Option<String>),
}

impl Request {
    /// Reads one; `None` when the client went away or sends what is no request.
    pub(crate) async fn read(stream: &mut TcpStream) -> Option<Request> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if bytes.len() > HEAD_MAX || !read_more(stream, &mut bytes).await {
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, uri) = (first.next()?.to_owned(), first.next()?.to_owned());
        let header = |name: &str| {
            let named = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
            named.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length = header("content-length").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0).min(BODY_MAX);
        let mut body = bytes.split_off(end + 4);
        while body.len() < length {
            if !read_more(stream, &mut body).await {
                return None;
            }
        }
        let path = uri.split('?').next().unwrap_or_default().to_owned();
        Some(Request { method, path, uri, authorization: header("authorization"), body })
    }

    /// Whether it may pass.
    pub(crate) fn enter(&self, login: Login, settings: &Settings, nonce: &str) -> Entry {
        match login {
            Login::Open => Entry::Granted,
            Login::Digest if self.has_digest(settings, nonce) => Entry::Granted,
            Login::Digest => Entry::Refused(Some(challenge(nonce))),
            Login::Token if self.path == LOGIN_PATH => match self.asks_rightly(settings) {
                true => Entry::Session(200, format!(r#"{{"token":"{nonce}","timeout_s":3600}}"#)),
                false => Entry::Session(401, r#"{"code":16,"message":"wrong user or password"}"#.to_owned()),
            },
            Login::Token if self.authorization.as_deref().is_some_and(|given| given.ends_with(nonce)) => Entry::Granted,
            Login::Token => Entry::Refused(None),
        }
    }

    fn asks_rightly(&self, settings: &Settings) -> bool {
        let Ok(asked) = serde_json::from_slice::<Value>(&self.body) else { return false };
        asked["username"] == settings.user.as_str() && asked["password"] == settings.password.as_str()
    }

    fn has_digest(&self, settings: &Settings, nonce: &str) -> bool {
        let Some(given) = self.authorization.as_deref().and_then(|text| AuthorizationHeader::parse(text).ok()) else {
            return false;
        };
        let method = HttpMethod::from(self.method.clone());
        let body = Some(self.body.as_slice()).filter(|body| !body.is_empty());
        let context = AuthContext::new_with_method(&settings.user, &settings.password, &self.uri, body, method);
        let mut wanted = given.clone();
        wanted.digest(&context);
        given.nonce == nonce
            && given.username == settings.user
            && given.uri == self.uri
            && given.response == wanted.response
    }
}

/// What a 401 asks for.
pub(crate) fn challenge(nonce: &str) -> String {
    format!(r#"Digest realm="antMiner Configuration", nonce="{nonce}", algorithm=MD5, qop="auth""#)
}

/// The head of an answer; `length` is left out where the body never ends.
pub(crate) fn head(status: u16, length: Option<u64>, extra: &str) -> String {
    let reason = match status {
        200 => "OK",
        302 => "Found",
        401 => "Unauthorized",
        403 => "Forbidden",
        429 => "Too Many Requests",
        _ => "Not Found",
    };
    let length =
        length.map_or_else(|| "Connection: close\r\n".to_owned(), |length| format!("Content-Length: {length}\r\n"));
    format!("HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n{length}{extra}\r\n")
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut part = [0; 2048];
    match stream.read(&mut part).await {
        Ok(read) if read > 0 => {
            bytes.extend_from_slice(&part[..read]);
            true
        }
        _ => false,
    }
}
