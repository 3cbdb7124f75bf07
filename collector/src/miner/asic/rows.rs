//! Rows of what asic-rs makes of replies.
//!
//! The library turns numbers into floats of other units and back, so they are rounded here. A board of which it tells
//! nothing but that the model has it is no reading.

use asic_rs::core::data::board::BoardData;
use asic_rs::core::data::hashrate::{HashRate, HashRateUnit};
use asic_rs::core::data::message::{MessageSeverity, MinerComponent};
use asic_rs::core::data::miner::MinerData;
use asic_rs::core::data::operating_state::OperatingState;
use asic_rs::core::data::pool::PoolData;
use racklake_schemas::Row;
use racklake_schemas::tables::{self, device, hashboard_sample as board, miner_sample as miner};

use crate::miner::cgminer::POOL_COLUMNS;
use crate::miner::filler::{Filler, Keys};
use crate::miner::judge::{Facts, judge};
use crate::miner::others::is_passing;
use crate::miner::pool_url::without_secrets;
use crate::miner::reader::{MinerError, Replies, Told};
use crate::miner::recipe::{error_code, finish};
use crate::miner::who;
use crate::source::Identity;

const FANS: [usize; 6] =
    [miner::FAN_1_RPM, miner::FAN_2_RPM, miner::FAN_3_RPM, miner::FAN_4_RPM, miner::FAN_5_RPM, miner::FAN_6_RPM];

/// All of it.
pub(super) fn told(make: &'static str, data: &MinerData, replies: &Replies, keys: &mut Keys) -> Told {
    let boards = board_rows(data, keys);
    let row = miner_row(data, boards.len(), keys);
    let errors = errors(data);
    let is_partial = replies.iter().any(|(_, reply)| is_passing(reply.err()));
    let identity = identity(make, data);
    let serial = data.serial_number.clone().or_else(|| data.mac.map(|mac| mac.to_string()));
    Told {
        judged: judge(&facts(data, &row, &boards, &errors)),
        uptime: who::integer_of(&row, miner::UPTIME_SECONDS),
        lifetime: [miner::ACCEPTED_SHARES, miner::REJECTED_SHARES]
            .iter()
            .map(|column| who::integer_of(&row, *column))
            .collect(),
        is_identity_partial: identity.device_id.is_none() && is_partial,
        identity: Some(identity),
        mark: serial,
        errors: Some(errors),
        miner: Some(row),
        boards,
    }
}

/// Hashes per second, whole.
fn hashes(rate: Option<&HashRate>) -> Option<i64> {
    whole(rate?.clone().as_unit(HashRateUnit::Hash).value)
}

fn whole(value: f64) -> Option<i64> {
    (value.is_finite() && value.abs() < 1e18).then(|| value.round() as i64)
}

fn set(filler: &mut Filler<'_>, column: usize, value: Option<i64>) {
    match value {
        Some(value) => filler.read(column, value),
        None => filler.absent(column),
    }
}

fn miner_row(data: &MinerData, boards: usize, keys: &mut Keys) -> Row {
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    set(&mut filler, miner::HASHRATE_HASHES_PER_SECOND, hashes(data.hashrate.as_ref()));
    set(&mut filler, miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, hashes(data.expected_hashrate.as_ref()));
    let watts = data.wattage.and_then(|power| whole(power.as_watts() * 1000.0));
    set(&mut filler, miner::POWER_ESTIMATED_MILLIWATTS, watts);
    let mut fans: Vec<_> = data.fans.iter().collect();
    fans.sort_by_key(|fan| fan.position);
    for (column, fan) in FANS.into_iter().zip(fans) {
        set(&mut filler, column, fan.rpm.and_then(|rpm| whole(rpm.as_rpm())));
    }
    let psu_fan = data.psu_fans.first().and_then(|fan| fan.rpm).and_then(|rpm| whole(rpm.as_rpm()));
    set(&mut filler, miner::PSU_FAN_RPM, psu_fan);
    let inlet = data.fluid_temperature.and_then(|temperature| whole(temperature.as_celsius()));
    let outlet = data.outlet_fluid_temperature.and_then(|temperature| whole(temperature.as_celsius()));
    set(&mut filler, miner::COOLANT_INLET_TEMP_CELSIUS, inlet);
    set(&mut filler, miner::COOLANT_OUTLET_TEMP_CELSIUS, outlet);
    set(&mut filler, miner::UPTIME_SECONDS, data.uptime.and_then(|uptime| i64::try_from(uptime.as_secs()).ok()));
    if boards > 0 {
        filler.read(miner::BOARDS_FOUND, boards as i64);
    }
    fill_pools(&mut filler, data);
    let mut empty = POOL_COLUMNS.to_vec();
    empty.extend([miner::STATE, miner::ERROR_CODES]);
    finish(&mut filler, &empty);
    filler.row
}

