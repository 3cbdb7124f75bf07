//! The example configs are what the services accept.

use std::process::Command;

use racklake_tests::{binaries, repository};

#[test]
fn the_example_configs_pass_the_check_of_their_service() {
    for service in ["racklake-collector", "racklake-ingest"] {
        let config = repository().join(format!("deploy/config/{service}.toml"));
        let mut check = Command::new(binaries::path(service).unwrap());
        let output = check.args(["check", "--offline", "--config"]).arg(&config).output().unwrap();
        assert!(output.status.success(), "{}: {}", config.display(), String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_typo_in_a_config_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    for service in ["racklake-collector", "racklake-ingest"] {
        let example = repository().join(format!("deploy/config/{service}.toml"));
        let text = std::fs::read_to_string(example).unwrap().replacen("bootstrap_servers", "bootstrap_server", 1);
        let line = 1 + text.lines().position(|line| line.starts_with("bootstrap_server ")).unwrap();
        let config = folder.path().join("typo.toml");
        std::fs::write(&config, text).unwrap();
        let mut check = Command::new(binaries::path(service).unwrap());
        let output = check.args(["check", "--offline", "--config"]).arg(&config).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(&format!("typo.toml:{line}")), "{service}: {told}");
        assert!(told.contains("bootstrap_server") && told.contains("bootstrap_servers"), "{service}: {told}");
    }
}
