//! Kafka to lake: reads frames, and commits their rows together with the positions that they end at.
//!
//! One reading comes through the files in this order: `consumer` (polled, an event), `pipeline/intake` (decoded),
//! `buffer` (rows and the offsets that they cover), `flush` (written, proven, committed), `consumer` again (acknowledged to
//! the group, for lag tools). `pipeline` is the one loop that decides; `positions` says where a partition is read from.
//!
//! What must never be: a position that is trusted and is not in the lake; a message that is passed over and is in no
//! dead letter; a queue without a limit.

mod buffer;
mod check;
mod client;
mod config;
mod consumer;
mod dead_letter;
mod failure;
mod flush;
mod health;
mod http;
pub mod lake_tool;
mod metrics;
mod own_events;
mod pipeline;
mod positions;
pub mod received;
mod service;
mod topic_id;
mod topics;
mod upkeep;

pub use check::check;
pub use config::{
    Config, EventsConfig, FlushConfig, HttpConfig, KafkaConfig, LakeConfig, Property, ReceivedConfig, Topic, Topics,
    UpkeepConfig,
};
pub use service::{Reload, run, run_with_reloads};
