//! The state of one loaded copy: its scenario, its GPUs, and the one way in which every answer is given.

use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::nvmlDevice_t;
use serde_json::Value;

use crate::account::{self, Answer};
use crate::code;
use crate::model::{Model, mix};
use crate::scenario::{Gpu, Scenario};

/// How often the scenario file is looked at.
const SCENARIO_CHECK: Duration = Duration::from_millis(20);

/// One GPU: what the scenario says, who it is, and how it is.
pub(crate) struct Device {
    pub(crate) gpu: Gpu,
    pub(crate) index: u32,
    pub(crate) seed: u64,
    pub(crate) model: Model,
    /// XIDs delivered so far.
    pub(crate) xids_told: usize,
}

/// Everything that changes.
pub(crate) struct Node {
    pub(crate) scenario: Scenario,
    pub(crate) devices: Vec<Device>,
    text: String,
    account: Option<(String, File)>,
    answers: u64,
    looked: Instant,
    loaded: Instant,
    library: PathBuf,
}

/// The node of this copy of the library.
pub(crate) fn node() -> MutexGuard<'static, Node> {
    static NODE: OnceLock<Mutex<Node>> = OnceLock::new();
    let mut node = NODE.get_or_init(|| Mutex::new(Node::load())).lock().unwrap_or_else(PoisonError::into_inner);
    node.look();
    node
}

/// The file that this code was loaded from.
fn library_file() -> PathBuf {
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let here = library_file as *const () as *const libc::c_void;
    // SAFETY: `info` outlives the call, and a name that dladdr gives lives as long as the library.
    unsafe {
        if libc::dladdr(here, &mut info) != 0 && !info.dli_fname.is_null() {
            return PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes()));
        }
    }
    PathBuf::new()
}

impl Node {
    fn load() -> Node {
        let mut node = Node {
            scenario: Scenario { gpu: Vec::new(), ..Scenario::default() },
            devices: Vec::new(),
            text: String::from("\0"), // differs from any file's content
            account: None,
            answers: 0,
            looked: Instant::now(),
            loaded: Instant::now(),
            library: library_file(),
        };
        node.read_scenario();
        node
    }

    fn look(&mut self) {
        if self.looked.elapsed() >= SCENARIO_CHECK {
            self.looked = Instant::now();
            self.read_scenario();
        }
    }

    /// Takes over the file where it has changed; one that cannot be read changes nothing.
    fn read_scenario(&mut self) {
        let mut path = self.library.clone().into_os_string();
        path.push(".toml");
        let text = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
        if text == self.text {
            return;
        }
        if let Ok(scenario) = Scenario::parse(&text) {
            self.adopt(scenario);
        }
        self.text = text;
    }

    fn adopt(&mut self, scenario: Scenario) {
        let identity = self.library.as_os_str().as_bytes().iter().fold(scenario.seed, |h, b| mix(h ^ u64::from(*b)));
        for (index, gpu) in scenario.gpus().into_iter().enumerate() {
            match self.devices.get_mut(index) {
                Some(device) => device.gpu = gpu,
                None => {
                    let seed = mix(identity ^ (index as u64 + 1));
                    let model = Model::new(seed);
                    self.devices.push(Device { gpu, index: index as u32, seed, model, xids_told: 0 });
                }
            }
        }
        self.devices.truncate(scenario.gpus().len());
        if let Some(name) = &scenario.account
            && self.account.as_ref().is_none_or(|(open, _)| open != name)
        {
            let path = self.library.parent().unwrap_or(Path::new("")).join(name);
            let file = OpenOptions::new().create(true).append(true).open(path);
            self.account = file.ok().map(|file| (name.clone(), file));
        }
        self.scenario = scenario;
    }

    /// Writes an answer down. To be called before the value is handed out.
    pub(crate) fn tell(&mut self, device: Option<String>, call: &str, arg: Option<u64>, rc: u32, value: Value) {
        self.answers += 1;
        if let Some((_, file)) = &self.account {
            let (us, n, thread) = (account::now_us(), self.answers, account::thread());
            account::write(file, &Answer { us, device, call: call.to_owned(), arg, n, thread, rc, value });
        }
    }
}

