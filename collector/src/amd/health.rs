//! One read of what tells of an AMD GPU's health: RAS error counts, retired pages, PCIe errors, link and limits.

use std::path::Path;

use racklake_schemas::tables::{GPU_HEALTH, gpu_health as c};
use racklake_schemas::{Row, fail_code, row_status};

use super::card::{Card, pcie_generation};
use super::metrics::Quantity as Q;
use super::sample::{either, metrics_of, quantity, rest_is_unsupported};
use crate::source::Reading;
use crate::sysfs::{self, Answer, Trouble};

/// Reads every column once.
pub(super) fn read(card: &Card) -> Reading {
    let mut row = Row::new(&GPU_HEALTH);
    if !card.is_there() {
        row.fail_all(fail_code::MISSING);
        row.set_status(row_status::LOST);
    } else if !card.is_suspended() {
        ras(&mut row, card);
        pcie(&mut row, card);
        limits(&mut row, card);
        rest_is_unsupported(&mut row);
    }
    Reading { rows: vec![row], ..Reading::default() }
}

/// Errors that the GPU's blocks have counted, and the pages of memory that are no longer used.
fn ras(row: &mut Row, card: &Card) {
    let folder = card.path("ras");
    let (mut sums, mut memory) = ([Err(Trouble::Absent); 2], [Err(Trouble::Absent); 2]);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(block) = name.strip_suffix("_err_count") else { continue };
        let counts = error_counts(&folder.join(&name));
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum = add(*sum, count);
        }
        if block == "umc" {
            memory = counts;
        }
    }
    sysfs::put(row, c::ECC_UNCORRECTED_VOLATILE, sums[0]);
    sysfs::put(row, c::ECC_CORRECTED_VOLATILE, sums[1]);
    sysfs::put(row, c::ECC_DRAM_UNCORRECTED_VOLATILE, memory[0]);
    sysfs::put(row, c::ECC_DRAM_CORRECTED_VOLATILE, memory[1]);
    // Lines are `page : size : state`; R is retired, P will be when nobody uses it, F could not be.
    let pages = sysfs::text(&folder.join("gpu_vram_bad_pages"));
    let count = |state: &str| {
        let pages = pages.as_ref().map_err(|trouble| *trouble)?;
        Ok(pages.lines().filter(|line| line.rsplit(':').next().is_some_and(|last| last.trim() == state)).count() as i64)
    };
    sysfs::put(row, c::PAGES_RETIRED_UNCORRECTED, count("R"));
    sysfs::put(row, c::PAGE_RETIREMENT_PENDING, count("P").map(|pages| pages.min(1)));
}

/// Uncorrected and corrected errors of a block: `ue: 0` and `ce: 3` in lines.
fn error_counts(path: &Path) -> [Answer<i64>; 2] {
    let text = sysfs::text(path);
    ["ue:", "ce:"].map(|name| {
        let text = text.as_ref().map_err(|trouble| *trouble)?;
        let count = text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok());
        count.ok_or(Trouble::Failed(fail_code::UNPARSABLE))
    })
}

/// The sum of two answers; what one of them does not have adds nothing, and a failed one leaves no sum.
fn add(one: Answer<i64>, other: Answer<i64>) -> Answer<i64> {
    match (one, other) {
        (Err(failed @ Trouble::Failed(_)), _) | (_, Err(failed @ Trouble::Failed(_))) => Err(failed),
        (Ok(one), Ok(other)) => one.checked_add(other).ok_or(Trouble::Failed(fail_code::OUT_OF_RANGE)),
        (Ok(value), Err(_)) | (Err(_), Ok(value)) => Ok(value),
        (Err(trouble), Err(_)) => Err(trouble),
    }
}

