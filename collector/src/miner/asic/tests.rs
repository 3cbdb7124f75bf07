//! What asic-rs makes of replies. The constructors of two makes can be called without a miner, so they stand for all.

use asic_rs::core::traits::miner::MinerConstructor;
use asic_rs::core::traits::model::UnknownMinerModel;
use racklake_schemas::Cell;
use racklake_schemas::tables::{hashboard_sample as board, miner_sample as miner};

use super::*;
use crate::miner::state::State;
use crate::miner::testing::{json, recorded};

fn forgeaxe() -> Memory {
    let model = UnknownMinerModel { name: "Forgeaxe".to_owned() };
    let miner = asic_rs::forgeaxe::backends::Forgeaxe::new(IpAddr::from([127, 0, 0, 1]), model, None);
    Box::new(Known { miner: Some(miner), ..Known::default() })
}

fn replies(info: Json) -> Replies {
    let mut replies = Replies::default();
    replies.add("/system/info", Ok(info));
    replies
}

#[test]
fn a_recorded_reply_goes_through_the_librarys_parser_into_rows() {
    let told = VNISH.read(&replies(recorded("forgeaxe/v1_1_0/system_info.json")), &mut forgeaxe());
    let row = told.miner.unwrap();
    for (column, cell) in [
        (miner::HASHRATE_HASHES_PER_SECOND, Cell::I64(1_200_000_000_000)),
        (miner::POWER_ESTIMATED_MILLIWATTS, Cell::I64(42_670)),
        (miner::FAN_1_RPM, Cell::I64(3333)),
        (miner::FAN_2_RPM, Cell::Null),
        (miner::UPTIME_SECONDS, Cell::I64(38)),
        (miner::ACCEPTED_SHARES, Cell::I64(12)),
    ] {
        assert_eq!(*row.cell(column), cell, "{}", row.table().columns[column].name);
    }
    assert_eq!(*told.boards[0].cell(board::FREQUENCY_KILOHERTZ), Cell::I64(600_000));
    assert_eq!(told.judged, Some((State::Mining, None)));
}

#[test]
fn a_miner_that_tells_nothing_is_not_called_mining() {
    let mut none = Replies::default();
    none.add("/system/info", Err(Trouble::NoAnswer("the time was over")));
    let told = VNISH.read(&none, &mut forgeaxe());
    assert_eq!((told.miner, told.judged), (None, None));
    let told = VNISH.read(&replies(json("{}")), &mut forgeaxe());
    assert!(told.judged.is_none_or(|(state, _)| state != State::Mining));
    assert!(told.boards.is_empty(), "a board that the model has is no reading");
}

#[test]
fn a_miner_whose_model_is_not_known_has_no_readings() {
    let told = VNISH.read(&replies(recorded("forgeaxe/v1_1_0/system_info.json")), &mut VNISH.memory());
    assert_eq!(told.miner, None);
}
