//! The two shapes of a Whatsminer's replies, side by side: which key of which fills which column.
//!
//! On the cgminer port hashrates are in the unit of their name; on port 4433 they are terahashes.

use racklake_schemas::tables::{hashboard_sample as board, miner_sample as miner};

/// A column, its key on the cgminer port with the power of ten that makes the column's unit of it, and the same for port
/// 4433. An empty key is none.
pub(super) type Line = (usize, &'static str, i32, &'static str, i32);

/// Integers of `summary`.
pub(super) const SUMMARY: [Line; 16] = [
    (miner::HASHRATE_HASHES_PER_SECOND, "HS RT", 6, "hash-realtime", 12),
    (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, "MHS av", 6, "hash-average", 12),
    (miner::HASHRATE_5S_HASHES_PER_SECOND, "MHS 5s", 6, "", 0),
    (miner::HASHRATE_1M_HASHES_PER_SECOND, "MHS 1m", 6, "hash-1min", 12),
    (miner::HASHRATE_5M_HASHES_PER_SECOND, "MHS 5m", 6, "", 0),
    (miner::HASHRATE_15M_HASHES_PER_SECOND, "MHS 15m", 6, "hash-15min", 12),
    (miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, "Factory GHS", 9, "factory-hash", 12),
    (miner::HARDWARE_ERRORS, "Hardware Errors", 0, "", 0),
    (miner::DISCARDED_WORK, "Discarded", 0, "", 0),
    (miner::BLOCKS_FOUND, "Found Blocks", 0, "", 0),
    (miner::POWER_LIMIT_MILLIWATTS, "Power Limit", 3, "power-limit", 3),
    (miner::PSU_OUTPUT_MILLIAMPERES, "Power Current", 3, "", 0),
    (miner::FAN_1_RPM, "Fan Speed In", 0, "fan-speed-in", 0),
    (miner::FAN_2_RPM, "Fan Speed Out", 0, "fan-speed-out", 0),
    (miner::FREQUENCY_KILOHERTZ, "freq_avg", 3, "freq-avg", 3),
    (miner::UPTIME_SECONDS, "Elapsed", 0, "elapsed", 0),
];

/// Temperatures of chips in `summary`.
pub(super) const CHIP_TEMPS: [Line; 2] = [
    (miner::CHIP_TEMP_MAX_CELSIUS, "Chip Temp Max", 0, "chip-temp-max", 0),
    (miner::CHIP_TEMP_AVERAGE_CELSIUS, "Chip Temp Avg", 0, "chip-temp-avg", 0),
];

/// What `get_psu` and the part `power` of `get.device.info` tell; the former says hundredths of a volt.
pub(super) const PSU: [Line; 2] =
    [(miner::PSU_INPUT_MILLIVOLTS, "vin", 1, "vin", 3), (miner::PSU_INPUT_MILLIAMPERES, "iin", 0, "iin", 3)];

/// Hashrates of a board.
pub(super) const BOARD_RATES: [Line; 6] = [
    (board::HASHRATE_HASHES_PER_SECOND, "HS RT", 6, "hash-realtime", 12),
    (board::HASHRATE_AVERAGE_HASHES_PER_SECOND, "MHS av", 6, "hash-average", 12),
    (board::HASHRATE_5S_HASHES_PER_SECOND, "MHS 5s", 6, "", 0),
    (board::HASHRATE_1M_HASHES_PER_SECOND, "MHS 1m", 6, "", 0),
    (board::HASHRATE_5M_HASHES_PER_SECOND, "MHS 5m", 6, "", 0),
    (board::HASHRATE_15M_HASHES_PER_SECOND, "MHS 15m", 6, "", 0),
];

/// Other integers of a board.
pub(super) const BOARD: [Line; 6] = [
    (board::HASHRATE_EXPECTED_HASHES_PER_SECOND, "Factory GHS", 9, "factory-hash", 12),
    (board::HARDWARE_ERRORS, "Hardware Errors", 0, "", 0),
    (board::CHIPS_FOUND, "Effective Chips", 0, "effective-chips", 0),
    (board::FREQUENCY_KILOHERTZ, "Chip Frequency", 3, "freq", 3),
    (board::ACCEPTED_NONCES, "Accepted", 0, "", 0),
    (board::REJECTED_NONCES, "Rejected", 0, "", 0),
];

/// Temperatures of a board.
pub(super) const BOARD_TEMPS: [Line; 3] = [
    (board::CHIP_TEMP_MAX_CELSIUS, "Chip Temp Max", 0, "chip-temp-max", 0),
    (board::CHIP_TEMP_AVERAGE_CELSIUS, "Chip Temp Avg", 0, "chip-temp-avg", 0),
    (board::CHIP_TEMP_MIN_CELSIUS, "Chip Temp Min", 0, "chip-temp-min", 0),
];
