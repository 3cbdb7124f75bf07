//! Whole-pipeline tests: the shipped binaries between simulated devices, a real Apache Kafka and a real lake.
//!
//! One binary, since librdkafka and Arrow are linked; one file per scenario; one test at a time (`turn`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

mod bad_frames;
mod dead_letter_replay;
mod demo_on_kafka;
mod drain;
mod end_to_end;
mod example_configs;
mod full_disk;
mod gpu_faults;
mod hung_gpu;
mod kernel_log;
mod killed_broker;
mod killed_collector;
mod killed_ingest;
mod lossy_network;
mod miners;
mod nvml_binding;
mod object_store;
mod own_events;
mod power_loss;
mod probe;
mod queries;
mod rebalance;
mod recreated_topic;
mod reload;
mod replayed_frames;
mod spool_limits;
