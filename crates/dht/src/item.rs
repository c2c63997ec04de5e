//! Values that a DHT stores (BEP 44): immutable ones named by their hash, mutable ones by the key
//! that signs them. Rings with a [`Judge`] store certified values instead, under names. Chord stores the same items, so that a signature made for one holds in both.

use crate::Id;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use shoal_base::{Time, bencode};
use std::sync::Arc;

/// Longest bencoded value (BEP 44).
pub const MAX_VALUE: usize = 1000;
/// Longest salt (BEP 44).
pub const MAX_SALT: usize = 64;

/// Why an item is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// More than [`MAX_VALUE`] bytes.
    #[error("the value is {0} bytes long, the most is {MAX_VALUE}")]
    ValueTooLong(usize),
    /// More than [`MAX_SALT`] bytes.
    #[error("the salt is {0} bytes long, the most is {MAX_SALT}")]
    SaltTooLong(usize),
    /// The value is not one whole bencoded value with sorted keys.
    #[error("the value is not canonical bencode")]
    NotBencode,
    /// The signature does not fit the key, salt, sequence number and value.
    #[error("the signature is wrong")]
    BadSignature,
    /// Sequence numbers count from zero.
    #[error("the sequence number {0} is negative")]
    NegativeSequence(i64),
}

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Bencoded bytes, named by their SHA-1.
    Immutable(Vec<u8>),
    /// Bencoded bytes signed by a key that may sign newer ones.
    Mutable(Box<Mutable>),
    /// Bytes under a name of some authority, which a [`Judge`] understands.
    Certified(Box<Certified>),
}

/// What a name of an authority stands for. Of two under one name the higher number holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Whose names they are: an Ed25519 public key.
    pub authority: [u8; 32],
    /// The name; at most [`MAX_SALT`] bytes.
    pub name: Vec<u8>,
    /// Sequence number, from zero.
    pub seq: i64,
    /// Whatever the judge reads; at most [`MAX_VALUE`] bytes.
    pub value: Vec<u8>,
}

/// Says whether certified values hold: what a ring's nodes ask before they keep one, and its guests
/// before they believe one.
#[derive(Clone)]
pub struct Judge(Arc<Judgement>);

/// Until when a value may be kept, at `now`; none: it does not hold.
pub type Judgement = dyn Fn(Time, &Certified) -> Option<Time> + Send + Sync;

impl Judge {
    /// One that judges as `by` does.
    pub fn new(by: impl Fn(Time, &Certified) -> Option<Time> + Send + Sync + 'static) -> Self {
        Self(Arc::new(by))
    }

    /// Until when a value may be kept; none: it does not hold.
    pub fn until(&self, now: Time, item: &Certified) -> Option<Time> {
        check_sizes(&item.name, item.seq).ok()?;
        let fits = item.value.len() <= MAX_VALUE;
        fits.then(|| (self.0)(now, item))?.filter(|end| *end > now)
    }
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judge")
    }
}

/// A signed value. Of two under one name the higher sequence number holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Mutable {
    /// Ed25519 public key.
    pub key: [u8; 32],
    /// Tells apart the values of one key; at most 64 bytes.
    pub salt: Vec<u8>,
    /// Sequence number, from zero.
    pub seq: i64,
    /// Bencoded value, at most 1000 bytes.
    pub value: Vec<u8>,
    /// Ed25519 signature over salt, sequence number and value as BEP 44 writes them.
    pub signature: [u8; 64],
}

impl Item {
    /// An immutable item of bencoded bytes.
    pub fn immutable(value: Vec<u8>) -> Result<Self, ItemError> {
        check_value(&value)?;
        Ok(Self::Immutable(value))
    }

    /// Where it is stored.
    pub fn target(&self) -> Id {
        match self {
            Self::Immutable(value) => Id::hash(value),
            Self::Mutable(item) => mutable_target(&item.key, &item.salt),
            Self::Certified(item) => mutable_target(&item.authority, &item.name),
        }
    }

    /// The value; but for a certified one it is bencoded.
    pub fn value(&self) -> &[u8] {
        match self {
            Self::Immutable(value) => value,
            Self::Mutable(item) => &item.value,
            Self::Certified(item) => &item.value,
        }
    }

    /// The sequence number of a mutable or certified item.
    pub fn seq(&self) -> Option<i64> {
        match self {
            Self::Immutable(_) => None,
            Self::Mutable(item) => Some(item.seq),
            Self::Certified(item) => Some(item.seq),
        }
    }

    /// Checks sizes, bencode and, of a mutable item, the signature; of a certified one sizes alone: the
    /// rest is its [`Judge`]'s.
    pub fn verify(&self) -> Result<(), ItemError> {
        match self {
            Self::Immutable(value) => check_value(value),
            Self::Mutable(item) => item.verify(),
            Self::Certified(item) => match item.value.len() {
                len if len > MAX_VALUE => Err(ItemError::ValueTooLong(len)),
                _ => check_sizes(&item.name, item.seq),
            },
        }
    }
}

