//! Loading the library, and the library as any C program sees it.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use racklake_collector::source::Source;
use racklake_nvml_sim::Xid;
use racklake_schemas::row_status;

use crate::support::{Node, PATIENCE, discovered, row, source};

#[tokio::test]
async fn a_missing_library_is_named_with_the_remedy() {
    let (source, _events) = source("/nowhere/libnvidia-ml.so.1");
    let error = source.discover().await.unwrap_err();
    assert!(error.message.contains("/nowhere/libnvidia-ml.so.1"), "{error}");
    assert!(error.message.contains("[nvml]"), "{error}");
}

#[tokio::test]
async fn a_library_that_is_another_one_is_refused() {
    let (source, _events) = source("libc.so.6");
    let error = source.discover().await.unwrap_err();
    assert!(error.message.contains("no NVML library"), "{error}");
}

#[tokio::test]
async fn a_driver_that_comes_late_is_used_when_it_comes() {
    let mut node = Node::new("no_driver = true\n");
    let (source, _events) = node.source();
    let error = source.discover().await.unwrap_err();
    assert_eq!(error.code, Some(9), "{error}");
    node.change(|scenario| scenario.no_driver = false);
    assert_eq!(source.discover().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_driver_that_is_reloaded_gets_its_library_loaded_again() {
    let mut node = Node::new("[[gpu]]\ncount = 2\n");
    let (source, _events, found) = discovered(&node).await;
    node.change(|scenario| scenario.no_driver = true);
    let gone = row(&source, &found[0]).await;
    assert_eq!((gone.status(), gone.fail_code()), (row_status::UNREACHABLE, Some(9)));
    assert_eq!(source.discover().await.unwrap_err().code, Some(9));
    assert_eq!(row(&source, &found[0]).await.status(), row_status::UNREACHABLE);
    node.change(|scenario| {
        scenario.no_driver = false;
        scenario.driver_version = "580.95.05".to_owned();
    });
    let again = source.discover().await.unwrap();
    assert_eq!(row(&source, &again[0]).await.status(), row_status::OK);
    let inits = node.account().iter().filter(|answer| answer.call == "nvmlInit_v2" && answer.rc == 0).count();
    let shutdowns = node.account().iter().filter(|answer| answer.call == "nvmlShutdown").count();
    assert_eq!((inits, shutdowns), (2, 1));
}

#[tokio::test]
async fn a_gpu_that_appears_late_is_found_and_its_events_too() {
    let mut node = Node::new("[[gpu]]\n[[gpu]]\nlost = true\n");
    let (source, mut events, found) = discovered(&node).await;
    assert_eq!(found.len(), 1);
    node.change(|scenario| scenario.gpu[1].lost = false);
    let found = source.discover().await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(row(&source, &found[1]).await.status(), row_status::OK);
    node.change(|scenario| scenario.gpu[1].xid = vec![Xid { code: 31, at: None, event_type: 8 }]);
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event").unwrap();
    assert_eq!((event.code, event.address.as_deref()), (Some(31), Some(found[1].address.as_str())));
}

#[test]
fn the_wrapper_reads_and_drops_the_library() {
    let node = Node::new("[[gpu]]\ncount = 2\nfan = \"none\"\n");
    let nvml = Nvml::builder().lib_path(node.library.as_os_str()).init().unwrap();
    let device = nvml.device_by_index(1).unwrap();
    assert_eq!(nvml.device_by_uuid(device.uuid().unwrap()).unwrap().pci_info().unwrap().bus_id, "00000000:43:00.0");
    assert_eq!(nvml.device_by_pci_bus_id("0000:43:00.0").unwrap().serial().unwrap(), device.serial().unwrap());
    assert_eq!(device.memory_info().unwrap().total, 85_520_809_984);
    assert!(matches!(device.fan_speed(0), Err(NvmlError::NotSupported)), "{:?}", device.fan_speed(0));
    drop(nvml.create_event_set().unwrap());
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 12_080);
}

#[test]
#[allow(unsafe_code, reason = "the wrapper cannot be asked to pass a wrong struct")]
fn a_struct_of_another_version_is_refused_with_25() {
    use nvml_wrapper_sys::bindings::{NvmlLib, nvmlDevice_t, nvmlMemory_v2_t};
    let node = Node::new("");
    let path: &OsStr = node.library.as_os_str();
    // SAFETY: the library is ours, and every pointer is to a value of the type that the function writes.
    unsafe {
        let lib = NvmlLib::new(path).unwrap();
        assert_eq!(lib.nvmlDeviceGetCount_v2(&mut 0), 1, "a call before init is refused");
        assert_eq!(lib.nvmlInit_v2(), 0);
        let mut device: nvmlDevice_t = std::ptr::null_mut();
        assert_eq!(lib.nvmlDeviceGetHandleByIndex_v2(0, &mut device), 0);
        let mut memory: nvmlMemory_v2_t = std::mem::zeroed();
        let size = size_of::<nvmlMemory_v2_t>() as u32;
        for (version, code) in [(0, 25), (size | 1 << 24, 25), ((size + 8) | 2 << 24, 25), (size | 2 << 24, 0)] {
            memory.version = version;
            assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(device, &mut memory), code, "{version:#x}");
        }
        let mut name = [0; 96];
        let length = "NVIDIA H100 80GB HBM3".len() as u32;
        assert_eq!(lib.nvmlDeviceGetName(device, name.as_mut_ptr(), length), 7, "no room for the NUL");
        assert_eq!(lib.nvmlDeviceGetName(device, name.as_mut_ptr(), length + 1), 0);
        assert_eq!(lib.nvmlShutdown(), 0);
    }
}

#[test]
fn a_scenario_with_a_mistake_changes_nothing() {
    let node = Node::new("[[gpu]]\ncount = 3\n");
    let nvml = Nvml::builder().lib_path(node.library.as_os_str()).init().unwrap();
    let mut path = node.library.clone().into_os_string();
    path.push(".toml");
    std::fs::write(path, "[[gpu]]\ncuont = 1\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(40));
    assert_eq!(nvml.device_count().unwrap(), 3);
}
