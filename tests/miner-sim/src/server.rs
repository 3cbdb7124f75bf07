//! One unit on its socket: takes a command, answers it or fails to, as its fault wants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::account::{Account, Entry};
use crate::fault::Fault;
use crate::model::Model;
use crate::scenario::{Settings, Unit};

/// cgminer reads no longer request.
const REQUEST_MAX: usize = 8191;
/// A request that is not whole by then is answered as it is.
const REQUEST_WAIT: Duration = Duration::from_secs(2);
/// Time between two bytes of a slow answer.
const DRIP: Duration = Duration::from_millis(20);

/// One unit.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    account: Arc<Account>,
    listener: Mutex<Option<TcpListener>>,
    open: AtomicBool,
    calls: AtomicU64,
    changed: Notify,
    settings: Mutex<Settings>,
    model: Mutex<Model>,
}

/// What is sent, and whether the connection stays open afterwards.
struct Answer {
    bytes: Vec<u8>,
    then: Then,
}

enum Then {
    Close,
    KeepOpen,
    Repeat,
}

impl Server {
    pub(crate) async fn bind(unit: Unit, account: Arc<Account>) -> Result<Arc<Server>> {
        let wanted = unit.address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(wanted).await.with_context(|| format!("{}: binding {wanted}", unit.name))?;
        Ok(Arc::new(Server {
            address: listener.local_addr()?,
            account,
            listener: Mutex::new(Some(listener)),
            open: AtomicBool::new(true),
            calls: AtomicU64::new(0),
            changed: Notify::new(),
            settings: Mutex::new(Settings::of(&unit)),
            model: Mutex::new(Model::new(&unit)?),
            name: unit.name,
        }))
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Changes the settings; a port that is to be closed or opened is so shortly after, see [`Server::is_settled`].
    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut locked(&self.settings));
        self.changed.notify_one();
    }

    /// Whether the port is as the settings want it.
    pub(crate) fn is_settled(&self) -> bool {
        self.open.load(Ordering::SeqCst) != self.wants_closed()
    }

    fn wants_closed(&self) -> bool {
        locked(&self.settings).fault == Some(Fault::RefuseConnection)
    }

    /// Accepts connections for as long as the runtime lives.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut listener = locked(&self.listener).take();
        loop {
            if self.wants_closed() {
                listener = None;
            } else if listener.is_none() {
                match TcpListener::bind(self.address).await {
                    Ok(bound) => listener = Some(bound),
                    Err(error) => {
                        eprintln!("miner-sim: {}: binding {} again: {error}", self.name, self.address);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                }
            }
            self.open.store(listener.is_some(), Ordering::SeqCst);
            let Some(open) = &listener else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = self.changed.notified() => {}
                accepted = open.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let server = Arc::clone(&self);
                        tokio::spawn(async move { server.serve(stream).await });
                    }
                }
            }
        }
    }

    /// One connection; what goes wrong on it is the client's to notice.
    async fn serve(&self, mut stream: TcpStream) {
        let Some(command) = read_command(&mut stream).await else { return };
        let (answer, fault) = match self.answer(&command) {
            Ok(answered) => answered,
            Err(error) => return eprintln!("miner-sim: {}: {error:#}", self.name),
        };
        if fault == Some(Fault::SlowDrip) {
            for byte in answer.bytes {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(DRIP).await;
            }
            return;
        }
        if stream.write_all(&answer.bytes).await.is_err() {
            return;
        }
        match answer.then {
            Then::Close => {
                let _ = stream.shutdown().await;
            }
            Then::KeepOpen => while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {},
            Then::Repeat => while stream.write_all(&answer.bytes).await.is_ok() {},
        }
    }

    /// Makes the answer and writes it to the account.
    fn answer(&self, command: &str) -> Result<(Answer, Option<Fault>)> {
        // Held throughout, so that the account has the calls of a unit in their order.
        let mut model = locked(&self.model);
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let settings = locked(&self.settings).clone();
        let fault = settings.fault_of(command);
        let mut reply = match model.reply(command, &settings, call) {
            Some(reply) => reply,
            None => refusal(14, "Invalid command"),
        };
        let answer = spoil(fault, command, &mut reply);
        let readable = fault.is_none_or(Fault::leaves_the_reply_readable);
        self.account.write(&Entry {
            unit: &self.name,
            serial: &settings.serial,
            mac: &settings.mac,
            address: self.address.to_string(),
            command,
            call,
            fault,
            reply: readable.then_some(&reply),
        })?;
        Ok((answer, fault))
    }
}

