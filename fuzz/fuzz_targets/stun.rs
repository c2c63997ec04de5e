//! STUN messages of strangers. What is read is written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_reach::stun::{Attribute, Builder, HEADER, Key, MAGIC, MAX_ATTRIBUTES, Message};

fn check(data: &[u8]) {
    let Ok(message) = Message::decode(data) else {
        return;
    };
    // Integrity and fingerprint are two more.
    if message.attributes().count() + 2 > MAX_ATTRIBUTES {
        return;
    }
    let key = Key::short_term(b"secret");
    let _ = message.is_made_with(&key);
    let read = |message: &Message<'_>| -> Vec<Vec<u8>> {
        let id = message.id();
        let good = message
            .attributes()
            .filter_map(|(kind, value)| Attribute::decode(kind, value, &id).ok());
        good.map(|a| format!("{a:?}").into_bytes()).collect()
    };
    let mut written = Vec::new();
    let mut builder = Builder::new(&mut written, message.class(), message.method(), message.id());
    let mut room = usize::from(u16::MAX) - 64;
    for (kind, value) in message.attributes() {
        if let Ok(attribute) = Attribute::decode(kind, value, &message.id()) {
            // A value may be longer as it is written: padded, or with reserved bytes.
            let Some(left) = room.checked_sub(value.len() + 16) else {
                return;
            };
            room = left;
            builder.put(&attribute);
        }
    }
    builder.integrity(&key).fingerprint();
    let again = Message::decode(&written).expect("what was written is a message");
    assert!(again.is_made_with(&key));
    assert_eq!(read(&message), read(&again));
}

fuzz_target!(|data: &[u8]| {
    check(data);
    // The same bytes with a header that fits.
    let mut whole = data.to_vec();
    whole.resize(data.len().next_multiple_of(4).max(HEADER), 0);
    let Ok(len) = u16::try_from(whole.len() - HEADER) else {
        return;
    };
    whole[0] &= 0x3f;
    whole[2..4].copy_from_slice(&len.to_be_bytes());
    whole[4..8].copy_from_slice(&MAGIC.to_be_bytes());
    check(&whole);
});
