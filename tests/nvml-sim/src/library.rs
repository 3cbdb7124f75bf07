//! The state behind one loaded copy of the library: scenario, GPUs, event sets, account; and the way every call takes.
//!
//! A call waits where the scenario says that it is slow or hangs, without holding the state, so that calls about other
//! GPUs go on; then it is judged, answered from the model, and told to the account.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::Value;

use crate::account::Account;
use crate::install::scenario_path;
use crate::scenario::{Scenario, Xid};
use crate::unit::{Unit, seed_of};

/// A return code that is not success.
pub(crate) type Code = nvml::nvmlReturn_t;

/// The scenario file is looked at this often at most.
const LOOK: Duration = Duration::from_millis(20);
/// How often a call that hangs looks whether it still does.
const HANG_LOOK: Duration = Duration::from_millis(5);

/// What a call gives: how it is told in the account, and what it looks like when it is rubbish.
pub(crate) trait Given: Sized {
    /// The value in the account.
    fn told(&self) -> Value;
    /// The value of a broken sensor.
    fn garbage() -> Self;
}

/// One loaded copy.
pub(crate) struct Library {
    path: PathBuf,
    started: Instant,
    uptime: f64,
    state: Mutex<State>,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) scenario: Scenario,
    pub(crate) units: Vec<Unit>,
    /// Inits without their shutdown.
    pub(crate) references: u32,
    /// Event sets: GPU index and registered types.
    pub(crate) sets: BTreeMap<usize, Vec<(usize, u64)>>,
    pub(crate) sets_made: usize,
    /// Events that nobody has been told yet, with the second they happen at.
    pub(crate) pending: Vec<Pending>,
    events_seen: Vec<(usize, Xid)>,
    text: Option<String>,
    looked: Option<Instant>,
    account: Account,
    account_failed: bool,
}

/// An event that has been listed and not been delivered.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) unit: usize,
    pub(crate) event_type: u64,
    pub(crate) data: u64,
    pub(crate) at: f64,
}

/// The copy that this code is of.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| Library {
        path: own_path(),
        started: Instant::now(),
        uptime: uptime(),
        state: Mutex::new(State {
            scenario: Scenario::default(),
            units: Vec::new(),
            references: 0,
            sets: BTreeMap::new(),
            sets_made: 0,
            pending: Vec::new(),
            events_seen: Vec::new(),
            text: None,
            looked: None,
            account: Account::default(),
            account_failed: false,
        }),
    })
}

impl Library {
    /// Answers a call about the system. Init calls need no init before them.
    pub(crate) fn system<T: Given>(
        &self,
        call: &str,
        is_init: bool,
        arg: Option<i64>,
        give: impl FnOnce(&mut State) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let mut state = self.state();
        let given = match state.refusal(is_init) {
            Some(code) => Err(code),
            None => give(&mut state),
        };
        state.tell(None, call, arg, given)
    }

    /// Answers a call about a device; `give` gets its index.
    pub(crate) fn device<T: Given>(
        &self,
        handle: nvml::nvmlDevice_t,
        call: &str,
        arg: Option<i64>,
        give: impl FnOnce(&mut State, usize) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let index = (handle as usize).wrapping_sub(1);
        self.wait_as_told(index, call);
        let mut state = self.state();
        let given = match state.judge(index, call) {
            Err(code) => Err(code),
            Ok(()) => {
                self.advance(&mut state, index);
                let given = give(&mut state, index);
                let is_garbage = state.units.get(index).is_some_and(|unit| unit.is_garbage(call));
                if is_garbage { given.map(|_| T::garbage()) } else { given }
            }
        };
        let uuid = state.units.get(index).map(|unit| unit.uuid.clone());
        state.tell(uuid.as_deref(), call, arg, given)
    }

    /// Whether a call as a whole is refused, before its parts are answered one by one. Only a refusal is told.
    pub(crate) fn admit(&self, handle: nvml::nvmlDevice_t, call: &str) -> Result<(), Code> {
        let index = (handle as usize).wrapping_sub(1);
        self.wait_as_told(index, call);
        let mut state = self.state();
        let verdict = state.judge(index, call);
        let uuid = state.units.get(index).map(|unit| unit.uuid.clone());
        verdict.or_else(|code| state.tell(uuid.as_deref(), call, None, Err::<u32, Code>(code)).map(|_| ()))
    }

