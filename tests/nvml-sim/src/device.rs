//! Exports about one GPU: identity, temperature, power, clocks, load, memory.

use std::ffi::{c_char, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlMemory_st, nvmlMemory_v2_st, nvmlPciInfo_st, nvmlUtilization_st};
use serde_json::{Value, json};

use crate::code;
use crate::state::{Device, answer, handle_of, node, put_text};

/// Memory of the simulated board in bytes.
const MEMORY_TOTAL: u64 = 85_520_809_984;

/// Hands a value out through a pointer.
///
/// # Safety
/// `out` must be valid or null.
unsafe fn hand_out<T>(out: *mut T, result: Result<T, u32>) -> u32 {
    match result {
        Err(rc) => rc,
        Ok(_) if out.is_null() => code::INVALID_ARGUMENT,
        Ok(value) => {
            // SAFETY: not null, and valid by the caller's word.
            unsafe { out.write(value) };
            code::SUCCESS
        }
    }
}

/// A number that is told as it is.
fn plain<T: Copy + Into<Value>>(value: T) -> Result<(T, Value), u32> {
    Ok((value, value.into()))
}

/// Getters of one number: name, type, value.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty = |$device:ident| $value:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `out` must be valid or null.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut $type) -> u32 {
            let result = answer(device, stringify!($name), None, |$device: &mut Device| plain::<$type>($value));
            // SAFETY: passed on from the caller.
            unsafe { hand_out(out, result) }
        }
    )*};
}

numbers! {
    /// Millijoules since the driver loaded.
    nvmlDeviceGetTotalEnergyConsumption: c_ulonglong = |d| d.model.energy();
    /// Milliwatts.
    nvmlDeviceGetPowerUsage: c_uint = |d| d.model.milliwatts();
    /// Milliwatts.
    nvmlDeviceGetEnforcedPowerLimit: c_uint = |d| (d.gpu.limit_watts * 1000.0) as c_uint;
    /// Bits of nvmlClocksEventReasons.
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = |d| d.model.throttle_reasons();
    /// The same under its newer name.
    nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong = |d| d.model.throttle_reasons();
    /// 0 is the highest.
    nvmlDeviceGetPerformanceState: c_uint = |d| d.model.performance_state();
    /// Highest PCIe generation.
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint = |_d| 5;
    /// Lanes.
    nvmlDeviceGetMaxPcieLinkWidth: c_uint = |_d| 16;
    /// NVML's number of the architecture; 9 is Hopper.
    nvmlDeviceGetArchitecture: c_uint = |_d| 9;
    /// How many fans.
    nvmlDeviceGetNumFans: c_uint = |_d| 1;
    /// Position on the node, which changes between boots.
    nvmlDeviceGetIndex: c_uint = |d| d.index;
}

/// Getters of a text: name, value.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = |$device:ident| $value:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `buffer` must hold `length` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: nvmlDevice_t, buffer: *mut c_char, length: c_uint) -> u32 {
            let read = |$device: &mut Device| {
                let text: String = $value;
                let told = Value::from(text.as_str());
                Ok((text, told))
            };
            match answer(device, stringify!($name), None, read) {
                // SAFETY: passed on from the caller.
                Ok(text) => unsafe { put_text(&text, buffer, length) },
                Err(rc) => rc,
            }
        }
    )*};
}

texts! {
    /// Model.
    nvmlDeviceGetName = |d| d.gpu.name.clone();
    /// UUID.
    nvmlDeviceGetUUID = |d| d.uuid();
    /// Serial number.
    nvmlDeviceGetSerial = |d| d.serial();
    /// Part number of the board.
    nvmlDeviceGetBoardPartNumber = |_d| "900-21010-0000-000".to_owned();
    /// Video BIOS.
    nvmlDeviceGetVbiosVersion = |_d| "96.00.99.00.01".to_owned();
    /// InfoROM image.
    nvmlDeviceGetInforomImageVersion = |_d| "G520.0200.00.05".to_owned();
}

/// Temperature in °C; sensor 0 is the GPU.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(device: nvmlDevice_t, sensor: c_uint, out: *mut c_uint) -> u32 {
    let read = |d: &mut Device| if sensor == 0 { plain(d.model.temp()) } else { Err(code::INVALID_ARGUMENT) };
    let result = answer(device, "nvmlDeviceGetTemperature", Some(u64::from(sensor)), read);
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, result) }
}

/// Clock in MHz: 0 graphics, 1 SM, 2 memory, 3 video.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, domain: c_uint, out: *mut c_uint) -> u32 {
    let read = |d: &mut Device| if domain < 4 { plain(d.model.clock(domain)) } else { Err(code::INVALID_ARGUMENT) };
    let result = answer(device, "nvmlDeviceGetClockInfo", Some(u64::from(domain)), read);
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, result) }
}

/// Percent of full speed of one fan.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFanSpeed_v2(device: nvmlDevice_t, fan: c_uint, out: *mut c_uint) -> u32 {
    let read = |d: &mut Device| if fan == 0 { plain(d.model.fan_percent()) } else { Err(code::INVALID_ARGUMENT) };
    let result = answer(device, "nvmlDeviceGetFanSpeed_v2", Some(u64::from(fan)), read);
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, result) }
}

/// Percent of time in which kernels ran, and in which memory was used.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, out: *mut nvmlUtilization_st) -> u32 {
    let read = |d: &mut Device| {
        let (gpu, memory) = if d.gpu.garbage { (808_334_905, 808_334_905) } else { d.model.utilization() };
        Ok((nvmlUtilization_st { gpu, memory }, json!({ "gpu": gpu, "memory": memory })))
    };
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, answer(device, "nvmlDeviceGetUtilizationRates", None, read)) }
}

