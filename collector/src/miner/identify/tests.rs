//! Addresses at which something answers, and what is found out there.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::place::locked;

/// Answers of a machine, by the beginning of the request; without one the connection is left open in silence.
type Answers = &'static [(&'static str, &'static str)];

/// What a machine was asked, and how.
#[derive(Default)]
pub(in crate::miner) struct Asked {
    pub(in crate::miner) requests: Mutex<Vec<String>>,
    open: AtomicUsize,
    most: AtomicUsize,
}

/// Listens at an address and answers.
pub(in crate::miner) async fn listen(address: SocketAddr, answers: Answers, asked: &Arc<Asked>) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let bound = listener.local_addr().unwrap();
    let asked = Arc::clone(asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                asked.most.fetch_max(asked.open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                let answer =
                    answers.iter().find(|(begin, _)| text.trim_start_matches(|c| c < '\u{20}').starts_with(begin));
                locked(&asked.requests).push(text.clone());
                match answer {
                    Some((_, answer)) => drop(stream.write_all(answer.as_bytes()).await),
                    None => while stream.read(&mut request).await.is_ok_and(|read| read > 0) {},
                }
                asked.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    bound
}

fn patience(answer: Duration) -> Patience {
    Patience { connect: Duration::from_secs(2), answer, end: Instant::now() + Duration::from_secs(20) }
}

/// What the machine with these answers on its cgminer port and its web port is found to be. One without answers has the
/// port closed.
async fn found(rpc: Option<Answers>, web: Option<Answers>) -> (Result<Make, Trouble>, Vec<String>) {
    let asked = Arc::new(Asked::default());
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    // A port that was free a moment ago is closed.
    let closed = TcpListener::bind(local).await.unwrap().local_addr().unwrap();
    let mut miner = MinerConfig::at("127.0.0.1");
    miner.port = match rpc {
        Some(answers) => listen(local, answers, &asked).await.port(),
        None => closed.port(),
    };
    miner.http_port = Some(match web {
        Some(answers) => listen(local, answers, &asked).await.port(),
        None => closed.port(),
    });
    let told = identify(&miner, patience(Duration::from_millis(300))).await;
    assert!(asked.most.load(Ordering::SeqCst) <= 1, "more than one connection at once");
    let requests = locked(&asked.requests).clone();
    assert!(requests.iter().all(|text| !text.to_ascii_lowercase().contains("authorization")), "{requests:?}");
    (told, requests)
}

const VERSION: &str = r#"{"command":"version"}"#;
const INVALID: &str = r#"{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command","Description":""}],"id":1}"#;
const ANTMINER: Answers =
    &[(VERSION, include_str!("../../../../tests/miner-sim/recordings/antminer/v2020/version.json"))];
const BRAIINS: Answers =
    &[(VERSION, include_str!("../../../../tests/miner-sim/recordings/braiins/v25_05/version.json"))];
const WHATSMINER: Answers = &[
    (VERSION, INVALID),
    (r#"{"cmd":"get_version"}"#, include_str!("../../../../tests/miner-sim/recordings/whatsminer/v2/get_version.json")),
];
const STOCK: Answers = &[(
    "GET / ",
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"antMiner Configuration\", qop=\"auth\"\r\nContent-Length: 0\r\n\r\n",
)];
const VNISH: Answers = &[("GET / ", "HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n<title>AnthillOS</title>")];
const BITAXE: Answers = &[("GET / ", "HTTP/1.1 200 OK\r\n\r\n<html><title>AxeOS</title>")];
const PRINTER: Answers =
    &[("GET / ", "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"printer\"\r\n\r\n")];
const EPIC: Answers = &[
    ("{", "HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("GET /capabilities", "HTTP/1.1 200 OK\r\n\r\n{\"Model\": \"AntMiner S19 XP\", \"Max HBs\": 3}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_make_is_known_by_few_requests_one_at_a_time_and_without_a_password() {
    for (rpc, web, make, requests) in [
        (Some(ANTMINER), Some(STOCK), Make::Antminer, 2),
        (Some(ANTMINER), None, Make::Antminer, 1),
        (Some(ANTMINER), Some(VNISH), Make::Vnish, 2),
        (None, Some(STOCK), Make::Antminer, 1),
        (Some(BRAIINS), Some(STOCK), Make::Braiins, 1),
        (Some(WHATSMINER), None, Make::Whatsminer, 2),
        (None, Some(BITAXE), Make::Bitaxe, 1),
        (Some(EPIC), None, Make::Epic, 2),
    ] {
        let (told, asked) = found(rpc, web).await;
        assert_eq!((told, asked.len()), (Ok(make), requests), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_known_miner_is_none_and_says_what_was_seen() {
    const SILENT_MACHINE: Answers = &[];
    const OTHER: Answers = &[("{", "SSH-2.0-dropbear\r\n")];
    assert!(matches!(found(None, None).await.0, Err(Trouble::NoConnection(_))));
    assert!(matches!(found(Some(SILENT_MACHINE), None).await.0, Err(Trouble::NoAnswer(_))));
    assert_eq!(found(Some(OTHER), None).await.0, Err(Trouble::Unreadable));
    assert_eq!(found(None, Some(PRINTER)).await.0, Err(Trouble::Refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firmware_that_answers_in_frames_only_is_found_there() {
    let asked = Arc::new(Asked::default());
    let address = IpAddr::from([127, 77, 1, 9]);
    const FRAMED: Answers =
        &[("{\"cmd\":\"get.device.info\"}", "\x31\0\0\0{\"code\":0,\"desc\":\"get.device.info\",\"msg\":{}}  ")];
    listen(SocketAddr::new(address, FRAMED_PORT), FRAMED, &asked).await;
    let told = identify(&MinerConfig::at(&address.to_string()), patience(Duration::from_millis(300))).await;
    assert_eq!((told, locked(&asked.requests).len()), (Ok(Make::Whatsminer), 1));
}

#[test]
fn the_end_of_an_answer_is_known_without_waiting_for_the_miner_to_close() {
    assert!(is_reply(b"{\"a\":1}") && is_reply(b"{\"a\":1}\n\0") && is_reply(b"HTTP/1.1 400 Bad Request\r\n"));
    assert!(!is_reply(b"{\"a\":{\"b\":1}") && !is_reply(b"") && !is_reply(b"HTTP/1.1 400"));
    assert!(is_page(b"HTTP/1.1 401 x\r\nContent-Length: 2\r\n\r\nab"));
    assert!(!is_page(b"HTTP/1.1 401 x\r\nContent-Length: 3\r\n\r\nab") && !is_page(b"HTTP/1.1 200 OK\r\n\r\nab"));
    assert!(is_page(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"));
    assert!(is_frame(b"\x02\0\0\0{}") && !is_frame(b"\x03\0\0\0{}") && !is_frame(b"\x03\0"));
}
