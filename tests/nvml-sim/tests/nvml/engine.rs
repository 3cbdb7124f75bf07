//! What a scenario plans happens, at its time and nowhere else.

#![allow(unsafe_code, reason = "what is tested is the C interface")]

use std::time::{Duration, Instant};

use racklake_nvml_sim::{Counter, Link, Xid};

use crate::raw::Raw;
use crate::support::{Node, PATIENCE};

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_storm_slows_the_calls_of_its_gpu_and_raises_its_counters() {
    let node = Node::new(
        "[[gpu]]\nstorm = { at = 0.5, corrected_per_second = 10000.0, latency_ms = 250, rise_seconds = 0.2 }\n[[gpu]]\n",
    );
    let raw = Raw::new(&node);
    let (gpu, other) = (raw.gpu(0), raw.gpu(1));
    let corrected = |device| raw.field(device, 3, 0).bits;
    assert_eq!(corrected(gpu), 0);
    let quiet = raw.power(gpu).1;
    let set = raw.events(gpu);
    let event = raw.event(set, 5000).expect("the storm is told");
    assert_eq!((event.eventType, event.device), (0x200, gpu));
    std::thread::sleep(Duration::from_millis(250));
    let slow = raw.power(gpu).1;
    assert!(slow >= Duration::from_millis(240) && slow > quiet * 2, "{quiet:?} and then {slow:?}");
    assert!(raw.power(other).1 < slow / 2, "another GPU is slow");
    let first = corrected(gpu);
    let second = corrected(gpu);
    // A batch of fields is slow once, and meanwhile errors come.
    assert!(first > 0 && second >= first + 2000, "{first}, {second}");
    assert_eq!((corrected(other), raw.field(gpu, 4, 0).bits), (0, 0));
}

#[test]
fn a_gpu_is_lost_at_its_time_and_comes_back() {
    let node = Node::new(
        "[[gpu]]\n[[gpu.change]]\nat = 0.4\nlost = true\n[[gpu.change]]\nat = 0.8\nlost = false\nreset_required = true\n\
         [[gpu.change]]\nat = 1.2\nreset_required = false\n[[gpu]]\n",
    );
    let raw = Raw::new(&node);
    let (gpu, other) = (raw.gpu(0), raw.gpu(1));
    let mut codes = Vec::new();
    until("the GPU comes back", || {
        let code = raw.power(gpu).0;
        if codes.last() != Some(&code) {
            codes.push(code);
        }
        assert_eq!(raw.power(other).0, 0);
        codes.len() == 4
    });
    assert_eq!(codes, [0, 15, 16, 0]);
}

#[test]
fn an_upgraded_driver_numbers_its_fields_anew_and_forgets_what_it_counted() {
    let mut node = Node::new("[[gpu]]\ncounters = { dram_corrected = 40, pcie_replay = 7 }\n");
    let raw = Raw::new(&node);
    let gpu = raw.gpu(0);
    // ECC since the driver was loaded and ever; PCIe replays; heat's time by its old and its new number.
    let asked = [(3, 0), (5, 0), (94, 0), (251, 0), (269, 0), (301, 0)];
    let codes = || raw.fields(gpu, &asked).iter().map(|field| field.code).collect::<Vec<_>>();
    let counts = || raw.fields(gpu, &asked[..3]).iter().map(|field| field.bits as u32).collect::<Vec<_>>();
    assert_eq!((codes(), counts()), (vec![0, 0, 0, 0, 3, 3], vec![40, 40, 7]));
    node.change(|scenario| scenario.no_driver = true);
    assert_eq!(raw.power(gpu).0, 9);
    node.change(|scenario| {
        scenario.no_driver = false;
        scenario.driver_version = "580.95.05".to_owned();
    });
    assert_eq!((codes(), counts()), (vec![0, 0, 0, 3, 0, 0], vec![0, 40, 0]));
    // What is planted later is added to both.
    node.change(|scenario| *scenario.gpu[0].counters.entry(Counter::DramCorrected).or_default() = 45.0);
    assert_eq!(counts(), [5, 45, 0]);
}

