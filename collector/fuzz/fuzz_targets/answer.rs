//! Looks for answers on a miner's ports that make what takes them panic, or that depend on how the bytes came.

#![no_main]

use libfuzzer_sys::fuzz_target;
use racklake_collector::miner::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::answer(bytes));
