//! What two ends must say to each other before a call, and that it is they who say it.
//!
//! A description is an SDP offer or answer (RFC 3264). It holds the fingerprint of the certificate that
//! its end will show in DTLS; signing the description with the identity key binds the voice to the key,
//! and the key is bound to a name elsewhere. Whoever carries descriptions can read and hold them back,
//! and no more: a changed one fails here, somebody else's certificate fails in DTLS.
//!
//! An answer is bound to its offer, an offer to the key that it is for if that is known. Without known
//! keys there are the digits: both read them to each other.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shoal_base::id::{from_hex, to_hex};

/// Bytes of a description at most; browsers' with a dozen candidates are 4 KiB.
pub const MAX_SDP: usize = 32 << 10;
/// Bytes of a signed description as text at most.
pub const MAX_SIGNED: usize = 40 << 10;
const SIGNED_FOR: &[u8] = b"shoal call description 1\0";
const DIGITS_FOR: &[u8] = b"shoal call digits 1\0";
/// Length of an Ed25519 public key.
const KEY: usize = 32;

/// Which of the two a description is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The caller's.
    Offer,
    /// The callee's.
    Answer,
}

/// Why a description is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// It is longer than [`MAX_SIGNED`] or [`MAX_SDP`].
    #[error("the description of the call is too long")]
    TooLong,
    /// It is no signed description.
    #[error("that is no description of a call")]
    Malformed,
    /// It is an offer where an answer belongs, or the other way round, or of another call.
    #[error("the description is of another call, or its other half")]
    OtherCall,
    /// Its signature is not of the key that it names.
    #[error("the description of the call was changed, or its signature forged")]
    Forged,
    /// It was signed by somebody else than expected.
    #[error("another key answers than the one that was called")]
    OtherKey,
    /// It is meant for somebody else.
    #[error("the call is for another key")]
    NotForUs,
    /// It names no certificate, several, or one by another hash than SHA-256.
    #[error("the description names no certificate, or several")]
    Fingerprint,
}

/// A description with its signature: what is carried from end to end, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDescription {
    role: Role,
    /// Sixteen bytes that name the call, in hexadecimal.
    call: String,
    /// The key of the end that it describes.
    key: String,
    /// The key that it is for, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    sdp: String,
    signature: String,
}

/// A description whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Names the call.
    pub call: [u8; 16],
    /// Who signed.
    pub key: [u8; KEY],
    /// The description itself.
    pub sdp: String,
    /// SHA-256 of the certificate that its end will show.
    pub fingerprint: [u8; 32],
    /// Names the whole, for the answer to be bound to.
    pub digest: [u8; 32],
}

/// What a description must be to be taken.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// An offer, for this key if it names one.
    Offer {
        /// Our key.
        ours: [u8; KEY],
    },
    /// The answer to an offer.
    Answer {
        /// Our offer.
        offer: &'a Described,
        /// The key that we call, if we know it.
        from: Option<[u8; KEY]>,
    },
}

/// Signs a description: an offer that begins the call `call`.
///
/// # Errors
/// If it is too long or names no certificate.
pub fn sign_offer(
    key: &SigningKey,
    call: [u8; 16],
    to: Option<[u8; KEY]>,
    sdp: String,
) -> Result<(SignedDescription, Described), BindingError> {
    sign(key, Role::Offer, call, to, [0; 32], sdp)
}

/// Signs the answer to `offer`.
///
/// # Errors
/// As [`sign_offer`].
pub fn sign_answer(
    key: &SigningKey,
    offer: &Described,
    sdp: String,
) -> Result<(SignedDescription, Described), BindingError> {
    sign(
        key,
        Role::Answer,
        offer.call,
        Some(offer.key),
        offer.digest,
        sdp,
    )
}

fn sign(
    key: &SigningKey,
    role: Role,
    call: [u8; 16],
    to: Option<[u8; KEY]>,
    answers: [u8; 32],
    sdp: String,
) -> Result<(SignedDescription, Described), BindingError> {
    let fingerprint = fingerprint(&sdp)?;
    let public = key.verifying_key().to_bytes();
    let digest = digest(role, call, public, to, answers, &sdp);
    let signature = key.sign(&digest);
    let signed = SignedDescription {
        role,
        call: to_hex(&call),
        key: to_hex(&public),
        to: to.map(|k| to_hex(&k)),
        sdp: sdp.clone(),
        signature: to_hex(&signature.to_bytes()),
    };
    let described = Described {
        call,
        key: public,
        sdp,
        fingerprint,
        digest,
    };
    Ok((signed, described))
}