fn fill_pools(filler: &mut Filler<'_>, data: &MinerData) {
    let pools: Vec<&PoolData> = data.pools.iter().flat_map(|group| &group.pools).collect();
    if pools.is_empty() {
        return;
    }
    filler.read(miner::POOLS_CONFIGURED, pools.len() as i64);
    if pools.iter().any(|pool| pool.alive.is_some()) {
        filler.read(miner::POOLS_ALIVE, pools.iter().filter(|pool| pool.alive == Some(true)).count() as i64);
    }
    let sum = |count: fn(&PoolData) -> Option<u64>| {
        let mut counts: Vec<u64> = pools.iter().filter_map(|pool| count(pool)).collect();
        // Some makes have one counter, which the library writes into every pool.
        if counts.len() == pools.len() && counts.iter().all(|other| counts.first() == Some(other)) {
            counts.truncate(1);
        }
        let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        sum.filter(|_| !counts.is_empty()).and_then(|sum| i64::try_from(sum).ok())
    };
    set(filler, miner::ACCEPTED_SHARES, sum(|pool| pool.accepted_shares));
    set(filler, miner::REJECTED_SHARES, sum(|pool| pool.rejected_shares));
    let active = pools.iter().find(|pool| pool.active == Some(true));
    if let Some(url) = active.and_then(|pool| pool.url.as_ref()).and_then(|url| without_secrets(&url.to_string())) {
        filler.word(miner::POOL_URL, Some(&url));
    }
}

/// Boards with at least one reading.
fn board_rows(data: &MinerData, keys: &mut Keys) -> Vec<Row> {
    data.hashboards.iter().filter(|board| is_told(board)).map(|board| board_row(board, keys)).collect()
}

fn is_told(board: &BoardData) -> bool {
    board.hashrate.is_some()
        || board.board_temperature.is_some()
        || board.inlet_chip_temperature.is_some()
        || board.outlet_chip_temperature.is_some()
        || board.working_chips.is_some()
        || board.voltage.is_some()
        || board.frequency.is_some()
        || board.serial_number.is_some()
}

fn board_row(data: &BoardData, keys: &mut Keys) -> Row {
    let mut filler = Filler::new(&tables::HASHBOARD_SAMPLE, keys);
    filler.row.set(board::BOARD_INDEX, i64::from(data.position));
    set(&mut filler, board::HASHRATE_HASHES_PER_SECOND, hashes(data.hashrate.as_ref()));
    set(&mut filler, board::HASHRATE_EXPECTED_HASHES_PER_SECOND, hashes(data.expected_hashrate.as_ref()));
    let celsius = data.board_temperature.and_then(|temperature| whole(temperature.as_celsius()));
    set(&mut filler, board::PCB_TEMP_MAX_CELSIUS, celsius.filter(|degrees| !matches!(degrees, 0 | -40 | 255)));
    let hottest = data.outlet_chip_temperature.and_then(|temperature| whole(temperature.as_celsius()));
    set(&mut filler, board::CHIP_TEMP_MAX_CELSIUS, hottest.filter(|degrees| !matches!(degrees, 0 | -40 | 255)));
    set(&mut filler, board::CHIPS_FOUND, data.working_chips.map(i64::from));
    let volts = data.voltage.and_then(|voltage| whole(voltage.as_volts() * 1000.0));
    set(&mut filler, board::VOLTAGE_MILLIVOLTS, volts.filter(|millivolts| *millivolts > 0));
    let clock = data.frequency.and_then(|clock| whole(clock.as_kilohertz()));
    set(&mut filler, board::FREQUENCY_KILOHERTZ, clock.filter(|kilohertz| *kilohertz > 0));
    filler.word(board::BOARD_SERIAL, data.serial_number.as_deref());
    finish(&mut filler, &[]);
    filler.row
}