fn codec_utilization(device: nvmlDevice_t, call: &str) -> Result<(c_uint, c_uint), u32> {
    answer(device, call, None, |d| {
        let load = d.model.utilization().1 / 20;
        Ok(((load, 167_000), json!({ "utilization": load, "period_us": 167_000 })))
    })
}

/// Hands out a load and its sample period.
///
/// # Safety
/// Both pointers must be valid or null.
unsafe fn hand_out_pair(result: Result<(c_uint, c_uint), u32>, load: *mut c_uint, period: *mut c_uint) -> u32 {
    match result {
        // SAFETY: passed on from the caller.
        Ok((percent, us)) => unsafe { hand_out(load, Ok(percent)).max(hand_out(period, Ok(us))) },
        Err(rc) => rc,
    }
}

/// Percent of the video encoder and the sample period in µs.
///
/// # Safety
/// Both pointers must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: nvmlDevice_t,
    load: *mut c_uint,
    period: *mut c_uint,
) -> u32 {
    // SAFETY: passed on from the caller.
    unsafe { hand_out_pair(codec_utilization(device, "nvmlDeviceGetEncoderUtilization"), load, period) }
}

/// Percent of the video decoder and the sample period in µs.
///
/// # Safety
/// Both pointers must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: nvmlDevice_t,
    load: *mut c_uint,
    period: *mut c_uint,
) -> u32 {
    // SAFETY: passed on from the caller.
    unsafe { hand_out_pair(codec_utilization(device, "nvmlDeviceGetDecoderUtilization"), load, period) }
}

/// Memory in bytes.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, out: *mut nvmlMemory_st) -> u32 {
    let read = |d: &mut Device| {
        let used = d.model.memory_used();
        let told = json!({ "total": MEMORY_TOTAL, "used": used });
        Ok((nvmlMemory_st { total: MEMORY_TOTAL, free: MEMORY_TOTAL - used, used }, told))
    };
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, answer(device, "nvmlDeviceGetMemoryInfo", None, read)) }
}

/// Memory in bytes; the caller says the version of the struct.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut nvmlMemory_v2_st) -> u32 {
    const VERSION: u32 = size_of::<nvmlMemory_v2_st>() as u32 | 2 << 24;
    // SAFETY: valid where it is not null.
    match unsafe { out.as_ref() } {
        None => return code::INVALID_ARGUMENT,
        Some(memory) if memory.version != VERSION => return code::ARGUMENT_VERSION_MISMATCH,
        Some(_) => {}
    }
    let read = |d: &mut Device| {
        let (used, reserved) = (d.model.memory_used(), 600 << 20);
        let told = json!({ "total": MEMORY_TOTAL, "used": used });
        let free = MEMORY_TOTAL - used - reserved;
        Ok((nvmlMemory_v2_st { version: VERSION, total: MEMORY_TOTAL, reserved, free, used }, told))
    };
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, answer(device, "nvmlDeviceGetMemoryInfo_v2", None, read)) }
}

/// The PCI address.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, out: *mut nvmlPciInfo_st) -> u32 {
    let read = |d: &mut Device| {
        let bus = d.bus();
        let text = format!("00000000:{bus:02X}:00.0");
        let mut info = nvmlPciInfo_st {
            busIdLegacy: [0; 16],
            domain: 0,
            bus,
            device: 0,
            pciDeviceId: 0x2330_10de,
            pciSubSystemId: 0x16c1_10de,
            busId: [0; 32],
        };
        let put = |buffer: &mut [c_char], text: &str| {
            buffer.iter_mut().zip(text.bytes()).for_each(|(c, byte)| *c = byte as c_char);
        };
        put(&mut info.busId, &text);
        put(&mut info.busIdLegacy, &text[4..]);
        Ok((info, Value::from(text)))
    };
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, answer(device, "nvmlDeviceGetPciInfo_v3", None, read)) }
}

/// The handle of a GPU by its position.
///
/// # Safety
/// `out` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut nvmlDevice_t) -> u32 {
    let known = (index as usize) < node().devices.len();
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, if known { Ok(handle_of(index)) } else { Err(code::INVALID_ARGUMENT) }) }
}

/// The handle of the GPU of which a text is true.
///
/// # Safety
/// `text` must be a C string, `out` valid or null.
unsafe fn handle_by(text: *const c_char, out: *mut nvmlDevice_t, of: impl Fn(&Device) -> String) -> u32 {
    if text.is_null() {
        return code::INVALID_ARGUMENT;
    }
    // SAFETY: not null, and a C string by the caller's word.
    let wanted = unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().to_lowercase();
    let found = node().devices.iter().find(|d| of(d).to_lowercase() == wanted).map(|d| handle_of(d.index));
    // SAFETY: passed on from the caller.
    unsafe { hand_out(out, found.ok_or(code::NOT_FOUND)) }
}

/// The handle of a GPU by its UUID.
///
/// # Safety
/// `uuid` must be a C string, `out` valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut nvmlDevice_t) -> u32 {
    // SAFETY: passed on from the caller.
    unsafe { handle_by(uuid, out, Device::uuid) }
}

/// The handle of a GPU by its PCI address.
///
/// # Safety
/// `address` must be a C string, `out` valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, out: *mut nvmlDevice_t) -> u32 {
    // SAFETY: passed on from the caller.
    unsafe { handle_by(address, out, |d| format!("00000000:{:02X}:00.0", d.bus())) }
}
