//! NVML's event set: registering, waiting, and what an event says, of every type and MIG instance.

use nvml_wrapper_sys::bindings::{NvmlLib, nvmlEventData_st, nvmlEventSet_t};

use super::{Answer, FUNCTION_NOT_FOUND, Handle, calling, judge};

/// A set of events to wait for.
pub(in crate::nvml) struct EventSet<'a> {
    lib: &'a NvmlLib,
    set: nvmlEventSet_t,
}

/// One event, as the driver gave it.
pub(in crate::nvml) struct RawEvent {
    pub(in crate::nvml) device: Handle,
    pub(in crate::nvml) kind: u64,
    pub(in crate::nvml) data: u64,
    pub(in crate::nvml) gpu_instance: u32,
    pub(in crate::nvml) compute_instance: u32,
}

impl<'a> EventSet<'a> {
    pub(in crate::nvml) fn new(lib: &'a NvmlLib) -> Answer<EventSet<'a>> {
        let function = lib.nvmlEventSetCreate.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlEventSetCreate");
        let mut set: nvmlEventSet_t = std::ptr::null_mut();
        // SAFETY: the pointer is to a handle that the call fills in.
        let code = unsafe { function(&mut set) };
        judge(code, EventSet { lib, set })
    }

    /// Adds the events of a device, as bits.
    pub(in crate::nvml) fn register(&self, device: Handle, kinds: u64) -> Answer<()> {
        let function = self.lib.nvmlDeviceRegisterEvents.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceRegisterEvents");
        // SAFETY: both handles are the library's own.
        judge(unsafe { function(device.device, kinds, self.set) }, ())
    }

    /// Waits at most so many milliseconds.
    pub(in crate::nvml) fn wait(&self, milliseconds: u32) -> Answer<RawEvent> {
        let function = self.lib.nvmlEventSetWait_v2.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlEventSetWait_v2");
        let mut data = nvmlEventData_st {
            device: std::ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: 0,
            computeInstanceId: 0,
        };
        // SAFETY: the set is the library's own, the pointer is to the struct that it fills.
        let code = unsafe { function(self.set, &mut data, milliseconds) };
        judge(
            code,
            RawEvent {
                device: Handle::whole(data.device),
                kind: data.eventType,
                data: data.eventData,
                gpu_instance: data.gpuInstanceId,
                compute_instance: data.computeInstanceId,
            },
        )
    }
}

impl Drop for EventSet<'_> {
    fn drop(&mut self) {
        if let (Ok(free), false) = (self.lib.nvmlEventSetFree.as_ref(), self.set.is_null()) {
            // SAFETY: the set is the library's own and not used again.
            unsafe { free(self.set) };
        }
    }
}
