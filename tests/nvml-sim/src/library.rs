//! The state behind one loaded copy of the library: scenario, GPUs, event sets, account; and the way every call takes.
//!
//! A call waits where the scenario says that it is slow or hangs, without holding the state, so that calls about other
//! GPUs go on; then it is judged, answered from the model, and told to the account.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nvml;
use racklake_schemas::clock::Clock;
use serde_json::Value;

use crate::account::Account;
use crate::exports::GpmSample;
use crate::follow::{own_path, uptime};
use crate::happenings::{Happenings, Pending};
use crate::scenario::{Scenario, names};
use crate::unit::Unit;

/// A return code that is not success.
pub(crate) type Code = nvml::nvmlReturn_t;

/// How often a call that hangs looks whether it still does.
const HANG_LOOK: Duration = Duration::from_millis(5);
/// Where the number of a MIG instance begins in a handle.
const MIG_SHIFT: u32 = 16;

/// What a call gives: how it is told in the account, and what it looks like when it is rubbish.
pub(crate) trait Given: Sized {
    /// The value in the account.
    fn told(&self) -> Value;
    /// The value of a broken sensor.
    fn garbage() -> Self;
}

/// What a handle is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the GPU.
    pub(crate) unit: usize,
    /// Number of the MIG instance in it (`Mig::number`), for the handle of one.
    pub(crate) mig: Option<usize>,
}

impl Place {
    /// The GPU of that index.
    pub(crate) fn gpu(unit: usize) -> Place {
        Place { unit, mig: None }
    }

    fn of(handle: nvml::nvmlDevice_t) -> Place {
        let number = handle as usize;
        let unit = (number & ((1 << MIG_SHIFT) - 1)).wrapping_sub(1);
        Place { unit, mig: (number >> MIG_SHIFT).checked_sub(1) }
    }

    /// The handle.
    pub(crate) fn handle(self) -> nvml::nvmlDevice_t {
        let mig = self.mig.map_or(0, |mig| (mig + 1) << MIG_SHIFT);
        std::ptr::without_provenance_mut((self.unit + 1) | mig)
    }
}

/// One loaded copy.
pub(crate) struct Library {
    pub(crate) path: PathBuf,
    pub(crate) uptime: f64,
    state: Mutex<State>,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) started: Instant,
    /// The scenario as it is now.
    pub(crate) scenario: Scenario,
    /// The scenario as it is written, with the seconds that it changes at from now on.
    pub(crate) written: Scenario,
    pub(crate) changes: VecDeque<f64>,
    pub(crate) units: Vec<Unit>,
    /// Inits without their shutdown.
    pub(crate) references: u32,
    /// Event sets: GPU index and registered types.
    pub(crate) sets: BTreeMap<usize, Vec<(usize, u64)>>,
    pub(crate) sets_made: usize,
    pub(crate) happenings: Happenings,
    /// Samples of the profiling counters; none where one is allocated and not taken.
    pub(crate) gpm: BTreeMap<usize, Option<GpmSample>>,
    pub(crate) gpm_made: usize,
    pub(crate) text: Option<String>,
    looked: Option<Instant>,
    pub(crate) account: Account,
    pub(crate) account_failed: bool,
}

