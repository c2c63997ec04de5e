//! What is read of names: certificates, lines of the log, proofs, places.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::log::{extends, includes};
use shoal_supernode::names::register::Entry;
use shoal_supernode::place::{self, Place};

fuzz_target!(|data: &[u8]| {
    if let Some(certificate) = Certificate::from_bytes(data) {
        assert!(certificate.check(&[1; 32], 0).is_err());
        assert_eq!(Certificate::from_bytes(&certificate.to_bytes()), Some(certificate));
    }
    if let Some(entry) = std::str::from_utf8(data).ok().and_then(Entry::parse) {
        assert_eq!(Entry::parse(&entry.line()), Some(entry));
    }
    if let Some(prefix) = place::read_name(data) {
        assert_eq!(place::name(&prefix), data);
    }
    // Nobody signs for the key of ones, so that nothing holds.
    assert!(Place::<SocketAddr>::read(&[1; 32], &[2; 15], data, 1_700_000_000).is_err());
    let Some((numbers, proof)) = data.split_first_chunk::<24>() else {
        return;
    };
    let number = |n: usize| numbers[n * 8..][..8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let proof: Vec<[u8; 32]> = proof.as_chunks::<32>().0.to_vec();
    let (index, size, from) = (number(0), number(1), number(2));
    assert!(!includes(&[1; 32], index, size, &[2; 32], &proof));
    let shown = extends((from, &[3; 32]), (size, &[2; 32]), &proof);
    assert!(!shown || from == 0);
});