/// Messages of severity error. Where the firmware gives no number, the text stands for it.
fn errors(data: &MinerData) -> Vec<MinerError> {
    let raised = data.messages.iter().filter(|message| message.severity == MessageSeverity::Error);
    let error = |message: &asic_rs::core::data::message::MinerMessage| {
        let (component, board) = match &message.component {
            Some(MinerComponent::HashBoard { idx, chip_idx: None }) => ("board", Some(i32::from(*idx))),
            Some(MinerComponent::HashBoard { idx, .. }) => ("chip", Some(i32::from(*idx))),
            Some(MinerComponent::Fan { .. }) => ("fan", None),
            Some(MinerComponent::PowerSupply { .. }) => ("psu", None),
            Some(MinerComponent::ControlBoard {}) => ("controller", None),
            None => ("other", None),
        };
        let code = i64::try_from(message.code).ok().filter(|code| *code > 0);
        let code = code.unwrap_or_else(|| error_code(&message.message));
        MinerError { code, message: message.message.clone(), component, board }
    };
    raised.map(error).collect()
}

fn facts(data: &MinerData, row: &Row, boards: &[Row], errors: &[MinerError]) -> Facts {
    use OperatingState::*;
    let state = data.operating_state.as_ref();
    let is_hot = errors.iter().any(|error| {
        let message = error.message.to_ascii_lowercase();
        ["temp", "heat", "hot"].iter().any(|word| message.contains(word))
    });
    Facts {
        asleep: match state {
            Some(Paused {} | Suspended {}) => Some("curtailed"),
            Some(Stopped {} | Stopping {}) => Some("standby"),
            Some(Idling {}) => Some("idle"),
            _ => None,
        },
        fault: match state {
            Some(CoolingDown {}) => Some("overheat"),
            Some(Error {}) if is_hot => Some("overheat"),
            Some(Error {}) => Some("firmware error"),
            _ => None,
        },
        is_starting: matches!(state, Some(Initializing {} | Starting {} | Restarting {} | Tuning {})),
        rate: who::integer_of(row, miner::HASHRATE_HASHES_PER_SECOND),
        uptime: who::integer_of(row, miner::UPTIME_SECONDS),
        pools_alive: who::integer_of(row, miner::POOLS_ALIVE).and_then(|alive| usize::try_from(alive).ok()),
        boards: boards
            .iter()
            .map(|row| who::integer_of(row, board::HASHRATE_HASHES_PER_SECOND).map(|rate| rate > 0))
            .collect(),
        boards_expected: None,
        lists_boards: false,
    }
}

fn identity(make: &'static str, data: &MinerData) -> Identity {
    let mac = data.mac.map(|mac| mac.to_string());
    let control_board = data.control_board_version.as_ref().map(|board| board.name.clone());
    let algorithm = format!("{:?}", data.device_info.algo).to_ascii_lowercase();
    let told = [
        (device::MODEL, Some(data.device_info.model.as_str())),
        (device::FIRMWARE_VERSION, data.firmware_version.as_deref()),
        (device::HOSTNAME, data.hostname.as_deref()),
        (device::CONTROL_BOARD, control_board.as_deref()),
        (device::ALGORITHM, Some(algorithm.as_str()).filter(|algorithm| *algorithm != "unknown")),
    ];
    let maker = who::maker(Some(&format!("{} {}", data.device_info.make, data.device_info.model)), make);
    let mut identity = who::identity(maker, data.serial_number.as_deref(), mac.as_deref(), &told);
    who::count(&mut identity, device::BOARDS_EXPECTED, data.expected_hashboards.map(i64::from));
    who::count(&mut identity, device::CHIPS_EXPECTED, data.expected_chips.map(i64::from));
    who::count(&mut identity, device::FANS_EXPECTED, data.expected_fans.map(i64::from));
    identity
}
