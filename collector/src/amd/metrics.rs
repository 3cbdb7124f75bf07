//! The driver's `gpu_metrics`: one binary table per GPU, whose layout follows from the two revisions in its header.
//!
//! A layout is data: where each quantity lies and how wide it is. A table is taken only where revisions and size are those
//! of a known layout; of any other one nothing is guessed. The driver fills what it does not know with ones.

use racklake_schemas::fail_code;

use crate::sysfs::{Answer, Trouble};

/// What begins every table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of the table, as it says itself.
    pub(super) size: u16,
    /// Revision of the kind of table: 1 are discrete GPUs, 2 and 3 are those within a CPU.
    pub(super) format: u8,
    /// Revision of the content.
    pub(super) content: u8,
}

/// A quantity of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    /// °C.
    EdgeTemp,
    /// °C.
    HotspotTemp,
    /// °C.
    MemoryTemp,
    /// W.
    Power,
    /// Percent.
    GraphicsActivity,
    /// Percent.
    MemoryActivity,
    /// 2^-16 J.
    Energy,
    /// MHz; of the first die where there are several.
    GraphicsClock,
    /// MHz.
    MemoryClock,
    /// MHz.
    VideoClock,
    ThrottleStatus,
    /// The same in bits that mean the same on all GPUs.
    IndependentThrottleStatus,
    ResidencyTicks,
    ProchotTicks,
    PowerTicks,
    SocketThermalTicks,
    RegulatorThermalTicks,
    MemoryThermalTicks,
    /// Lanes.
    PcieWidth,
    /// 0.1 GT/s.
    PcieSpeed,
    PcieRecoveries,
    PcieReplays,
    PcieReplayRollovers,
    PcieNaksSent,
    PcieNaksReceived,
}

use Quantity as Q;

/// Where a quantity lies: offset and bytes.
type Field = (Quantity, u16, u8);

struct Layout {
    content: u8,
    size: u16,
    fields: &'static [Field],
}

/// Format 1. The size of a table is that of the C structure, with the padding at its end.
const LAYOUTS: [Layout; 9] = [
    Layout { content: 0, size: 80, fields: V1_0 },
    Layout { content: 1, size: 96, fields: V1_1 },
    Layout { content: 2, size: 104, fields: V1_1 },
    Layout { content: 3, size: 120, fields: V1_3 },
    Layout { content: 4, size: 288, fields: V1_4 },
    Layout { content: 5, size: 360, fields: V1_5 },
    Layout { content: 6, size: 1664, fields: V1_6 },
    Layout { content: 7, size: 2208, fields: V1_7 },
    Layout { content: 8, size: 3360, fields: V1_7 },
];

const V1_0: &[Field] = &[
    (Q::EdgeTemp, 16, 2),
    (Q::HotspotTemp, 18, 2),
    (Q::MemoryTemp, 20, 2),
    (Q::GraphicsActivity, 28, 2),
    (Q::MemoryActivity, 30, 2),
    (Q::Power, 34, 2),
    (Q::GraphicsClock, 54, 2),
    (Q::MemoryClock, 58, 2),
    (Q::VideoClock, 60, 2),
    (Q::ThrottleStatus, 68, 4),
    (Q::PcieWidth, 74, 1),
    (Q::PcieSpeed, 75, 1),
];

/// Also 1.2, which has more at its end. The energy of these tables is left out: its unit differs between GPUs.
const V1_1: &[Field] = &[
    (Q::EdgeTemp, 4, 2),
    (Q::HotspotTemp, 6, 2),
    (Q::MemoryTemp, 8, 2),
    (Q::GraphicsActivity, 16, 2),
    (Q::MemoryActivity, 18, 2),
    (Q::Power, 22, 2),
    (Q::GraphicsClock, 54, 2),
    (Q::MemoryClock, 58, 2),
    (Q::VideoClock, 60, 2),
    (Q::ThrottleStatus, 68, 4),
    (Q::PcieWidth, 74, 2),
    (Q::PcieSpeed, 76, 2),
];

const V1_3: &[Field] = &[
    (Q::EdgeTemp, 4, 2),
    (Q::HotspotTemp, 6, 2),
    (Q::MemoryTemp, 8, 2),
    (Q::GraphicsActivity, 16, 2),
    (Q::MemoryActivity, 18, 2),
    (Q::Power, 22, 2),
    (Q::GraphicsClock, 54, 2),
    (Q::MemoryClock, 58, 2),
    (Q::VideoClock, 60, 2),
    (Q::ThrottleStatus, 68, 4),
    (Q::PcieWidth, 74, 2),
    (Q::PcieSpeed, 76, 2),
    (Q::IndependentThrottleStatus, 112, 8),
];

