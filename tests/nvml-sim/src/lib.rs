//! A simulated `libnvidia-ml.so`: the NVML functions that a collector calls, answered from a scenario.
//!
//! The cdylib is loaded by path like the real library, so that what is tested is the code that ships. Its scenario is
//! the file of the same path with `.toml` added, read again whenever it changes; two simulated nodes in one process are
//! two copies of the file. Every answer is written to the account of the scenario before it is given.
//!
//! The rlib holds what a test needs around it: scenarios, a way to put a copy of the library into place, and a reader
//! of the account. Nobody links it into a collector.
//!
//! # Recordings
//!
//! Where somebody has recorded a real GPU, the simulated ones of that model refuse what it refused, give fields in the
//! types that it gave and take the time that it took. A recording is `tests/testdata/nvml/<model>.json`, the model as NVML
//! names it in small letters with `_` for all else, or the file that a GPU's `profile` names:
//!
//! ```json
//! { "model": "NVIDIA H100 80GB HBM3", "driver_version": "570.124.06", "invented": false, "answers": [
//!     { "call": "nvmlDeviceGetFanSpeed_v2", "rc": 3, "latency_us": 4 },
//!     { "call": "field:82:0", "rc": 0, "value_type": 1, "latency_us": 110 } ] }
//! ```
//!
//! Calls are named as in the account: as in nvml.h, `field:<id>:<scope>` or `gpm:<id>`. What the scenario says itself goes
//! before the recording; values come from the model all the same, since a recorded one would never change.
//!
//! It does not promise to be a GPU: its constants are guesses, a green test proves the code and not the hardware, and
//! its hang is a sleep that a signal ends.

mod account;
mod counters;
mod exports;
mod follow;
mod happenings;
mod install;
mod kernel_log;
mod library;
mod model;
mod profile;
mod scenario;
mod unit;

pub use account::{Answer, read_account};
pub use counters::Counter;
pub use install::{install, library_path};
pub use scenario::{
    Architecture, Burst, Fabric, Fan, GpuScenario, KernelLine, Link, Mig, Platform, Scenario, ScenarioError, Storm,
    Workload, Xid,
};
