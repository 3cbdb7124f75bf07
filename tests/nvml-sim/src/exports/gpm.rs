//! Profiling metrics (GPM): a sample holds sums, and two samples of a GPU give the means between them.
//!
//! Each metric is judged and told by itself, as `gpm:<id>`.

use std::ffi::{CStr, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

use super::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, VERSION_MISMATCH, answer_unit, given_struct, signatures};
use crate::library::{Code, Given, Place, State, library};
use crate::scenario::Architecture;
use crate::unit::Unit;

/// Version of the structs, which is here a bare number.
const VERSION: u32 = 1;
/// More metrics than there are.
const METRICS_MAX: u32 = 1024;
const MIB: f64 = 1_048_576.0;

/// The sums of a GPU at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GpmSample {
    unit: usize,
    gpu_instance: Option<u32>,
    at: f64,
    load_seconds: f64,
    load: f64,
}

given_struct!(nvml::nvmlGpmSupport_t { version, isSupportedDevice });

/// The value of a metric.
struct Metric(f64);

impl Given for Metric {
    fn told(&self) -> Value {
        json!(self.0)
    }

    fn garbage() -> Metric {
        Metric(f64::from_bits(!0))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmQueryDeviceSupport(device: nvml::nvmlDevice_t, out: *mut nvml::nvmlGpmSupport_t) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        let is_other = !out.is_null() && (*out).version != VERSION;
        answer_unit(device, "nvmlGpmQueryDeviceSupport", None, out, |unit| match is_other {
            true => Err(VERSION_MISMATCH),
            false => Ok(nvml::nvmlGpmSupport_t { version: VERSION, isSupportedDevice: u32::from(has_metrics(unit)) }),
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut nvml::nvmlGpmSample_t) -> Code {
    if sample.is_null() {
        return INVALID_ARGUMENT;
    }
    let given = library().system("nvmlGpmSampleAlloc", false, None, |state| {
        state.gpm_made += 1;
        state.gpm.insert(state.gpm_made, None);
        Ok(state.gpm_made as u64)
    });
    match given {
        Ok(number) => {
            // SAFETY: not null, and the contract of the C function is that it is writable.
            unsafe { sample.write(std::ptr::without_provenance_mut(number as usize)) };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmSampleFree(sample: nvml::nvmlGpmSample_t) -> Code {
    let given = library().system("nvmlGpmSampleFree", false, None, |state| {
        state.gpm.remove(&(sample as usize)).map(|_| ()).ok_or(INVALID_ARGUMENT)
    });
    given.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmSampleGet(device: nvml::nvmlDevice_t, sample: nvml::nvmlGpmSample_t) -> Code {
    let given = library().device(device, "nvmlGpmSampleGet", None, |state, unit| take(state, unit, None, sample));
    given.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpmMigSampleGet(
    device: nvml::nvmlDevice_t,
    gpu_instance: c_uint,
    sample: nvml::nvmlGpmSample_t,
) -> Code {
    let arg = Some(i64::from(gpu_instance));
    let given = library().device(device, "nvmlGpmMigSampleGet", arg, |state, unit| {
        let is_there = state.units[unit].gpu.mig.iter().any(|mig| mig.gpu_instance == gpu_instance);
        if is_there { take(state, unit, Some(gpu_instance), sample) } else { Err(INVALID_ARGUMENT) }
    });
    given.err().unwrap_or(SUCCESS)
}

/// Whether a GPU has the metrics.
fn has_metrics(unit: &Unit) -> bool {
    unit.gpu.architecture >= Architecture::Hopper
}

fn take(state: &mut State, unit: usize, gpu_instance: Option<u32>, sample: nvml::nvmlGpmSample_t) -> Result<(), Code> {
    if !has_metrics(&state.units[unit]) {
        return Err(NOT_SUPPORTED);
    }
    let model = &state.units[unit].model;
    let (at, load_seconds, load) = (model.at(), model.load_seconds(), model.load());
    let taken = GpmSample { unit, gpu_instance, at, load_seconds, load };
    *state.gpm.get_mut(&(sample as usize)).ok_or(INVALID_ARGUMENT)? = Some(taken);
    Ok(())
}

/// Only as many metrics as are asked for are looked at: the array of a newer header is longer than that of the bindings.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMetricsGet(asked: *mut nvml::nvmlGpmMetricsGet_t) -> Code {
    if asked.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the contract of the C function is that its head can be read.
    let (version, count, samples) =
        unsafe { ((*asked).version, (*asked).numMetrics, [(*asked).sample1, (*asked).sample2]) };
    let interval = match interval(version, count, samples) {
        Ok(interval) => interval,
        Err(code) => return code,
    };
    for number in 0..count as usize {
        // SAFETY: the contract of the C function is that there are `numMetrics` of them.
        unsafe {
            let metric = (&raw mut (*asked).metrics).cast::<nvml::nvmlGpmMetric_t>().add(number);
            answer_metric(interval, &mut *metric);
        }
    }
    SUCCESS
}

/// What lies between two samples: the GPU, and its mean share of full load.
#[derive(Debug, Clone, Copy)]
struct Interval {
    unit: usize,
    load: f64,
}

fn interval(version: u32, count: u32, samples: [nvml::nvmlGpmSample_t; 2]) -> Result<Interval, Code> {
    let library = library();
    let state = library.state();
    if let Some(code) = state.refusal(false) {
        return Err(code);
    }
    if version != VERSION {
        return Err(VERSION_MISMATCH);
    }
    let sample = |sample: nvml::nvmlGpmSample_t| state.gpm.get(&(sample as usize)).copied().flatten();
    let (Some(first), Some(second)) = (sample(samples[0]), sample(samples[1])) else { return Err(INVALID_ARGUMENT) };
    let seconds = second.at - first.at;
    let is_one = (first.unit, first.gpu_instance) == (second.unit, second.gpu_instance);
    if !is_one || seconds <= 0.0 || count > METRICS_MAX {
        return Err(INVALID_ARGUMENT);
    }
    let load = (second.load_seconds - first.load_seconds) / seconds;
    // A driver that was loaded in between has begun anew.
    let load = if load < 0.0 { second.load } else { load };
    Ok(Interval { unit: first.unit, load })
}

fn answer_metric(interval: Interval, metric: &mut nvml::nvmlGpmMetric_t) {
    let id = metric.metricId;
    let call = format!("gpm:{id}");
    let device = Place::gpu(interval.unit).handle();
    let given = library().device(device, &call, None, |state, index| {
        let links = state.units[index].gpu.nvlinks;
        value_of(id, interval, links).map(Metric)
    });
    match given {
        Ok(Metric(value)) => {
            let (name, unit) = name_of(id);
            metric.nvmlReturn = SUCCESS;
            metric.value = value;
            metric.metricInfo.shortName = name.as_ptr().cast_mut();
            metric.metricInfo.longName = name.as_ptr().cast_mut();
            metric.metricInfo.unit = unit.as_ptr().cast_mut();
        }
        Err(code) => {
            metric.nvmlReturn = code;
            metric.value = f64::from_bits(0xdead_beef_dead_beef);
        }
    }
}

/// Mean of a metric: percent, or MiB per second.
fn value_of(id: u32, interval: Interval, links: u32) -> Result<f64, Code> {
    let percent = |share: f64| Ok((100.0 * share * interval.load).min(100.0));
    match id {
        1 => percent(1.0),
        2 => percent(0.93),
        3 => percent(0.41),
        4 => percent(0.12),
        5 => percent(0.62),
        6 => percent(0.0),
        7 => percent(0.62),
        8 | 9 => percent(0.0),
        10 => percent(0.55),
        11 => percent(0.0),
        12 => percent(0.08),
        13 => percent(0.03),
        20 | 21 => Ok(interval.load * 1.1e9 / MIB),
        30..=36 | 40..=46 | 50 => Ok(0.0),
        60 => Ok(interval.load * 9.1e9 * f64::from(links) / MIB),
        61 => Ok(interval.load * 8.7e9 * f64::from(links) / MIB),
        62..=97 if (id - 62) / 2 < links => Ok(interval.load * if id.is_multiple_of(2) { 9.1e9 } else { 8.7e9 } / MIB),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Name and unit of a metric.
fn name_of(id: u32) -> (&'static CStr, &'static CStr) {
    match id {
        1 => (c"Graphics Util", c"%"),
        2 => (c"SM Util", c"%"),
        3 => (c"SM Occupancy", c"%"),
        10 => (c"DRAM BW Util", c"%"),
        20 | 21 | 60.. => (c"Traffic", c"MiB/sec"),
        _ => (c"Util", c"%"),
    }
}

signatures! {
    nvmlGpmMetricsGet
    nvmlGpmMigSampleGet
    nvmlGpmQueryDeviceSupport
    nvmlGpmSampleAlloc
    nvmlGpmSampleFree
    nvmlGpmSampleGet
}