const V1_4: &[Field] = &[
    (Q::HotspotTemp, 4, 2),
    (Q::MemoryTemp, 6, 2),
    (Q::Power, 10, 2),
    (Q::GraphicsActivity, 12, 2),
    (Q::MemoryActivity, 14, 2),
    (Q::Energy, 24, 8),
    (Q::ThrottleStatus, 40, 4),
    (Q::PcieWidth, 48, 2),
    (Q::PcieSpeed, 50, 2),
    (Q::PcieRecoveries, 80, 8),
    (Q::PcieReplays, 88, 8),
    (Q::PcieReplayRollovers, 96, 8),
    (Q::GraphicsClock, 240, 2),
    (Q::VideoClock, 264, 2),
    (Q::MemoryClock, 280, 2),
];

const V1_5: &[Field] = &[
    (Q::HotspotTemp, 4, 2),
    (Q::MemoryTemp, 6, 2),
    (Q::Power, 10, 2),
    (Q::GraphicsActivity, 12, 2),
    (Q::MemoryActivity, 14, 2),
    (Q::Energy, 88, 8),
    (Q::ThrottleStatus, 104, 4),
    (Q::PcieWidth, 112, 2),
    (Q::PcieSpeed, 114, 2),
    (Q::PcieRecoveries, 144, 8),
    (Q::PcieReplays, 152, 8),
    (Q::PcieReplayRollovers, 160, 8),
    (Q::PcieNaksSent, 168, 4),
    (Q::PcieNaksReceived, 172, 4),
    (Q::GraphicsClock, 312, 2),
    (Q::VideoClock, 336, 2),
    (Q::MemoryClock, 352, 2),
];

const V1_6: &[Field] = &[
    (Q::HotspotTemp, 4, 2),
    (Q::MemoryTemp, 6, 2),
    (Q::Power, 10, 2),
    (Q::GraphicsActivity, 12, 2),
    (Q::MemoryActivity, 14, 2),
    (Q::Energy, 16, 8),
    (Q::ResidencyTicks, 32, 4),
    (Q::ProchotTicks, 36, 4),
    (Q::PowerTicks, 40, 4),
    (Q::SocketThermalTicks, 44, 4),
    (Q::RegulatorThermalTicks, 48, 4),
    (Q::MemoryThermalTicks, 52, 4),
    (Q::PcieWidth, 60, 2),
    (Q::PcieSpeed, 62, 2),
    (Q::PcieRecoveries, 96, 8),
    (Q::PcieReplays, 104, 8),
    (Q::PcieReplayRollovers, 112, 8),
    (Q::PcieNaksSent, 120, 4),
    (Q::PcieNaksReceived, 124, 4),
    (Q::GraphicsClock, 264, 2),
    (Q::VideoClock, 288, 2),
    (Q::MemoryClock, 304, 2),
];

/// Also 1.8, which differs behind what is read here.
const V1_7: &[Field] = &[
    (Q::HotspotTemp, 4, 2),
    (Q::MemoryTemp, 6, 2),
    (Q::Power, 10, 2),
    (Q::GraphicsActivity, 12, 2),
    (Q::MemoryActivity, 14, 2),
    (Q::Energy, 24, 8),
    (Q::ResidencyTicks, 40, 4),
    (Q::ProchotTicks, 44, 4),
    (Q::PowerTicks, 48, 4),
    (Q::SocketThermalTicks, 52, 4),
    (Q::RegulatorThermalTicks, 56, 4),
    (Q::MemoryThermalTicks, 60, 4),
    (Q::PcieWidth, 68, 2),
    (Q::PcieSpeed, 70, 2),
    (Q::PcieRecoveries, 104, 8),
    (Q::PcieReplays, 112, 8),
    (Q::PcieReplayRollovers, 120, 8),
    (Q::PcieNaksSent, 128, 4),
    (Q::PcieNaksReceived, 132, 4),
    (Q::GraphicsClock, 296, 2),
    (Q::VideoClock, 320, 2),
    (Q::MemoryClock, 336, 2),
];

/// A table as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metrics {
    pub(super) header: Header,
    bytes: Vec<u8>,
    /// `None` where the layout is not known.
    fields: Option<&'static [Field]>,
}

