//! Requests to a miner's web server, one after another on one connection.
//!
//! The connection is driven by whoever waits for an answer, so nothing of it outlives the poll. A redirect is never
//! followed: where it leads, somebody else would be told the password. Header and body are bounded, like the time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exchange::{ANSWER_BYTES_MAX, CLOSED, CUT, TIMEOUT, Trouble, words};
use crate::config::Credentials;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most bytes on the wire for one answer: chunks of few bytes cost more than they bring.
const WIRE_BYTES_MAX: usize = 2 * ANSWER_BYTES_MAX;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Http<'a> {
    pub(super) method: Method,
    /// Path and query: `/cgi-bin/stats.cgi`.
    pub(super) path: &'a str,
    /// A body in JSON, or that of a form.
    pub(super) body: Option<String>,
    pub(super) login: Login<'a>,
}

impl<'a> Http<'a> {
    /// A request for a page.
    pub(super) fn get(path: &'a str, login: Login<'a>) -> Http<'a> {
        Http { method: Method::Get, path, body: None, login }
    }

    /// A request with a body, in JSON or of a form.
    pub(super) fn post(path: &'a str, body: String, login: Login<'a>) -> Http<'a> {
        Http { method: Method::Post, path, body: Some(body), login }
    }
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

/// How a request says who asks. Without credentials it is sent without any.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Login<'a> {
    None,
    /// User and password, in the clear.
    #[cfg_attr(not(test), allow(dead_code, reason = "no firmware that is read wants it so far"))]
    Basic,
    /// User and password, after a challenge.
    Digest,
    /// This value of the header `Authorization`.
    Token(&'a str),
    /// This value of another header, which an earlier login gave.
    Header(&'static str, &'a str),
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Login::None => "None",
            Login::Basic => "Basic",
            Login::Digest => "Digest",
            Login::Token(_) => "Token (not shown)",
            Login::Header(..) => "Header (not shown)",
        })
    }
}

/// An answer that is no refusal. A redirect is one too: it may bring the cookie of a login, and is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Cookies that it sets, `name=value`.
    pub(super) cookies: Vec<String>,
}

impl Answer {
    /// The body of an answer that is one.
    pub(super) fn ok(self) -> Result<Vec<u8>, Trouble> {
        match self.status {
            200..300 => Ok(self.body),
            404 | 405 | 501 => Err(Trouble::Declined),
            _ => Err(Trouble::Unreadable),
        }
    }
}

/// The web server of one miner, for one poll.
pub(super) struct Web<'a> {
    /// `host:port`.
    address: &'a str,
    credentials: Option<&'a Credentials>,
    progress: Arc<Progress>,
    open: Option<Open>,
    /// The challenge that was answered last; it holds for the next request too.
    challenge: Option<WwwAuthenticateHeader>,
}

/// How far a request has come.
#[derive(Default)]
struct Progress {
    is_connected: AtomicBool,
    /// Bytes of the answer.
    received: AtomicUsize,
}

impl<'a> Web<'a> {
    pub(super) fn new(address: &'a str, credentials: Option<&'a Credentials>) -> Web<'a> {
        Web { address, credentials, progress: Arc::default(), open: None, challenge: None }
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Asks, and logs in where that is wanted.
    pub(super) async fn ask(&mut self, http: &Http<'_>, limit: Duration) -> Result<Answer, Trouble> {
        let progress = Arc::clone(&self.progress);
        progress.received.store(0, Ordering::Relaxed);
        progress.is_connected.store(self.open.is_some(), Ordering::Relaxed);
        let answer = match timeout(limit, self.exchange(http)).await {
            Ok(answer) => answer,
            Err(_) if !progress.is_connected.load(Ordering::Relaxed) => Err(Trouble::NoConnection(TIMEOUT)),
            Err(_) if progress.received.load(Ordering::Relaxed) == 0 => Err(Trouble::NoAnswer(TIMEOUT)),
            Err(_) => Err(Trouble::Partial(TIMEOUT)),
        };
        let received = match answer {
            Ok(received) => received,
            Err(trouble) => {
                self.close();
                return Err(trouble);
            }
        };
        match received.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Trouble::Refused),
            status => Ok(Answer { status: status.as_u16(), body: received.body, cookies: received.cookies }),
        }
    }

    async fn exchange(&mut self, http: &Http<'_>) -> Result<Received, Trouble> {
        let authorization = self.authorization(http);
        let received = self.send(http, authorization).await?;
        if received.status != StatusCode::UNAUTHORIZED || http.login != Login::Digest {
            return Ok(received);
        }
        // The first challenge, or a new one since that of before has grown old.
        self.challenge = received.challenge.as_deref().and_then(|challenge| digest_auth::parse(challenge).ok());
        match self.authorization(http) {
            Some(authorization) => self.send(http, Some(authorization)).await,
            None => Ok(received),
        }
    }

    /// The value of the header `Authorization`.
    fn authorization(&mut self, http: &Http<'_>) -> Option<String> {
        match http.login {
            Login::None | Login::Header(..) => None,
            Login::Token(token) => Some(token.to_owned()),
            Login::Basic => {
                let Credentials { user, password, .. } = self.credentials?;
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Login::Digest => {
                let Credentials { user, password, .. } = self.credentials?;
                let method = match http.method {
                    Method::Get => HttpMethod::GET,
                    Method::Post => HttpMethod::POST,
                };
                let body = http.body.as_deref().map(str::as_bytes);
                let context = AuthContext::new_with_method(user, password, http.path, body, method);
                Some(self.challenge.as_mut()?.respond(&context).ok()?.to_header_string())
            }
        }
    }

    /// Sends a request on the open connection, or on a new one. A server may have closed one that was kept.
    async fn send(&mut self, http: &Http<'_>, authorization: Option<String>) -> Result<Received, Trouble> {
        let request = || request(http, self.address, authorization.as_deref());
        if let Some(mut open) = self.open.take_if(|open| !open.sender.is_closed()) {
            self.progress.received.store(0, Ordering::Relaxed);
            match open.send(request()?, &self.progress).await {
                Err(Trouble::NoAnswer(CLOSED)) => {}
                received => {
                    self.open = Some(open);
                    return received;
                }
            }
        }
        self.progress.is_connected.store(false, Ordering::Relaxed);
        self.progress.received.store(0, Ordering::Relaxed);
        let mut open = Open::new(self.address, &self.progress).await?;
        let received = open.send(request()?, &self.progress).await;
        self.open = Some(open);
        received
    }
}