/// The command of a request; `None` when the client went away.
async fn read_command(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let whole = |request: &[u8]| serde_json::from_slice::<Value>(request).ok();
    let reading = async {
        while request.len() < REQUEST_MAX && whole(&request).is_none() {
            let mut part = [0; 1024];
            match stream.read(&mut part).await {
                Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(REQUEST_WAIT, reading).await;
    if request.is_empty() {
        return None;
    }
    let command = whole(&request).and_then(|value| value["command"].as_str().map(str::to_owned));
    Some(command.unwrap_or_default())
}

/// An answer of cgminer that declines.
fn refusal(code: i32, message: &str) -> Value {
    json!({"STATUS": [{"STATUS": "E", "When": 0, "Code": code, "Msg": message, "Description": "cgminer 4.11.1"}], "id": 1})
}

/// The bytes of a reply with a fault in them; a reply that stays readable is changed alike.
fn spoil(fault: Option<Fault>, command: &str, reply: &mut Value) -> Answer {
    let whole = |reply: &Value| format!("{reply}\0").into_bytes();
    let half = |reply: &Value| {
        let text = reply.to_string();
        text.as_bytes()[..text.len() / 2].to_vec()
    };
    let (bytes, then) = match fault {
        Some(Fault::Hang) => (Vec::new(), Then::KeepOpen),
        Some(Fault::Empty) => (Vec::new(), Then::Close),
        Some(Fault::HalfJson) => (half(reply), Then::Close),
        Some(Fault::Stall) => (half(reply), Then::KeepOpen),
        Some(Fault::Garbage) => (b"\x16\x03\x01 <<< no JSON [ { \xff\xfe".to_vec(), Then::Close),
        Some(Fault::Endless) => (half(reply), Then::Repeat),
        Some(Fault::NoNul) => (reply.to_string().into_bytes(), Then::KeepOpen),
        Some(Fault::RawNewline) => {
            break_strings(reply);
            (format!("{reply}\0").replace("\\n", "\n").into_bytes(), Then::Close) // no longer escaped
        }
        Some(Fault::Nan) => {
            let name = if command == "summary" { "MHS 5s" } else { "Wait" };
            for list in ["SUMMARY", "STATS"] {
                if let Some(value) = reply.pointer_mut(&format!("/{list}/0/{name}")) {
                    *value = Value::Null;
                }
            }
            let text = reply.to_string().replace(&format!("\"{name}\":null"), &format!("\"{name}\":nan"));
            (format!("{text}\0").into_bytes(), Then::Close)
        }
        Some(Fault::TextAfterEnd) => (format!("{reply}\n}} end of reply\0").into_bytes(), Then::Close),
        Some(Fault::AccessDenied) => {
            let message = format!("Access denied to '{command}' command");
            (whole(&refusal(45, &message)), Then::Close)
        }
        Some(Fault::Http401) => {
            let head =
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"miner\"\r\nContent-Length: 0\r\n\r\n";
            (head.as_bytes().to_vec(), Then::Close)
        }
        _ => (whole(reply), Then::Close),
    };
    Answer { bytes, then }
}

/// Puts a newline into the description and, where there are any, into the `Key[value]` texts.
fn break_strings(reply: &mut Value) {
    let broken = |value: Option<&mut Value>, at: &str| {
        if let Some(Value::String(text)) = value {
            *text = text.replacen(at, &format!("{at}\n"), 1);
        }
    };
    broken(reply.pointer_mut("/STATUS/0/Description"), " ");
    for name in ["MM ID0", "MM ID0:Summary"] {
        broken(reply.pointer_mut(&format!("/STATS/0/{name}")), "] ");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
