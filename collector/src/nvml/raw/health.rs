//! The getters behind `gpu_health`: errors, repairs, limits and modes.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlEccSramErrorStatus_v1_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlRepairStatus_v1_t, nvmlRowRemapperHistogramValues_st,
};

use super::{
    Answer, Calls, FUNCTION_NOT_FOUND, INSUFFICIENT_SIZE, calling, getters, indexed, judge, newest, pairs, version_of,
};

/// Rows of the memory that were remapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nvml) struct Remaps {
    pub(in crate::nvml) corrected: u32,
    pub(in crate::nvml) uncorrected: u32,
    /// Corrected and uncorrected ones that are not in force yet; only newer libraries say.
    pub(in crate::nvml) inactive: Option<[u32; 2]>,
    pub(in crate::nvml) pending: u32,
    pub(in crate::nvml) failed: u32,
}

/// Errors of SRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nvml) struct SramErrors {
    /// Uncorrected ones found by parity and by SEC-DED, since the driver loaded, then over the life of the GPU.
    pub(in crate::nvml) uncorrected: [u64; 4],
    /// Of those over its life: in L2, SM, PCIe, microcontrollers, elsewhere.
    pub(in crate::nvml) places: [u64; 5],
    pub(in crate::nvml) threshold_exceeded: u32,
}

/// The GPU's part in a fabric of NVSwitches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nvml) struct Fabric {
    pub(in crate::nvml) cluster_uuid: [u8; 16],
    pub(in crate::nvml) state: u8,
    pub(in crate::nvml) status: u32,
    pub(in crate::nvml) clique: u32,
    /// Only newer versions of the struct have it.
    pub(in crate::nvml) health_mask: Option<u32>,
    /// As above.
    pub(in crate::nvml) health_summary: Option<u8>,
}

