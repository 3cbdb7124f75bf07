//! The shipped binaries, built once in the profile of the tests and run by path.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::repository;

/// Names a folder of binaries that are run as they are, in place of those that are built from the sources.
const GIVEN: &str = "RACKLAKE_BINARIES";

/// The path of a binary of the workspace: `racklake-collector`, `racklake-ingest`, `racklake-lake`, `racklake`.
///
/// # Errors
/// When it does not build.
pub fn path(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let given = || std::env::var_os(GIVEN).map_or_else(build, |folder| Ok(PathBuf::from(folder)));
    let folder =
        BUILT.get_or_init(|| given().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)?;
    let path = folder.join(name);
    anyhow::ensure!(path.exists(), "{} is not there", path.display());
    Ok(path)
}

/// `cargo test` builds no other package's binaries, so this does.
fn build() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    // A test lies in `deps`, a program of the tests beside it.
    let folder = executable.parent().context("the test has no target directory")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    command.current_dir(repository()).args(["build", "--quiet", "--workspace", "--bins", "--target-dir"]);
    command.arg(folder.parent().context("the target directory has no parent")?);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let output = command.output()?;
    if !output.status.success() {
        bail!("cargo build --workspace --bins failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder.to_owned())
}
