//! A TCP proxy whose connections can be cut, reset, slowed, swallowed or robbed of their replies while a test runs.
//!
//! What a fault has met is counted, so that a test can demand that it met anything. The bytes that pass are not looked
//! at.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const CHUNK_BYTES: usize = 64 * 1024;
/// How long requests still pass after the first reply that was dropped, so that those sent together share its fate.
const LAST_REQUESTS: Duration = Duration::from_millis(20);
/// How long the upstream may take to end a connection whose client was reset.
const UPSTREAM_END: Duration = Duration::from_secs(2);

/// Which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the upstream.
    Requests,
    /// From the upstream to the client.
    Replies,
    /// Both.
    Both,
}

/// What the proxy does with connections, old and new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    Pass,
    /// Connections are closed; new ones are accepted and closed at once.
    Cut,
    /// The same with a TCP reset on both sides.
    Reset,
    /// Every chunk of up to 64 KiB waits that long, in both directions; the order is kept.
    Delay(Duration),
    /// Bytes are swallowed and the connection stays open. It is reset when the mode changes, since what follows would be
    /// no continuation.
    Blackhole(Way),
    /// Requests pass; at the first reply, which is swallowed with all that follow, the connection is soon reset. The
    /// upstream sees an ordinary end and does what it was asked: acknowledgements are lost, nothing else.
    DropReplies,
}

/// What one mode has met, whatever its duration or way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// Connections; one that lives through two periods of a mode counts twice.
    pub connections: u64,
    /// Bytes: passed, delayed or swallowed, as the mode says; 0 for those that end connections. Of `DropReplies`, the
    /// replies that were swallowed.
    pub bytes: u64,
}

/// A proxy on a port of 127.0.0.1. It ends when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    switch: watch::Sender<Switch>,
    thread: Option<JoinHandle<()>>,
}

/// The mode, and how often it was set.
#[derive(Clone, Copy)]
struct Switch {
    mode: Mode,
    period: u64,
    ended: bool,
}

struct Shared {
    upstream: SocketAddr,
    met: Mutex<[Met; MODES]>,
}

const MODES: usize = 6;

impl Mode {
    fn index(self) -> usize {
        match self {
            Mode::Pass => 0,
            Mode::Cut => 1,
            Mode::Reset => 2,
            Mode::Delay(_) => 3,
            Mode::Blackhole(_) => 4,
            Mode::DropReplies => 5,
        }
    }

    fn ends_connections(self) -> bool {
        matches!(self, Mode::Cut | Mode::Reset)
    }
}

