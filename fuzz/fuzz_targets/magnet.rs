//! Magnet links: what is read is written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_content::{Magnet, url};

fuzz_target!(|data: &[u8]| {
    assert_eq!(url::decode(url::encode(data).as_bytes()), data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = Magnet::from_hash(text);
    let hash = "0123456789abcdef0123456789abcdef01234567";
    for link in [
        text.to_owned(),
        format!("magnet:?xt=urn:btih:{hash}&{text}"),
    ] {
        if let Ok(magnet) = link.parse::<Magnet>() {
            assert_eq!(magnet.to_string().parse(), Ok(magnet));
        }
    }
});
