//! The getters behind `gpu_sample`: what changes from second to second.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_st, nvmlFanSpeedInfo_v1_t, nvmlMarginTemperature_v1_t, nvmlMemory_st, nvmlUtilization_st,
};

use super::{Answer, Calls, FUNCTION_NOT_FOUND, calling, getters, indexed, judge, pairs, version_of};

impl Calls<'_> {
    getters! {
        /// Millijoules since the driver loaded.
        energy = nvmlDeviceGetTotalEnergyConsumption: c_ulonglong;
        /// Milliwatts.
        power = nvmlDeviceGetPowerUsage: c_uint;
        /// Milliwatts.
        power_limit = nvmlDeviceGetEnforcedPowerLimit: c_uint;
        /// Bits of nvmlClocksEventReasons.
        throttle_reasons = nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong;
        /// 0 is the highest.
        performance_state = nvmlDeviceGetPerformanceState: c_uint;
        /// Bits of nvmlEventType.
        event_types = nvmlDeviceGetSupportedEventTypes: c_ulonglong;
        /// How many fans there are.
        fans = nvmlDeviceGetNumFans: c_uint;
    }

    pairs! {
        /// Percent of the video encoder, and the period in µs that it was measured over.
        encoder = nvmlDeviceGetEncoderUtilization: c_uint;
        /// Percent of the video decoder, and the period.
        decoder = nvmlDeviceGetDecoderUtilization: c_uint;
        /// Percent of the JPEG engine, and the period.
        jpeg = nvmlDeviceGetJpgUtilization: c_uint;
        /// Percent of the optical flow engine, and the period.
        ofa = nvmlDeviceGetOfaUtilization: c_uint;
    }

    indexed! {
        /// Megahertz of a domain: 0 graphics, 1 SM, 2 memory, 3 video.
        clock = nvmlDeviceGetClockInfo: c_uint;
        /// Percent of full speed that a fan is told to turn at.
        fan_speed = nvmlDeviceGetFanSpeed_v2: c_uint;
    }

    /// °C of the die.
    pub(in crate::nvml) fn temperature(&self) -> Answer<i32> {
        let function = self.lib.nvmlDeviceGetTemperature.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetTemperature");
        let mut celsius: c_uint = 0;
        // SAFETY: as in `getters`; sensor 0 is NVML_TEMPERATURE_GPU.
        let code = unsafe { function(self.device.device, 0, &mut celsius) };
        // The header has it unsigned; below zero it wraps.
        judge(code, celsius as i32)
    }

    /// °C below the temperature at which the GPU slows down.
    pub(in crate::nvml) fn temperature_margin(&self) -> Answer<i32> {
        let function = self.lib.nvmlDeviceGetMarginTemperature.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetMarginTemperature");
        let version = version_of::<nvmlMarginTemperature_v1_t>(1);
        let mut margin = nvmlMarginTemperature_v1_t { version, marginTemperature: 0 };
        // SAFETY: as in `getters`, with the struct that its version names.
        let code = unsafe { function(self.device.device, &mut margin) };
        judge(code, margin.marginTemperature)
    }

    /// Revolutions per minute of a fan.
    pub(in crate::nvml) fn fan_rpm(&self, fan: u32) -> Answer<u32> {
        let function = self.lib.nvmlDeviceGetFanSpeedRPM.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetFanSpeedRPM");
        let mut speed = nvmlFanSpeedInfo_v1_t { version: version_of::<nvmlFanSpeedInfo_v1_t>(1), fan, speed: 0 };
        // SAFETY: as in `getters`, with the struct that its version names.
        let code = unsafe { function(self.device.device, &mut speed) };
        judge(code, speed.speed)
    }

    /// Percent of the GPU and of its memory.
    pub(in crate::nvml) fn utilization(&self) -> Answer<[u32; 2]> {
        let function = self.lib.nvmlDeviceGetUtilizationRates.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetUtilizationRates");
        let mut rates = nvmlUtilization_st { gpu: 0, memory: 0 };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, &mut rates) };
        judge(code, [rates.gpu, rates.memory])
    }

    /// Bytes in use and installed.
    pub(in crate::nvml) fn memory(&self) -> Answer<[u64; 2]> {
        let function = self.lib.nvmlDeviceGetMemoryInfo.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetMemoryInfo");
        let mut memory = nvmlMemory_st { total: 0, free: 0, used: 0 };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, &mut memory) };
        judge(code, [memory.used, memory.total])
    }

    /// Bytes of the BAR1 window in use, and its size.
    pub(in crate::nvml) fn bar1(&self) -> Answer<[u64; 2]> {
        let function = self.lib.nvmlDeviceGetBAR1MemoryInfo.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetBAR1MemoryInfo");
        let mut memory = nvmlBAR1Memory_st { bar1Total: 0, bar1Free: 0, bar1Used: 0 };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, &mut memory) };
        judge(code, [memory.bar1Used, memory.bar1Total])
    }
}
