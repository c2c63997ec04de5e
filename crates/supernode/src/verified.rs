//! Presences whose signatures were found to hold, so that those who are met again and again (a
//! sharer of whom every query finds something) cost two signatures once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::Address;
use crate::token::{Invalid, Key, Presence};

type Name = [u8; 32];

/// A bounded memory of presences that held. Clones share it: nodes of one process check each
/// presence once for all of them.
#[derive(Debug, Clone)]
pub struct Verified(Arc<Mutex<Held>>);

/// The younger half takes what is met, the older is forgotten when that is full.
#[derive(Debug)]
struct Held {
    half: usize,
    young: BTreeSet<Name>,
    old: BTreeSet<Name>,
}

impl Held {
    fn knows(&mut self, name: &Name) -> bool {
        if self.young.contains(name) {
            return true;
        }
        let known = self.old.contains(name);
        if known {
            self.add(*name);
        }
        known
    }

    fn add(&mut self, name: Name) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name);
    }
}

impl Verified {
    /// Remembers so many, at least two.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Held {
            half: (most / 2).max(1),
            young: BTreeSet::new(),
            old: BTreeSet::new(),
        })))
    }

    /// Presences remembered.
    pub fn len(&self) -> usize {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.young.union(&held.old).count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Presence::check`]. What is remembered is a digest of all that the two signatures are
    /// about, and of them; time goes on, so that the token's is looked at each time.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn check<A: Address>(
        &self,
        presence: &Presence<A>,
        server: &Key,
        unix: u64,
    ) -> Result<(), Invalid> {
        // Plain data: its encoding cannot fail; were it so, nothing would be remembered.
        let Ok(bytes) = postcard::to_allocvec(presence) else {
            return presence.check(server, unix);
        };
        let name: Name = Sha256::new()
            .chain_update(server)
            .chain_update(&bytes)
            .finalize()
            .into();
        let held = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held().knows(&name) {
            return match unix >= presence.token.expires {
                true => Err(Invalid::Expired),
                false => Ok(()),
            };
        }
        presence.check(server, unix)?;
        held().add(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;
    use ed25519_dalek::SigningKey;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn public(n: u8) -> Key {
        key(n).verifying_key().to_bytes()
    }

    fn presence(n: u8, place: u32) -> Presence<u32> {
        let token = Token::issue(&key(1), "alice", public(n), 100);
        Presence::new(&key(n), token, place, None)
    }

    #[test]
    fn what_is_remembered_is_what_would_be_found() {
        let verified = Verified::new(8);
        let honest = presence(2, 7);
        for _ in 0..2 {
            assert_eq!(verified.check(&honest, &public(1), 99), Ok(()));
        }
        assert_eq!(verified.len(), 1);
        let late = verified.check(&honest, &public(1), 100);
        assert_eq!(late, Err(Invalid::Expired));
        // Another server's trust is another question, another place another presence.
        let foreign = verified.check(&honest, &public(3), 99);
        assert_eq!(foreign, Err(Invalid::Foreign));
        let mut moved = honest.clone();
        moved.links = 8;
        for _ in 0..2 {
            let forged = verified.check(&moved, &public(1), 99);
            assert_eq!(forged, Err(Invalid::Forged));
        }
        let mut longer = honest;
        longer.token.expires = 1000;
        let longer = verified.check(&longer, &public(1), 200);
        assert_eq!(longer, Err(Invalid::Foreign));
        assert_eq!(verified.len(), 1);
    }

    #[test]
    fn it_does_not_grow_and_keeps_who_is_met() {
        let verified = Verified::new(8);
        let often = presence(2, 0);
        for place in 1..40 {
            assert_eq!(verified.check(&presence(2, place), &public(1), 0), Ok(()));
            assert_eq!(verified.check(&often, &public(1), 0), Ok(()));
            assert!(verified.len() <= 8, "{}", verified.len());
        }
        let mut held = verified.0.lock().expect("nobody panicked");
        let kept = held.young.len() + held.old.len();
        assert!(kept >= 4, "{kept}");
        let server = public(1);
        let bytes = postcard::to_allocvec(&often).expect("plain data");
        let digest = Sha256::new().chain_update(server).chain_update(&bytes);
        assert!(held.knows(&digest.finalize().into()));
    }
}
