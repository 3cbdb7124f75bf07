//! The library as a C program uses it: bare functions, bare return codes.

#![allow(unsafe_code, reason = "what is tested is the C interface")]

use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{NvmlLib, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlFieldValue_t};

use crate::support::Node;

/// What a field answers: return code, value type, the eight bytes of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) code: u32,
    pub(crate) value_type: u32,
    pub(crate) bits: u64,
}

pub(crate) struct Raw {
    pub(crate) lib: NvmlLib,
}

impl Raw {
    /// Loads the library of a node and initialises it.
    pub(crate) fn new(node: &Node) -> Raw {
        // SAFETY: the library is ours.
        let lib = unsafe { NvmlLib::new(node.library.as_os_str()) }.unwrap();
        // SAFETY: takes nothing.
        assert_eq!(unsafe { lib.nvmlInit_v2() }, 0);
        Raw { lib }
    }

    pub(crate) fn gpu(&self, index: u32) -> nvmlDevice_t {
        let mut device = std::ptr::null_mut();
        // SAFETY: the pointer is to a handle.
        assert_eq!(unsafe { self.lib.nvmlDeviceGetHandleByIndex_v2(index, &mut device) }, 0);
        device
    }

    /// The code of a call, and how long it took.
    pub(crate) fn power(&self, device: nvmlDevice_t) -> (u32, Duration) {
        let (began, mut power) = (Instant::now(), 0);
        // SAFETY: the pointer is to a number.
        let code = unsafe { self.lib.nvmlDeviceGetPowerUsage(device, &mut power) };
        (code, began.elapsed())
    }

    pub(crate) fn fields(&self, device: nvmlDevice_t, asked: &[(u32, u32)]) -> Vec<Field> {
        let empty = |(id, scope): &(u32, u32)| {
            // SAFETY: a struct of numbers.
            let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
            (value.fieldId, value.scopeId, value.nvmlReturn) = (*id, *scope, 999);
            value
        };
        let mut values: Vec<nvmlFieldValue_t> = asked.iter().map(empty).collect();
        // SAFETY: there are so many values.
        let code = unsafe { self.lib.nvmlDeviceGetFieldValues(device, values.len() as i32, values.as_mut_ptr()) };
        assert_eq!(code, 0);
        // SAFETY: every member of the union has its bytes among the eight.
        let field = |v: &nvmlFieldValue_t| Field {
            code: v.nvmlReturn,
            value_type: v.valueType,
            bits: unsafe { v.value.ullVal },
        };
        values.iter().map(field).collect()
    }

    pub(crate) fn field(&self, device: nvmlDevice_t, id: u32, scope: u32) -> Field {
        self.fields(device, &[(id, scope)])[0]
    }

    /// A set that has asked for all events of a GPU.
    pub(crate) fn events(&self, device: nvmlDevice_t) -> nvmlEventSet_t {
        let mut set = std::ptr::null_mut();
        // SAFETY: the pointer is to a set.
        unsafe {
            assert_eq!(self.lib.nvmlEventSetCreate(&mut set), 0);
            assert_eq!(self.lib.nvmlDeviceRegisterEvents(device, 0xff9f, set), 0);
        }
        set
    }

    /// The next event's type and data; none where none comes in time.
    pub(crate) fn event(&self, set: nvmlEventSet_t, timeout_ms: u32) -> Option<nvmlEventData_t> {
        // SAFETY: a struct of numbers and a handle; the pointer is to it.
        unsafe {
            let mut data: nvmlEventData_t = std::mem::zeroed();
            (self.lib.nvmlEventSetWait_v2(set, &mut data, timeout_ms) == 0).then_some(data)
        }
    }

    /// A number of a call that takes a device and gives an `unsigned int`.
    pub(crate) fn number(&self, call: &str, device: nvmlDevice_t) -> (u32, u32) {
        let lib = &self.lib;
        let function = match call {
            "pcie width" => lib.nvmlDeviceGetCurrPcieLinkWidth.as_ref(),
            "is MIG" => lib.nvmlDeviceIsMigDeviceHandle.as_ref(),
            "GPU instance" => lib.nvmlDeviceGetGpuInstanceId.as_ref(),
            _ => panic!("{call}"),
        };
        let mut number = 0;
        // SAFETY: the pointer is to a number.
        (unsafe { function.unwrap()(device, &mut number) }, number)
    }
}
