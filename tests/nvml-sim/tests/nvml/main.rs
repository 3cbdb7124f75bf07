//! The NVML source of the collector against the simulated library, loaded by path like the real one.

mod account;
mod faults;
mod library;
mod support;