fn pcie(row: &mut Row, card: &Card) {
    let metrics = metrics_of(card);
    let table = |wanted: Q| quantity(&metrics, wanted);
    sysfs::put(row, c::PCIE_REPLAYS, either(card.integer("pcie_replay_count"), || table(Q::PcieReplays)));
    sysfs::put(row, c::PCIE_REPLAY_ROLLOVERS, table(Q::PcieReplayRollovers));
    sysfs::put(row, c::PCIE_RECOVERIES, table(Q::PcieRecoveries));
    sysfs::put(row, c::PCIE_NAKS_SENT, table(Q::PcieNaksSent));
    sysfs::put(row, c::PCIE_NAKS_RECEIVED, table(Q::PcieNaksReceived));
    sysfs::put(row, c::PCIE_WIDTH, either(card.integer("current_link_width"), || table(Q::PcieWidth)));
    let generation = pcie_generation(&card.path("current_link_speed"));
    sysfs::put(row, c::PCIE_GENERATION, either(generation, || table(Q::PcieSpeed).and_then(generation_of)));
    // What the kernel has counted of the errors that the device reported; reading it touches no device.
    for (column, file, name) in [
        (c::PCIE_CORRECTABLE_ERRORS, "aer_dev_correctable", "TOTAL_ERR_COR"),
        (c::PCIE_RECEIVER_ERRORS, "aer_dev_correctable", "RxErr"),
        (c::PCIE_BAD_TLPS, "aer_dev_correctable", "BadTLP"),
        (c::PCIE_BAD_DLLPS, "aer_dev_correctable", "BadDLLP"),
        (c::PCIE_NON_FATAL_ERRORS, "aer_dev_nonfatal", "TOTAL_ERR_NONFATAL"),
        (c::PCIE_UNSUPPORTED_REQUESTS, "aer_dev_nonfatal", "UnsupReq"),
        (c::PCIE_FATAL_ERRORS, "aer_dev_fatal", "TOTAL_ERR_FATAL"),
    ] {
        sysfs::put(row, column, named_count(&card.path(file), name));
    }
}

/// The generation that a speed of so many tenths of GT/s is.
fn generation_of(tenths: i64) -> Answer<i64> {
    let place = [25, 50, 80, 160, 320, 640].iter().position(|speed| *speed == tenths);
    place.map(|place| place as i64 + 1).ok_or(Trouble::Failed(fail_code::OUT_OF_RANGE))
}

/// The number behind a name, in a file with one of each in a line.
fn named_count(path: &Path, name: &str) -> Answer<i64> {
    let text = sysfs::text(path)?;
    let words = |line: &str| line.split_once(char::is_whitespace).map(|(a, b)| (a.to_owned(), b.trim().to_owned()));
    let found = text.lines().filter_map(words).find(|(other, _)| other == name);
    let (_, count) = found.ok_or(Trouble::Absent)?;
    count.parse().map_err(|_| Trouble::Failed(fail_code::UNPARSABLE))
}

fn limits(row: &mut Row, card: &Card) {
    let celsius = |label: &str, suffix: &str| card.labelled(label, suffix).map(|value| value.div_euclid(1000));
    let hottest = |suffix: &str| either(celsius("junction", suffix), || celsius("edge", suffix));
    sysfs::put(row, c::TEMP_LIMIT_SHUTDOWN_CELSIUS, hottest("emergency"));
    sysfs::put(row, c::TEMP_LIMIT_SLOWDOWN_CELSIUS, hottest("crit"));
    sysfs::put(row, c::TEMP_LIMIT_MEMORY_MAX_CELSIUS, celsius("mem", "crit"));
    for (column, name) in [
        (c::POWER_LIMIT_DEFAULT_MILLIWATTS, "power1_cap_default"),
        (c::POWER_LIMIT_MIN_MILLIWATTS, "power1_cap_min"),
        (c::POWER_LIMIT_MAX_MILLIWATTS, "power1_cap_max"),
        (c::POWER_LIMIT_REQUESTED_MILLIWATTS, "power1_cap"),
    ] {
        sysfs::put(row, column, card.hwmon(name).map(|microwatts| microwatts / 1000));
    }
}
