//! Reads the sensors of a rack host and publishes them to Kafka as frames.
//!
//! A reading goes straight through the files: a `source` reads it, the `sampler` decides when and stamps it, the
//! `outlet` journals and counts it (`coverage`), puts it into a frame (`frames`) and in line (`queue`), the `spool` makes
//! the frame durable, and the `publisher` hands it to Kafka and waits until it is acknowledged. What happens beside the
//! readings is an `event`; what the driver says in the kernel log comes from `kernel_log`.
//!
//! This crate knows no Parquet and no object store, and keeps nothing global: two collectors in one process do not meet.

mod burst;
mod clock_state;
mod coverage;
mod device_registry;
mod discovery;
mod drops;
mod edges;
mod episodes;
mod event;
mod frames;
mod health;
mod housekeeping;
mod http;
mod kafka_client;
mod metrics;
mod outlet;
mod place;
mod publisher;
mod queue;
mod reload;
mod route;
mod sampler;
mod schedule;
mod service;
mod spool;
mod state;
mod sysfs;
#[cfg(test)]
mod testing;
mod wait;

pub mod amd;
pub mod check;
pub mod config;
pub mod discover;
pub mod hwmon;
pub mod kernel_log;
pub mod miner;
pub mod nvml;
pub mod probe;
pub mod release;
pub mod source;

pub use config::Config;
pub use reload::Reload;
pub use service::{run, run_with_reloads};
