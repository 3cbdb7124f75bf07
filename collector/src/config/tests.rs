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
        ("[[miner]]\naddress = \"a\"\nmake = \"toaster\"\n", "avalon"),
        ("[[miner]]\naddress = \"a\"\nhttp_port = 0\n", "http_port"),
        ("[[miner]]\naddress = \"a\"\ncredentials = \"hall\"\n", "miners.credentials_file"),
        ("[[miner_range]]\ncidr = \"10.0.0.0/22\"\ncredentials = \"hall\"\n", "miner_range.credentials"),
        ("[[miner_range]]\ncidr = \"10.0.0.0/15\"\n", "/16 or smaller"),
        ("[[miner_range]]\ncidr = \"fd00::/64\"\n", "/112 or smaller"),
        ("[[miner_range]]\ncidr = \"10.0.0.1-9\"\n", "10.20.0.0/22"),
        ("[[miner_range]]\ncidr = \"10.0.0.0/22\"\n[[miner_range]]\ncidr = \"10.0.1.9/24\"\n", "10.0.1.0/24"),
        ("[miners]\nconnections_max = 0\n", "miners.connections_max"),
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

#[test]
fn what_a_miner_is_may_be_left_to_be_found_out() {
    let text = "[[miner]]\naddress = \"fd00::5\"\n[[miner_range]]\ncidr = \"10.20.0.7/22\"\nrack = \"m1\"\n";
    let miners = config(text).unwrap().miners();
    assert_eq!((miners.miners[0].make, miners.miners[0].endpoint().as_str()), (None, "[fd00::5]:4028"));
    assert_eq!(miners.miners[0].http_endpoint(Make::Auradine), "[fd00::5]:8080");
    assert_eq!((miners.ranges[0].to_string().as_str(), miners.connections_max), ("10.20.0.0/22, rack m1", 256));
}

#[test]
fn credentials_are_read_with_the_config_and_must_be_there() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |miner: &str| {
        let text =
            format!("{LEAST}[miners]\ncredentials_file = {:?}\n{miner}", path("miners.toml").display().to_string());
        std::fs::write(path("c.toml"), text).unwrap();
    };
    std::fs::write(path("miners.toml"), "[[credentials]]\nname = \"hall\"\nuser = \"u\"\npassword = \"hunter2\"\n")
        .unwrap();
    let mode = |mode: u32| std::fs::set_permissions(path("miners.toml"), PermissionsExt::from_mode(mode)).unwrap();
    mode(0o600);
    write("[[miner]]\naddress = \"a\"\ncredentials = \"hall\"\n");
    let loaded = Config::load(&path("c.toml")).unwrap();
    assert_eq!(loaded.miners().credentials_named(Some("hall")).unwrap().user, "u");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    write("[[miner_range]]\ncidr = \"10.0.0.0/30\"\ncredentials = \"hell\"\n");
    let error = Config::load(&path("c.toml")).unwrap_err().to_string();
    assert!(error.contains("miner_range.credentials") && error.contains("\"hell\""), "{error}");
    mode(0o644);
    let error = Config::load(&path("c.toml")).unwrap_err().to_string();
    assert!(error.contains("miners.credentials_file") && error.contains("chmod 600"), "{error}");
}
