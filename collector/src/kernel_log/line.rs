//! Reads lines of the kernel log and says what they tell about a GPU or an NVSwitch.
//!
//! The text of NVIDIA's driver is no interface: it drifts from one version to the next. So the frame of a line (who, where,
//! which code) decides whether it is an event, and whatever else is recognised is taken along; what is not stays in the
//! text. Nothing is looked up here.

use super::words;

/// Longest line that is kept, bytes.
const LINE_MAX: usize = 4096;
/// A GPU that is named on a line of its own is what the next lines are about, this many.
const LINES_AFTER_NAME: u8 = 3;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// An error of a GPU with a code.
    #[default]
    Xid,
    /// An error of an NVSwitch with a code.
    SwitchXid,
    /// A GPU that does not answer on PCIe any more, told without a code.
    FellOffTheBus,
    /// The driver was loaded: counters of all GPUs begin anew.
    DriverLoaded,
}

impl Kind {
    /// Name in the column `event`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Xid => "xid",
            Kind::SwitchXid => "sxid",
            Kind::FellOffTheBus => "gpu_fell_off_the_bus",
            Kind::DriverLoaded => "driver_loaded",
        }
    }
}

/// What a line tells. Whatever the line does not say is `None` or empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GpuEvent {
    pub(crate) kind: Kind,
    /// XID or SXid.
    pub(crate) code: Option<i64>,
    /// Sub-code of an NVLink 5 error (XID 144 to 150), bits 20 to 25 of its first register.
    pub(crate) sub_code: Option<i64>,
    /// `0000:9b:00.0`, or `0000:9b:00` where the line gives no function.
    pub(crate) pci_bus_id: Option<String>,
    pub(crate) pid: Option<i64>,
    /// Name of the process.
    pub(crate) process: Option<String>,
    /// Unit of an NVLink 5 error: `RLW_REMAP`.
    pub(crate) unit: Option<String>,
    /// Whether the error is called fatal.
    pub(crate) fatal: Option<bool>,
    /// NVLink.
    pub(crate) link: Option<i64>,
    /// Channel, as printed.
    pub(crate) channel: Option<String>,
    /// Where an access faulted, as printed.
    pub(crate) fault_address: Option<String>,
    /// Recovery action before and after, of XID 154.
    pub(crate) recovery_action: Option<(i64, i64)>,
    /// Registers and data words, as printed; `0x504730=0x10e` where they have an address.
    pub(crate) registers: Vec<String>,
    /// MIG instances.
    pub(crate) gpu_instance: Option<i64>,
    pub(crate) compute_instance: Option<i64>,
    /// NVSwitch: `nvidia-nvswitch3`.
    pub(crate) switch: Option<String>,
    pub(crate) driver_version: Option<String>,
    /// What follows code, pid and name.
    pub(crate) text: String,
    /// The line without what the log puts before it.
    pub(crate) message: String,
}

/// Reads lines one after another; it remembers a GPU that was named on a line of its own.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    named: Option<Named>,
}

#[derive(Debug)]
struct Named {
    pci_bus_id: Option<String>,
    message: String,
    lines_left: u8,
}

impl Parser {
    /// What a line tells; `None` where it is about no GPU, or no event.
    pub(crate) fn parse(&mut self, line: &str) -> Option<GpuEvent> {
        let line = words::shortened(line.trim_end(), LINE_MAX);
        xid(line).or_else(|| switch_xid(line)).or_else(|| self.fell_off_the_bus(line)).or_else(|| driver_loaded(line))
    }

    /// On one line, or on up to three of which the first names the GPU:
    ///
    /// `NVRM: The NVIDIA GPU 0000:0a:00.0`, `NVRM: (PCI ID: 10de:2330) installed in this system has`,
    /// `NVRM: fallen off the bus and is not responding to commands.`
    fn fell_off_the_bus(&mut self, line: &str) -> Option<GpuEvent> {
        let start = line.find("NVRM: ")?;
        let message = &line[start..];
        let named = self.named.take();
        let here = message.split_whitespace().find_map(words::pci_address);
        let text = message.trim_start_matches("NVRM: ");
        if message.contains("fallen off the bus") {
            let (before, pci_bus_id) = match named {
                Some(named) if here.is_none() => (Some(named.message), named.pci_bus_id),
                _ => (None, here),
            };
            let text = text.to_owned();
            let message = before.map_or_else(|| message.to_owned(), |before| format!("{before} {text}"));
            return Some(GpuEvent { kind: Kind::FellOffTheBus, pci_bus_id, text, message, ..GpuEvent::default() });
        }
        self.named = if message.starts_with("NVRM: The NVIDIA GPU ") {
            Some(Named { pci_bus_id: here, message: message.to_owned(), lines_left: LINES_AFTER_NAME })
        } else {
            named.filter(|named| named.lines_left > 1).map(|named| Named {
                message: format!("{} {text}", named.message),
                lines_left: named.lines_left - 1,
                ..named
            })
        };
        None
    }
}

