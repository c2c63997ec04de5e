//! What strangers send of people: records, sealed letters, what is said to boxes and by them, journals.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use shoal_base::{Rng, Time};
use shoal_call::chat::{Body, Entry};
use shoal_call::mailbox::Envelope;
use shoal_call::mailbox::office::{Office, OfficeConfig};
use shoal_call::mailbox::wire::{Say, Told};
use shoal_call::record::Record;
use shoal_call::seal::{PrekeyPair, Secrets, open};
use shoal_supernode::wire;

const NOW: u64 = 1_700_000_000;

fn check<M: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
    data: &[u8],
) -> Option<M> {
    let (message, _) = wire::decode::<M>(data).ok()??;
    let mut said = Vec::new();
    wire::encode(&message, &mut said);
    assert_eq!(wire::decode::<M>(&said).ok()??.0, message);
    Some(message)
}

fuzz_target!(|data: &[u8]| {
    // Nobody signs for the key of ones, so that nothing holds.
    assert!(Record::<SocketAddr>::check(&[1; 32], "alice", data, NOW).is_err());
    let pair = PrekeyPair::make(&mut Secrets::new([4; 32]), NOW);
    let known = [&pair.public.id.to_be_bytes()[..], data].concat();
    for letter in [data, &known] {
        assert!(open(&[2; 32], std::slice::from_ref(&pair), &[1; 32], letter, NOW).is_err());
    }
    let framed = [&(data.len() as u32).to_le_bytes()[..], data].concat();
    check::<Told>(&framed);
    check::<Envelope>(&framed);
    check::<Body>(&framed);
    let (entries, used) = Entry::read(data);
    assert!(used <= data.len() && entries.len() <= data.len());
    if let Some(say) = check::<Say>(&framed) {
        let key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
        let mut office = Office::new(OfficeConfig::new([1; 32]), key, Rng::from_seed(1));
        let mut out = Vec::new();
        office.connected(Time::ZERO, 1, &mut out);
        office.said(Time::ZERO, 1, say, &mut out);
        office.check_invariants();
    }
});
