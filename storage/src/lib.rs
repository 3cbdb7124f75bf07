//! The lake: one Delta table per table of the catalog, written as Parquet files and Delta commits.
//!
//! It knows no Kafka: what it calls an app id is a string, and a position a number. All calls block; call them from
//! `tokio::task::spawn_blocking` of a multi-thread runtime.
