//! What of a changed config a running collector can take over, and what waits for a restart.

use super::{AmdConfig, Config, HwmonConfig, NvmlConfig};

impl Config {
    /// The config that is in force once a running collector was given `wanted`, and the keys of `wanted` that differ
    /// and wait for a restart.
    pub(crate) fn changed_to(&self, wanted: &Config) -> (Config, Vec<&'static str>) {
        let (enabled, library, worker) = (self.nvml.enabled, self.nvml.library.clone(), self.nvml.worker.clone());
        let nvml = NvmlConfig { enabled, library, worker, ..wanted.nvml.clone() };
        let amd = AmdConfig { enabled: self.amd.enabled, root: self.amd.root.clone(), ..wanted.amd.clone() };
        let hwmon = HwmonConfig { period: wanted.hwmon.period, ..self.hwmon.clone() };
        let next = Config {
            frames: wanted.frames.clone(),
            spool: wanted.spool.clone(),
            nvml,
            amd,
            hwmon,
            miners: wanted.miners.clone(),
            miner: wanted.miner.clone(),
            miner_range: wanted.miner_range.clone(),
            ..self.clone()
        };
        (next, self.waiting_for_a_restart(wanted))
    }

    fn waiting_for_a_restart(&self, wanted: &Config) -> Vec<&'static str> {
        let (kafka, kafka_wanted) = (&self.kafka, &wanted.kafka);
        let differ = [
            ("site", self.site != wanted.site),
            ("node", self.node != wanted.node),
            ("rack", self.rack != wanted.rack),
            ("state_dir", self.state_dir != wanted.state_dir),
            ("http.listen", self.http.listen != wanted.http.listen),
            ("kafka.bootstrap_servers", kafka.bootstrap_servers != kafka_wanted.bootstrap_servers),
            ("kafka.topic_prefix", kafka.topic_prefix != kafka_wanted.topic_prefix),
            ("kafka.partitions", kafka.partitions != kafka_wanted.partitions),
            ("kafka.properties", kafka.properties != kafka_wanted.properties),
            ("nvml.enabled", self.nvml.enabled != wanted.nvml.enabled),
            ("nvml.library", self.nvml.library != wanted.nvml.library),
            ("amd.enabled", self.amd.enabled != wanted.amd.enabled),
            ("amd.root", self.amd.root != wanted.amd.root),
            ("hwmon.enabled", self.hwmon.enabled != wanted.hwmon.enabled),
            ("hwmon.root", self.hwmon.root != wanted.hwmon.root),
            ("kernel_log", self.kernel_log != wanted.kernel_log),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use racklake_schemas::settings;

    use super::*;

    fn config(text: &str) -> Config {
        let kafka = "[kafka]\nbootstrap_servers = \"k:9092\"\n";
        settings::parse(&format!("site = \"s\"\nnode = \"n\"\n{text}\n{kafka}"), "c.toml").unwrap()
    }

    #[test]
    fn periods_limits_and_miners_are_taken_over_and_the_rest_is_named() {
        let before = config("");
        let mut wanted = config("rack = \"r2\"");
        wanted.kafka.topic_prefix = "other".to_owned();
        wanted.nvml.library = "/else/libnvidia-ml.so.1".to_owned();
        wanted.nvml.period = Duration::from_millis(250);
        wanted.frames.age_max = Duration::from_secs(2);
        wanted.spool.bytes_max = 5 << 20;
        let (next, waiting) = before.changed_to(&wanted);
        assert_eq!(waiting, ["rack", "kafka.topic_prefix", "nvml.library"]);
        assert_eq!((next.nvml.period, next.frames.age_max), (wanted.nvml.period, wanted.frames.age_max));
        assert_eq!((next.spool.bytes_max, next.nvml.library), (5 << 20, before.nvml.library.clone()));
        assert_eq!((next.kafka.topic_prefix, next.rack), (before.kafka.topic_prefix.clone(), None));
        assert!(before.changed_to(&before).1.is_empty());
    }
}
