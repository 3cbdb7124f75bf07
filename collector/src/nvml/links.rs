//! One read of one NVLink: the calls behind a row of `gpu_link_sample`.

use racklake_schemas::Row;
use racklake_schemas::tables::{GPU_LINK_SAMPLE, gpu_health, gpu_link_sample as c};

use super::filler::{Filler, LACKING_BY_NAME};
use super::memory::Memory;
use super::raw::{Calls, Field, FieldValue, NOT_SUPPORTED};
use super::sample::integer;
use crate::source::EventDraft;

/// Field of the state of a link.
const STATE: u32 = 165;

/// Columns that one field each gives, with its number; the scope is the link.
const FIELDS: [(usize, u32); 45] = [
    (c::DATA_TX_KIBIBYTES, 138),
    (c::DATA_RX_KIBIBYTES, 139),
    (c::RAW_TX_KIBIBYTES, 140),
    (c::RAW_RX_KIBIBYTES, 141),
    (c::DL_REPLAYS, 161),
    (c::DL_RECOVERIES, 162),
    (c::DL_CRC_ERRORS, 163),
    (c::SPEED_MEGABYTES_PER_SECOND, 164),
    (c::POWER_STATE, 167),
    (c::TX_PACKETS, 201),
    (c::TX_BYTES, 202),
    (c::RX_PACKETS, 203),
    (c::RX_BYTES, 204),
    (c::MALFORMED_PACKETS, 206),
    (c::BUFFER_OVERRUNS, 207),
    (c::RX_ERRORS, 208),
    (c::RX_REMOTE_ERRORS, 209),
    (c::RX_GENERAL_ERRORS, 210),
    (c::LINK_INTEGRITY_ERRORS, 211),
    (c::TX_DISCARDS, 212),
    (c::RECOVERIES_SUCCESSFUL, 213),
    (c::RECOVERIES_FAILED, 214),
    (c::RECOVERY_EVENTS, 215),
    (c::EFFECTIVE_ERRORS, 219),
    (c::SYMBOL_ERRORS, 221),
    (c::FEC_CORRECTED_0, 235),
    (c::FEC_CORRECTED_1, 236),
    (c::FEC_CORRECTED_2, 237),
    (c::FEC_CORRECTED_3, 238),
    (c::FEC_CORRECTED_4, 239),
    (c::FEC_CORRECTED_5, 240),
    (c::FEC_CORRECTED_6, 241),
    (c::FEC_CORRECTED_7, 242),
    (c::FEC_CORRECTED_8, 243),
    (c::FEC_CORRECTED_9, 244),
    (c::FEC_CORRECTED_10, 245),
    (c::FEC_CORRECTED_11, 246),
    (c::FEC_CORRECTED_12, 247),
    (c::FEC_CORRECTED_13, 248),
    (c::FEC_CORRECTED_14, 249),
    (c::FEC_CORRECTED_15, 250),
    (c::RAW_ERRORS_LANE0, 289),
    (c::RAW_ERRORS_LANE1, 290),
    (c::PLR_TX_BLOCKS, 294),
    (c::PLR_TX_RETRY_BLOCKS, 295),
];

/// Columns whose field is a ratio in a coding of its own.
const RATIOS: [(usize, u32); 3] =
    [(c::EFFECTIVE_BIT_ERROR_RATIO, 220), (c::SYMBOL_BIT_ERROR_RATIO, 222), (c::RAW_BIT_ERROR_RATIO, 293)];

/// Errors that a call of its own counts, by NVML's number of them.
const ERRORS: [usize; 5] = [c::REPLAYS, c::RECOVERIES, c::CRC_FLIT_ERRORS, c::CRC_DATA_ERRORS, c::ECC_DATA_ERRORS];

/// What reading a link gave.
pub(super) struct Link {
    pub(super) row: Row,
    pub(super) events: Vec<EventDraft>,
    /// The code after which no further call is made.
    pub(super) ended: Option<i32>,
}

/// Reads every column of a link once.
pub(super) fn read<'a>(calls: &Calls<'a>, memory: &mut Memory<'a>, link: u32) -> Link {
    let mut filler = Filler::new(&GPU_LINK_SAMPLE, Some(link), LACKING_BY_NAME, memory);
    filler.row.set(c::LINK, link);
    state(&mut filler, calls, link);
    filler.one(c::LINK_VERSION, || calls.link_version(link));
    filler.one(c::REMOTE_DEVICE_TYPE, || calls.link_remote_type(link));
    if filler.asks_for(c::REMOTE_PCI_BUS_ID) {
        match calls.link_remote_address(link) {
            Ok(address) => filler.row.read(c::REMOTE_PCI_BUS_ID, address),
            Err(code) => filler.refuse(c::REMOTE_PCI_BUS_ID, code, LACKING_BY_NAME),
        }
    }
    for (counter, column) in (0..).zip(ERRORS) {
        filler.one(column, || calls.link_errors(link, counter));
    }
    filler.fields(calls, &FIELDS.map(|(column, id)| (column, Field { id, scope: link })));
    ratios(&mut filler, calls, link);
    let ended = filler.ended;
    let (row, events) = filler.finish(c::FIELDS_LATENCY_US, c::FIELDS_READ_AT);
    Link { row, events, ended }
}

