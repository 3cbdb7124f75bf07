//! What the collector remembers between starts, in one JSON file of its state folder.
//!
//! The file is replaced as a whole, by rename, so a kill leaves the old one or the new one. A damaged file is set aside
//! and the collector begins anew: ids come back with the next read, sessions are new, which is safe.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Version of the file; another one is treated as damaged.
const VERSION: u32 = 1;
const FILE: &str = "devices.json";

/// What is remembered about the device at an address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// Name of the source that reads the address.
    pub(crate) source: String,
    /// PCI address, or host and port.
    pub(crate) address: String,
    /// The id given to it.
    pub(crate) device_id: String,
    /// Whether the id comes from an identity that was read, not from the address.
    pub(crate) identified: bool,
    /// Parts of the identity that were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
    /// Its session, and the boot of this host that it was seen in.
    pub(crate) session_id: i64,
    pub(crate) boot_id: String,
    /// Last values of its lifetime counters.
    pub(crate) lifetime: Vec<Option<i64>>,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    devices: Vec<Remembered>,
}

/// The state folder, locked for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    _lock: File,
}

/// What the folder held at the start.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) devices: Vec<Remembered>,
    /// What was wrong with the file, where it was.
    pub(crate) damage: Option<String>,
}

impl StateFolder {
    /// Makes the folder where it is missing, locks it, and reads what it holds.
    ///
    /// # Errors
    /// When it cannot be written, or another collector uses it.
    pub(crate) fn open(path: &Path) -> Result<(StateFolder, Loaded)> {
        let place = || format!("state_dir: {}", path.display());
        std::fs::create_dir_all(path).with_context(|| format!("{} cannot be made", place()))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.with_context(|| format!("{} cannot be written", place()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{} is used by another collector; stop it or set another", place()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", place()));
            }
        }
        let folder = StateFolder { path: path.to_owned(), _lock: lock };
        let loaded = folder.load()?;
        Ok((folder, loaded))
    }

    fn load(&self) -> Result<Loaded> {
        let file = self.path.join(FILE);
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Loaded { devices: Vec::new(), damage: None });
            }
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
        };
        let damage = match serde_json::from_slice::<StateFile>(&text) {
            Ok(state) if state.version == VERSION => return Ok(Loaded { devices: state.devices, damage: None }),
            Ok(state) => format!("it has version {}, not {VERSION}", state.version),
            Err(error) => error.to_string(),
        };
        let aside = self.path.join("devices.json.damaged");
        std::fs::rename(&file, &aside).with_context(|| format!("setting {} aside", file.display()))?;
        let damage = format!("{} is damaged ({damage}) and was renamed to {}", file.display(), aside.display());
        Ok(Loaded { devices: Vec::new(), damage: Some(damage) })
    }

    /// Replaces what the folder holds.
    ///
    /// # Errors
    /// When the disk does not take it; the old file stays.
    pub(crate) fn save(&self, devices: &[Remembered]) -> Result<()> {
        let text = serde_json::to_vec_pretty(&StateFile { version: VERSION, devices: devices.to_vec() })?;
        replace(&self.path.join(FILE), &text)
    }
}

/// Replaces a file as a whole: whoever reads it finds the old text or the new one, after a power loss too.
///
/// # Errors
/// When the disk does not take it; the old file stays.
pub(crate) fn replace(file: &Path, text: &[u8]) -> Result<()> {
    let fresh = file.with_added_extension("new");
    let written = File::create(&fresh).and_then(|mut out| {
        out.write_all(text)?;
        out.sync_all()
    });
    written.with_context(|| format!("{} cannot be written", fresh.display()))?;
    std::fs::rename(&fresh, file).with_context(|| format!("{} cannot be replaced", file.display()))?;
    let Some(path) = file.parent() else { return Ok(()) };
    let folder = File::open(path).and_then(|folder| folder.sync_all());
    folder.with_context(|| format!("{} cannot be made durable", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let device =
            Remembered { device_id: "GPU-1".to_owned(), lifetime: vec![Some(7), None], ..Remembered::default() };
        let (state, loaded) = StateFolder::open(folder.path()).unwrap();
        assert!(loaded.devices.is_empty() && loaded.damage.is_none());
        state.save(std::slice::from_ref(&device)).unwrap();
        assert!(StateFolder::open(folder.path()).unwrap_err().to_string().contains("another collector"));
        drop(state);
        assert_eq!(StateFolder::open(folder.path()).unwrap().1.devices, [device]);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{\"version\": 1, \"dev").unwrap();
        let (_state, loaded) = StateFolder::open(folder.path()).unwrap();
        assert!(loaded.damage.unwrap().contains("damaged"));
        assert!(folder.path().join("devices.json.damaged").exists());
    }
}
