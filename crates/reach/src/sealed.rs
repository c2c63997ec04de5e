//! Letters between nodes that only the recipient can read, and whose sender is certain.
//!
//! ```text
//! letter = ephemeral X25519 key (32) | ChaCha20-Poly1305( sender (32) | signature (64) | text )
//! key    = HMAC-SHA256(HMAC-SHA256(ephemeral | recipient, shared secret), "shoal reach letter")
//! ```
//!
//! A node's X25519 key is its Ed25519 key in Montgomery form (RFC 7748 §4.1), so that a name is all
//! that a sender needs. Each letter has a key of its own, which is why the nonce may be zero. The
//! signature covers recipient, ephemeral key and text: nobody can pass a letter on as if it had been
//! written to somebody else. Whoever carries it sees neither sender nor text.

use crate::identity::{Identity, NodeId};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::{Signature, Signer};
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;

/// Bytes of a letter beyond its text.
pub const OVERHEAD: usize = 32 + 32 + 64 + 16;
/// Bytes of a letter at most.
pub const MAX_LETTER: usize = 4096;

const ABOUT: &[u8] = b"shoal reach letter";

/// Why a letter cannot be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The text is longer than letters may be.
    #[error("longer than a letter may be")]
    TooLong,
    /// The recipient's name is no key.
    #[error("the recipient's name is no key")]
    NoKey,
    /// It is not for us, was changed, or is none.
    #[error("not a letter to us")]
    Foreign,
    /// The sender whom it names did not sign it.
    #[error("not by the sender it names")]
    Forged,
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else {
        return [0; 32];
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn cipher(
    ephemeral: &MontgomeryPoint,
    recipient: &MontgomeryPoint,
    shared: &MontgomeryPoint,
) -> Option<LessSafeKey> {
    // All zero: a key of small order, with which anybody would know the secret.
    if shared.as_bytes() == &[0; 32] {
        return None;
    }
    let salt = [*ephemeral.as_bytes(), *recipient.as_bytes()].concat();
    let key = mac(&mac(&salt, &[shared.as_bytes()]), &[ABOUT]);
    UnboundKey::new(&CHACHA20_POLY1305, &key)
        .ok()
        .map(LessSafeKey::new)
}

fn signed(to: &NodeId, ephemeral: &[u8; 32], text: &[u8]) -> Vec<u8> {
    [ABOUT, &to.0, ephemeral, text].concat()
}

fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Seals a text. `fresh` must be random bytes that are used for nothing else.
///
/// # Errors
/// The text is too long, or the recipient's name no key.
pub fn seal(from: &Identity, to: &NodeId, fresh: [u8; 32], text: &[u8]) -> Result<Vec<u8>, Unread> {
    if text.len() + OVERHEAD > MAX_LETTER {
        return Err(Unread::TooLong);
    }
    let recipient = to.key().ok_or(Unread::NoKey)?.to_montgomery();
    let ephemeral = MontgomeryPoint::mul_base_clamped(fresh);
    let shared = recipient.mul_clamped(fresh);
    let cipher = cipher(&ephemeral, &recipient, &shared).ok_or(Unread::NoKey)?;
    let ephemeral = ephemeral.to_bytes();
    let signature = from.key().sign(&signed(to, &ephemeral, text)).to_bytes();
    let mut inner = [&from.id().0, &signature[..], text].concat();
    cipher
        .seal_in_place_append_tag(zero(), Aad::empty(), &mut inner)
        .map_err(|_| Unread::TooLong)?;
    Ok([&ephemeral[..], &inner].concat())
}

/// Opens a letter to us: its sender and its text.
///
/// # Errors
/// Why it cannot be read.
pub fn open(me: &Identity, letter: &[u8]) -> Result<(NodeId, Vec<u8>), Unread> {
    if letter.len() > MAX_LETTER {
        return Err(Unread::TooLong);
    }
    let (ephemeral, inner) = letter.split_first_chunk::<32>().ok_or(Unread::Foreign)?;
    let point = MontgomeryPoint(*ephemeral);
    let ours = me.key().verifying_key().to_montgomery();
    let shared = point.mul_clamped(me.key().to_scalar_bytes());
    let cipher = cipher(&point, &ours, &shared).ok_or(Unread::Foreign)?;
    let mut inner = inner.to_vec();
    let inner = cipher
        .open_in_place(zero(), Aad::empty(), &mut inner)
        .map_err(|_| Unread::Foreign)?;
    let (sender, rest) = inner.split_first_chunk::<32>().ok_or(Unread::Foreign)?;
    let (signature, text) = rest.split_first_chunk::<64>().ok_or(Unread::Foreign)?;
    let sender = NodeId(*sender);
    let key = sender.key().ok_or(Unread::Forged)?;
    key.verify_strict(
        &signed(&me.id(), ephemeral, text),
        &Signature::from_bytes(signature),
    )
    .map_err(|_| Unread::Forged)?;
    Ok((sender, text.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn who(n: u8) -> Identity {
        Identity::from_secret(&[n; 32])
    }

    #[test]
    fn only_the_recipient_reads_it_and_knows_whose_it_is() {
        let letter = seal(&who(1), &who(2).id(), [9; 32], b"hello").expect("sealed");
        assert_eq!(letter.len(), 5 + OVERHEAD);
        assert_eq!(open(&who(2), &letter), Ok((who(1).id(), b"hello".to_vec())));
        assert_eq!(open(&who(3), &letter), Err(Unread::Foreign));
        assert!(!letter.windows(5).any(|w| w == b"hello"));
    }

    #[test]
    fn a_letter_is_not_passed_on_as_ones_own_nor_to_others() {
        let to_two = seal(&who(1), &who(2).id(), [9; 32], b"x").expect("sealed");
        let (from, text) = open(&who(2), &to_two).expect("read");
        // Two seals it again for three, in one's name: one's signature is for two.
        let three = who(3).id().key().expect("a key").to_montgomery();
        let ephemeral = MontgomeryPoint::mul_base_clamped([8; 32]);
        let cipher = cipher(&ephemeral, &three, &three.mul_clamped([8; 32])).expect("a cipher");
        let signature = who(2)
            .key()
            .sign(&signed(&who(3).id(), &ephemeral.to_bytes(), &text));
        let mut inner = [&from.0[..], &signature.to_bytes(), &text].concat();
        cipher
            .seal_in_place_append_tag(zero(), Aad::empty(), &mut inner)
            .expect("sealed");
        let forged = [&ephemeral.to_bytes()[..], &inner].concat();
        assert_eq!(open(&who(3), &forged), Err(Unread::Forged));
    }

    #[test]
    fn long_texts_and_bad_names_are_refused() {
        let long = vec![0; MAX_LETTER];
        assert_eq!(
            seal(&who(1), &who(2).id(), [9; 32], &long),
            Err(Unread::TooLong)
        );
        assert_eq!(open(&who(1), &[0; MAX_LETTER + 1]), Err(Unread::TooLong));
        // No point of the curve has this y.
        let mut two = [0; 32];
        two[0] = 2;
        let nobody = NodeId(two);
        assert_eq!(seal(&who(1), &nobody, [9; 32], b""), Err(Unread::NoKey));
        // A key of small order.
        assert_eq!(open(&who(1), &[0; 200]), Err(Unread::Foreign));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(open(&who(1), &bytes).is_err());
        }

        #[test]
        fn a_changed_letter_is_refused(at in 0usize..200, bit in 0u8..8) {
            let mut letter = seal(&who(1), &who(2).id(), [9; 32], &[5; 60]).expect("sealed");
            let at = at % letter.len();
            letter[at] ^= 1 << bit;
            // The highest bit of an X25519 key means nothing, but the key is in the salt.
            prop_assert!(open(&who(2), &letter).is_err());
        }
    }
}