impl Calls<'_> {
    getters! {
        /// Generation that the link runs at.
        pcie_generation = nvmlDeviceGetCurrPcieLinkGeneration: c_uint;
        /// Lanes that the link runs with.
        pcie_width = nvmlDeviceGetCurrPcieLinkWidth: c_uint;
        /// Milliwatts.
        power_limit_default = nvmlDeviceGetPowerManagementDefaultLimit: c_uint;
        /// Milliwatts.
        power_limit_requested = nvmlDeviceGetPowerManagementLimit: c_uint;
        /// 1 is on.
        persistence_mode = nvmlDeviceGetPersistenceMode: c_uint;
        /// Of the configuration in the InfoROM.
        inforom_checksum = nvmlDeviceGetInforomConfigurationChecksum: c_uint;
    }

    pairs! {
        /// Milliwatts: lowest and highest.
        power_limit_range = nvmlDeviceGetPowerManagementLimitConstraints: c_uint;
        /// Now and after a reset; 1 is on.
        ecc_mode = nvmlDeviceGetEccMode: c_uint;
        /// Now and after a reset; 1 is on.
        mig_mode = nvmlDeviceGetMigMode: c_uint;
    }

    indexed! {
        /// °C: 0 shutdown, 1 slowdown, 2 highest of the memory, 3 highest of the GPU.
        temperature_threshold = nvmlDeviceGetTemperatureThreshold: c_uint;
        /// Megahertz of a domain: 0 graphics, 1 SM, 2 memory, 3 video.
        clock_max = nvmlDeviceGetMaxClockInfo: c_uint;
    }

    /// ECC errors of all SRAM: kind 0 corrected, 1 uncorrected; life 0 since the driver loaded, 1 of the GPU.
    pub(in crate::nvml) fn sram_ecc_errors(&self, kind: u32, life: u32) -> Answer<u64> {
        const SRAM: c_uint = 7;
        let function = self.lib.nvmlDeviceGetMemoryErrorCounter.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetMemoryErrorCounter");
        let mut count: c_ulonglong = 0;
        // SAFETY: as in `getters`.
        let code = unsafe { function(self.device.device, kind, life, SRAM, &mut count) };
        judge(code, count)
    }

    /// What SRAM has suffered, by unit.
    pub(in crate::nvml) fn sram_errors(&self) -> Answer<SramErrors> {
        let function = self.lib.nvmlDeviceGetSramEccErrorStatus.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetSramEccErrorStatus");
        // SAFETY: the struct is plain numbers, for which zeros are valid.
        let mut status: nvmlEccSramErrorStatus_v1_t = unsafe { std::mem::zeroed() };
        status.version = version_of::<nvmlEccSramErrorStatus_v1_t>(1);
        // SAFETY: as in `getters`, with the struct that its version names.
        let code = unsafe { function(self.device.device, &mut status) };
        judge(code, SramErrors::of(&status))
    }

    /// The rows of the memory that were remapped: with inactive ones where the library tells them.
    pub(in crate::nvml) fn remaps(&self, known: &mut usize) -> Answer<Remaps> {
        newest(known, &[&|| self.newer.remapped_rows(self.device), &|| self.remaps_without_inactive()])
    }

    fn remaps_without_inactive(&self) -> Answer<Remaps> {
        let function = self.lib.nvmlDeviceGetRemappedRows.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetRemappedRows");
        let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
        // SAFETY: as in `getters`, for four values.
        let code = unsafe { function(self.device.device, &mut corrected, &mut uncorrected, &mut pending, &mut failed) };
        judge(code, Remaps { corrected, uncorrected, inactive: None, pending, failed })
    }

    /// Banks of the memory by the spare rows that they have left: all, many, some, few, none.
    pub(in crate::nvml) fn remap_histogram(&self) -> Answer<[u32; 5]> {
        let function = self.lib.nvmlDeviceGetRowRemapperHistogram.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetRowRemapperHistogram");
        let mut banks = nvmlRowRemapperHistogramValues_st { max: 0, high: 0, partial: 0, low: 0, none: 0 };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, &mut banks) };
        judge(code, [banks.max, banks.high, banks.partial, banks.low, banks.none])
    }

    /// Whether a repair of a memory channel and of a TPC waits for a reset.
    pub(in crate::nvml) fn repairs(&self) -> Answer<[u32; 2]> {
        let function = self.lib.nvmlDeviceGetRepairStatus.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetRepairStatus");
        let version = version_of::<nvmlRepairStatus_v1_t>(1);
        let mut status = nvmlRepairStatus_v1_t { version, bChannelRepairPending: 0, bTpcRepairPending: 0 };
        // SAFETY: as in `getters`, with the struct that its version names.
        let code = unsafe { function(self.device.device, &mut status) };
        judge(code, [status.bChannelRepairPending, status.bTpcRepairPending])
    }

    /// How many processes compute on the GPU. Their list is not asked for.
    pub(in crate::nvml) fn compute_processes(&self) -> Answer<u32> {
        let function = self.lib.nvmlDeviceGetComputeRunningProcesses_v3.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetComputeRunningProcesses_v3");
        let mut count: c_uint = 0;
        // SAFETY: the count says that there is no room, so that nothing is written to the list.
        let code = unsafe { function(self.device.device, &mut count, std::ptr::null_mut()) };
        if code as i32 == INSUFFICIENT_SIZE { Ok(count) } else { judge(code, count) }
    }

    /// The GPU's part in the fabric.
    pub(in crate::nvml) fn fabric(&self, known: &mut usize) -> Answer<Fabric> {
        newest(known, &[&|| self.fabric_v3(), &|| self.fabric_v2(), &|| self.fabric_v1()])
    }

    fn fabric_v3(&self) -> Answer<Fabric> {
        let function = self.lib.nvmlDeviceGetGpuFabricInfoV.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetGpuFabricInfoV");
        // SAFETY: the struct is plain numbers, for which zeros are valid.
        let mut info: nvmlGpuFabricInfo_v3_t = unsafe { std::mem::zeroed() };
        info.version = version_of::<nvmlGpuFabricInfo_v3_t>(3);
        // SAFETY: as in `getters`, with the struct that its version names.
        let code = unsafe { function(self.device.device, &mut info) };
        judge(
            code,
            Fabric {
                cluster_uuid: info.clusterUuid,
                state: info.state,
                status: info.status,
                clique: info.cliqueId,
                health_mask: Some(info.healthMask),
                health_summary: Some(info.healthSummary),
            },
        )
    }

    fn fabric_v2(&self) -> Answer<Fabric> {
        let function = self.lib.nvmlDeviceGetGpuFabricInfoV.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetGpuFabricInfoV");
        // The memory of the larger struct, of which the library fills the part that version 2 has: both begin alike.
        // SAFETY: as above.
        let mut info: nvmlGpuFabricInfo_v3_t = unsafe { std::mem::zeroed() };
        info.version = version_of::<nvmlGpuFabricInfo_v2_t>(2);
        // SAFETY: as in `getters`, with a struct at least as large as its version names.
        let code = unsafe { function(self.device.device, &mut info) };
        judge(
            code,
            Fabric {
                cluster_uuid: info.clusterUuid,
                state: info.state,
                status: info.status,
                clique: info.cliqueId,
                health_mask: Some(info.healthMask),
                health_summary: None,
            },
        )
    }

    fn fabric_v1(&self) -> Answer<Fabric> {
        let function = self.lib.nvmlDeviceGetGpuFabricInfo.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetGpuFabricInfo");
        // SAFETY: the struct is plain numbers, for which zeros are valid.
        let mut info: nvmlGpuFabricInfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, &mut info) };
        judge(
            code,
            Fabric {
                cluster_uuid: info.clusterUuid,
                state: info.state,
                status: info.status,
                clique: info.cliqueId,
                health_mask: None,
                health_summary: None,
            },
        )
    }
}

