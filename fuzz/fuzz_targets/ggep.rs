//! GGEP and HUGE: blocks and areas of extensions. What is read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_gnutella::ggep::{self, Writer};
use shoal_gnutella::huge::{Extension, MAX_PARTS, Urn, extensions};

fuzz_target!(|data: &[u8]| {
    if let Ok((items, used)) = ggep::read(data) {
        assert!(used <= data.len());
        for no_nul in [false, true] {
            let mut again = Vec::new();
            let mut writer = Writer::new(&mut again, no_nul);
            for item in &items {
                writer.item(item.id, &item.data);
            }
            writer.finish();
            let (back, all) = ggep::read(&again).expect("what we write is readable");
            assert_eq!((back, all), (items.clone(), again.len()));
        }
    }
    let mut count = 0;
    for extension in extensions(data) {
        count += 1;
        if let Extension::Urn(urn) = extension {
            assert_eq!(Urn::read(urn.to_string().as_bytes()), Some(urn));
        }
    }
    assert!(count <= MAX_PARTS);
});
