//! The resume journal and the database's records, as a damaged disk might give them back.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shoal_store::resume::check_decoders(data));