impl SramErrors {
    fn of(status: &nvmlEccSramErrorStatus_v1_t) -> SramErrors {
        SramErrors {
            uncorrected: [
                status.volatileUncParity,
                status.volatileUncSecDed,
                status.aggregateUncParity,
                status.aggregateUncSecDed,
            ],
            places: [
                status.aggregateUncBucketL2,
                status.aggregateUncBucketSm,
                status.aggregateUncBucketPcie,
                status.aggregateUncBucketMcu,
                status.aggregateUncBucketOther,
            ],
            threshold_exceeded: status.bThresholdExceeded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_as_large_as_nvidia_says() {
        assert_eq!(version_of::<nvmlEccSramErrorStatus_v1_t>(1), 0x0100_0068);
        assert_eq!(version_of::<nvmlRepairStatus_v1_t>(1), 0x0100_000c);
        assert_eq!(version_of::<nvmlGpuFabricInfo_v3_t>(3), 0x0300_0028);
        assert_eq!(version_of::<nvmlGpuFabricInfo_v2_t>(2), 0x0200_0024);
    }

    #[test]
    fn errors_of_sram_keep_their_places() {
        let status = nvmlEccSramErrorStatus_v1_t {
            version: 0,
            aggregateUncParity: 1,
            aggregateUncSecDed: 2,
            aggregateCor: 3,
            volatileUncParity: 4,
            volatileUncSecDed: 5,
            volatileCor: 6,
            aggregateUncBucketL2: 7,
            aggregateUncBucketSm: 8,
            aggregateUncBucketPcie: 9,
            aggregateUncBucketMcu: 10,
            aggregateUncBucketOther: 11,
            bThresholdExceeded: 1,
        };
        let errors = SramErrors { uncorrected: [4, 5, 1, 2], places: [7, 8, 9, 10, 11], threshold_exceeded: 1 };
        assert_eq!(SramErrors::of(&status), errors);
    }
}
