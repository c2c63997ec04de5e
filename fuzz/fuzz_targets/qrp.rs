//! Query routing: updates of a table, in any order; a table that was read is sent on unchanged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_gnutella::message::route::Route;
use shoal_gnutella::qrp::{Receiver, patches, reset};

fuzz_target!(|data: &[u8]| {
    let mut receiver = Receiver::default();
    // Each message: its length, then its bytes.
    let mut rest = data;
    while let Some((&len, after)) = rest.split_first() {
        let (message, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        let Ok(route) = Route::read(message) else {
            continue;
        };
        assert!(message.starts_with(&route.write()));
        // Large tables take their time, and say nothing new.
        if matches!(route, Route::Reset { slots, .. } if slots > 1 << 12) {
            continue;
        }
        if receiver.on_message(route).is_err() {
            return;
        }
    }
    let Some(table) = receiver.table() else {
        return;
    };
    for one_bit in [false, true] {
        let mut copy = Receiver::default();
        let first = reset(table);
        copy.on_message(Route::read(&first).expect("ours")).expect("ours");
        for message in patches(None, table, one_bit) {
            copy.on_message(Route::read(&message).expect("ours")).expect("ours");
        }
        assert_eq!(copy.table(), Some(table));
    }
});