    /// The state, with the scenario as it is now.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            state.looked = Some(Instant::now());
            self.follow_scenario(&mut state);
        }
        state
    }

    /// Seconds since the library was loaded.
    pub(crate) fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn advance(&self, state: &mut State, index: usize) {
        let now = self.now();
        if let Some(unit) = state.units.get_mut(index) {
            unit.model.advance(&unit.gpu, now);
        }
    }

    fn wait_as_told(&self, index: usize, call: &str) {
        let began = Instant::now();
        let latency = self.state().units.get(index).map_or(0, |unit| unit.gpu.latency_ms);
        if latency > 0 {
            std::thread::sleep(Duration::from_millis(latency));
        }
        loop {
            let state = self.state();
            let Some(unit) = state.units.get(index).filter(|unit| unit.hangs(call)) else { return };
            if unit.gpu.hang_ms.is_some_and(|limit| began.elapsed() >= Duration::from_millis(limit)) {
                return;
            }
            drop(state);
            std::thread::sleep(HANG_LOOK);
        }
    }

    /// Takes over the scenario file when its content has changed; one with a mistake changes nothing.
    fn follow_scenario(&self, state: &mut State) {
        let text = std::fs::read_to_string(scenario_path(&self.path)).ok();
        let is_first = state.units.is_empty() && state.text.is_none();
        if !is_first && (text.is_none() || text == state.text) {
            return;
        }
        state.text.clone_from(&text);
        match Scenario::parse(text.as_deref().unwrap_or_default()) {
            Ok(scenario) => self.take_over(state, scenario),
            Err(_) if is_first => self.take_over(state, Scenario::default()),
            Err(_) => {}
        }
    }

    fn take_over(&self, state: &mut State, scenario: Scenario) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let account = scenario.account.as_ref().map(|account| folder.join(account));
        state.account_failed = state.account.open(account.as_deref()).is_err();
        let (seed, now) = (seed_of(&scenario, &self.path), self.now());
        state.units.truncate(scenario.gpus().count());
        let mut events_seen = Vec::new();
        for (index, gpu) in scenario.gpus().enumerate() {
            match state.units.get_mut(index) {
                Some(unit) => {
                    // Until now it lived as the old scenario said.
                    unit.model.advance(&unit.gpu, now);
                    unit.update(gpu, seed, index);
                }
                None => state.units.push(Unit::new(gpu, seed, index, now, self.uptime)),
            }
            events_seen.extend(gpu.xid.iter().map(|xid| (index, xid.clone())));
        }
        let mut old = std::mem::take(&mut state.events_seen);
        for event in &events_seen {
            match old.iter().position(|seen| seen == event) {
                Some(seen) => drop(old.swap_remove(seen)),
                None => state.pending.push(Pending {
                    unit: event.0,
                    event_type: event.1.event_type,
                    data: event.1.code,
                    at: event.1.at.unwrap_or(0.0),
                }),
            }
        }
        state.events_seen = events_seen;
        state.scenario = scenario;
    }
}

impl State {
    /// Takes the next event that has happened and that the set has asked for.
    pub(crate) fn take_event(&mut self, set: usize, now: f64) -> Option<Pending> {
        let registered = self.sets.get(&set)?;
        let wanted = |event: &Pending| {
            event.at <= now
                && registered.iter().any(|(unit, types)| *unit == event.unit && types & event.event_type != 0)
        };
        let next = self.pending.iter().position(wanted)?;
        Some(self.pending.remove(next))
    }

    /// Writes an answer to the account; one that cannot be written is not given.
    pub(crate) fn tell<T: Given>(
        &mut self,
        device: Option<&str>,
        call: &str,
        arg: Option<i64>,
        given: Result<T, Code>,
    ) -> Result<T, Code> {
        let (code, value) = match &given {
            Ok(value) => (nvml::nvmlReturn_enum_NVML_SUCCESS, value.told()),
            Err(code) => (*code, Value::Null),
        };
        let told = self.account.tell(device, call, arg, code, value);
        if told.is_err() || self.account_failed {
            return Err(nvml::nvmlReturn_enum_NVML_ERROR_OPERATING_SYSTEM);
        }
        given
    }

    /// Why no call is answered, if so.
    pub(crate) fn refusal(&self, is_init: bool) -> Option<Code> {
        if self.scenario.no_driver {
            return Some(nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED);
        }
        match is_init {
            true => self.scenario.no_permission.then_some(nvml::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION),
            false => (self.references == 0).then_some(nvml::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED),
        }
    }

    fn judge(&self, index: usize, call: &str) -> Result<(), Code> {
        if let Some(code) = self.refusal(false) {
            return Err(code);
        }
        match self.units.get(index) {
            None => Err(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT),
            Some(unit) => unit.refusal(call).map_or(Ok(()), Err),
        }
    }
}

/// The file that this code was loaded from, links followed.
#[allow(unsafe_code, reason = "dladdr has no safe form")]
fn own_path() -> PathBuf {
    let address: *const c_void = (library as fn() -> &'static Library) as *const c_void;
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `found` is writable; where dladdr gives success it has filled it in, and the name in it is a C string
    // that lives as long as the library is loaded.
    let path = unsafe {
        let name = if libc::dladdr(address, found.as_mut_ptr()) == 0 {
            std::ptr::null()
        } else {
            found.assume_init().dli_fname
        };
        if name.is_null() { PathBuf::new() } else { PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes())) }
    };
    path.canonicalize().unwrap_or(path)
}

/// Seconds that the machine has been up.
fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}
