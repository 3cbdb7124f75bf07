//! Reads the sensors of a rack host and publishes them to Kafka as frames.

pub mod config;
pub mod source;

pub use config::Config;
