//! The loaded NVML library: loading it, and asking it for its GPUs.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{FieldIdScheme, Nvml};

use crate::nvml::calls::calling;
use crate::nvml::raw::{Calls, DRIVER_IS_GONE, FUNCTION_NOT_FOUND, Handle, NOT_SUPPORTED, Newer};
use crate::source::SourceError;

/// A loaded and initialised library. When the last user lets go of it, it is shut down and unloaded.
pub(in crate::nvml) struct Library {
    pub(in crate::nvml) nvml: Nvml,
    newer: Newer,
    path: String,
}

impl Library {
    /// Loads the library at that path, or by that name on the loader's path.
    pub(in crate::nvml) fn load(path: &str) -> Result<Library, SourceError> {
        calling("nvmlInit_v2");
        let nvml = Nvml::builder().lib_path(OsStr::new(path)).init().map_err(|error| explain(path, &error))?;
        if nvml.lib().nvmlShutdown.is_err() {
            // The wrapper would panic when it shuts such a library down.
            std::mem::forget(nvml);
            return Err(failure(format!("{path} has no nvmlShutdown: it is no NVML library"), None));
        }
        let newer = Newer::find(path).map_err(|error| explain(path, &NvmlError::LibloadingError(error)))?;
        Ok(Library { nvml, newer, path: path.to_owned() })
    }

    /// The calls about a device.
    pub(in crate::nvml) fn calls(&self, device: Handle) -> Calls<'_> {
        let renumbered = self.nvml.field_id_scheme() == FieldIdScheme::V13Update1;
        Calls { lib: self.nvml.lib(), newer: &self.newer, device, renumbered }
    }

    /// How many GPUs there are; an error when the driver no longer answers to this library.
    pub(in crate::nvml) fn count(&self) -> Result<u32, SourceError> {
        calling("nvmlDeviceGetCount_v2");
        self.nvml.device_count().map_err(|error| explain(&self.path, &error))
    }

    /// PCI address and handle of the GPU of that index, the name that it is known by everywhere else; or why there is none.
    pub(in crate::nvml) fn introduce(&self, index: u32) -> Result<(String, Handle), String> {
        calling("nvmlDeviceGetHandleByIndex_v2");
        let handle = self.nvml.device_by_index(index).map(|device| Handle::of(&device));
        let handle = handle.map_err(|error| error.to_string())?;
        let pci = self.calls(handle).pci().map_err(|code| format!("return code {code}"))?;
        Ok((pci.address, handle))
    }

    /// The MIG instances of a GPU by their address, `0000:9b:00.0/gi3/ci0`; none where it is not divided.
    pub(in crate::nvml) fn instances(&self, address: &str, handle: Handle) -> Result<BTreeMap<String, Handle>, i32> {
        let calls = self.calls(handle);
        let instances = match calls.mig_mode() {
            Ok([1, _]) => calls.instances()?,
            Ok(_) | Err(NOT_SUPPORTED | FUNCTION_NOT_FOUND) => Vec::new(),
            Err(code) => return Err(code),
        };
        let place =
            |handle: Handle| handle.mig().map(|(_, gpu, compute)| (format!("{address}/gi{gpu}/ci{compute}"), handle));
        Ok(instances.into_iter().filter_map(place).collect())
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
        NvmlError::FailedToLoadSymbol(symbol) => failure(format!("{path} is no NVML library: {symbol}"), None),
        other => failure(format!("{path}: NVML fails: {other}"), code_of(other)),
    }
}

/// The return code behind an error of the wrapper, where there is one.
fn code_of(error: &NvmlError) -> Option<i64> {
    match error {
        NvmlError::Uninitialized => Some(1),
        NvmlError::GpuLost => Some(15),
        NvmlError::ResetRequired => Some(16),
        NvmlError::OperatingSystem => Some(17),
        NvmlError::Unknown => Some(999),
        NvmlError::UnexpectedVariant(code) => Some(i64::from(*code)),
        _ => None,
    }
}

fn failure(message: String, code: Option<i64>) -> SourceError {
    // Without a library or a driver no GPU is in reach, and its counters may begin anew with the next one.
    let devices_absent = code.is_none_or(|code| DRIVER_IS_GONE.iter().any(|gone| i64::from(*gone) == code));
    SourceError { message, code, devices_absent }
}
