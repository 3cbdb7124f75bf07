//! One unit: its ports, how many connections it has, and its answers with their lines in the account.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::account::{Account, Entry};
use crate::connection;
use crate::fault::Fault;
use crate::machine::{Asked, Machine};
use crate::makes::{Login, Transport};
use crate::model::noise;
use crate::profile::Profile;
use crate::scenario::{Settings, Unit};
use crate::spoil::{Spoilt, spoil};

/// cgminer's port, and the web's: a unit that has the first has its web interface on the second.
const RPC_PORT: u16 = 4028;
const WEB_PORT: u16 = 80;
/// A connection that its client has closed may still be counted for so long.
const SETTLING: Duration = Duration::from_millis(20);

/// One unit.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) profile: Profile,
    pub(crate) ports: Vec<Port>,
    /// The session token and the nonce of its web interface.
    pub(crate) token: String,
    pub(crate) login: Login,
    account: Arc<Account>,
    calls: AtomicU64,
    connections: AtomicU32,
    settings: Mutex<Settings>,
    machine: Mutex<Machine>,
}

/// One of its ports.
pub(crate) struct Port {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    open: AtomicBool,
    changed: Notify,
}

/// A connection as long as it is counted.
pub(crate) struct Counted<'a>(&'a Server);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is sent for a question.
pub(crate) struct Answer {
    pub(crate) fault: Option<Fault>,
    pub(crate) spoilt: Spoilt,
    /// HTTP's; 0 elsewhere.
    pub(crate) status: u16,
}

