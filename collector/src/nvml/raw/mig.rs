//! MIG: the instances that a GPU is divided into.

use std::ffi::c_uint;

use super::{Answer, Calls, FUNCTION_NOT_FOUND, Handle, Instance, NOT_FOUND, calling, getters, judge};

impl Calls<'_> {
    getters! {
        /// How many MIG instances there can be.
        instances_max = nvmlDeviceGetMaxMigDeviceCount: c_uint;
        /// Id of the GPU instance that a MIG instance is in.
        gpu_instance = nvmlDeviceGetGpuInstanceId: c_uint;
        /// Id of its compute instance.
        compute_instance = nvmlDeviceGetComputeInstanceId: c_uint;
    }

    /// The MIG instances that there are now. Their places in the list mean nothing; GPU and compute instance do.
    pub(in crate::nvml) fn instances(&self) -> Answer<Vec<Handle>> {
        let function = self.lib.nvmlDeviceGetMigDeviceHandleByIndex.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetMigDeviceHandleByIndex");
        let mut found = Vec::new();
        for index in 0..self.instances_max()? {
            let mut device = std::ptr::null_mut();
            // SAFETY: as in `getters`; what it writes is a handle.
            let code = unsafe { function(self.device.device, index, &mut device) };
            match judge(code, ()) {
                Ok(()) => {
                    let part = Calls { device: Handle::whole(device), ..*self };
                    let (gpu, compute) = (part.gpu_instance()?, part.compute_instance()?);
                    let instance = Some(Instance { parent: self.device.device, gpu, compute });
                    found.push(Handle { device, instance });
                }
                // A place that is empty.
                Err(NOT_FOUND) => {}
                Err(code) => return Err(code),
            }
        }
        Ok(found)
    }
}
