//! A certificate of one's own making (X.509 version 3, RFC 5280 §4.1): a P-256 key signs itself. It
//! holds nothing that must be right, for nobody looks at it but who was told to trust it.

use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

// Tags of DER.
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OBJECT: u8 = 0x06;
const TEXT: u8 = 0x0c;
const TIME: u8 = 0x17;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTETS: u8 = 0x04;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;

// Names of algorithms and the like, as DER has them.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const OTHER_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// Tag, length, and the parts one after another.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(len as u8),
        0x80..=0xff => out.extend([0x81, len as u8]),
        _ => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// Makes a key: the certificate and the key in PKCS #8.
pub(crate) fn make(name: &str) -> Result<(Vec<u8>, Vec<u8>), Unspecified> {
    let random = SystemRandom::new();
    let kind = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random)?;
    let pair = EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).map_err(|_| Unspecified)?;
    let mut serial = [0; 16];
    random.fill(&mut serial)?;
    // A positive number without leading zeros.
    serial[0] = serial[0] & 0x3f | 0x40;

    let algorithm = der(SEQUENCE, &[&der(OBJECT, &[ECDSA_WITH_SHA256])]);
    let text = der(TEXT, &[name.as_bytes()]);
    // RFC 5280 §4.2.1.6: where names of machines are looked for.
    let dns = der(SEQUENCE, &[&der(DNS_NAME, &[name.as_bytes()])]);
    let others = der(
        SEQUENCE,
        &[&der(OBJECT, &[OTHER_NAMES]), &der(OCTETS, &[&dns])],
    );
    let extensions = der(EXTENSIONS, &[&der(SEQUENCE, &[&others])]);
    let attribute = der(SEQUENCE, &[&der(OBJECT, &[COMMON_NAME]), &text]);
    let name = der(SEQUENCE, &[&der(SET, &[&attribute])]);
    let (from, to) = (
        der(TIME, &[b"200101000000Z"]),
        der(TIME, &[b"491231235959Z"]),
    );
    let curve = der(OBJECT, &[PRIME256V1]);
    let of_key = der(SEQUENCE, &[&der(OBJECT, &[EC_PUBLIC_KEY]), &curve]);
    let public = der(BITS, &[&[0], pair.public_key().as_ref()]);
    let to_be_signed = der(
        SEQUENCE,
        &[
            &der(VERSION, &[&der(INTEGER, &[&[2]])]),
            &der(INTEGER, &[&serial]),
            &algorithm,
            &name,
            &der(SEQUENCE, &[&from, &to]),
            &name,
            &der(SEQUENCE, &[&of_key, &public]),
            &extensions,
        ],
    );
    let signature = pair.sign(&random, &to_be_signed)?;
    let signature = der(BITS, &[&[0], signature.as_ref()]);
    let certificate = der(SEQUENCE, &[&to_be_signed, &algorithm, &signature]);
    Ok((certificate, pkcs8.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_der_has_them() {
        assert_eq!(der(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(der(TEXT, &[&[7; 200]])[..4], [0x0c, 0x81, 200, 7]);
        assert_eq!(der(TEXT, &[&[7; 300], &[8]])[..4], [0x0c, 0x82, 1, 45]);
    }

    #[test]
    fn each_is_another() {
        let (one, two) = (make("a").expect("one"), make("a").expect("two"));
        assert!(one.0 != two.0 && one.1 != two.1 && one.0.len() > 250);
    }
}
