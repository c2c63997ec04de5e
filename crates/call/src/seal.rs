//! Letters that only the recipient reads, and whose sender is certain.
//!
//! HPKE (RFC 9180) in its base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, to a
//! prekey of the recipient: a key pair that its owner makes for some days and then forgets. Each letter
//! has an ephemeral key of its own. Within, the sender signs with the key of its name what is said, to
//! whom (name's key and prekey), and shows its certificate; so nobody can pass a letter on as if it
//! had been written to somebody else. Whoever carries it sees neither sender nor text.
//!
//! ```text
//! letter = prekey's number (4, big-endian) | encapsulated key (32) | ciphertext with tag (16)
//! ```

use ed25519_dalek::SigningKey;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use serde::{Deserialize, Serialize};
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::token::{Invalid, Key, Sealed};

use crate::record::Prekey;

/// Bytes of a sealed letter at most.
pub const MAX_SEALED: usize = 16 << 10;
const INFO: &[u8] = b"shoal letter 1";
const ABOUT: &str = "letter";
const NUMBER: usize = 4;
const ENCAPSULATED: usize = 32;

/// Random numbers that keys are made of: ChaCha20 from a seed of 256 bits.
#[derive(Debug)]
pub struct Secrets(ChaCha20Rng);

impl Secrets {
    /// From a seed that nobody else knows.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// A prekey's both halves.
#[derive(Clone, Serialize, Deserialize)]
pub struct PrekeyPair {
    /// What others seal to.
    pub public: Prekey,
    /// When it was made, in Unix seconds.
    pub made: u64,
    secret: [u8; 32],
}

impl std::fmt::Debug for PrekeyPair {
    // Without what nobody should read in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrekeyPair({}, {})", self.public.id, self.made)
    }
}

impl PrekeyPair {
    /// A fresh one.
    pub fn make(secrets: &mut Secrets, unix: u64) -> Self {
        let (mut seed, mut id) = ([0; 32], [0; 4]);
        secrets.fill(&mut seed);
        secrets.fill(&mut id);
        let (secret, public) = X25519HkdfSha256::derive_keypair(&seed);
        let public = Prekey {
            id: u32::from_be_bytes(id),
            key: public.to_bytes().into(),
        };
        Self {
            public,
            made: unix,
            secret: secret.to_bytes().into(),
        }
    }
}

/// What a letter says, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Letter {
    from: Certificate,
    seal: Sealed,
    text: Vec<u8>,
}

/// Why a letter cannot be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is longer than letters may be.
    #[error("longer than a letter may be")]
    TooLong,
    /// The recipient's prekey is no key.
    #[error("the recipient's key is no key")]
    NoKey,
    /// It is not for us, was changed, or is none.
    #[error("not a letter to us")]
    Foreign,
    /// Its prekey was forgotten, as it is after some days.
    #[error("sealed to a key that is not kept any more")]
    Forgotten,
    /// The sender's certificate does not hold.
    #[error("the sender's certificate does not hold: {0}")]
    Certificate(Invalid),
    /// The sender whom it names did not sign it.
    #[error("not by the sender it names")]
    Forged,
}

/// Whom a letter is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct To {
    /// The key of the recipient's name.
    pub key: Key,
    /// The recipient's prekey.
    pub prekey: Prekey,
}

/// Seals a text by the owner of a name.
///
/// # Errors
/// It is too long, or the prekey no key.
pub fn seal(
    key: &SigningKey,
    from: &Certificate,
    to: &To,
    text: &[u8],
    secrets: &mut Secrets,
) -> Result<Vec<u8>, Unread> {
    let said = (&to.key, to.prekey.id, &to.prekey.key, text);
    let letter = Letter {
        from: from.clone(),
        seal: Sealed::new(key, ABOUT, &said),
        text: text.to_vec(),
    };
    // Plain data: its encoding cannot fail.
    let plain = postcard::to_allocvec(&letter).unwrap_or_default();
    if plain.len() + NUMBER + ENCAPSULATED + 16 > MAX_SEALED {
        return Err(Unread::TooLong);
    }
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&to.prekey.key)
        .map_err(|_| Unread::NoKey)?;
    let number = to.prekey.id.to_be_bytes();
    let (encapsulated, sealed) =
        hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            INFO,
            &plain,
            &number,
            &mut secrets.0,
        )
        .map_err(|_| Unread::NoKey)?;
    let encapsulated: [u8; ENCAPSULATED] = encapsulated.to_bytes().into();
    Ok([&number[..], &encapsulated, &sealed].concat())
}