impl Metrics {
    /// The table in these bytes.
    ///
    /// # Errors
    /// When they end before the header does, or before the table that it announces.
    pub(super) fn of(bytes: Vec<u8>) -> Answer<Metrics> {
        let short = Trouble::Failed(fail_code::UNPARSABLE);
        let &[low, high, format, content, ..] = bytes.as_slice() else { return Err(short) };
        let header = Header { size: u16::from_le_bytes([low, high]), format, content };
        if bytes.len() < usize::from(header.size) {
            return Err(short);
        }
        let is_it = |layout: &&Layout| header.format == 1 && layout.content == content && layout.size == header.size;
        let fields = LAYOUTS.iter().find(is_it).map(|layout| layout.fields);
        Ok(Metrics { header, bytes, fields })
    }

    /// Whether the layout is known.
    pub(super) fn is_known(&self) -> bool {
        self.fields.is_some()
    }

    /// A quantity, where the table has it and the driver has filled it in.
    pub(super) fn get(&self, quantity: Quantity) -> Answer<i64> {
        let fields = self.fields.unwrap_or_default();
        let &(_, offset, width) = fields.iter().find(|(other, ..)| *other == quantity).ok_or(Trouble::Absent)?;
        let (offset, width) = (usize::from(offset), usize::from(width));
        let bytes = self.bytes.get(offset..offset + width).ok_or(Trouble::Failed(fail_code::UNPARSABLE))?;
        if bytes.iter().all(|byte| *byte == 0xff) {
            return Err(Trouble::Unsupported);
        }
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        i64::try_from(value).map_err(|_| Trouble::Failed(fail_code::OUT_OF_RANGE))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table of format 1 in which these quantities are filled in, the rest is unknown.
    pub(in crate::amd) fn table(content: u8, filled: &[(Quantity, u64)]) -> Vec<u8> {
        let layout = LAYOUTS.iter().find(|layout| layout.content == content).unwrap();
        let mut bytes = vec![0xff; usize::from(layout.size)];
        bytes[..2].copy_from_slice(&layout.size.to_le_bytes());
        bytes[2..4].copy_from_slice(&[1, content]);
        for (quantity, value) in filled {
            let &(_, offset, width) = layout.fields.iter().find(|(other, ..)| other == quantity).unwrap();
            let (offset, width) = (usize::from(offset), usize::from(width));
            bytes[offset..offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        bytes
    }

    #[test]
    fn no_two_quantities_of_a_layout_overlap_and_each_lies_where_it_is_aligned() {
        for layout in &LAYOUTS {
            let mut taken = vec![false; usize::from(layout.size)];
            taken[..4].fill(true);
            for (quantity, offset, width) in layout.fields {
                assert_eq!(offset % u16::from(*width), 0, "1.{} {quantity:?}", layout.content);
                for byte in *offset..*offset + u16::from(*width) {
                    let taken = &mut taken[usize::from(byte)];
                    assert!(!std::mem::replace(taken, true), "1.{} {quantity:?}", layout.content);
                }
            }
        }
    }

    #[test]
    fn a_quantity_that_is_all_ones_is_not_there() {
        let metrics = Metrics::of(table(4, &[(Q::HotspotTemp, 61), (Q::Energy, 1 << 40)])).unwrap();
        assert_eq!(metrics.get(Q::HotspotTemp), Ok(61));
        assert_eq!(metrics.get(Q::Energy), Ok(1 << 40));
        assert_eq!(metrics.get(Q::Power), Err(Trouble::Unsupported));
        assert_eq!(metrics.get(Q::EdgeTemp), Err(Trouble::Absent));
    }

    #[test]
    fn of_a_table_with_another_revision_or_size_only_the_header_is_taken() {
        let mut other = table(5, &[(Q::HotspotTemp, 61)]);
        other[3] = 9;
        let mut larger = table(5, &[(Q::HotspotTemp, 61)]);
        larger.extend([0; 8]);
        let size = larger.len() as u16;
        larger[..2].copy_from_slice(&size.to_le_bytes());
        for bytes in [other, larger] {
            let metrics = Metrics::of(bytes).unwrap();
            assert!(!metrics.is_known() && metrics.get(Q::HotspotTemp) == Err(Trouble::Absent));
            assert_eq!(metrics.header.format, 1);
        }
    }

    #[test]
    fn a_table_that_ends_early_is_none() {
        let whole = table(3, &[]);
        for length in [0, 3, whole.len() - 1] {
            assert_eq!(Metrics::of(whole[..length].to_vec()), Err(Trouble::Failed(fail_code::UNPARSABLE)));
        }
    }
}
