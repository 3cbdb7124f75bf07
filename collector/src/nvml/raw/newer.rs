//! Functions of NVML that are newer than the bindings: looked up by name in the library that is loaded anyway.

use std::ffi::c_uint;

use libloading::Library;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::health::Remaps;
use super::{Answer, Calls, FUNCTION_NOT_FOUND, Handle, calling, judge, version_of};

/// nvmlRemappedRowsInfo_v2_t.
#[repr(C)]
#[derive(Default)]
struct RemappedRows {
    corrected_active: c_uint,
    corrected_inactive: c_uint,
    uncorrected_active: c_uint,
    uncorrected_inactive: c_uint,
    pending: c_uint,
    failure_occurred: c_uint,
}

/// nvmlUnrepairableMemoryStatus_v1_t.
#[repr(C)]
struct UnrepairableMemory {
    version: c_uint,
    unrepairable: c_uint,
}

/// nvmlBBXTimeData_v1_t.
#[repr(C)]
struct RunTime {
    seconds: c_uint,
}

type Call<T> = unsafe extern "C" fn(nvmlDevice_t, *mut T) -> nvmlReturn_t;

/// The functions, as far as the library has them, and a hold on it.
pub(in crate::nvml) struct Newer {
    remapped_rows: Option<Call<RemappedRows>>,
    unrepairable_memory: Option<Call<UnrepairableMemory>>,
    run_time: Option<Call<RunTime>>,
    _library: Library,
}

impl Newer {
    /// Looks them up in the library at that path, which the wrapper has loaded already, so that nothing is run.
    pub(in crate::nvml) fn find(path: &str) -> Result<Newer, libloading::Error> {
        // SAFETY: the library is loaded; this takes a second hold on it, which ends with the value.
        let library = unsafe { Library::new(path)? };
        // SAFETY: the types are those of NVIDIA's header for these names, and the names stand for one layout each.
        let (remapped_rows, unrepairable_memory, run_time) = unsafe {
            (
                library.get(b"nvmlDeviceGetRemappedRows_v2\0").ok().map(|symbol| *symbol),
                library.get(b"nvmlDeviceGetUnrepairableMemoryFlag_v1\0").ok().map(|symbol| *symbol),
                library.get(b"nvmlDeviceGetBBXTimeData_v1\0").ok().map(|symbol| *symbol),
            )
        };
        Ok(Newer { remapped_rows, unrepairable_memory, run_time, _library: library })
    }

    pub(super) fn remapped_rows(&self, device: Handle) -> Answer<Remaps> {
        let function = self.remapped_rows.ok_or(FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetRemappedRows_v2");
        let mut rows = RemappedRows::default();
        // SAFETY: the handle is the library's own, and the pointer is to the struct that it fills.
        let code = unsafe { function(device.device, &mut rows) };
        judge(
            code,
            Remaps {
                corrected: rows.corrected_active,
                uncorrected: rows.uncorrected_active,
                inactive: Some([rows.corrected_inactive, rows.uncorrected_inactive]),
                pending: rows.pending,
                failed: rows.failure_occurred,
            },
        )
    }
}

impl Calls<'_> {
    /// 1 where the memory has a fault that cannot be repaired.
    pub(in crate::nvml) fn memory_unrepairable(&self) -> Answer<u32> {
        let function = self.newer.unrepairable_memory.ok_or(FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetUnrepairableMemoryFlag_v1");
        let mut flag = UnrepairableMemory { version: version_of::<UnrepairableMemory>(1), unrepairable: 0 };
        // SAFETY: as in `remapped_rows`, with the struct that its version names.
        let code = unsafe { function(self.device.device, &mut flag) };
        judge(code, flag.unrepairable)
    }

    /// Seconds that the GPU has run with a driver in all its life.
    pub(in crate::nvml) fn run_seconds(&self) -> Answer<u32> {
        let function = self.newer.run_time.ok_or(FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetBBXTimeData_v1");
        let mut time = RunTime { seconds: 0 };
        // SAFETY: as in `remapped_rows`.
        let code = unsafe { function(self.device.device, &mut time) };
        judge(code, time.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_as_large_as_nvidia_says() {
        assert_eq!(size_of::<RemappedRows>(), 24);
        assert_eq!(version_of::<UnrepairableMemory>(1), 0x0100_0008);
        assert_eq!(size_of::<RunTime>(), 4);
    }
}
