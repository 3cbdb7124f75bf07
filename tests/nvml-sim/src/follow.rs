//! Keeps the state in step with the scenario file, and with what the scenario plans.

use std::ffi::{CStr, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::install::scenario_path;
use crate::library::{Library, State, library};
use crate::profile::Profile;
use crate::scenario::Scenario;
use crate::unit::{Unit, seed_of};

impl Library {
    /// Takes over the scenario file when its content has changed; one with a mistake changes nothing.
    pub(crate) fn follow_scenario(&self, state: &mut State) {
        let text = std::fs::read_to_string(scenario_path(&self.path)).ok();
        let is_first = state.units.is_empty() && state.text.is_none();
        if !is_first && (text.is_none() || text == state.text) {
            return;
        }
        state.text.clone_from(&text);
        let written = match Scenario::parse(text.as_deref().unwrap_or_default()) {
            Ok(written) => written,
            Err(_) if is_first => Scenario::default(),
            Err(_) => return,
        };
        let until_now = state.now();
        state.written = written;
        // At first everything that the scenario plans is to come, even where its beginning was long ago.
        let now = if is_first { 0.0 } else { until_now };
        state.changes = state.written.change_times().into_iter().filter(|at| *at > now).collect();
        if let Ok(scenario) = state.written.at(now) {
            self.take_over(state, scenario, now);
        }
        if is_first && state.written.began_us.is_some() {
            let now = state.now();
            self.follow_changes(state, now);
            state.happenings.forget_before(now);
        }
    }

    /// Lets happen what is due.
    pub(crate) fn follow_time(&self, state: &mut State) {
        if state.changes.is_empty() && !state.happenings.has_lines() {
            return;
        }
        let now = state.now();
        self.follow_changes(state, now);
        let since_boot = self.uptime + state.started.elapsed().as_secs_f64();
        state.happenings.log(now, since_boot);
    }

    fn follow_changes(&self, state: &mut State, now: f64) {
        while state.changes.front().is_some_and(|at| *at <= now) {
            let Some(at) = state.changes.pop_front() else { break };
            if let Ok(scenario) = state.written.at(at) {
                self.take_over(state, scenario, at);
            }
        }
    }

    fn take_over(&self, state: &mut State, scenario: Scenario, now: f64) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if state.account_failed || scenario.account != state.scenario.account || state.units.is_empty() {
            let account = scenario.account.as_ref().map(|account| folder.join(account));
            state.account_failed = state.account.open(account.as_deref()).is_err();
        }
        let is_reloaded = (state.scenario.no_driver && !scenario.no_driver)
            || state.scenario.driver_version != scenario.driver_version;
        let seed = seed_of(&scenario, &self.path);
        state.units.truncate(scenario.gpus().count());
        for (index, gpu) in scenario.gpus().enumerate() {
            match state.units.get_mut(index) {
                Some(unit) => {
                    // Until now it lived as the old scenario said.
                    unit.advance(now);
                    unit.update(gpu, seed, index);
                    if is_reloaded {
                        unit.reset();
                    }
                }
                None => state.units.push(Unit::new(gpu, seed, index, now, self.uptime)),
            }
            let profile = Profile::find(gpu.profile.as_deref(), &gpu.name, folder);
            state.units[index].set_profile(profile);
        }
        let log = scenario.kmsg.as_ref().map(|log| folder.join(log));
        state.happenings.follow(&state.units, log, &scenario.line, now);
        state.scenario = scenario;
    }
}

/// The file that this code was loaded from, links followed.
#[allow(unsafe_code, reason = "dladdr has no safe form")]
pub(crate) fn own_path() -> PathBuf {
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
pub(crate) fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}
