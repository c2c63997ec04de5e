//! Headers of a web seed's answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shoal_bittorrent::webseed::fuzz(data));
