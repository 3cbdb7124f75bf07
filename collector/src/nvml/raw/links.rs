//! The getters behind `gpu_link_sample`: what is asked of one NVLink by a call of its own.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::nvmlPciInfo_st;

use super::identity::address_of;
use super::{Answer, Calls, FUNCTION_NOT_FOUND, calling, indexed, judge};

impl Calls<'_> {
    indexed! {
        /// 1 where the link is active.
        link_active = nvmlDeviceGetNvLinkState: c_uint;
        /// NVML's number of the version.
        link_version = nvmlDeviceGetNvLinkVersion: c_uint;
        /// 0 GPU, 1 CPU, 2 switch, 255 unknown.
        link_remote_type = nvmlDeviceGetNvLinkRemoteDeviceType: c_uint;
    }

    /// PCI address of the other end.
    pub(in crate::nvml) fn link_remote_address(&self, link: u32) -> Answer<String> {
        let function = self.lib.nvmlDeviceGetNvLinkRemotePciInfo_v2.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetNvLinkRemotePciInfo_v2");
        // SAFETY: the struct is plain numbers and bytes, for which zeros are valid.
        let mut pci: nvmlPciInfo_st = unsafe { std::mem::zeroed() };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, link, &mut pci) };
        judge(code, ())?;
        Ok(address_of(&pci))
    }

    /// Errors: 0 replays, 1 recoveries, 2 CRC of flits, 3 CRC of data, 4 ECC of data.
    pub(in crate::nvml) fn link_errors(&self, link: u32, counter: u32) -> Answer<u64> {
        let function = self.lib.nvmlDeviceGetNvLinkErrorCounter.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetNvLinkErrorCounter");
        let mut count: c_ulonglong = 0;
        // SAFETY: as in `getters`.
        let code = unsafe { function(self.device.device, link, counter, &mut count) };
        judge(code, count)
    }
}
