//! An object store that speaks S3 on loopback, keeps its bucket as a directory, and can be made to fail as real ones do.
//!
//! It is `s3s-fs`, which looks whether an object exists and then writes it; here such requests go one after another, so
//! that of two that create one object only one succeeds, as S3 promises.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tokio::net::TcpListener;
use tokio::sync::watch;

const BUCKET: &str = "racklake";
const KEY_ID: &str = "test-key";
const KEY: &str = "test-secret";

/// How long a silent connection stays open; clients give up before.
const SILENCE: Duration = Duration::from_secs(60);

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 503 SlowDown; nothing was done.
    Busy,
    /// It was done, and 503 is answered all the same: the client's library tries it again, against itself.
    DoneButBusy,
    /// It was done, and the connection is closed without an answer: most clients try that again themselves too.
    Unanswered,
    /// It was done, and the connection stays open without an answer: the client gives up and cannot know.
    Silent,
    /// What was read breaks off in the middle of the answer.
    Torn,
}

/// What a request was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The write of a commit file of a Delta log.
    Commit,
    /// The write of another object.
    Object,
    /// Anything else: reading, listing.
    Reading,
}

/// How many of a hundred requests fail in each way: any may be busy, those that are torn are reads, the others are writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shares {
    /// See [`Fault::Busy`].
    pub busy: u64,
    /// See [`Fault::DoneButBusy`].
    pub done_but_busy: u64,
    /// See [`Fault::Unanswered`].
    pub unanswered: u64,
    /// See [`Fault::Silent`].
    pub silent: u64,
    /// See [`Fault::Torn`].
    pub torn: u64,
}