/// `NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, name=a, Contained: CE User Channel (0x9). RST: No, D-RST: No`.
fn xid(line: &str) -> Option<GpuEvent> {
    const MARK: &str = "NVRM: Xid (";
    let message = &line[line.find(MARK)?..];
    let (place, rest) = message[MARK.len()..].split_once(')')?;
    let (code, rest) = words::code(rest)?;
    let mut event = GpuEvent { code: Some(code), message: message.to_owned(), ..GpuEvent::default() };
    for word in place.split_whitespace() {
        match word.split_once(':') {
            Some(("GPU-I", number)) => event.gpu_instance = number.parse().ok(),
            Some(("GPU-CI", number)) => event.compute_instance = number.parse().ok(),
            _ => event.pci_bus_id = event.pci_bus_id.take().or_else(|| words::pci_address(word)),
        }
    }
    let (pid, rest) = words::field(rest, "pid=");
    let (name, rest) = words::field(rest, "name=");
    event.pid = pid.and_then(|pid| pid.parse().ok());
    event.process = name.filter(|name| !name.is_empty() && !name.contains("<unknown>")).map(str::to_owned);
    event.text = rest.to_owned();
    event.channel = words::channel(rest);
    event.registers = words::registers(rest);
    match code {
        31 => event.fault_address = words::after(rest, "@").map(str::to_owned),
        74 => event.link = words::link(rest),
        144..=150 => nvlink5(&mut event, rest),
        154 => event.recovery_action = words::hex_after(rest, "from").zip(words::hex_after(rest, "to")),
        _ => {}
    }
    Some(event)
}

/// `NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 ...)`.
fn nvlink5(event: &mut GpuEvent, text: &str) {
    let mut parts = text.split_whitespace();
    let unit = parts.next().filter(|unit| unit.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    event.unit = unit.map(str::to_owned);
    event.fatal = parts.next().and_then(words::fatal);
    event.link = words::link(text);
    event.sub_code = event.registers.first().and_then(|word| words::hex(word)).map(|info| (info >> 20) & 0x3f);
}

/// `nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO (First)`.
fn switch_xid(line: &str) -> Option<GpuEvent> {
    const MARK: &str = ": SXid (";
    let mark = line.find(MARK)?;
    let start = line[..mark].rfind(char::is_whitespace).map_or(0, |space| space + 1);
    let switch = line.get(start..mark)?;
    let (place, rest) = line[mark + MARK.len()..].split_once(')')?;
    let (code, rest) = words::code(rest)?;
    Some(GpuEvent {
        kind: Kind::SwitchXid,
        code: Some(code),
        pci_bus_id: words::pci_address(place),
        fatal: rest.split(',').next().and_then(words::fatal),
        link: words::link(rest),
        registers: words::registers(rest),
        switch: (!switch.is_empty()).then(|| switch.to_owned()),
        text: rest.to_owned(),
        message: line.get(start..)?.to_owned(),
        ..GpuEvent::default()
    })
}

/// `NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build`.
fn driver_loaded(line: &str) -> Option<GpuEvent> {
    const MARK: &str = "NVRM: loading NVIDIA";
    let message = &line[line.find(MARK)?..];
    let is_version = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    Some(GpuEvent {
        kind: Kind::DriverLoaded,
        driver_version: message.split_whitespace().find(is_version).map(str::to_owned),
        text: message.trim_start_matches("NVRM: ").to_owned(),
        message: message.to_owned(),
        ..GpuEvent::default()
    })
}

#[cfg(test)]
mod tests;
