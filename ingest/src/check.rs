//! Tells whether ingest could run with a config, and what it would find: brokers, topics, positions.
//!
//! It changes nothing in Kafka. Where the lake has no table yet, it creates it, as the first start would.

use std::fmt::Write as _;

use racklake_storage::Lake;

use crate::client::{self, Role};
use crate::config::Config;
use crate::failure::Failure;
use crate::positions;
use crate::service::open_lake;
use crate::topics::{Cluster, Survey};

/// Checks a config, and unless `offline` reaches Kafka and the lake with it. The text is for the operator. It blocks.
///
/// # Errors
/// What is wrong, and what to do about it.
pub fn check(config: &Config, offline: bool) -> anyhow::Result<String> {
    config.validate().map_err(anyhow::Error::msg)?;
    for role in [Role::Consume, Role::Look, Role::Letters] {
        client::settings(&config.kafka, role).map_err(anyhow::Error::msg)?;
    }
    for (key, property) in &config.lake.options {
        property.value(&format!("lake.options.{key}")).map_err(anyhow::Error::msg)?;
    }
    let mut report = String::new();
    let tables: Vec<_> = config.topics().iter().map(|topic| topic.table.name).collect();
    writeln!(report, "config: valid; tables {}", tables.join(", "))?;
    if offline {
        return Ok(report);
    }
    let cluster = Cluster::new(&config.kafka)?;
    let survey = cluster.survey()?;
    kafka(&mut report, config, &cluster, &survey)?;
    let lake = open_lake(&config.lake)?;
    writeln!(report, "lake: {}", lake.location())?;
    lake_positions(&mut report, config, &cluster, &survey, &lake)?;
    Ok(report)
}

fn kafka(report: &mut String, config: &Config, cluster: &Cluster, survey: &Survey) -> anyhow::Result<()> {
    for broker in &survey.brokers {
        writeln!(report, "broker: {broker}")?;
    }
    let wanted = config.topics();
    let names = wanted.iter().map(|topic| topic.name.clone()).chain([config.dead_letter_topic()]);
    for name in names {
        if let Some((_, partitions)) = survey.topics.iter().find(|(present, _)| *present == name) {
            writeln!(report, "topic: {name}, {partitions} partitions")?;
        }
    }
    let what = if config.kafka.topic_ids { "missing, created at start" } else { "missing" };
    for name in survey.missing(config) {
        writeln!(report, "topic: {name}, {what}")?;
    }
    if !config.kafka.topic_ids {
        return Ok(());
    }
    for line in cluster.differences(config, survey)? {
        writeln!(report, "difference: {line}")?;
    }
    Ok(())
}

fn lake_positions(
    report: &mut String,
    config: &Config,
    cluster: &Cluster,
    survey: &Survey,
    lake: &Lake,
) -> Result<(), Failure> {
    let topics = config.topics();
    let present = |name: &str| survey.topics.iter().find(|(present, _)| present == name).map(|(_, count)| *count);
    let names: Vec<_> = topics.iter().map(|t| t.name.as_str()).filter(|name| present(name).is_some()).collect();
    let ids = positions::ids_of(cluster, &names, config.kafka.topic_ids)?;
    for topic in topics.iter() {
        let table = lake.table(topic.table)?;
        let mut known = Vec::new();
        if let (Some(id), Some(partitions)) = (ids.get(&topic.name), present(&topic.name)) {
            for partition in 0..partitions as i32 {
                if let Some(next) = table.position(&positions::app_id(&topic.name, id, partition))? {
                    known.push(format!("{partition}: {next}"));
                }
            }
        }
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        // Writing to a string does not fail.
        let _never = writeln!(report, "table: {} at version {}, positions {known}", topic.table.name, table.version());
    }
    Ok(())
}
