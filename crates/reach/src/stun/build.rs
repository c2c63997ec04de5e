//! Putting a message together.

use super::attribute::{Attribute, kind};
use super::key::Key;
use super::message::{FINGERPRINT_MASK, HEADER, MAGIC, TransactionId, integrity};
use super::method::{Class, Method, message_type};
use hmac::Hmac;
use sha1::Sha1;
use sha2::Sha256;

/// Appends one message to a buffer. After every call the bytes so far are a whole message.
#[derive(Debug)]
pub struct Builder<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    id: TransactionId,
}

impl<'b> Builder<'b> {
    /// Begins a message at the end of `out`.
    pub fn new(out: &'b mut Vec<u8>, class: Class, method: Method, id: TransactionId) -> Self {
        let start = out.len();
        out.extend_from_slice(&message_type(class, method));
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&id.0);
        Self { out, start, id }
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// If the message grows beyond 64 KiB: whoever adds long data has to look before.
    pub fn put(&mut self, attribute: &Attribute<'_>) -> &mut Self {
        let id = self.id;
        self.tlv(attribute.kind(), |out| attribute.encode(&id, out))
    }

    fn tlv(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
        let at = self.out.len();
        value(self.out);
        let len = self.out.len() - at;
        self.set(at - 2, len);
        let padded = at + len.next_multiple_of(4);
        self.out.resize(padded, 0);
        let told = self.out.len() - self.start - HEADER;
        self.set(self.start + 2, told);
        self
    }

    fn set(&mut self, at: usize, len: usize) {
        let len = u16::try_from(len).expect("a STUN message has less than 64 KiB");
        if let Some(field) = self.out.get_mut(at..at + 2) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }

    fn written(&self) -> &[u8] {
        self.out.get(self.start..).unwrap_or_default()
    }

    /// Protects what was added so far with HMAC-SHA1.
    pub fn integrity(&mut self, key: &Key) -> &mut Self {
        let at = self.written().len();
        let tag = integrity::<Hmac<Sha1>>(key, self.written(), at, 20);
        self.tlv(kind::MESSAGE_INTEGRITY, |out| out.extend_from_slice(&tag))
    }

    /// Protects what was added so far with HMAC-SHA256.
    pub fn integrity_sha256(&mut self, key: &Key) -> &mut Self {
        let at = self.written().len();
        let tag = integrity::<Hmac<Sha256>>(key, self.written(), at, 32);
        self.tlv(kind::MESSAGE_INTEGRITY_SHA256, |out| {
            out.extend_from_slice(&tag);
        })
    }

    /// Adds the checksum; nothing may follow.
    pub fn fingerprint(&mut self) -> &mut Self {
        let at = self.written().len();
        // The checksum covers the length as it will be.
        self.tlv(kind::FINGERPRINT, |out| out.extend_from_slice(&[0; 4]));
        let covered = self.written().get(..at).unwrap_or_default();
        let sum = crc32fast::hash(covered) ^ FINGERPRINT_MASK;
        let end = self.out.len();
        if let Some(field) = self.out.get_mut(end - 4..) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        self
    }
}
