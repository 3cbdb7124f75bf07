//! What a config may say, and what it is told about mistakes.

use super::*;

const LEAST: &str = "site = \"dc-1\"\nnode = \"n1\"\n[kafka]\nbootstrap_servers = \"k:9092\"\n";

fn config(more: &str) -> Result<Config, SettingsError> {
    let config: Config = settings::parse(&format!("{LEAST}{more}"), "c.toml")?;
    config.validate()?;
    Ok(config)
}

#[test]
fn only_site_and_brokers_are_required() {
    let config = config("").unwrap();
    assert_eq!(config.kafka.topic("event"), "racklake.event");
    assert_eq!((config.nvml.enabled, config.miners().miners.len()), (true, 0));
    assert_eq!(config.kernel_log_path(), Some(Path::new("/dev/kmsg")));
}

#[test]
fn miners_have_the_common_settings() {
    let miners = config("[miners]\nperiod = \"7s\"\n[[miner]]\naddress = \"10.0.0.5\"\nmake = \"avalon\"\n");
    let miners = miners.unwrap().miners();
    assert_eq!((miners.period, miners.miners[0].endpoint().as_str()), (Duration::from_secs(7), "10.0.0.5:4028"));
}

#[test]
fn mistakes_name_the_key_and_what_is_allowed() {
    for (text, told) in [
        ("[nvml]\nperoid = \"1s\"\n", "peroid"),
        ("[nvml]\nenabled = false\n[hwmon]\nenabled = false\n[amd]\nenabled = false\n", "[[miner]]"),
        ("[frames]\nrows_max = 0\n", "frames.rows_max"),
        ("[frames]\nbytes_max = 9999999\n", "frames.bytes_max"),
        ("[spool]\nbytes_max = 4096\n", "spool.bytes_max"),
        ("[spool]\nfsync_period = \"1h\"\n", "spool.fsync_period"),
        ("[[miner]]\naddress = \"a\"\nmake = \"whatsminer\"\n", "avalon"),
        ("[[miner]]\naddress = \"a\"\nmake = \"avalon\"\n[[miner]]\naddress = \"a\"\nmake = \"avalon\"\n", "twice"),
        ("[kafka.properties]\nacks = \"0\"\n", "acks"),
        ("[kafka.properties]\n\"linger.ms\" = 3\n", "file"),
    ] {
        let error = config(text).expect_err(text).to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn property_values_are_not_printed() {
    let config = config("[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}