#[test]
fn a_call_that_inits_hangs_until_it_may_not() {
    let mut node = Node::new("hang = [\"nvmlInit_v2\"]\nfail = { nvmlDeviceGetCount_v2 = 999 }\n");
    let library = node.library.clone();
    let init = std::thread::spawn(move || {
        // SAFETY: the library is ours, and the pointer is to a number.
        unsafe {
            let lib = nvml_wrapper_sys::bindings::NvmlLib::new(library.as_os_str()).unwrap();
            (lib.nvmlInit_v2(), lib.nvmlDeviceGetCount_v2(&mut 0))
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!init.is_finished(), "the hang is none");
    node.change(|scenario| scenario.hang.clear());
    until("the call comes back", || init.is_finished());
    assert_eq!(init.join().unwrap(), (0, 999));
}

#[test]
fn a_library_that_is_loaded_again_goes_on_where_the_scenario_is() {
    let began = racklake_schemas::clock::Clock::now_us() - 100_000_000;
    let node = Node::new(&format!(
        "began_us = {began}\n[[gpu]]\nper_hour = {{ dram_corrected = 3600.0 }}\nxid = [{{ code = 48, at = 3.0 }}]\n\
         [[gpu.change]]\nat = 40\nper_hour = {{ dram_corrected = 0.0 }}\nrecovery_action = 1\n[[gpu]]\n"
    ));
    let raw = Raw::new(&node);
    let gpu = raw.gpu(0);
    assert_eq!((raw.field(gpu, 3, 0).bits, raw.field(gpu, 230, 0).bits as u32), (40, 1));
    let set = raw.events(gpu);
    assert!(raw.event(set, 50).is_none(), "an event of long ago");
}

#[test]
fn links_decay_one_by_one() {
    let mut node = Node::new(
        "[[gpu]]\n[[gpu.link]]\nlink = 3\ncounters = { nvlink_replay = 5.0 }\nper_hour = { nvlink_crc_flit = 36000000.0 }\n\
         [[gpu]]\nnvlinks = 0\n",
    );
    let raw = Raw::new(&node);
    let gpu = raw.gpu(0);
    let fields = |link| raw.fields(gpu, &[(161, link), (163, link), (164, link), (165, link)]);
    until("errors come", || fields(3)[1].bits > 100);
    assert_eq!((fields(3)[0].bits, fields(4)[0].bits, fields(4)[1].bits), (5, 0, 0));
    assert_eq!((fields(3)[2].bits as u32, fields(3)[3].bits as u32), (26_562, 1));
    assert_eq!((raw.field(gpu, 165, 18).code, raw.field(raw.gpu(1), 165, 0).code), (2, 3));
    node.change(|scenario| {
        scenario.gpu[0].link.push(Link { link: 4, down: true, ..Link::default() });
        scenario.gpu[0].pcie = [5, 8];
    });
    assert_eq!((fields(4)[2].bits as u32, fields(4)[3].bits as u32), (0, 0));
    assert_eq!(raw.number("pcie width", gpu), (0, 8));
    let replays = |link, counter| {
        let mut count = 0;
        // SAFETY: the pointer is to a number.
        let code = unsafe { raw.lib.nvmlDeviceGetNvLinkErrorCounter(gpu, link, counter, &mut count) };
        (code, count)
    };
    assert_eq!((replays(3, 0), replays(3, 9)), ((0, 5), (2, 0)));
}

#[test]
fn a_lower_limit_holds_power_and_time_back() {
    let mut node = Node::new("[[gpu]]\nworkload = \"steady\"\n");
    let raw = Raw::new(&node);
    let gpu = raw.gpu(0);
    let reasons = || {
        let mut reasons = 0;
        // SAFETY: the pointer is to a number.
        assert_eq!(unsafe { raw.lib.nvmlDeviceGetCurrentClocksEventReasons(gpu, &mut reasons) }, 0);
        reasons
    };
    until("there is load", || reasons() == 0);
    let held = raw.field(gpu, 74, 0).bits;
    node.change(|scenario| scenario.gpu[0].power_limit_watts = Some(250.0));
    until("the limit is felt", || reasons() == 4);
    until("its time is counted", || raw.field(gpu, 74, 0).bits > held);
    assert_eq!(raw.field(gpu, 190, 0).bits as u32, 250_000);
    node.change(|scenario| scenario.gpu[0].power_limit_watts = None);
    until("the limit is gone", || reasons() == 0);
}

#[test]
fn an_instance_of_mig_has_its_own_name_and_memory_and_no_power() {
    let mut node = Node::new(
        "[[gpu]]\n[[gpu.mig]]\ngpu_instance = 7\n[[gpu.mig]]\ngpu_instance = 9\nmemory_mb = 40192\nslices = 3\n[[gpu]]\n",
    );
    let raw = Raw::new(&node);
    let (gpu, whole) = (raw.gpu(0), raw.gpu(1));
    // SAFETY: all pointers are to values of the types that the functions write.
    unsafe {
        let (mut current, mut pending, mut mig) = (0, 0, std::ptr::null_mut());
        assert_eq!((raw.lib.nvmlDeviceGetMigMode(gpu, &mut current, &mut pending), current, pending), (0, 1, 1));
        assert_eq!((raw.lib.nvmlDeviceGetMigMode(whole, &mut current, &mut pending), current, pending), (0, 0, 0));
        assert_eq!(raw.lib.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 2, &mut mig), 6);
        assert_eq!(raw.lib.nvmlDeviceGetMigDeviceHandleByIndex(whole, 0, &mut mig), 6);
        assert_eq!(raw.lib.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 1, &mut mig), 0);
        assert_eq!((raw.number("is MIG", mig), raw.number("is MIG", gpu)), ((0, 1), (0, 0)));
        assert_eq!((raw.number("GPU instance", mig), raw.number("GPU instance", gpu).0), ((0, 9), 2));
        let mut parent = std::ptr::null_mut();
        assert_eq!((raw.lib.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig, &mut parent), parent), (0, gpu));
        let mut memory = nvml_wrapper_sys::bindings::nvmlMemory_st { total: 0, free: 0, used: 0 };
        assert_eq!((raw.lib.nvmlDeviceGetMemoryInfo(mig, &mut memory), memory.total), (0, 40_192 << 20));
        let mut rates = nvml_wrapper_sys::bindings::nvmlUtilization_st { gpu: 0, memory: 0 };
        assert_eq!(raw.lib.nvmlDeviceGetUtilizationRates(gpu, &mut rates), 3, "a divided GPU has no utilization");
        assert_eq!((raw.power(mig).0, raw.power(gpu).0), (3, 0));
    }
    // An instance that is gone leaves a handle of nothing; the other keeps its own.
    let (mut first, mut second) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: both pointers are to handles.
    unsafe {
        assert_eq!(raw.lib.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0, &mut first), 0);
        assert_eq!(raw.lib.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 1, &mut second), 0);
    }
    node.change(|scenario| drop(scenario.gpu[0].mig.remove(0)));
    assert_eq!((raw.number("GPU instance", first).0, raw.number("GPU instance", second)), (2, (0, 9)));
    let names: Vec<_> = node.account().into_iter().filter_map(|answer| answer.device).collect();
    assert!(names.iter().any(|name| name.starts_with("MIG-")), "{names:?}");
}

