//! Gnutella's handshake: arbitrary bytes as either end hears them, whole and in parts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_gnutella::handshake::{Greeting, Handshake, Step, Version};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let ours = Greeting {
        accepts_deflate: choice & 1 != 0,
        upgrade: choice & 2 != 0,
        ..Greeting::default()
    };
    let make = || {
        let mut out = Vec::new();
        match choice & 12 {
            0 => Handshake::called(),
            4 => Handshake::call(Version::V04, ours.clone(), &mut out),
            _ => Handshake::call(Version::V06, ours.clone(), &mut out),
        }
    };
    let mut whole = make();
    let first = whole.on_bytes(bytes);
    let mut parts = make();
    let mut last = Ok(Step::More);
    for byte in bytes {
        last = parts.on_bytes(&[*byte]);
        if last != Ok(Step::More) {
            break;
        }
    }
    // What is refused whole may be refused earlier in parts; what is accepted is the same.
    if let Ok(Step::Judge(_)) = first {
        assert_eq!(first, last);
        let mut out = Vec::new();
        if whole.welcome(ours, &mut out) == Step::More {
            let _ = whole.on_bytes(b"GNUTELLA/0.6 200 OK\r\n\r\n");
        }
        let _ = Greeting::read(&out);
    }
});
