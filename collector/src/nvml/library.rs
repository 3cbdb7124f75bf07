//! The loaded NVML library: loading it, and listing the GPUs it knows.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use racklake_schemas::identity;

use super::failure;
use super::raw::Handle;
use crate::source::SourceError;

/// A loaded and initialised library. When the last user lets go of it, it is shut down and unloaded.
pub(super) struct Library {
    pub(super) nvml: Nvml,
    path: String,
}

impl Library {
    /// Loads the library at that path, or by that name on the loader's path.
    pub(super) fn load(path: &str) -> Result<Library, SourceError> {
        let nvml = Nvml::builder().lib_path(OsStr::new(path)).init().map_err(|error| explain(path, &error))?;
        Ok(Library { nvml, path: path.to_owned() })
    }

    /// How many GPUs there are; an error when the driver no longer answers to this library.
    pub(super) fn count(&self) -> Result<u32, SourceError> {
        self.nvml.device_count().map_err(|error| explain(&self.path, &error))
    }

    /// PCI address and handle of each GPU. One that gives none is left out: it has no place to be known by.
    pub(super) fn handles(&self) -> Result<Vec<(String, Handle)>, SourceError> {
        let mut found = Vec::new();
        for index in 0..self.count()? {
            let device = self.nvml.device_by_index(index);
            match device.and_then(|device| Ok((device.pci_info()?, Handle::of(&device)))) {
                Ok((pci, handle)) => found.push((identity::pci_bus_id(&pci.bus_id), handle)),
                Err(error) => tracing::warn!("GPU {index} tells no PCI address and is left out: {error}"),
            }
        }
        Ok(found)
    }
}

/// What an operator can do about an error of the library.
fn explain(path: &str, error: &NvmlError) -> SourceError {
    match error {
        NvmlError::LibloadingError(cause) => failure(
            format!(
                "the NVML library {path} cannot be loaded ({cause}); install the NVIDIA driver, or name the library in \
                 [nvml] library, or set [nvml] enabled = false on a host without GPUs"
            ),
            None,
        ),
        NvmlError::DriverNotLoaded => failure(
            format!("{path}: the NVIDIA driver is not loaded; load it (modprobe nvidia), and reading begins by itself"),
            Some(9),
        ),
        NvmlError::NoPermission => {
            failure(format!("{path}: no permission; the collector's user must be able to open /dev/nvidia*"), Some(4))
        }
        NvmlError::LibRmVersionMismatch => failure(
            format!("{path}: the library is of another version than the loaded driver; reload the driver or reboot"),
            Some(18),
        ),
        other => failure(format!("{path}: NVML fails: {other}"), None),
    }
}