impl Device {
    pub(crate) fn uuid(&self) -> String {
        let (a, b) = (mix(self.seed), mix(self.seed ^ 0xff));
        format!(
            "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }

    pub(crate) fn serial(&self) -> String {
        format!("16{:011}", mix(self.seed ^ 0x5e71a1) % 100_000_000_000)
    }

    /// The PCI bus, one per GPU.
    pub(crate) fn bus(&self) -> u32 {
        0x1b + 0x10 * (self.index % 14) + self.index / 14
    }
}

/// A handle is the index plus one, so that null is none.
pub(crate) fn handle_of(index: u32) -> nvmlDevice_t {
    std::ptr::without_provenance_mut(index as usize + 1)
}

/// What a fault makes of a call.
enum Fault {
    None,
    Code(u32),
    Hang,
}

fn fault_of(node: &Node, device: &Device, call: &str) -> Fault {
    // A field is `field:<id>:<scope>`; the scenario names it without the scope.
    let name = if call.starts_with("field:") { call.rsplit_once(':').map_or(call, |(field, _)| field) } else { call };
    if device.gpu.hang.contains(name) {
        return Fault::Hang;
    }
    let gpu = &device.gpu;
    match () {
        () if gpu.lost => Fault::Code(code::GPU_IS_LOST),
        () if node.scenario.no_permission => Fault::Code(code::NO_PERMISSION),
        () if gpu.unsupported.contains(name) => Fault::Code(code::NOT_SUPPORTED),
        () => gpu.fail.get(name).map_or(Fault::None, |rc| Fault::Code(*rc)),
    }
}

/// Answers a call about a device: faults first, then the value that `read` gives, told before it is returned.
pub(crate) fn answer<T>(
    handle: nvmlDevice_t,
    call: &str,
    arg: Option<u64>,
    read: impl Fn(&mut Device) -> Result<(T, Value), u32>,
) -> Result<T, u32> {
    loop {
        let latency = {
            let node = node();
            let Some(index) = handle.addr().checked_sub(1).filter(|i| *i < node.devices.len()) else {
                return Err(code::INVALID_ARGUMENT);
            };
            match fault_of(&node, &node.devices[index], call) {
                Fault::Hang => Duration::from_millis(20),
                fault => return finish(node, index, call, arg, fault, read),
            }
        };
        std::thread::sleep(latency); // hung: until the scenario lets it go
    }
}

fn finish<T>(
    mut node: MutexGuard<'_, Node>,
    index: usize,
    call: &str,
    arg: Option<u64>,
    fault: Fault,
    read: impl Fn(&mut Device) -> Result<(T, Value), u32>,
) -> Result<T, u32> {
    let latency = node.devices[index].gpu.latency_ms;
    if latency > 0 {
        drop(node);
        std::thread::sleep(Duration::from_millis(latency));
        node = self::node();
        if index >= node.devices.len() {
            return Err(code::INVALID_ARGUMENT);
        }
    }
    let time = node.loaded.elapsed();
    let device = &mut node.devices[index];
    let gpu = device.gpu.clone();
    device.model.advance(&gpu, time);
    let result = match fault {
        Fault::Code(rc) => Err(rc),
        _ => read(device),
    };
    let uuid = Some(device.uuid());
    match result {
        Ok((value, told)) => {
            node.tell(uuid, call, arg, code::SUCCESS, told);
            Ok(value)
        }
        Err(rc) => {
            node.tell(uuid, call, arg, rc, Value::Null);
            Err(rc)
        }
    }
}

/// Copies a text with its NUL into a C buffer.
///
/// # Safety
/// `buffer` must hold `length` bytes.
pub(crate) unsafe fn put_text(text: &str, buffer: *mut std::ffi::c_char, length: u32) -> u32 {
    if buffer.is_null() {
        return code::INVALID_ARGUMENT;
    }
    if text.len() + 1 > length as usize {
        return code::INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller's buffer holds `length` bytes, which is more than the text and its NUL.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        *buffer.add(text.len()) = 0;
    }
    code::SUCCESS
}
