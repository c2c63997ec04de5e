//! Who a node is: an Ed25519 key. The public half is its name for all others.

use ed25519_dalek::{SigningKey, VerifyingKey};
use shoal_base::id::{ParseIdError, from_hex, to_hex};
use std::fmt;
use std::str::FromStr;

/// The name of a node: its Ed25519 public key, written as 64 hexadecimal digits.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The key, if these bytes are one, and one that only its owner can sign for.
    pub fn key(&self) -> Option<VerifyingKey> {
        let key = VerifyingKey::from_bytes(&self.0).ok()?;
        (!key.is_weak()).then_some(key)
    }

    /// The first digits, by which people tell nodes apart.
    pub fn short(&self) -> String {
        let mut text = to_hex(&self.0);
        text.truncate(10);
        text
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        from_hex(text).map(Self)
    }
}

/// A node's key pair. Its secret half is never printed.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    id: NodeId,
}

impl Identity {
    /// The identity that has this key.
    pub fn new(key: SigningKey) -> Self {
        let id = NodeId(key.verifying_key().to_bytes());
        Self { key, id }
    }

    /// The identity with this secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self::new(SigningKey::from_bytes(secret))
    }

    /// Its name.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_and_read() {
        let me = Identity::from_secret(&[7; 32]);
        let text = me.id().to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(me.id()));
        assert!("xy".parse::<NodeId>().is_err());
        assert!(me.id().key().is_some());
        assert!(!format!("{me:?}").contains(&to_hex(&[7; 32])));
    }

    #[test]
    fn keys_that_anybody_can_sign_for_are_none() {
        // The neutral element: of small order.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert!(NodeId(weak).key().is_none());
    }
}
