//! Taking a message apart, and whether it is whole and from whom it says.

use super::attribute::{Attribute, BadAttribute, kind};
use super::key::Key;
use super::method::{Class, Method, split};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use shoal_base::secret::same;
use smallvec::SmallVec;
use std::fmt;

/// Bytes of a header.
pub const HEADER: usize = 20;
/// The second word of every message.
pub const MAGIC: u32 = 0x2112_a442;
/// Attributes of a message at most. The largest real ones, which permit dozens of peers at once,
/// stay well below; without a limit 64 KiB of empty attributes would be searched again and again.
pub const MAX_ATTRIBUTES: usize = 128;
/// What the checksum is XORed with: "STUN" (RFC 8489 §14.7).
pub(super) const FINGERPRINT_MASK: u32 = 0x5354_554e;

/// What a response is told by: 96 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// A new one, which nobody can guess.
    pub fn random(rng: &mut shoal_base::Rng) -> Self {
        let mut id = [0; 12];
        rng.fill(&mut id);
        Self(id)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header.
    #[error("shorter than a STUN header")]
    Short,
    /// The first two bits are not zero, or the cookie is another.
    #[error("not STUN")]
    NotStun,
    /// The length told is not that of what came, or not a multiple of four.
    #[error("the header tells {told} bytes, {came} came")]
    Length {
        /// What the header tells.
        told: usize,
        /// What came after the header.
        came: usize,
    },
    /// An attribute goes beyond the end.
    #[error("the attribute at byte {0} is cut short")]
    CutShort(usize),
    /// More attributes than any message has.
    #[error("more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    /// Something follows FINGERPRINT, or it is not four bytes.
    #[error("the fingerprint is not the last attribute")]
    Fingerprint,
    /// The checksum is wrong.
    #[error("the fingerprint does not fit")]
    Checksum,
    /// MESSAGE-INTEGRITY is not 20 bytes, or MESSAGE-INTEGRITY-SHA256 not 16, 20 ... 32.
    #[error("message integrity of a wrong length")]
    Integrity,
}

/// Whether a datagram may be STUN: what else shares a port (ChannelData, RTP, DTLS, QUIC) differs in
/// the first two bits or the cookie.
pub fn looks_like_stun(bytes: &[u8]) -> bool {
    matches!(bytes, [0..=0x3f, _, _, _, 0x21, 0x12, 0xa4, 0x42, ..])
}

