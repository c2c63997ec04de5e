//! Runs and indexes of map outputs. Sums are put right first for half of the inputs, so that what is
//! behind them is reached. What is read must be what the check of stored bytes lets pass.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_mapreduce::data::merge::Merge;
use shoal_mapreduce::data::native::Sorted;
use shoal_mapreduce::data::order::KeyOrder;
use shoal_mapreduce::data::shuffle::{Index, Origin, RunReader, StoredCheck};
use std::io::Cursor;

/// Puts the sum of each block right, as far as its lengths lead.
fn with_sums(run: &mut [u8]) {
    let mut rest = run;
    while rest.len() >= 16 {
        let stored = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        let Some(body) = rest.get(16..16usize.saturating_add(stored)) else {
            return;
        };
        let sum = crc32c::crc32c_append(crc32c::crc32c(&rest[..12]), body);
        rest[12..16].copy_from_slice(&sum.to_le_bytes());
        rest = &mut rest[16 + stored..];
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    if let Ok(index) = Index::decode(bytes) {
        assert_eq!(index.encode(), bytes);
    }
    let mut run = bytes.to_vec();
    if choice % 2 == 0 {
        with_sums(&mut run);
    }
    let mut check = StoredCheck::new();
    let passed = run.chunks(1 + usize::from(choice)).all(|piece| check.update(piece).is_ok())
        && check.finish().is_ok();
    let mut reader = RunReader::new(Box::new(Cursor::new(run.clone())), Origin::Map(0));
    let mut whole = true;
    loop {
        match reader.advance() {
            Ok(true) => assert_eq!(reader.record().len(), 8 + reader.key().len() + reader.value().len()),
            Ok(false) => break,
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    // A reader ends at the last block; the check also refuses what comes after it.
    if whole && reader.stored_bytes() == run.len() as u64 {
        assert!(passed);
    }
    let runs = (0..2).map(|n| RunReader::new(Box::new(Cursor::new(run.clone())), Origin::Map(n)));
    let mut merge = Merge::new(runs.collect(), KeyOrder::bytes(), false);
    while let Ok(true) = merge.advance() {}
});