#[test]
fn a_question_for_the_size_gets_7_and_then_the_data() {
    let node = Node::new(
        "[[gpu]]\nprocesses = 3\narchitecture = \"volta\"\ncounters = { retired_uncorrected = 2 }\n[[gpu]]\nprocesses = 0\n",
    );
    let raw = Raw::new(&node);
    let gpu = raw.gpu(0);
    // SAFETY: all pointers are to as many values as are told, or null.
    unsafe {
        let (mut count, null) = (0, std::ptr::null_mut());
        assert_eq!((raw.lib.nvmlDeviceGetComputeRunningProcesses_v3(gpu, &mut count, null), count), (7, 3));
        let mut processes: [nvml_wrapper_sys::bindings::nvmlProcessInfo_t; 3] = std::mem::zeroed();
        let code = raw.lib.nvmlDeviceGetComputeRunningProcesses_v3(gpu, &mut count, processes.as_mut_ptr());
        assert_eq!((code, count, processes[2].pid), (0, 3, 40_002));
        count = 9;
        assert_eq!((raw.lib.nvmlDeviceGetComputeRunningProcesses_v3(raw.gpu(1), &mut count, null), count), (0, 0));
        let mut pages = 0;
        assert_eq!((raw.lib.nvmlDeviceGetRetiredPages(gpu, 1, &mut pages, std::ptr::null_mut()), pages), (7, 2));
        let (mut addresses, mut times) = ([0; 2], [0; 2]);
        let code = raw.lib.nvmlDeviceGetRetiredPages_v2(gpu, 1, &mut pages, addresses.as_mut_ptr(), times.as_mut_ptr());
        assert_eq!((code, pages), (0, 2));
        assert!(addresses[0] != addresses[1] && times[1] > 0);
    }
}

