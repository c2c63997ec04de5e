//! Chord's bodies: whatever bytes come, reading does not panic, and what was read is written and read
//! again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_dht::chord::{MAX_DATAGRAM, raw};

fuzz_target!(|data: &[u8]| {
    if let Some(written) = raw::reread(data) {
        assert!(written.len() <= data.len().max(MAX_DATAGRAM) * 2);
    }
});
