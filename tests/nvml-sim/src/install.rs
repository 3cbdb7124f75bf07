//! Puts a copy of the library and its scenario into place.

use std::io;
use std::path::{Path, PathBuf};

use crate::scenario::Scenario;

/// File name of the built library.
const FILE_NAME: &str = "libracklake_nvml_sim.so";

/// The built library, beside the current program: cargo puts it into `deps` when it builds something that needs it.
pub fn library_path() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    // `deps` first: a copy one level up is of the last time that this package was built by itself.
    let mut folders = vec![folder.join("deps"), folder.to_owned()];
    if let Some(parent) = folder.parent() {
        folders.extend([parent.join("deps"), parent.to_owned()]);
    }
    folders.into_iter().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file())
}

/// Copies the library to `<dir>/<name>.so`, with its scenario beside it, and gives the path to load. The folder is made
/// if it is missing.
///
/// # Errors
/// When a file cannot be written.
pub fn install(library: &Path, dir: &Path, name: &str, scenario: &Scenario) -> io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let path = dir.join(format!("{name}.so"));
    scenario.apply_to(&path)?;
    // Renamed into place: a process that has the old copy loaded keeps it.
    let new = dir.join(format!("{name}.so.new"));
    std::fs::copy(library, &new)?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}

impl Scenario {
    /// Replaces the scenario of an installed library; a process that has it loaded follows within 20 ms.
    ///
    /// # Errors
    /// When the file cannot be written, or the scenario is not one.
    pub fn apply_to(&self, library: &Path) -> io::Result<()> {
        let text = self.to_toml().and_then(|text| Scenario::parse(&text).map(|_| text));
        let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let path = scenario_path(library);
        let new = path.with_extension("toml.new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &path)
    }
}

/// The scenario file of a library: the same path with `.toml` added.
pub(crate) fn scenario_path(library: &Path) -> PathBuf {
    let mut path = library.as_os_str().to_owned();
    path.push(".toml");
    PathBuf::from(path)
}
