//! The NVML source of the collector against the simulated library, loaded by path like the real one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

mod account;
mod bursts;
mod columns;
mod engine;
mod faults;
mod library;
mod raw;
mod support;
