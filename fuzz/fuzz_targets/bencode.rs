//! Any bytes either fail to decode or survive a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::bencode::{Encoder, decode, decode_prefix};

fuzz_target!(|bytes: &[u8]| {
    let Ok((value, used)) = decode_prefix(bytes) else {
        return;
    };
    assert!(used <= bytes.len());
    let mut first = Encoder::new();
    first.value(&value);
    let first = first.into_bytes();
    let again = decode(&first).expect("our own output decodes");
    let mut second = Encoder::new();
    second.value(&again);
    assert_eq!(first, second.into_bytes(), "encoding is canonical");
});