impl Server {
    pub(crate) async fn bind(unit: Unit, account: Arc<Account>) -> Result<Arc<Server>> {
        let mut wanted = unit.address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut ports = Vec::new();
        for &transport in unit.profile.transports() {
            let listener =
                TcpListener::bind(wanted).await.with_context(|| format!("{}: binding {wanted}", unit.name))?;
            let address = listener.local_addr()?;
            ports.push(Port {
                transport,
                address,
                listener: Mutex::new(Some(listener)),
                open: AtomicBool::new(true),
                changed: Notify::new(),
            });
            wanted.set_port(unit.http_port.unwrap_or(if wanted.port() == RPC_PORT { WEB_PORT } else { 0 }));
        }
        let machine = Machine::new(&unit)?;
        Ok(Arc::new(Server {
            profile: unit.profile,
            ports,
            token: format!("{:016x}", noise::seed_of(&unit.name)),
            login: machine.login(),
            account,
            calls: AtomicU64::new(0),
            connections: AtomicU32::new(0),
            settings: Mutex::new(Settings::of(&unit)),
            machine: Mutex::new(machine),
            name: unit.name,
        }))
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn settings(&self) -> Settings {
        locked(&self.settings).clone()
    }

    /// Changes the settings; a port that is to be closed or opened is so shortly after, see [`Server::is_settled`].
    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut locked(&self.settings));
        self.ports.iter().for_each(|port| port.changed.notify_one());
    }

    /// Whether the ports are as the settings want them.
    pub(crate) fn is_settled(&self) -> bool {
        let is = |(i, port): (usize, &Port)| port.open.load(Ordering::SeqCst) != self.wants_closed(i);
        self.ports.iter().enumerate().all(is)
    }

    fn wants_closed(&self, port: usize) -> bool {
        match locked(&self.settings).fault {
            Some(Fault::RefuseConnection) => true,
            Some(Fault::CloseRpc) => port == 0 && self.ports.len() > 1,
            _ => false,
        }
    }

    /// Accepts connections on one port for as long as the runtime lives.
    pub(crate) async fn run(self: Arc<Self>, index: usize) {
        let port = &self.ports[index];
        let mut listener = locked(&port.listener).take();
        loop {
            if self.wants_closed(index) {
                listener = None;
            } else if listener.is_none() {
                match TcpListener::bind(port.address).await {
                    Ok(bound) => listener = Some(bound),
                    Err(error) => {
                        eprintln!("miner-sim: {}: binding {} again: {error}", self.name, port.address);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                }
            }
            port.open.store(listener.is_some(), Ordering::SeqCst);
            let Some(open) = &listener else {
                port.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = port.changed.notified() => {}
                accepted = open.accept() => {
                    if let Ok((stream, _)) = accepted {
                        self.connections.fetch_add(1, Ordering::SeqCst);
                        let server = Arc::clone(&self);
                        tokio::spawn(async move { server.serve(stream, index).await });
                    }
                }
            }
        }
    }

    /// One connection; what goes wrong on it is the client's to notice.
    async fn serve(&self, stream: TcpStream, port: usize) {
        let counted = Counted(self);
        let _ = stream.set_nodelay(true);
        let limit = self.settings().connections_max;
        if limit != 0 && self.connections.load(Ordering::SeqCst) > limit {
            // Those that their clients have closed meanwhile are noticed before one too many is told.
            tokio::select! {
                () = connection::is_closed(&stream) => return,
                () = tokio::time::sleep(SETTLING) => {}
            }
            if self.connections.load(Ordering::SeqCst) > limit {
                return self.turn_away(self.ports[port].transport);
            }
        }
        connection::serve(self, stream, port, counted).await;
    }

    /// Connections that it has, once those that are over can no longer be among them.
    async fn settled_connections(&self, limit: u32) -> u32 {
        if self.connections.load(Ordering::SeqCst) > limit {
            tokio::time::sleep(SETTLING).await;
        }
        self.connections.load(Ordering::SeqCst)
    }

    fn turn_away(&self, transport: Transport) {
        let settings = self.settings();
        let asked = Asked { transport, name: "", parameter: "" };
        let entry = Entry { turned_away: true, ..self.entry(&asked, &settings, self.calls()) };
        if let Err(error) = self.account.write(&entry, None) {
            eprintln!("miner-sim: {}: {error:#}", self.name);
        }
    }

    fn entry<'a>(&'a self, asked: &Asked<'a>, settings: &'a Settings, call: u64) -> Entry<'a> {
        Entry {
            unit: &self.name,
            profile: self.profile,
            serial: &settings.serial,
            mac: &settings.mac,
            address: self.ports[0].address.to_string(),
            transport: asked.transport,
            command: asked.name,
            parameter: asked.parameter,
            call,
            fault: None,
            status: 0,
            connections: self.connections.load(Ordering::SeqCst),
            turned_away: false,
        }
    }

    /// Makes the answer and writes it to the account. `instead` is an answer that does not come from the machine: an
    /// HTTP status with its body.
    pub(crate) async fn answer(&self, asked: &Asked<'_>, instead: Option<(u16, String)>) -> Result<Answer> {
        // Two are within the bounds of every client; more may be those that are over.
        self.settled_connections(2).await;
        // Held throughout, so that the account has the calls of a unit in their order.
        let mut machine = locked(&self.machine);
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let settings = self.settings();
        let fault = settings.fault_of(asked.name);
        let is_http = asked.transport == Transport::Http;
        let (status, reply, known) = match instead {
            Some((status, body)) => (status, body, false),
            None => match machine.reply(asked, &settings, call) {
                Some(reply) => (if is_http { 200 } else { 0 }, reply, true),
                None if is_http => (404, r#"{"error":"not found"}"#.to_owned(), false),
                None => (0, refusal(14, "invalid cmd"), true),
            },
        };
        let (status, reply) = match fault {
            Some(Fault::AccessDenied) if is_http => (403, "{}".to_owned()),
            Some(Fault::AccessDenied) => (0, refusal(45, &format!("Access denied to '{}' command", asked.name))),
            Some(Fault::TokensExhausted) if is_http => (429, r#"{"code":8,"message":"too many sessions"}"#.to_owned()),
            Some(Fault::TokensExhausted) => (0, refusal(136, "token over max times")),
            _ => (status, reply),
        };
        let spoilt = spoil(fault, reply);
        let readable = known && fault.is_none_or(Fault::leaves_the_reply_readable);
        let entry = Entry { fault, status, ..self.entry(asked, &settings, call) };
        self.account.write(&entry, readable.then_some(spoilt.meant.as_str()))?;
        Ok(Answer { fault, spoilt, status })
    }
}

/// An answer of cgminer that declines.
fn refusal(code: i32, message: &str) -> String {
    serde_json::json!({
        "STATUS": [{"STATUS": "E", "When": 0, "Code": code, "Msg": message, "Description": "cgminer 4.11.1"}],
        "id": 1,
    })
    .to_string()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
