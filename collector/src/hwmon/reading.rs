//! One read of one sensor: its value, whether it is in alarm or broken, and from time to time its limits.

use std::time::{Duration, Instant};

use racklake_schemas::tables::{HOST_SENSOR_SAMPLE, host_sensor_sample as c};
use racklake_schemas::{Row, fail_code, row_status};

use super::chips::{Kind, Sensor};
use crate::sysfs::{self, Answer, Trouble};

/// How long limits are taken for unchanged: reading one may cost a turn on a slow bus.
const LIMITS_AGE_MAX: Duration = Duration::from_secs(600);

/// Column of each limit, and the attributes that may hold it.
const LIMITS: [(usize, [&str; 2]); 4] = [
    (c::LIMIT_MIN, ["min", ""]),
    (c::LIMIT_MAX, ["max", "cap"]),
    (c::LIMIT_CRIT_LOW, ["lcrit", ""]),
    (c::LIMIT_CRIT, ["crit", ""]),
];

/// Attributes that say that a limit is passed.
const ALARMS: [&str; 7] =
    ["alarm", "min_alarm", "max_alarm", "lcrit_alarm", "crit_alarm", "emergency_alarm", "cap_alarm"];

/// The limits of a sensor as they were read once.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    read_at: Instant,
    answers: [Answer<i64>; LIMITS.len()],
}

/// The column of a kind's values.
pub(super) fn column_of(kind: Kind) -> usize {
    match kind {
        Kind::Temperature => c::TEMP_MILLIDEGREES_CELSIUS,
        Kind::Voltage => c::VOLTAGE_MILLIVOLTS,
        Kind::Current => c::CURRENT_MILLIAMPERES,
        Kind::Power => c::POWER_MICROWATTS,
        Kind::Energy => c::ENERGY_MICROJOULES,
        Kind::Fan => c::FAN_REVOLUTIONS_PER_MINUTE,
        Kind::Humidity => c::HUMIDITY_THOUSANDTHS_PERCENT,
    }
}

/// A row of the sensor without readings: those of other kinds are unsupported.
pub(super) fn empty_row(sensor: &Sensor) -> Row {
    let mut row = Row::new(&HOST_SENSOR_SAMPLE);
    row.set(c::SENSOR, sensor.name.as_str());
    row.set(c::CHIP, sensor.chip.as_str());
    row.set(c::LABEL, sensor.label.as_str());
    row.set(c::SENSOR_KIND, sensor.kind.name());
    let others = Kind::ALL.iter().map(|(kind, ..)| *kind).filter(|kind| *kind != sensor.kind);
    others.for_each(|kind| row.unsupported(column_of(kind)));
    row
}

/// The row of a sensor that did not answer in time.
pub(super) fn stale_row(sensor: &Sensor) -> Row {
    let mut row = empty_row(sensor);
    row.fail_all(fail_code::DEADLINE);
    row.set_status(row_status::STALE);
    row
}

/// Reads a sensor, and its limits where those that are known are too old.
pub(super) fn read(sensor: &Sensor, known: Option<Limits>) -> (Row, Option<Limits>) {
    let mut row = empty_row(sensor);
    if is_suspended(sensor) {
        return (row, known);
    }
    let measured = if sensor.has.contains("input") { "input" } else { "average" };
    // The file was there when the sensor was found: one that has gone since is a failed read.
    match attribute(sensor, measured) {
        Err(Trouble::Absent) => row.fail(column_of(sensor.kind), fail_code::MISSING),
        answer => sysfs::put(&mut row, column_of(sensor.kind), answer),
    }
    sysfs::put(&mut row, c::ALARM, alarm(sensor));
    sysfs::put(&mut row, c::FAULT, attribute(sensor, "fault"));
    let limits = known.filter(|limits| limits.read_at.elapsed() < LIMITS_AGE_MAX);
    let limits = limits.unwrap_or_else(|| Limits { read_at: Instant::now(), answers: read_limits(sensor) });
    for ((column, _), answer) in LIMITS.iter().zip(limits.answers) {
        sysfs::put(&mut row, *column, answer);
    }
    (row, Some(limits))
}

/// Whether the kernel has put the device to sleep; a read would wake it, so nothing is read.
fn is_suspended(sensor: &Sensor) -> bool {
    sysfs::text(&sensor.folder.join("device/power/runtime_status")).is_ok_and(|status| status == "suspended")
}

fn read_limits(sensor: &Sensor) -> [Answer<i64>; LIMITS.len()] {
    LIMITS.map(|(_, names)| {
        let name = names.into_iter().find(|name| sensor.has.contains(*name));
        name.map_or(Err(Trouble::Absent), |name| attribute(sensor, name))
    })
}

/// 1 where any alarm is on, 0 where there are some and all are off.
fn alarm(sensor: &Sensor) -> Answer<i64> {
    let mut answer = Err(Trouble::Absent);
    for name in ALARMS.iter().filter(|name| sensor.has.contains(**name)) {
        answer = match (answer, attribute(sensor, name)) {
            (_, Ok(on)) if on > 0 => return Ok(on),
            // One that cannot be read may be on.
            (Err(Trouble::Failed(code)), _) | (_, Err(Trouble::Failed(code))) => Err(Trouble::Failed(code)),
            (Ok(off), _) | (Err(_), Ok(off)) => Ok(off),
            (before, Err(_)) => before,
        };
    }
    answer
}

fn attribute(sensor: &Sensor, suffix: &str) -> Answer<i64> {
    if sensor.has.contains(suffix) {
        sysfs::integer(&sensor.folder.join(format!("{}_{suffix}", sensor.attribute)))
    } else {
        Err(Trouble::Absent)
    }
}