/// A running store. It ends when it is dropped; the bucket stays.
pub struct ObjectStore {
    address: SocketAddr,
    folder: PathBuf,
    door: Arc<Door>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What stands before the store.
struct Door {
    service: S3Service,
    /// Held by a request that creates an object if it is absent.
    creating: tokio::sync::Mutex<()>,
    shares: Mutex<Shares>,
    /// Numbers the requests, from the seed on.
    requests: AtomicU64,
    met: Mutex<BTreeMap<(Fault, Target), u64>>,
}

impl ObjectStore {
    /// Starts a store with one empty bucket below `folder`, on a free port. The seed decides which requests fail.
    ///
    /// # Errors
    /// When the folder cannot be made or the system gives no port.
    pub fn start(folder: &Path, seed: u64, shares: Shares) -> Result<ObjectStore> {
        std::fs::create_dir_all(folder.join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(folder).map_err(|error| anyhow::anyhow!("s3s-fs: {error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY_ID, KEY));
        let door = Arc::new(Door {
            service: builder.build(),
            creating: tokio::sync::Mutex::new(()),
            shares: Mutex::new(shares),
            requests: AtomicU64::new(seed << 32),
            met: Mutex::default(),
        });
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (end, ended) = watch::channel(false);
        let runtime = crate::kafka::runtime()?;
        let serving = {
            let door = Arc::clone(&door);
            move || runtime.block_on(accept(listener, door, ended))
        };
        let thread = std::thread::Builder::new().name("object-store".to_owned()).spawn(serving)?;
        Ok(ObjectStore { address, folder: folder.to_owned(), door, end, thread: Some(thread) })
    }

    /// Where a lake in it is.
    pub fn lake(&self) -> String {
        format!("s3://{BUCKET}/lake")
    }

    /// The same lake on disk, as the store keeps it.
    pub fn lake_on_disk(&self) -> PathBuf {
        self.folder.join(BUCKET).join("lake")
    }

    /// The options of a lake in it, as `[lake.options]` has them; a client waits two seconds for an answer.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("aws_endpoint", format!("http://{}", self.address)),
            ("aws_allow_http", "true".to_owned()),
            ("timeout", "2s".to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", KEY_ID.to_owned()),
            ("aws_secret_access_key", KEY.to_owned()),
        ]
    }

    /// Changes how many requests fail.
    pub fn set(&self, shares: Shares) {
        *lock(&self.door.shares) = shares;
    }

    /// How many requests have failed so since the start. Of those that were done, only the ones that succeeded count.
    pub fn met(&self, fault: Fault, target: Target) -> u64 {
        lock(&self.door.met).get(&(fault, target)).copied().unwrap_or_default()
    }

    /// All that has failed, for a test to print.
    pub fn all_met(&self) -> String {
        format!("{:?}", lock(&self.door.met))
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.end.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes connections until the store ends.
async fn accept(listener: StdListener, door: Arc<Door>, mut end: watch::Receiver<bool>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = end.wait_for(|ended| *ended) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let door = Arc::clone(&door);
        let service = service_fn(move |request| {
            let door = Arc::clone(&door);
            async move { door.answer(request).await }
        });
        // An error is a client that went away, or an answer that was withheld: the connection is closed.
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Result<HttpResponse> {
        let target = target_of(&request);
        let fault = self.draw(target);
        if fault == Some(Fault::Busy) {
            // An answer before the request has ended would look like a broken connection.
            read(request.into_body()).await;
            self.count(Fault::Busy, target);
            return busy();
        }
        let answer = self.forward(request).await?;
        match fault {
            Some(fault) if answer.status().is_success() => {
                self.count(fault, target);
                match fault {
                    Fault::Busy | Fault::DoneButBusy => return busy(),
                    Fault::Unanswered => {}
                    Fault::Silent => tokio::time::sleep(SILENCE).await,
                    Fault::Torn => return tear(answer).await,
                }
                Err(anyhow::anyhow!("the answer is withheld"))
            }
            _ => Ok(answer),
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<HttpResponse> {
        let _creating = match request.headers().contains_key(IF_NONE_MATCH) {
            true => Some(self.creating.lock().await),
            false => None,
        };
        let answer = self.service.call(request.map(Body::from)).await;
        answer.map_err(|error| anyhow::anyhow!("s3s: {error:?}"))
    }

    fn draw(&self, target: Target) -> Option<Fault> {
        let shares = *lock(&self.shares);
        let of_writes = [
            (Fault::Busy, shares.busy),
            (Fault::DoneButBusy, shares.done_but_busy),
            (Fault::Unanswered, shares.unanswered),
            (Fault::Silent, shares.silent),
        ];
        let of_reads = [(Fault::Busy, shares.busy), (Fault::Torn, shares.torn)];
        let faults = if target == Target::Reading { &of_reads[..] } else { &of_writes[..] };
        let mut roll = mix(self.requests.fetch_add(1, Ordering::Relaxed)) % 100;
        let hit = |(fault, share): &(Fault, u64)| match roll.checked_sub(*share) {
            Some(rest) => {
                roll = rest;
                None
            }
            None => Some(*fault),
        };
        faults.iter().find_map(hit)
    }

    fn count(&self, fault: Fault, target: Target) {
        *lock(&self.met).entry((fault, target)).or_default() += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn target_of(request: &Request<Incoming>) -> Target {
    let path = request.uri().path();
    match request.method() == Method::PUT {
        true if path.contains("/_delta_log/") && path.ends_with(".json") => Target::Commit,
        true => Target::Object,
        false => Target::Reading,
    }
}

fn busy() -> Result<HttpResponse> {
    let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
                <Message>Please reduce your request rate.</Message></Error>";
    let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header("content-type", "application/xml");
    Ok(answer.body(Body::from(text.to_owned()))?)
}

/// The same answer, which promises its whole length and breaks off halfway.
async fn tear(answer: HttpResponse) -> Result<HttpResponse> {
    let (mut head, body) = answer.into_parts();
    let mut bytes = read(body).await;
    head.headers.insert(CONTENT_LENGTH, bytes.len().into());
    bytes.truncate(bytes.len() / 2);
    Ok(Response::from_parts(head, Body::http_body(Half(Some(bytes.into())))))
}

/// Some bytes, and then an error, which closes the connection.
struct Half(Option<Bytes>);

impl hyper::body::Body for Half {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let half = self.0.take().map(Frame::data);
        Poll::Ready(Some(half.ok_or_else(|| std::io::Error::other("the answer is torn"))))
    }
}

/// What a body holds, as far as it comes.
async fn read(body: impl hyper::body::Body<Data = Bytes>) -> Vec<u8> {
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        bytes.extend(frame.into_data().unwrap_or_default());
    }
    bytes
}

/// Spreads consecutive numbers over all: the last step of SplitMix64, which is in the public domain.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
