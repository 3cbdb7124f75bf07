//! Looks for bytes that make the decoder panic, take more memory than its limit, keep half a frame, or lose a value.
//!
//! From `schemas`, with a nightly compiler and cargo-fuzz, and the golden messages as seeds:
//!
//! ```text
//! cargo +nightly fuzz run decode fuzz/corpus/decode testdata/v1 -- -max_total_time=600
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use racklake_schemas::{Rows, wire};

fuzz_target!(|bytes: &[u8]| {
    let mut rows = None;
    let result = wire::decode(bytes, 0, |table| rows.insert(Rows::new(table)));
    let Some(rows) = rows else {
        assert!(result.is_err(), "rows of no table");
        return;
    };
    let Ok(received) = result else {
        assert_eq!((rows.len(), rows.bytes()), (0, 0), "half a frame was kept");
        return;
    };
    assert!(rows.bytes() <= wire::DECODED_BYTES_MAX, "{} bytes of rows", rows.bytes());
    let batch = rows.into_batch().expect("what decodes is rows");
    let again = wire::encode(&received.header, &batch);
    let mut rows = Rows::new(received.header.table);
    wire::decode(&again, 0, |_| &mut rows).expect("what was encoded decodes");
    assert_eq!(rows.into_batch().expect("what decodes is rows"), batch, "a value was lost");
});
