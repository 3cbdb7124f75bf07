//! The ways in which web interfaces of miners let one in.
//!
//! Only credentials from the config are ever sent. Without any, the first request goes out without a login: an interface
//! that answers it is read like that, and one that refuses is not asked again in that poll.

use crate::miner::exchange::Trouble;
use crate::miner::json::Json;
use crate::miner::recipe::text_at;
use crate::miner::session::{Http, Login, Session};

/// Where the web interface has its readings, and what it asks of a visitor.
pub(in crate::miner) struct Door {
    /// What stands before and behind the name of a reading in its path.
    pub(in crate::miner) before: &'static str,
    pub(in crate::miner) behind: &'static str,
    pub(in crate::miner) lock: Lock,
}

/// What an interface asks of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::miner) enum Lock {
    /// Nothing.
    Open,
    /// HTTP digest.
    Digest,
    /// A token that a login gives: where that is, where in its reply the token is, and the header that it goes into.
    Token { login: &'static str, body: Body, token: &'static str, header: &'static str, scheme: &'static str },
    /// A cookie that a login form gives.
    Cookie { login: &'static str },
}

/// What a login for a token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::miner) enum Body {
    /// `{"password":...}`
    Password,
    /// `{"command":"token","user":...,"password":...}`
    Command,
    /// The query by which an Apollo lets one in.
    Apollo,
}

/// A password that an Apollo is told.
const APOLLO: &str = "query Login($input: AuthLoginInput!) { Auth { login(input: $input) { \
     result { accessToken } error { message } } } }";

/// What a miner has given at its last login.
#[derive(Default)]
pub(in crate::miner) struct Key {
    value: Option<String>,
    /// It has refused, or cannot be connected to, in this poll: so it will whatever else is asked.
    closed: Option<Trouble>,
}

impl Key {
    /// A poll begins.
    pub(in crate::miner) fn open_again(&mut self) {
        self.closed = None;
    }
}

impl Door {
    /// One reading. A token that is no longer accepted is replaced once.
    pub(in crate::miner) async fn get(
        &self,
        session: &mut Session<'_>,
        key: &mut Key,
        name: &str,
    ) -> Result<Json, Trouble> {
        self.ask(session, key, &format!("{}{name}{}", self.before, self.behind), None).await
    }

    /// The reply to a query that is sent to a path.
    #[cfg_attr(not(feature = "asic-rs"), allow(dead_code, reason = "only makes of asic-rs are asked by queries"))]
    pub(in crate::miner) async fn post(
        &self,
        session: &mut Session<'_>,
        key: &mut Key,
        path: &str,
        body: &str,
    ) -> Result<Json, Trouble> {
        self.ask(session, key, path, Some(body)).await
    }

    async fn ask(
        &self,
        session: &mut Session<'_>,
        key: &mut Key,
        path: &str,
        body: Option<&str>,
    ) -> Result<Json, Trouble> {
        if let Some(trouble) = key.closed {
            return Err(trouble);
        }
        let mut reply = self.ask_once(session, key, path, body).await;
        if reply == Err(Trouble::Refused) && key.value.take().is_some() {
            reply = self.ask_once(session, key, path, body).await;
        }
        key.closed = reply
            .as_ref()
            .err()
            .copied()
            .filter(|trouble| matches!(trouble, Trouble::Refused | Trouble::NoConnection(_)));
        reply
    }

    async fn ask_once(
        &self,
        session: &mut Session<'_>,
        key: &mut Key,
        path: &str,
        body: Option<&str>,
    ) -> Result<Json, Trouble> {
        if session.credentials().is_some() && key.value.is_none() {
            key.value = self.log_in(session).await?;
        }
        let value = key.value.as_deref().unwrap_or_default();
        let login = match self.lock {
            _ if session.credentials().is_none() => Login::None,
            Lock::Open => Login::None,
            Lock::Digest => Login::Digest,
            Lock::Token { header, .. } => Login::Header(header, value),
            Lock::Cookie { .. } => Login::Header("Cookie", value),
        };
        match body {
            None => session.http_json(Http::get(path, login)).await,
            Some(body) => session.http_json(Http::post(path, body.to_owned(), login)).await,
        }
    }

    /// What the header of later requests says; `None` where there is nothing to log in to.
    async fn log_in(&self, session: &mut Session<'_>) -> Result<Option<String>, Trouble> {
        let credentials = session.credentials().ok_or(Trouble::Refused)?;
        let (path, body) = match self.lock {
            Lock::Open | Lock::Digest => return Ok(None),
            Lock::Token { login, body: Body::Password, .. } => {
                (login, serde_json::json!({ "password": credentials.password }).to_string())
            }
            Lock::Token { login, body: Body::Command, .. } => {
                let (user, password) = (&credentials.user, &credentials.password);
                (login, serde_json::json!({ "command": "token", "user": user, "password": password }).to_string())
            }
            Lock::Token { login, body: Body::Apollo, .. } => {
                let variables = serde_json::json!({ "input": { "password": credentials.password } });
                (login, serde_json::json!({ "query": APOLLO, "variables": variables }).to_string())
            }
            Lock::Cookie { login } => {
                let (user, password) = (form_text(&credentials.user), form_text(&credentials.password));
                (login, format!("username={user}&origin_pwd={password}"))
            }
        };
        let answer = session.http(Http::post(path, body, Login::None)).await?;
        match self.lock {
            Lock::Token { token, scheme, .. } => {
                let reply = Json::parse(&answer.body).ok_or(Trouble::Unreadable)?;
                let token = text_at(&reply, token).ok_or(Trouble::Refused)?;
                Ok(Some(format!("{scheme}{token}")))
            }
            _ => Ok(Some(answer.cookies.first().cloned().ok_or(Trouble::Refused)?)),
        }
    }
}

/// A text as a web form writes it.
pub(in crate::miner) fn form_text(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
