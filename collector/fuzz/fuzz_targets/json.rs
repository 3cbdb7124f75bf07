//! Looks for bytes that make the reader of miners' JSON panic or contradict itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use racklake_collector::miner::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::json(bytes));