#[test]
fn a_refused_field_leaves_rubbish_behind() {
    let node = Node::new("[[gpu]]\nfail = { \"field:82\" = 999 }\n");
    let raw = Raw::new(&node);
    let fields = raw.fields(raw.gpu(0), &[(82, 0), (194, 0), (186, 3)]);
    assert_eq!((fields[0].code, fields[0].bits), (999, 0xdead_beef_dead_beef));
    assert_eq!((fields[1].code, fields[1].value_type, fields[1].bits as u32 as i32), (0, 5, -2));
    assert_eq!(fields[2].code, 3);
}

#[test]
fn a_recording_of_a_gpu_says_how_it_answers() {
    let node = Node::new("[[gpu]]\nprofile = \"h100.json\"\n[[gpu]]\n");
    let recording = r#"{ "model": "NVIDIA H100 80GB HBM3", "invented": true, "answers": [
        { "call": "nvmlDeviceGetPowerUsage", "rc": 0, "latency_us": 120000 },
        { "call": "field:82:0", "rc": 0, "value_type": 3, "latency_us": 0 },
        { "call": "field:83:0", "rc": 3, "latency_us": 0 } ] }"#;
    std::fs::write(node.folder.path().join("h100.json"), recording).unwrap();
    let raw = Raw::new(&node);
    let (gpu, other) = (raw.gpu(0), raw.gpu(1));
    let (slow, quick) = (raw.power(gpu).1, raw.power(other).1);
    assert!(slow >= Duration::from_millis(120) && quick < slow / 2, "{slow:?}, {quick:?}");
    let fields =
        |device| raw.fields(device, &[(82, 0), (83, 0)]).iter().map(|f| (f.code, f.value_type)).collect::<Vec<_>>();
    assert_eq!((fields(gpu)[0], fields(gpu)[1].0), ((0, 3), 3));
    assert_eq!(fields(other), [(0, 1), (0, 3)]);
}

#[test]
fn an_action_that_becomes_due_is_told_once() {
    let mut node = Node::new("[[gpu]]\n");
    let raw = Raw::new(&node);
    let set = raw.events(raw.gpu(0));
    node.change(|scenario| scenario.gpu[0].recovery_action = 4);
    assert_eq!(raw.event(set, 5000).map(|event| (event.eventType, event.eventData)), Some((0x8000, 4)));
    node.change(|scenario| scenario.gpu[0].latency_ms = 1);
    assert!(raw.event(set, 50).is_none());
}

#[test]
fn an_xid_without_a_kernel_log_is_told_by_nvml_alone() {
    let mut node = Node::new("[[gpu]]\n");
    let raw = Raw::new(&node);
    let set = raw.events(raw.gpu(0));
    node.change(|scenario| scenario.gpu[0].xid.push(Xid { code: 48, at: None, event_type: 8 }));
    assert_eq!(raw.event(set, 5000).map(|event| event.eventData), Some(48));
    assert!(raw.event(set, 50).is_none());
}
