//! Looks for replies that make the reader of whatsminer panic, or fill a column that it also says has no value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use racklake_collector::config::Make;
use racklake_collector::miner::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::read(Make::Whatsminer, bytes));