/// A message, in place. Its attributes are well-formed as far as their lengths go, and its checksum
/// fits if it has one; what they hold is looked at when they are read.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    class: Class,
    method: Method,
    id: TransactionId,
    bytes: &'a [u8],
    /// Where the attributes end that count: those behind integrity are not protected by it.
    end: usize,
    integrity: Option<usize>,
    integrity_sha256: Option<(usize, usize)>,
    fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Takes exactly one message apart.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let [t0, t1, l0, l1, c0, c1, c2, c3, id @ ..] = bytes else {
            return Err(DecodeError::Short);
        };
        let id = TransactionId(*id.first_chunk().ok_or(DecodeError::Short)?);
        let word = u16::from_be_bytes([*t0, *t1]);
        if word & 0xc000 != 0 || u32::from_be_bytes([*c0, *c1, *c2, *c3]) != MAGIC {
            return Err(DecodeError::NotStun);
        }
        let told = usize::from(u16::from_be_bytes([*l0, *l1]));
        let came = bytes.len() - HEADER;
        if told != came || told % 4 != 0 {
            return Err(DecodeError::Length { told, came });
        }
        let (class, method) = split(word);
        let mut message = Self {
            class,
            method,
            id,
            bytes,
            end: bytes.len(),
            integrity: None,
            integrity_sha256: None,
            fingerprint: false,
        };
        message.walk()?;
        Ok(message)
    }

    /// Checks the lengths of all attributes and notes where the special ones are.
    fn walk(&mut self) -> Result<(), DecodeError> {
        let mut all = Attributes::new(self.bytes, HEADER);
        let mut count = 0;
        while let Some((at, kind, value)) = all.step()? {
            count += 1;
            if count > MAX_ATTRIBUTES {
                return Err(DecodeError::TooMany);
            }
            if self.fingerprint {
                return Err(DecodeError::Fingerprint);
            }
            let nothing_after = self.integrity_sha256.is_some();
            match kind {
                kind::FINGERPRINT => {
                    let told = value.try_into().map(u32::from_be_bytes);
                    let told = told.map_err(|_| DecodeError::Fingerprint)?;
                    let covered = self.bytes.get(..at).unwrap_or_default();
                    if crc32fast::hash(covered) ^ FINGERPRINT_MASK != told {
                        return Err(DecodeError::Checksum);
                    }
                    self.fingerprint = true;
                }
                // RFC 8489 §14.5, 14.6: what follows integrity does not count, but for these.
                kind::MESSAGE_INTEGRITY if self.integrity.is_none() && !nothing_after => {
                    if value.len() != 20 {
                        return Err(DecodeError::Integrity);
                    }
                    self.integrity = Some(at);
                }
                kind::MESSAGE_INTEGRITY_SHA256 if !nothing_after => {
                    if !(16..=32).contains(&value.len()) || value.len() % 4 != 0 {
                        return Err(DecodeError::Integrity);
                    }
                    self.integrity_sha256 = Some((at, value.len()));
                }
                _ => continue,
            }
            self.end = self.end.min(at);
        }
        Ok(())
    }

    /// Request, indication or response.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What it is about.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Of which transaction it is.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it has a checksum (which then fits).
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether it has either kind of integrity.
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some() || self.integrity_sha256.is_some()
    }

    /// Whether it has the integrity of RFC 8489.
    pub fn has_integrity_sha256(&self) -> bool {
        self.integrity_sha256.is_some()
    }

    /// The attributes that count, in order: their kind and value.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.bytes.get(..self.end).unwrap_or_default(), HEADER)
    }

    /// The value of the first attribute of that kind. Others of a kind that is wanted once do not
    /// count (RFC 8489 §14).
    pub fn value(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(k, _)| *k == kind).map(|(_, v)| v)
    }

    /// The first attribute of that kind, read.
    pub fn get(&self, kind: u16) -> Option<Result<Attribute<'a>, BadAttribute>> {
        self.value(kind)
            .map(|value| Attribute::decode(kind, value, &self.id))
    }

    /// Kinds that must be understood and are not among `known` (RFC 8489 §6.3).
    pub fn unknown(&self, known: &[u16]) -> SmallVec<[u16; 8]> {
        let mut unknown = SmallVec::new();
        for (kind, _) in self.attributes() {
            if kind < 0x8000 && !known.contains(&kind) && !unknown.contains(&kind) {
                unknown.push(kind);
            }
        }
        unknown
    }

    /// Whether its integrity was made with `key`. If it has both kinds the stronger one counts
    /// (RFC 8489 §9.2.4); one that has neither was made by nobody.
    pub fn is_made_with(&self, key: &Key) -> bool {
        if let Some((at, len)) = self.integrity_sha256 {
            let Some(value) = self.bytes.get(at + 4..at + 4 + len) else {
                return false;
            };
            let tag = integrity::<Hmac<Sha256>>(key, self.bytes, at, len);
            return tag.get(..len).is_some_and(|tag| same(tag, value));
        }
        let Some(at) = self.integrity else {
            return false;
        };
        let Some(value) = self.bytes.get(at + 4..at + 24) else {
            return false;
        };
        same(&integrity::<Hmac<Sha1>>(key, self.bytes, at, 20), value)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.method, self.class, self.id)?;
        let read = self
            .attributes()
            .map(|(kind, value)| Attribute::decode(kind, value, &self.id));
        f.debug_list().entries(read).finish()
    }
}

/// The HMAC of what stands before the attribute at `at`, whose value will have `len` bytes: the
/// header's length is taken as if the message ended with it.
pub(super) fn integrity<M: Mac + KeyInit>(
    key: &Key,
    bytes: &[u8],
    at: usize,
    len: usize,
) -> SmallVec<[u8; 32]> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key.bytes()) else {
        return SmallVec::new();
    };
    let told = (at + 4 + len - HEADER) as u16;
    mac.update(bytes.get(..2).unwrap_or_default());
    mac.update(&told.to_be_bytes());
    mac.update(bytes.get(4..at).unwrap_or_default());
    SmallVec::from_slice(&mac.finalize().into_bytes())
}

/// Goes through attributes.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Where an attribute begins, its kind, its value.
type Step<'a> = (usize, u16, &'a [u8]);

impl<'a> Attributes<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The next.
    fn step(&mut self) -> Result<Option<Step<'a>>, DecodeError> {
        let at = self.at;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let (k, l, rest) = match *rest {
            [] => return Ok(None),
            [k0, k1, l0, l1, ref rest @ ..] => (
                u16::from_be_bytes([k0, k1]),
                usize::from(u16::from_be_bytes([l0, l1])),
                rest,
            ),
            _ => return Err(DecodeError::CutShort(at)),
        };
        let value = rest.get(..l).ok_or(DecodeError::CutShort(at))?;
        let padded = l.next_multiple_of(4);
        if padded > rest.len() {
            return Err(DecodeError::CutShort(at));
        }
        self.at = at + 4 + padded;
        Ok(Some((at, k, value)))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // A message's attributes were all stepped over when it was decoded.
        let (_, kind, value) = self.step().ok()??;
        Some((kind, value))
    }
}