/// Opens a letter to the owner of `me`: the sender's certificate, which holds at `unix`, and the text.
///
/// # Errors
/// Why it cannot be read.
pub fn open(
    me: &Key,
    prekeys: &[PrekeyPair],
    server: &Key,
    sealed: &[u8],
    unix: u64,
) -> Result<(Certificate, Vec<u8>), Unread> {
    if sealed.len() > MAX_SEALED {
        return Err(Unread::TooLong);
    }
    let (number, rest) = sealed
        .split_first_chunk::<NUMBER>()
        .ok_or(Unread::Foreign)?;
    let (encapsulated, sealed) = rest
        .split_first_chunk::<ENCAPSULATED>()
        .ok_or(Unread::Foreign)?;
    let id = u32::from_be_bytes(*number);
    let pair = prekeys.iter().find(|p| p.public.id == id);
    let pair = pair.ok_or(Unread::Forgotten)?;
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&pair.secret)
        .map_err(|_| Unread::NoKey)?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)
        .map_err(|_| Unread::Foreign)?;
    let plain = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        INFO,
        sealed,
        number,
    )
    .map_err(|_| Unread::Foreign)?;
    let letter: Letter = match postcard::take_from_bytes(&plain) {
        Ok((letter, [])) => letter,
        _ => return Err(Unread::Foreign),
    };
    let said = (me, id, &pair.public.key, &letter.text[..]);
    if !letter.seal.is_by(&letter.from.key, ABOUT, &said) {
        return Err(Unread::Forged);
    }
    letter
        .from
        .check(server, unix)
        .map_err(Unread::Certificate)?;
    Ok((letter.from, letter.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn public(n: u8) -> Key {
        key(n).verifying_key().to_bytes()
    }

    fn certificate(n: u8) -> Certificate {
        Certificate::issue(&key(1), ("alice", public(n)), (0, 0), NOW + 100)
    }

    #[test]
    fn only_the_recipient_reads_a_letter_and_knows_whose_it_is() {
        let mut secrets = Secrets::new([4; 32]);
        let bob = PrekeyPair::make(&mut secrets, NOW);
        let carol = PrekeyPair::make(&mut secrets, NOW);
        let to = To {
            key: public(3),
            prekey: bob.public,
        };
        let sealed =
            seal(&key(2), &certificate(2), &to, b"hello bob", &mut secrets).expect("sealed");
        let again =
            seal(&key(2), &certificate(2), &to, b"hello bob", &mut secrets).expect("sealed");
        assert_ne!(sealed[4..36], again[4..36], "a key of its own");
        assert!(!sealed.windows(5).any(|w| w == b"hello" || w == b"alice"));
        let pairs = [carol.clone(), bob.clone()];
        let open = |me, pairs: &[PrekeyPair], sealed: &[u8], unix| {
            open(&public(me), pairs, &public(1), sealed, unix)
        };
        let (from, text) = open(3, &pairs, &sealed, NOW).expect("read");
        assert_eq!((from, &text[..]), (certificate(2), &b"hello bob"[..]));
        assert_eq!(open(3, &[carol], &sealed, NOW), Err(Unread::Forgotten));
        assert_eq!(
            open(4, &pairs, &sealed, NOW),
            Err(Unread::Forged),
            "to another with the prekey"
        );
        assert_eq!(
            open(3, &pairs, &sealed, NOW + 100),
            Err(Unread::Certificate(Invalid::Expired))
        );
        // By somebody with another's certificate.
        let forged = seal(&key(5), &certificate(2), &to, b"hi", &mut secrets).expect("sealed");
        assert_eq!(open(3, &pairs, &forged, NOW), Err(Unread::Forged));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(3, &pairs, &changed, NOW).is_err(), "{at}");
        }
        let long = vec![0; MAX_SEALED];
        assert_eq!(
            seal(&key(2), &certificate(2), &to, &long, &mut secrets),
            Err(Unread::TooLong)
        );
        let none = To {
            key: public(3),
            prekey: Prekey {
                id: 1,
                key: [0; 32],
            },
        };
        assert_eq!(
            seal(&key(2), &certificate(2), &none, b"", &mut secrets),
            Err(Unread::NoKey)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let pair = PrekeyPair::make(&mut Secrets::new([4; 32]), NOW);
            let mut known = pair.public.id.to_be_bytes().to_vec();
            known.extend(&bytes);
            for bytes in [bytes, known] {
                prop_assert!(open(&public(3), std::slice::from_ref(&pair), &public(1), &bytes, NOW).is_err());
            }
        }
    }
}
