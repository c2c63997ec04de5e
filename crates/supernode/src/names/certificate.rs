//! A name bound to a key, as it is shown to others: checked offline by who knows the login server's
//! key.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::token::{Invalid, Key, Sealed, is_name};

const CERTIFICATE: &str = "certificate";

/// A login server's word that a name is a key's, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The name, as it was first spelled.
    pub name: String,
    /// Whose it is.
    pub key: Key,
    /// How often the name's key or recovery key was changed: of two certificates the one with more
    /// holds.
    pub generation: u32,
    /// The entry of the public log that says so.
    pub entry: u64,
    /// Until when, in Unix seconds.
    pub expires: u64,
    seal: Sealed,
}

impl Certificate {
    /// Binds a name to a key.
    pub fn issue(
        server: &SigningKey,
        (name, key): (&str, Key),
        (generation, entry): (u32, u64),
        expires: u64,
    ) -> Self {
        let what = (name, key, generation, entry, expires);
        Self {
            name: name.to_owned(),
            key,
            generation,
            entry,
            expires,
            seal: Sealed::new(server, CERTIFICATE, &what),
        }
    }

    /// Its bytes, to be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data: its encoding cannot fail.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads [`Certificate::to_bytes`]; whether it holds is another question.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(bytes) {
            Ok((certificate, [])) => Some(certificate),
            _ => None,
        }
    }

    /// Whether it holds at `unix` (seconds) for those who trust `server`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, server: &Key, unix: u64) -> Result<(), Invalid> {
        if !is_name(&self.name) {
            return Err(Invalid::Name);
        }
        let name = self.name.as_str();
        let what = (name, self.key, self.generation, self.entry, self.expires);
        if !self.seal.is_by(server, CERTIFICATE, &what) {
            return Err(Invalid::Foreign);
        }
        if unix >= self.expires {
            return Err(Invalid::Expired);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_foreign_or_old_does_not_hold() {
        let server = SigningKey::from_bytes(&[1; 32]);
        let by = server.verifying_key().to_bytes();
        let good = Certificate::issue(&server, ("alice", [2; 32]), (1, 7), 100);
        assert_eq!(good.check(&by, 99), Ok(()));
        assert_eq!(
            Certificate::from_bytes(&good.to_bytes()),
            Some(good.clone())
        );
        assert_eq!(Certificate::from_bytes(&[7; 9]), None);
        assert_eq!(good.check(&by, 100), Err(Invalid::Expired));
        assert_eq!(good.check(&[3; 32], 99), Err(Invalid::Foreign));
        type Change = fn(&mut Certificate);
        let changes: [Change; 5] = [
            |c| c.name = "bob".into(),
            |c| c.key = [9; 32],
            |c| c.generation = 2,
            |c| c.entry = 8,
            |c| c.expires = 1000,
        ];
        for change in changes {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(changed.check(&by, 99), Err(Invalid::Foreign));
        }
    }
}