fn request(http: &Http<'_>, host: &str, authorization: Option<&str>) -> Result<Request<Full<Bytes>>, Trouble> {
    let method = match http.method {
        Method::Get => hyper::Method::GET,
        Method::Post => hyper::Method::POST,
    };
    let mut request = Request::builder().method(method).uri(http.path).header(header::HOST, host);
    if let Some(body) = &http.body {
        let is_json = body.starts_with(['{', '[']);
        let kind = if is_json { "application/json" } else { "application/x-www-form-urlencoded" };
        request = request.header(header::CONTENT_TYPE, kind);
    }
    if let Login::Header(name, value) = http.login {
        request = request.header(name, secret(value)?);
    }
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, secret(value)?);
    }
    let body = Full::new(Bytes::from(http.body.clone().unwrap_or_default()));
    request.body(body).map_err(|_| Trouble::Unreadable)
}

/// A header's value that nothing may print.
fn secret(value: &str) -> Result<HeaderValue, Trouble> {
    let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Trouble::Refused)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Drives the connection; ends when it is closed.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An open connection.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// `None` when it has ended.
    driver: Option<Driver>,
}

/// What came, whatever its status is.
struct Received {
    status: StatusCode,
    /// The challenge to log in.
    challenge: Option<String>,
    body: Vec<u8>,
    cookies: Vec<String>,
}

impl Open {
    async fn new(address: &str, progress: &Arc<Progress>) -> Result<Open, Trouble> {
        let stream = TcpStream::connect(address).await.map_err(|error| Trouble::NoConnection(words(error.kind())))?;
        progress.is_connected.store(true, Ordering::Relaxed);
        let stream = TokioIo::new(Counted { stream, progress: Arc::clone(progress) });
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .handshake(stream)
            .await
            .map_err(|_| Trouble::NoAnswer(CLOSED))?;
        Ok(Open { sender, driver: Some(Box::pin(connection)) })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>, progress: &Progress) -> Result<Received, Trouble> {
        let sent = self.sender.send_request(request);
        let response = beside(&mut self.driver, sent).await.map_err(|error| trouble(&error, progress))?;
        beside(&mut self.driver, receive(response, progress)).await
    }
}

/// The answer, with all of its body.
async fn receive(response: Response<Incoming>, progress: &Progress) -> Result<Received, Trouble> {
    let (head, mut body) = response.into_parts();
    if body.size_hint().lower() > ANSWER_BYTES_MAX as u64 {
        return Err(Trouble::Endless);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| trouble(&error, progress))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(Trouble::Endless);
        }
        bytes.extend_from_slice(data);
    }
    let challenges = head.headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut challenges =
        challenges.filter(|text| text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("digest")));
    let cookies = head.headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies =
        cookies.filter_map(|cookie| cookie.split(';').next()).map(|cookie| cookie.trim().to_owned()).collect();
    Ok(Received { status: head.status, challenge: challenges.next().map(str::to_owned), body: bytes, cookies })
}

fn trouble(error: &hyper::Error, progress: &Progress) -> Trouble {
    let received = progress.received.load(Ordering::Relaxed);
    match () {
        () if error.is_parse_too_large() || received > WIRE_BYTES_MAX => Trouble::Endless,
        () if error.is_parse() => Trouble::Unreadable,
        () if received == 0 => Trouble::NoAnswer(CLOSED),
        () => Trouble::Partial(CUT),
    }
}

/// Does the work while the connection is driven.
async fn beside<F: Future>(driver: &mut Option<Driver>, work: F) -> F::Output {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

/// A connection that counts the bytes that come.
struct Counted {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buf);
        let more = buf.filled().len() - before;
        let received = self.progress.received.fetch_add(more, Ordering::Relaxed) + more;
        if received > WIRE_BYTES_MAX { Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())) } else { polled }
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