impl Mutable {
    /// Signs `value` as number `seq` under `key` and `salt`.
    pub fn sign(
        key: &SigningKey,
        salt: &[u8],
        seq: i64,
        value: Vec<u8>,
    ) -> Result<Self, ItemError> {
        check_sizes(salt, seq)?;
        check_value(&value)?;
        let signature = key.sign(&signed_bytes(salt, seq, &value)).to_bytes();
        Ok(Self {
            key: key.verifying_key().to_bytes(),
            salt: salt.to_vec(),
            seq,
            value,
            signature,
        })
    }

    /// Checks sizes, bencode and signature.
    pub fn verify(&self) -> Result<(), ItemError> {
        check_sizes(&self.salt, self.seq)?;
        check_value(&self.value)?;
        let key = VerifyingKey::from_bytes(&self.key).map_err(|_| ItemError::BadSignature)?;
        key.verify_strict(
            &signed_bytes(&self.salt, self.seq, &self.value),
            &Signature::from_bytes(&self.signature),
        )
        .map_err(|_| ItemError::BadSignature)
    }
}

impl std::fmt::Debug for Mutable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mutable")
            .field("key", &shoal_base::id::to_hex(&self.key))
            .field("salt", &String::from_utf8_lossy(&self.salt))
            .field("seq", &self.seq)
            .field("value", &String::from_utf8_lossy(&self.value))
            .finish_non_exhaustive()
    }
}

/// Where the values of `key` under `salt` are stored: SHA-1 of both joined (BEP 44).
pub fn mutable_target(key: &[u8; 32], salt: &[u8]) -> Id {
    Id::hash(&[&key[..], salt].concat())
}

/// What a signature covers: the bencoded entries `salt` (if any), `seq` and `v`, without the
/// dictionary around them (BEP 44).
fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + salt.len() + 40);
    if !salt.is_empty() {
        out.extend_from_slice(format!("4:salt{}:", salt.len()).as_bytes());
        out.extend_from_slice(salt);
    }
    out.extend_from_slice(format!("3:seqi{seq}e1:v").as_bytes());
    out.extend_from_slice(value);
    out
}

fn check_sizes(salt: &[u8], seq: i64) -> Result<(), ItemError> {
    if salt.len() > MAX_SALT {
        return Err(ItemError::SaltTooLong(salt.len()));
    }
    if seq < 0 {
        return Err(ItemError::NegativeSequence(seq));
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), ItemError> {
    if value.len() > MAX_VALUE {
        return Err(ItemError::ValueTooLong(value.len()));
    }
    let decoded = bencode::decode(value).map_err(|_| ItemError::NotBencode)?;
    let mut again = bencode::Encoder::new();
    again.value(&decoded);
    if again.into_bytes() == value {
        Ok(())
    } else {
        Err(ItemError::NotBencode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_base::id::from_hex;

    /// BEP 44's first and second test vectors.
    #[test]
    fn the_published_vectors_verify() {
        let key =
            from_hex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548").unwrap();
        let plain = Mutable {
            key,
            salt: Vec::new(),
            seq: 1,
            value: b"12:Hello World!".to_vec(),
            signature: from_hex(
                "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
                 1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
            )
            .unwrap(),
        };
        assert_eq!(plain.verify(), Ok(()));
        assert_eq!(
            mutable_target(&key, b"").to_string(),
            "4a533d47ec9c7d95b1ad75f576cffc641853b750"
        );
        let salted = Mutable {
            salt: b"foobar".to_vec(),
            signature: from_hex(
                "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
                 df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
            )
            .unwrap(),
            ..plain.clone()
        };
        assert_eq!(salted.verify(), Ok(()));
        assert_eq!(
            mutable_target(&key, b"foobar").to_string(),
            "411eba73b6f087ca51a3795d9c8c938d365e32c1"
        );
        assert_eq!(
            Mutable { seq: 2, ..salted }.verify(),
            Err(ItemError::BadSignature)
        );
        assert_eq!(
            Item::Immutable(b"12:Hello World!".to_vec())
                .target()
                .to_string(),
            "e5f96f6f38320f0f33959cb4d3d656452117aadb"
        );
    }

    #[test]
    fn what_is_signed_verifies_and_bad_items_are_told() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let item = Mutable::sign(&key, b"s", 3, b"i1e".to_vec()).unwrap();
        assert_eq!(item.verify(), Ok(()));
        let too_long = format!("999:{}", "x".repeat(999)).into_bytes();
        assert_eq!(
            Item::immutable(too_long),
            Err(ItemError::ValueTooLong(1003))
        );
        assert_eq!(
            Mutable::sign(&key, &[0; 65], 0, b"i1e".to_vec()),
            Err(ItemError::SaltTooLong(65))
        );
        for bad in [&b"x"[..], b"i1ei2e", b"i01e", b"d1:b0:1:a0:e", b""] {
            assert_eq!(Item::immutable(bad.to_vec()), Err(ItemError::NotBencode));
        }
    }
}
