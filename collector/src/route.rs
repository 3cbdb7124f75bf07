//! The topics that frames go to.
//!
//! A frame keeps the topics that it was spooled for: what Kafka may have got under one name must not come again under
//! another, where nobody would know it.

use racklake_schemas::identity;
use serde::{Deserialize, Serialize};

use crate::config::KafkaConfig;

/// Prefix and partitions of the topics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) prefix: String,
    pub(crate) partitions: i32,
}

impl Route {
    /// The topics that the config names.
    pub(crate) fn new(config: &KafkaConfig) -> Route {
        Route { prefix: config.topic_prefix.clone(), partitions: config.partitions }
    }

    /// Name of the topic of a table.
    pub(crate) fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.prefix)
    }

    /// Partition of every topic that a node's frames go to.
    pub(crate) fn partition(&self, node: &str) -> i32 {
        identity::partition_of(node, self.partitions)
    }
}
