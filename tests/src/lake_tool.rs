//! Runs `racklake-lake` as an operator would, on a test's lake and topics.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binaries;
use crate::site::Site;

/// The exit code and the JSON object of `racklake-lake verify`, which is also held against Kafka.
///
/// # Errors
/// When it cannot be run, or prints no JSON.
pub fn verify(site: &Site) -> Result<(i32, Value)> {
    verify_at(site, &site.lake().display().to_string(), &[])
}

/// The same for another lake, whose store has options.
///
/// # Errors
/// As [`verify`].
pub fn verify_at(site: &Site, lake: &str, options: &[(&str, String)]) -> Result<(i32, Value)> {
    let options: Vec<String> = options.iter().map(|(key, value)| format!("--option={key}={value}")).collect();
    let mut arguments = vec!["verify", lake, "--json"];
    arguments.extend(options.iter().map(String::as_str));
    let (code, text) = run_on(site, &arguments)?;
    let report = serde_json::from_str(&text).with_context(|| format!("exit code {code}, printed {text:?}"))?;
    Ok((code, report))
}

/// The JSON objects of `racklake-lake dead-letters`.
///
/// # Errors
/// When it fails, or prints no JSON.
pub fn dead_letters(site: &Site) -> Result<Vec<Value>> {
    let (code, text) = run_on(site, &["dead-letters", "--json"])?;
    ensure!(code == 0, "exit code {code}: {text}");
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The exit code of a command with the site's brokers and topics, and what it printed.
///
/// # Errors
/// When it cannot be run.
pub fn run_on(site: &Site, arguments: &[&str]) -> Result<(i32, String)> {
    let kafka = ["--bootstrap-servers", site.broker.bootstrap(), "--topic-prefix", &site.prefix];
    run(&[arguments, &kafka].concat())
}

fn run(arguments: &[&str]) -> Result<(i32, String)> {
    let output = Command::new(binaries::path("racklake-lake")?).args(arguments).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().with_context(|| format!("racklake-lake ended with {}: {told}", output.status))?;
    if !told.is_empty() {
        println!("racklake-lake: {told}");
    }
    Ok((code, String::from_utf8(output.stdout)?))
}