impl FaultProxy {
    /// Starts a proxy on a free port, in front of an address where something listens now or will. It passes bytes.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn start(upstream: SocketAddr) -> Result<FaultProxy> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (switch, watched) = watch::channel(Switch { mode: Mode::Pass, period: 1, ended: false });
        let shared = Arc::new(Shared { upstream, met: Mutex::default() });
        let runtime = crate::kafka::runtime()?;
        let accepting = {
            let shared = Arc::clone(&shared);
            move || runtime.block_on(accept(listener, shared, watched))
        };
        let thread = std::thread::Builder::new().name("fault-proxy".to_owned()).spawn(accepting)?;
        Ok(FaultProxy { address, shared, switch, thread: Some(thread) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode, for old connections too. Callable from any thread.
    pub fn set(&self, mode: Mode) {
        self.switch.send_modify(|switch| *switch = Switch { mode, period: switch.period + 1, ..*switch });
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.switch.borrow().mode
    }

    /// What a mode has met since the start; its duration or way does not matter.
    pub fn met(&self, mode: Mode) -> Met {
        self.shared.met()[mode.index()]
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.switch.send_modify(|switch| switch.ended = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn met(&self) -> MutexGuard<'_, [Met; MODES]> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes connections until the proxy ends; then its runtime goes, and every connection with it.
async fn accept(listener: StdListener, shared: Arc<Shared>, switch: watch::Receiver<Switch>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut end = switch.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = end.wait_for(|switch| switch.ended) => return,
        };
        match accepted {
            Ok((client, _)) => {
                let connection = Connection::new(Arc::clone(&shared), switch.clone());
                tokio::spawn(async move { connection.serve(client).await });
            }
            // Too many open files, mostly: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    switch: watch::Receiver<Switch>,
    /// The period that has counted this connection.
    counted: AtomicU64,
    /// Whether bytes of it were swallowed.
    is_torn: AtomicBool,
}

/// Why one direction of a connection stopped.
enum Stop {
    /// The sender ended it.
    End,
    /// A reply was dropped.
    ReplyDropped,
}

impl Connection {
    fn new(shared: Arc<Shared>, switch: watch::Receiver<Switch>) -> Connection {
        Connection { shared, switch, counted: AtomicU64::new(0), is_torn: AtomicBool::new(false) }
    }

    async fn serve(&self, mut client: TcpStream) {
        if self.now().mode.ends_connections() {
            return self.end(client, None).await;
        }
        let Ok(mut upstream) = TcpStream::connect(self.shared.upstream).await else { return };
        let (_, _) = (client.set_nodelay(true), upstream.set_nodelay(true));
        let ended = {
            let (from_client, to_client) = client.split();
            let (from_upstream, to_upstream) = upstream.split();
            let requests = self.carry(from_client, to_upstream, Way::Requests);
            let replies = self.carry(from_upstream, to_client, Way::Replies);
            let mut switch = self.switch.clone();
            tokio::select! {
                carried = both(requests, replies) => carried,
                _ = switch.wait_for(|switch| switch.mode.ends_connections() || self.is_torn()) => Carried::ModeChanged,
            }
        };
        match ended {
            Carried::Ended => {}
            Carried::ModeChanged => self.end(client, Some(upstream)).await,
            Carried::ReplyDropped => {
                let _ = client.set_zero_linger();
                drop(client);
                self.let_end(upstream).await;
            }
        }
    }

    fn now(&self) -> Switch {
        *self.switch.borrow()
    }

    fn is_torn(&self) -> bool {
        self.is_torn.load(Ordering::Relaxed)
    }

    /// Counts this connection once in each period of a mode, and the bytes.
    fn count(&self, switch: Switch, bytes: usize) {
        let is_new = self.counted.swap(switch.period, Ordering::Relaxed) != switch.period;
        let met = &mut self.shared.met()[switch.mode.index()];
        met.connections += u64::from(is_new);
        met.bytes += bytes as u64;
    }

    /// Ends a connection as the mode says.
    async fn end(&self, client: TcpStream, upstream: Option<TcpStream>) {
        let switch = self.now();
        if switch.mode.ends_connections() {
            self.count(switch, 0);
        }
        if switch.mode != Mode::Cut {
            let _ = client.set_zero_linger();
            let _ = upstream.as_ref().map(TcpStream::set_zero_linger);
        }
    }

    /// Carries one direction until it ends, chunk by chunk as the mode says at that moment.
    async fn carry(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way) -> io::Result<Stop> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let bytes = from.read(&mut chunk).await?;
            if bytes == 0 {
                to.shutdown().await?;
                return Ok(Stop::End);
            }
            let switch = self.now();
            match switch.mode {
                Mode::Pass => {}
                Mode::Delay(pause) => tokio::time::sleep(pause).await,
                Mode::Blackhole(swallowed) if swallowed == way || swallowed == Way::Both => {
                    self.is_torn.store(true, Ordering::Relaxed);
                    self.count(switch, bytes);
                    continue;
                }
                Mode::Blackhole(_) => {}
                Mode::DropReplies if way == Way::Replies => {
                    self.count(switch, bytes);
                    return Ok(Stop::ReplyDropped);
                }
                Mode::DropReplies => {
                    to.write_all(&chunk[..bytes]).await?;
                    continue;
                }
                // The connection is about to be ended from outside.
                Mode::Cut | Mode::Reset => return std::future::pending().await,
            }
            if !matches!(switch.mode, Mode::Blackhole(_)) {
                self.count(switch, bytes);
            }
            to.write_all(&chunk[..bytes]).await?;
        }
    }

    /// Lets the upstream read what was passed to it, and swallows what it still replies.
    async fn let_end(&self, mut upstream: TcpStream) {
        let swallow = async {
            let mut chunk = vec![0; CHUNK_BYTES];
            let _ = upstream.shutdown().await;
            while let Ok(bytes) = upstream.read(&mut chunk).await {
                if bytes == 0 {
                    return;
                }
                self.shared.met()[Mode::DropReplies.index()].bytes += bytes as u64;
            }
        };
        let _ = tokio::time::timeout(UPSTREAM_END, swallow).await;
    }
}

/// How a connection came to its end.
enum Carried {
    /// One side ended or broke it.
    Ended,
    /// The mode allows it no longer.
    ModeChanged,
    /// A reply was dropped.
    ReplyDropped,
}

/// Runs both directions to their ends; an error of one ends both.
async fn both(
    requests: impl Future<Output = io::Result<Stop>>,
    replies: impl Future<Output = io::Result<Stop>>,
) -> Carried {
    tokio::pin!(requests, replies);
    let mut requests_ended = false;
    loop {
        tokio::select! {
            stop = &mut requests, if !requests_ended => match stop {
                Ok(_) => requests_ended = true,
                Err(_) => return Carried::Ended,
            },
            stop = &mut replies => match stop {
                Ok(Stop::ReplyDropped) => {
                    if !requests_ended {
                        let _ = tokio::time::timeout(LAST_REQUESTS, &mut requests).await;
                    }
                    return Carried::ReplyDropped;
                }
                Ok(Stop::End) if !requests_ended => {
                    let _ = requests.await;
                    return Carried::Ended;
                }
                _ => return Carried::Ended,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    /// An upstream that sends back what it reads, and counts it.
    fn echo() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(|stream| stream.ok()) {
                let seen = Arc::clone(&counted);
                std::thread::spawn(move || answer(stream, &seen));
            }
        });
        (address, seen)
    }

    fn answer(mut stream: TcpStream, seen: &AtomicU64) {
        let mut chunk = [0; 4096];
        while let Ok(bytes) = stream.read(&mut chunk) {
            seen.fetch_add(bytes as u64, Ordering::Relaxed);
            if bytes == 0 || stream.write_all(&chunk[..bytes]).is_err() {
                return;
            }
        }
    }

    fn connect(proxy: &FaultProxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        stream.write_all(b"ask")?;
        let mut answer = vec![0; 3];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    fn wait_until(what: &str, mut check: impl FnMut() -> bool) {
        crate::wait_for(what, 5, || check().then_some(())).unwrap();
    }

    #[test]
    fn bytes_pass_and_are_counted() {
        let proxy = FaultProxy::start(echo().0).unwrap();
        let mut client = connect(&proxy);
        assert_eq!(ask(&mut client).unwrap(), b"ask");
        assert_eq!(proxy.met(Mode::Pass), Met { connections: 1, bytes: 6 });
    }

    #[test]
    fn a_cut_closes_old_and_new_connections_until_it_is_over() {
        let proxy = FaultProxy::start(echo().0).unwrap();
        let mut old = connect(&proxy);
        ask(&mut old).unwrap();
        proxy.set(Mode::Cut);
        assert_eq!(old.read(&mut [0]).unwrap(), 0);
        assert_eq!(connect(&proxy).read(&mut [0]).unwrap(), 0);
        assert_eq!(proxy.met(Mode::Cut), Met { connections: 2, bytes: 0 });
        proxy.set(Mode::Pass);
        ask(&mut connect(&proxy)).unwrap();
    }

    #[test]
    fn a_reset_is_a_reset_for_old_and_new_connections() {
        let proxy = FaultProxy::start(echo().0).unwrap();
        let mut old = connect(&proxy);
        ask(&mut old).unwrap();
        proxy.set(Mode::Reset);
        assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(connect(&proxy).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(proxy.met(Mode::Reset).connections, 2);
    }

    #[test]
    fn a_delay_holds_every_chunk_both_ways() {
        let proxy = FaultProxy::start(echo().0).unwrap();
        let mut client = connect(&proxy);
        proxy.set(Mode::Delay(Duration::from_millis(100)));
        let asked = Instant::now();
        ask(&mut client).unwrap();
        assert!(asked.elapsed() >= Duration::from_millis(200), "{:?}", asked.elapsed());
        assert_eq!(proxy.met(Mode::Delay(Duration::ZERO)), Met { connections: 1, bytes: 6 });
    }

    #[test]
    fn a_black_hole_swallows_one_way_and_the_torn_connection_does_not_go_on() {
        let (upstream, seen) = echo();
        let proxy = FaultProxy::start(upstream).unwrap();
        let mut client = connect(&proxy);
        proxy.set(Mode::Blackhole(Way::Replies));
        assert_eq!(ask(&mut client).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        assert_eq!(proxy.met(Mode::Blackhole(Way::Both)), Met { connections: 1, bytes: 3 });
        proxy.set(Mode::Blackhole(Way::Requests));
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut client = connect(&proxy);
        assert!(ask(&mut client).is_err());
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        proxy.set(Mode::Pass);
        ask(&mut connect(&proxy)).unwrap();
    }

    #[test]
    fn dropped_replies_reset_the_client_after_the_request_was_done() {
        let (upstream, seen) = echo();
        let proxy = FaultProxy::start(upstream).unwrap();
        let mut client = connect(&proxy);
        proxy.set(Mode::DropReplies);
        assert_eq!(ask(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        wait_until("the swallowed reply to be counted", || {
            proxy.met(Mode::DropReplies) == Met { connections: 1, bytes: 3 }
        });
    }

    #[test]
    fn an_upstream_that_is_away_closes_the_client_and_is_found_again() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap();
        drop(listener);
        let proxy = FaultProxy::start(upstream).unwrap();
        assert_eq!(connect(&proxy).read(&mut [0]).unwrap(), 0);
        let listener = StdListener::bind(upstream).unwrap();
        std::thread::spawn(move || answer(listener.accept().unwrap().0, &AtomicU64::new(0)));
        ask(&mut connect(&proxy)).unwrap();
    }
}
