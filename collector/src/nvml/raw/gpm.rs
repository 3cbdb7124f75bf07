//! GPM: what the units of a GPU did between two samples of its counters.

use nvml_wrapper_sys::bindings::{NvmlLib, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t};

use super::{Answer, Calls, FUNCTION_NOT_FOUND, Handle, NOT_SUPPORTED, calling, judge};

/// The version of the structs; they carry no size.
const VERSION: u32 = 1;

/// One metric: its number in NVML, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::nvml) struct GpmMetric {
    pub(in crate::nvml) id: u32,
    pub(in crate::nvml) value: Answer<f64>,
}

/// Room for one sample, which the library gives and takes back.
pub(in crate::nvml) struct GpmSample<'a> {
    lib: &'a NvmlLib,
    sample: nvmlGpmSample_t,
}

impl<'a> Calls<'a> {
    /// Whether the GPU has GPM, as code 3 where it has not.
    pub(in crate::nvml) fn has_gpm(&self) -> Answer<()> {
        let function = self.lib.nvmlGpmQueryDeviceSupport.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlGpmQueryDeviceSupport");
        let mut support = nvmlGpmSupport_t { version: VERSION, isSupportedDevice: 0 };
        let whole = self.device.mig().map_or(self.device, |(parent, ..)| parent);
        // SAFETY: the handle is the library's own, and the pointer is to the struct that it fills.
        let code = unsafe { function(whole.device, &mut support) };
        judge(code, ())?;
        if support.isSupportedDevice == 0 { Err(NOT_SUPPORTED) } else { Ok(()) }
    }

    /// Takes a sample now.
    pub(in crate::nvml) fn gpm_sample(&self) -> Answer<GpmSample<'a>> {
        let sample = GpmSample::new(self.lib)?;
        let code = match self.device.mig() {
            None => {
                let function = self.lib.nvmlGpmSampleGet.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
                calling("nvmlGpmSampleGet");
                // SAFETY: handle and sample are the library's own.
                unsafe { function(self.device.device, sample.sample) }
            }
            Some((Handle { device, .. }, gpu_instance, _)) => {
                let function = self.lib.nvmlGpmMigSampleGet.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
                calling("nvmlGpmMigSampleGet");
                // SAFETY: as above.
                unsafe { function(device, gpu_instance, sample.sample) }
            }
        };
        judge(code, sample)
    }

    /// What happened between two samples of this device.
    pub(in crate::nvml) fn gpm_metrics(
        &self,
        from: &GpmSample<'_>,
        to: &GpmSample<'_>,
        ids: &[u32],
    ) -> Answer<Vec<GpmMetric>> {
        let function = self.lib.nvmlGpmMetricsGet.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlGpmMetricsGet");
        // SAFETY: the struct is plain numbers and pointers that the library only writes; zeros are valid.
        let mut get: Box<nvmlGpmMetricsGet_t> = Box::new(unsafe { std::mem::zeroed() });
        let asked = ids.len().min(get.metrics.len());
        (get.version, get.numMetrics) = (VERSION, asked as u32);
        (get.sample1, get.sample2) = (from.sample, to.sample);
        for (metric, id) in get.metrics.iter_mut().zip(ids) {
            metric.metricId = *id;
        }
        // SAFETY: the library reads both samples and writes as many metrics as the number says.
        let code = unsafe { function(&mut *get) };
        judge(code, ())?;
        let judged = get.metrics[..asked].iter().map(|m| (m.metricId, judge(m.nvmlReturn, m.value)));
        Ok(judged.map(|(id, value)| GpmMetric { id, value }).collect())
    }
}

impl<'a> GpmSample<'a> {
    fn new(lib: &'a NvmlLib) -> Answer<GpmSample<'a>> {
        let function = lib.nvmlGpmSampleAlloc.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlGpmSampleAlloc");
        let mut sample: nvmlGpmSample_t = std::ptr::null_mut();
        // SAFETY: the pointer is to a handle that the call fills in.
        let code = unsafe { function(&mut sample) };
        judge(code, GpmSample { lib, sample })
    }
}

impl Drop for GpmSample<'_> {
    fn drop(&mut self) {
        if let (Ok(free), false) = (self.lib.nvmlGpmSampleFree.as_ref(), self.sample.is_null()) {
            // SAFETY: the sample is the library's own and not used again.
            unsafe { free(self.sample) };
        }
    }
}
