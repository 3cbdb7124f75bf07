//! The Python checks, in an environment of their own that is made once from `tests/python/requirements.txt`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::{cache, repository};

/// Runs `tests/python/<script>` and gives what it printed.
///
/// # Errors
/// When Python is missing or the script does not end with 0; the text has its output.
pub fn run(script: &str, arguments: &[&str]) -> Result<String> {
    let output = command(script, arguments)?.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script} {}:\n{text}\n{error}", arguments.join(" "));
    Ok(text)
}

/// A script that runs until this is dropped.
#[derive(Debug)]
pub struct Running(Child);

/// Starts `tests/python/<script>`, and waits for its first line. It sees the end of its input when it is to end.
///
/// # Errors
/// When Python is missing or the script ends before it has printed a line.
pub fn start(script: &str, arguments: &[&str]) -> Result<Running> {
    let mut child = command(script, arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("it has no output")?;
    let running = Running(child);
    let read = BufReader::new(output).read_line(&mut String::new())?;
    ensure!(read > 0, "{script} {} has ended without a line", arguments.join(" "));
    Ok(running)
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

fn command(script: &str, arguments: &[&str]) -> Result<Command> {
    static ENVIRONMENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = ENVIRONMENT.get_or_init(|| environment().map_err(|error| format!("{error:#}")));
    let python = python.clone().map_err(anyhow::Error::msg)?;
    let mut command = Command::new(python);
    command.arg(repository().join("tests/python").join(script)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// The interpreter of the environment; made anew when the requirements change.
fn environment() -> Result<PathBuf> {
    let folder = cache().join("venv");
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(repository().join("tests/python/requirements.txt"))?;
    let stamp = folder.join("racklake-requirements.txt");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(python);
    }
    let missing = "Python 3.11 with venv is missing; on Debian: apt-get install python3 python3-venv";
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).status().context(missing)?;
    ensure!(made.success(), missing);
    let requirements = repository().join("tests/python/requirements.txt");
    let installed = Command::new(&python).args(["-m", "pip", "install", "-q", "-r"]).arg(requirements).status()?;
    ensure!(installed.success(), "pip could not install tests/python/requirements.txt");
    std::fs::write(stamp, wanted)?;
    Ok(python)
}
