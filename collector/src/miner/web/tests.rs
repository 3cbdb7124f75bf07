//! Web servers of miners, good and bad, on sockets.

use std::sync::Mutex;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::miner::exchange::{CLOSED, CUT, TIMEOUT};

const LIMIT: Duration = Duration::from_millis(400);

/// What a server does on one connection.
#[derive(Clone, Copy)]
enum Script {
    /// Answers each request with the next of these and then closes.
    Answers(&'static [&'static str]),
    /// Reads and never answers.
    Silent,
    /// Sends the first text, then the second one for ever.
    Endless(&'static str, &'static str),
    /// Sends the text byte by byte, too slowly.
    Drip(&'static str),
}

/// A server with a script for each connection, and the requests that it has got.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(scripts: &'static [Script]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let got = Arc::clone(&requests);
        tokio::spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                play(stream, *script, &got).await;
            }
        });
        Server { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
    }
}

async fn play(mut stream: TcpStream, script: Script, got: &Mutex<Vec<String>>) {
    let next = async |stream: &mut TcpStream| {
        let request = request(stream).await;
        let came = request.is_some();
        got.lock().unwrap().extend(request);
        came
    };
    match script {
        Script::Answers(answers) => {
            for answer in answers {
                if !next(&mut stream).await {
                    return;
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
        Script::Silent => while next(&mut stream).await {},
        Script::Endless(first, more) => {
            next(&mut stream).await;
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(more.repeat(1000).as_bytes()).await.is_ok() {}
        }
        Script::Drip(text) => {
            next(&mut stream).await;
            for byte in text.as_bytes() {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn credentials() -> Credentials {
    Credentials { name: "hall".to_owned(), user: "root".to_owned(), password: "hunter2".to_owned() }
}

const CHALLENGE: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Digest \
                         realm=\"antMiner Configuration\", nonce=\"abc\", qop=\"auth\"\r\nContent-Length: 6\r\n\r\nlog in";
const OLD: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"antMiner Configuration\", \
                   nonce=\"new\", qop=\"auth\", stale=true\r\nContent-Length: 0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

#[tokio::test]
async fn a_digest_login_is_made_once_on_one_connection_and_again_when_the_nonce_is_old() {
    let server = Server::start(&[Script::Answers(&[CHALLENGE, OK, OK, OLD, OK])]).await;
    let credentials = credentials();
    let mut web = Web::new(&server.address, Some(&credentials));
    for path in ["/cgi-bin/stats.cgi", "/cgi-bin/summary.cgi", "/cgi-bin/pools.cgi"] {
        let answer = web.ask(&Http::get(path, Login::Digest), LIMIT).await.unwrap();
        assert_eq!(answer, Answer { status: 200, body: b"{\"a\":1}".to_vec(), cookies: Vec::new() });
    }
    let requests = server.requests();
    let login = |index: usize, part: &str| requests[index].contains(part);
    assert!(!login(0, "uthorization"));
    assert!(login(1, "nonce=\"abc\"") && login(1, "username=\"root\"") && login(1, "nc=00000001"));
    assert!(login(2, "nc=00000002") && login(2, "uri=\"/cgi-bin/summary.cgi\""));
    assert!(login(3, "nonce=\"abc\"") && login(4, "nonce=\"new\""));
    assert_eq!(requests.len(), 5);
    assert!(!requests.concat().contains("hunter2"));
}

#[tokio::test]
async fn other_logins_are_sent_at_once_and_none_without_credentials() {
    let server = Server::start(&[Script::Answers(&[OK, OK, CHALLENGE])]).await;
    let credentials = credentials();
    let mut web = Web::new(&server.address, Some(&credentials));
    web.ask(&Http::get("/a", Login::Basic), LIMIT).await.unwrap();
    let body = "{\"query\":1}".to_owned();
    web.ask(&Http::post("/b", body, Login::Token("Bearer t")), LIMIT).await.unwrap();
    web.credentials = None;
    assert_eq!(web.ask(&Http::get("/c", Login::Digest), LIMIT).await, Err(Trouble::Refused));
    let requests = server.requests();
    assert!(requests[0].contains("authorization: Basic cm9vdDpodW50ZXIy\r\n"), "{}", requests[0]);
    assert!(requests[1].starts_with("POST /b") && requests[1].contains("authorization: Bearer t\r\n"));
    assert!(requests[1].contains("content-type: application/json") && requests[1].ends_with("{\"query\":1}"));
    assert!(requests.len() == 3 && !requests[2].contains("uthorization"));
}

#[tokio::test]
async fn bodies_of_every_kind_are_read_and_a_closed_connection_is_opened_again() {
    let server = Server::start(&[
        Script::Answers(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n"]),
        Script::Answers(&["HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{\"a\":1}"]),
        Script::Answers(&["HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"]),
    ])
    .await;
    let mut web = Web::new(&server.address, None);
    for wanted in [Ok(b"{\"a\":1}".to_vec()), Ok(b"{\"a\":1}".to_vec()), Err(Trouble::Declined)] {
        let answer = web.ask(&Http::get("/", Login::None), LIMIT).await.unwrap();
        assert_eq!(answer.ok(), wanted);
    }
}

#[tokio::test]
async fn what_is_no_good_answer_is_told_within_the_time() {
    for (script, wanted) in [
        (
            Script::Answers(&["HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"]),
            Trouble::Unreadable,
        ),
        (Script::Answers(&["HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"]), Trouble::Refused),
        (Script::Answers(&["{\"STATUS\":[]}\n\n"]), Trouble::Unreadable),
        (Script::Answers(&[""]), Trouble::NoAnswer(CLOSED)),
        (Script::Answers(&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\""]), Trouble::Partial(CUT)),
        (Script::Answers(&["HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n{"]), Trouble::Endless),
        (Script::Silent, Trouble::NoAnswer(TIMEOUT)),
        (Script::Drip("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), Trouble::Partial(TIMEOUT)),
        (Script::Endless("HTTP/1.1 200 OK\r\n\r\n", "[1,"), Trouble::Endless),
        (
            Script::Endless(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "40\r\n[1,2,3,4,5,6,7,8[1,2,3,4,5,6,7,8[1,2,3,4,5,6,7,8[1,2,3,4,5,6,7,8\r\n",
            ),
            Trouble::Endless,
        ),
        (Script::Endless("HTTP/1.1 200 OK\r\nX: ", "long"), Trouble::Endless),
    ] {
        let scripts: &'static [Script] = Box::leak(Box::new([script]));
        let server = Server::start(scripts).await;
        let began = Instant::now();
        let answer = Web::new(&server.address, None).ask(&Http::get("/", Login::None), LIMIT).await;
        assert_eq!(answer.and_then(Answer::ok), Err(wanted));
        assert!(began.elapsed() < LIMIT * 5, "{wanted:?}");
        assert!(server.requests().len() == 1, "a redirect is not followed");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let answer = Web::new(&free, None).ask(&Http::get("/", Login::None), LIMIT).await;
    assert_eq!(answer, Err(Trouble::NoConnection("the port is closed")));
}

#[test]
fn a_token_is_in_no_debug_text() {
    let shown = format!("{:?}", Http::get("/", Login::Token("Bearer secret")));
    assert!(!shown.contains("secret"), "{shown}");
}