fn digest(
    role: Role,
    call: [u8; 16],
    key: [u8; KEY],
    to: Option<[u8; KEY]>,
    answers: [u8; 32],
    sdp: &str,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(SIGNED_FOR);
    hash.update([match role {
        Role::Offer => 0,
        Role::Answer => 1,
    }]);
    hash.update(call);
    hash.update(key);
    hash.update([u8::from(to.is_some())]);
    hash.update(to.unwrap_or_default());
    hash.update(answers);
    hash.update(sdp.as_bytes());
    hash.finalize().into()
}

impl SignedDescription {
    /// Reads one line of JSON. Nothing is believed before [`SignedDescription::verify`].
    ///
    /// # Errors
    /// If it is too long or none.
    pub fn parse(text: &str) -> Result<Self, BindingError> {
        if text.len() > MAX_SIGNED {
            return Err(BindingError::TooLong);
        }
        serde_json::from_str(text).map_err(|_| BindingError::Malformed)
    }

    /// As one line of JSON.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Checks that it is what is expected, and that whom it names signed it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, expected: Expected<'_>) -> Result<Described, BindingError> {
        let call: [u8; 16] = from_hex(&self.call).map_err(|_| BindingError::Malformed)?;
        let key: [u8; KEY] = from_hex(&self.key).map_err(|_| BindingError::Malformed)?;
        let signature: [u8; 64] = from_hex(&self.signature).map_err(|_| BindingError::Malformed)?;
        let to: Option<[u8; KEY]> = match &self.to {
            Some(to) => Some(from_hex(to).map_err(|_| BindingError::Malformed)?),
            None => None,
        };
        let answers = match (expected, self.role) {
            (Expected::Offer { .. }, Role::Offer) => [0; 32],
            (Expected::Answer { offer, .. }, Role::Answer) if offer.call == call => offer.digest,
            _ => return Err(BindingError::OtherCall),
        };
        let digest = digest(self.role, call, key, to, answers, &self.sdp);
        VerifyingKey::from_bytes(&key)
            .and_then(|k| k.verify_strict(&digest, &Signature::from_bytes(&signature)))
            .map_err(|_| BindingError::Forged)?;
        match expected {
            Expected::Offer { ours } if to.is_some_and(|to| to != ours) => {
                return Err(BindingError::NotForUs);
            }
            Expected::Answer { offer, .. } if to != Some(offer.key) => {
                return Err(BindingError::NotForUs);
            }
            Expected::Answer { from, .. } if from.is_some_and(|f| f != key) => {
                return Err(BindingError::OtherKey);
            }
            _ => {}
        }
        Ok(Described {
            call,
            key,
            fingerprint: fingerprint(&self.sdp)?,
            sdp: self.sdp.clone(),
            digest,
        })
    }
}

/// SHA-256 of the certificate that an SDP names (RFC 8122, 5). It may name it several times, but
/// only one.
///
/// # Errors
/// If it names none, or several, or the SDP is too long.
pub fn fingerprint(sdp: &str) -> Result<[u8; 32], BindingError> {
    if sdp.len() > MAX_SDP {
        return Err(BindingError::TooLong);
    }
    let mut found = None;
    for line in sdp.lines() {
        let line = line.trim_end();
        let Some(value) = line.strip_prefix("a=fingerprint:") else {
            continue;
        };
        let value = value.trim();
        let (function, digits) = value.split_once(' ').ok_or(BindingError::Fingerprint)?;
        if !function.eq_ignore_ascii_case("sha-256") {
            return Err(BindingError::Fingerprint);
        }
        let digits: String = digits.chars().filter(|c| *c != ':').collect();
        let bytes: [u8; 32] =
            from_hex(&digits.to_ascii_lowercase()).map_err(|_| BindingError::Fingerprint)?;
        if found.is_some_and(|f| f != bytes) {
            return Err(BindingError::Fingerprint);
        }
        found = Some(bytes);
    }
    found.ok_or(BindingError::Fingerprint)
}

/// Sixteen digits in four groups, the same at both ends if and only if each sees the other's
/// certificate. Whoever sits between has the time of the ringing to make a certificate whose digits
/// fit: one try in 10^16 does, which is why there are not four.
pub fn short_authentication_string(a: &Described, b: &Described) -> String {
    let (first, second) = if a.fingerprint <= b.fingerprint {
        (a, b)
    } else {
        (b, a)
    };
    let mut hash = Sha256::new();
    hash.update(DIGITS_FOR);
    hash.update(a.call);
    hash.update(first.fingerprint);
    hash.update(second.fingerprint);
    let hash: [u8; 32] = hash.finalize().into();
    let (head, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let number = u64::from_be_bytes(*head) % 10_000_000_000_000_000;
    let groups =
        [1_000_000_000_000, 100_000_000, 10_000, 1].map(|d| format!("{:04}", number / d % 10_000));
    groups.join(" ")
}

#[cfg(test)]
mod tests;
