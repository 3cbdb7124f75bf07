//! Looks for replies that make the reader of any make panic; the first byte says which make it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use racklake_collector::config::Make;
use racklake_collector::miner::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    if let Some((make, replies)) = bytes.split_first() {
        fuzzing::read(Make::ALL[usize::from(*make) % Make::ALL.len()], replies);
    }
});