/// The copy that this code is of.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| Library {
        path: own_path(),
        uptime: uptime(),
        state: Mutex::new(State {
            started: Instant::now(),
            scenario: Scenario::default(),
            written: Scenario::default(),
            changes: VecDeque::new(),
            units: Vec::new(),
            references: 0,
            sets: BTreeMap::new(),
            sets_made: 0,
            happenings: Happenings::default(),
            gpm: BTreeMap::new(),
            gpm_made: 0,
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
        self.wait_for_system(call);
        let mut state = self.state();
        let given = match state.refusal(is_init).or_else(|| state.failure(call)) {
            Some(code) => Err(code),
            None => give(&mut state),
        };
        state.tell(None, call, arg, given)
    }

    /// Answers a call about a GPU; `give` gets its index. It is not for MIG instances.
    pub(crate) fn device<T: Given>(
        &self,
        handle: nvml::nvmlDevice_t,
        call: &str,
        arg: Option<i64>,
        give: impl FnOnce(&mut State, usize) -> Result<T, Code>,
    ) -> Result<T, Code> {
        self.part(handle, call, arg, |state, place| match place.mig {
            Some(_) => Err(nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED),
            None => give(state, place.unit),
        })
    }

    /// Answers a call about a GPU or about a MIG instance.
    pub(crate) fn part<T: Given>(
        &self,
        handle: nvml::nvmlDevice_t,
        call: &str,
        arg: Option<i64>,
        give: impl FnOnce(&mut State, Place) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let place = Place::of(handle);
        self.wait_as_told(place.unit, call);
        let mut state = self.state();
        let given = match state.judge(place, call) {
            Err(code) => Err(code),
            Ok(()) => {
                let now = state.now();
                state.units[place.unit].advance(now);
                let given = give(&mut state, place);
                let is_garbage = state.units.get(place.unit).is_some_and(|unit| unit.is_garbage(call));
                if is_garbage { given.map(|_| T::garbage()) } else { given }
            }
        };
        let uuid = state.uuid(place);
        state.tell(uuid.as_deref(), call, arg, given)
    }

    /// Whether a call as a whole is refused, before its parts are answered one by one. Only a refusal is told.
    pub(crate) fn admit(&self, handle: nvml::nvmlDevice_t, call: &str) -> Result<(), Code> {
        let place = Place::of(handle);
        self.wait_as_told(place.unit, call);
        let mut state = self.state();
        let verdict = state.judge(place, call);
        let uuid = state.uuid(place);
        verdict.or_else(|code| state.tell(uuid.as_deref(), call, None, Err::<u32, Code>(code)).map(|_| ()))
    }

    /// The state, with the scenario as it is now.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| looked.elapsed() >= state.look()) {
            state.looked = Some(Instant::now());
            self.follow_scenario(&mut state);
        }
        self.follow_time(&mut state);
        state
    }

    /// Waits as long as the scenario says that a call about a GPU lasts.
    pub(crate) fn wait_as_told(&self, index: usize, call: &str) {
        let began = Instant::now();
        let (latency, hangs) = {
            let state = self.state();
            let Some(unit) = state.units.get(index) else { return };
            (unit.latency_us(call, || state.now()), unit.hangs(call))
        };
        if latency > 0 {
            std::thread::sleep(Duration::from_micros(latency));
        } else if !hangs {
            return;
        }
        self.wait_while(|state| match state.units.get(index) {
            Some(unit) if unit.hangs(call) => {
                unit.gpu.hang_ms.is_none_or(|limit| began.elapsed() < Duration::from_millis(limit))
            }
            _ => false,
        });
    }

    /// Waits while the scenario says that a call about the system hangs.
    pub(crate) fn wait_for_system(&self, call: &str) {
        self.wait_while(|state| state.scenario.hang.iter().any(|entry| names(entry, call)));
    }

    fn wait_while(&self, hangs: impl Fn(&State) -> bool) {
        loop {
            let state = self.state();
            if !hangs(&state) {
                return;
            }
            drop(state);
            std::thread::sleep(HANG_LOOK);
        }
    }
}

impl State {
    /// Seconds since the library was loaded, or since the scenario began.
    pub(crate) fn now(&self) -> f64 {
        match self.written.began_us {
            Some(began) => (Clock::now_us() - began) as f64 / 1e6,
            None => self.started.elapsed().as_secs_f64(),
        }
    }

    /// How often the scenario file is looked at.
    pub(crate) fn look(&self) -> Duration {
        Duration::from_millis(self.scenario.look_ms.max(1))
    }

    /// Takes the next event that has happened and that the set has asked for.
    pub(crate) fn take_event(&mut self, set: usize) -> Option<Pending> {
        let now = self.now();
        self.happenings.take(self.sets.get(&set)?, now)
    }

    /// UUID of a GPU or of a MIG instance.
    pub(crate) fn uuid(&self, place: Place) -> Option<String> {
        let unit = self.units.get(place.unit)?;
        Some(place.mig.map_or_else(|| unit.uuid.clone(), |mig| unit.mig_uuid(mig)))
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

    /// The code that the scenario has for a call about the system.
    pub(crate) fn failure(&self, call: &str) -> Option<Code> {
        self.scenario.fail.iter().find(|(entry, _)| names(entry, call)).map(|(_, code)| *code)
    }

    fn judge(&self, place: Place, call: &str) -> Result<(), Code> {
        if let Some(code) = self.refusal(false) {
            return Err(code);
        }
        let unit = self.units.get(place.unit).ok_or(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        unit.refusal(call).map_or(Ok(()), Err)?;
        let is_there = place.mig.is_none_or(|mig| unit.gpu.instance(mig).is_some());
        if is_there { Ok(()) } else { Err(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT) }
    }
}