/// The state comes first: where it has changed, the link is asked again for what it lacked.
fn state(filler: &mut Filler<'_, '_>, calls: &Calls<'_>, link: u32) {
    if !filler.asks_for(c::LINK_STATE) {
        return;
    }
    let answers = calls.fields(&[Field { id: STATE, scope: link }]);
    match answers.as_ref().map(|answers| answers.first()) {
        Ok(Some(answer)) if !matches!(answer.value, Err(code) if LACKING_BY_NAME.contains(&code)) => {
            filler.field(c::LINK_STATE, answer);
        }
        _ => filler.take(c::LINK_STATE, calls.link_active(link)),
    }
    if let Some(state) = integer(&filler.row, c::LINK_STATE) {
        filler.memory.link_state(link, state);
    }
}

fn ratios(filler: &mut Filler<'_, '_>, calls: &Calls<'_>, link: u32) {
    let wanted: Vec<_> = RATIOS.into_iter().filter(|(column, _)| filler.asks_for(*column)).collect();
    let fields: Vec<Field> = wanted.iter().map(|(_, id)| Field { id: *id, scope: link }).collect();
    match calls.fields(&fields) {
        Ok(answers) => {
            for ((column, _), answer) in wanted.into_iter().zip(answers) {
                filler.took(&answer);
                match answer.value.map(|value| (value, ratio_of(value))) {
                    Ok((_, Some(ratio))) => filler.float(column, Ok(ratio)),
                    Ok((value, None)) => filler.unreadable(column, &format!("{value:?}")),
                    Err(code) => filler.refuse(column, code, LACKING_BY_NAME),
                }
            }
        }
        Err(code) => wanted.into_iter().for_each(|(column, _)| filler.refuse(column, code, LACKING_BY_NAME)),
    }
}

/// A bit error ratio: a mantissa in bits 8 to 11, and how many decimal places it is moved by in bits 0 to 7.
fn ratio_of(value: FieldValue) -> Option<f64> {
    let bits = match value {
        FieldValue::Unsigned32(bits) if bits != u32::MAX => u64::from(bits),
        FieldValue::Unsigned64(bits) if bits >> 12 == 0 => bits,
        _ => return None,
    };
    Some((bits >> 8 & 0xf) as f64 * 10f64.powi(-((bits & 0xff) as i32)))
}

/// How many links are active, as far as every link has said so.
pub(super) fn count_active(filler: &mut Filler<'_, '_>, links: &[Row], count: u32) {
    let column = gpu_health::NVLINKS_ACTIVE;
    if filler.ended.is_some() {
        return;
    }
    if filler.row.is_unsupported(gpu_health::NVLINKS) {
        filler.row.unsupported(column);
        return;
    }
    let states: Option<Vec<i64>> = links.iter().map(|row| integer(row, c::LINK_STATE)).collect();
    match states {
        Some(states) if states.len() == count as usize && !filler.row.has_failed(gpu_health::NVLINKS) => {
            filler.row.read(column, states.iter().filter(|state| **state != 0).count() as i64);
        }
        _ => {
            let unread = links.iter().find(|row| integer(row, c::LINK_STATE).is_none());
            let code = unread.map_or(filler.row.fail_code(), Row::fail_code).unwrap_or(NOT_SUPPORTED);
            filler.take::<u32>(column, Err(code));
        }
    }
}

/// Columns with the number of their field.
#[cfg(test)]
pub(super) fn field_numbers() -> Vec<(usize, u32)> {
    FIELDS.into_iter().chain(RATIOS).chain([(c::LINK_STATE, STATE)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_error_ratio_is_a_mantissa_and_an_exponent_of_a_tenth() {
        assert_eq!(ratio_of(FieldValue::Unsigned64(0x10f)), Some(1e-15));
        assert_eq!(ratio_of(FieldValue::Unsigned32(0xf06)), Some(15.0 * 1e-6));
        assert_eq!(ratio_of(FieldValue::Unsigned64(0)), Some(0.0));
        assert_eq!(ratio_of(FieldValue::Unsigned64(u64::MAX)), None);
        assert_eq!(ratio_of(FieldValue::Unsigned32(u32::MAX)), None);
    }
}
