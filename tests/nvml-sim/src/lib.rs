//! A simulated `libnvidia-ml.so`: the NVML functions that a collector calls, answered from a scenario.
//!
//! The cdylib is loaded by path like the real library, so that what is tested is the code that ships. Its scenario is
//! the file of the same path with `.toml` added, read again whenever it changes; two simulated nodes in one process are
//! two copies of the file. Every answer is written to the account of the scenario before it is given.
//!
//! The rlib holds what a test needs around it: scenarios, a way to put a copy of the library into place, and a reader
//! of the account. Nobody links it into a collector.
//!
//! It does not promise to be a GPU: its constants are guesses, a green test proves the code and not the hardware, and
//! its hang is a sleep that a signal ends.

mod account;
mod exports;
mod install;
mod library;
mod model;
mod scenario;
mod unit;

pub use account::{Answer, read_account};
pub use install::{install, library_path};
pub use scenario::{Fan, GpuScenario, Scenario, ScenarioError, Workload, Xid};
