//! Hash trees as strangers send them. What is read is written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_gnutella::http::{dime, thex};

fuzz_target!(|data: &[u8]| {
    if let Ok(records) = dime::read(data) {
        let bytes = dime::write(&records);
        let again = dime::read(&bytes).expect("ours");
        let plain = |r: &dime::Record<'_>| (r.id.to_vec(), r.kind.to_vec(), r.data.to_vec());
        let all = |records: &[dime::Record<'_>]| records.iter().map(plain).collect::<Vec<_>>();
        assert_eq!(all(&again), all(&records));
    }
    if let Ok(tree) = thex::read(data) {
        let root = *tree.levels.first_chunk().expect("at least one hash");
        let bytes = thex::write(tree.file_len.unwrap_or(0), &root, &tree.levels);
        let again = thex::read(&bytes).expect("ours");
        assert_eq!(again.levels, tree.levels);
    }
});
