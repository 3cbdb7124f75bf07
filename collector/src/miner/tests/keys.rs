//! Which columns an Avalon has, and numbers that are none.

use racklake_schemas::tables::{hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Row, fail_code};

use super::super::avalon::{Parts, Stats, board_rows, learn_model, miner_row};
use super::super::exchange::Trouble;
use super::super::filler::Keys;
use super::super::state::State;
use super::bits;

/// Rows of a reply of `stats` alone.
fn rows_of(stats: &str, keys: &mut Keys) -> Vec<Row> {
    let stats = Stats::of_text(stats);
    learn_model(keys, &stats);
    let boards = board_rows(&stats, Some(State::Mining), keys);
    let parts = Parts { summary: Err(Trouble::Endless), stats: Ok(stats), pools: Err(Trouble::Endless) };
    std::iter::once(miner_row(&parts, Some(State::Mining), keys)).chain(boards).collect()
}

#[test]
fn a_key_that_a_known_model_has_is_missing_and_one_that_it_lacks_is_unsupported() {
    let rows = rows_of("Ver[1246-83] MGHS[1.0 2.0] MTmax[70]", &mut Keys::default());
    assert_ne!(rows[0].failed_mask() & bits(&rows[0], &[miner::POWER_MILLIWATTS]), 0);
    let missing = |row: &Row| row.failed_mask() & bits(row, &[board::CHIP_TEMP_MAX_CELSIUS]) != 0;
    assert_eq!((missing(&rows[1]), missing(&rows[2])), (false, true));
    assert_eq!(rows[2].fail_code(), Some(fail_code::MISSING));
    let rows = rows_of("Ver[Q-25] MGHS[1.0] MTmax[]", &mut Keys::default());
    assert!(rows[1].is_unsupported(board::CHIP_TEMP_MAX_CELSIUS) && rows[1].has_failed(board::CRC_ERRORS));
    assert!(rows[1].is_unsupported(board::CHIP_TEMP_AVERAGE_CELSIUS) && !rows[1].is_unsupported(board::CRC_ERRORS));
}

#[test]
fn what_an_unknown_model_has_is_learnt_from_its_replies() {
    let mut keys = Keys::default();
    let power = |row: &Row| {
        let bit = bits(row, &[miner::POWER_MILLIWATTS]);
        (row.unsupported_mask() & bit != 0, row.failed_mask() & bit != 0)
    };
    assert_eq!(power(&rows_of("Ver[1166-1] PS[0 1228 1299 238 3086 1296]", &mut keys)[0]), (true, false));
    assert_eq!(power(&rows_of("Ver[1166-1] PS[0 1228 1299 238 3086 1296 3300]", &mut keys)[0]), (false, false));
    assert_eq!(power(&rows_of("Ver[1166-1] PS[0 1228 1299 238 3086 1296]", &mut keys)[0]), (false, true));
}

#[test]
fn numbers_that_are_none_or_too_large_are_failed_reads() {
    let rows = rows_of(
        "Ver[1246-83] GHSspd[nan] Fan1[99999999999999999999] Fan2[-1] MGHS[x] MH[-4] PVT_T0[60 ? 999 1e9]",
        &mut Keys::default(),
    );
    let failed = [miner::HASHRATE_HASHES_PER_SECOND, miner::FAN_1_RPM, miner::FAN_2_RPM];
    assert_eq!(rows[0].failed_mask() & bits(&rows[0], &failed), bits(&rows[0], &failed));
    assert_eq!(rows[1].fail_code(), Some(fail_code::UNPARSABLE));
    assert_eq!(*rows[1].cell(board::HARDWARE_ERRORS), Cell::Null);
    assert_eq!(*rows[1].cell(board::CHIP_TEMPS_CELSIUS), Cell::List(vec![Some(60), None, None, None]));
}
