//! Where letters to a key are taken: the supernode that its owner is linked with, in the owner's signed
//! words, with the token inside, so that everybody checks it offline.
//!
//! Supernodes keep places in their ring, under the first 120 bits of the key: whoever knows an overlay
//! address ([`shoal_reach::overlay`]) alone finds the place, too.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::Address;
use crate::token::{Invalid, Key, Sealed, Token};

/// Doors of a place at most.
pub const MAX_DOORS: usize = 3;
/// For how long a place holds at most, in seconds.
pub const LIFE: u64 = 3600;
/// How far clocks may differ, in seconds.
const SKEW: u64 = 600;
/// Bytes of a key that a place is kept under, as many as an overlay address has.
const OF_KEY: usize = 15;
const PLACE: &str = "place";

/// What places of keys that begin so are kept under.
pub type Prefix = [u8; OF_KEY];

/// The beginning of a key, or of what is known of one.
pub fn prefix(key: &Key) -> Prefix {
    let mut prefix = [0; OF_KEY];
    prefix
        .iter_mut()
        .zip(key)
        .for_each(|(to, from)| *to = *from);
    prefix
}

/// The name of a place in the ring of the overlay's names: its first byte is in no name of people's.
pub fn name(prefix: &Prefix) -> Vec<u8> {
    let mut name = vec![0];
    name.extend(prefix);
    name
}

/// What a name in the ring is the place of, if it is one's.
pub fn read_name(name: &[u8]) -> Option<Prefix> {
    name.strip_prefix(&[0])?.try_into().ok()
}

/// A place. See the module's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Place<A> {
    /// Whose it is.
    pub token: Token,
    /// Grows with each place of one key; Unix milliseconds, mostly.
    pub seq: u64,
    /// Until when it holds, in Unix seconds.
    pub expires: u64,
    /// The supernode's key; the owner's own, if that is one.
    pub home: Key,
    /// Where that is reached, or supernodes that have a link with it; three at most.
    pub doors: Vec<A>,
    seal: Sealed,
}

/// Why a place does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPlace {
    /// These bytes are none.
    #[error("it is no place")]
    Nonsense,
    /// It is kept under another key than its own.
    #[error("it is another key's")]
    Name,
    /// Its token does not hold, or its owner did not sign it.
    #[error("{0}")]
    Invalid(Invalid),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It says that it is of the future, or holds for too long, or names too many doors or none.
    #[error("its time or its doors are out of range")]
    Range,
}

impl<A: Address> Place<A> {
    /// Signs one. Ends no later than its token, nor than [`LIFE`] from `seq` on.
    pub fn new(key: &SigningKey, token: Token, seq: u64, home: Key, doors: Vec<A>) -> Self {
        let expires = token.expires.min((seq / 1000).saturating_add(LIFE));
        let seal = Sealed::new(key, PLACE, &(&token, seq, expires, home, &doors));
        Self {
            token,
            seq,
            expires,
            home,
            doors,
            seal,
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data: its encoding cannot fail.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// What it is kept under.
    pub fn prefix(&self) -> Prefix {
        prefix(&self.token.key)
    }

    /// Of two places of a key the one with the higher rank holds.
    pub fn rank(&self) -> i64 {
        i64::try_from(self.seq).unwrap_or(0)
    }

    /// Whether it holds at `unix` (seconds), for those who trust `server`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, server: &Key, unix: u64) -> Result<(), BadPlace> {
        self.token.check(server, unix).map_err(BadPlace::Invalid)?;
        let (token, doors) = (&self.token, &self.doors);
        let what = (token, self.seq, self.expires, self.home, doors);
        if !self.seal.is_by(&token.key, PLACE, &what) {
            return Err(BadPlace::Invalid(Invalid::Forged));
        }
        if unix >= self.expires {
            return Err(BadPlace::Expired);
        }
        let begins = self.seq / 1000;
        let long = self.expires > begins.saturating_add(LIFE);
        let fits = (1..=MAX_DOORS).contains(&doors.len());
        if begins > unix.saturating_add(SKEW) || long || !fits {
            return Err(BadPlace::Range);
        }
        Ok(())
    }

    /// Reads what is kept under a prefix, and checks it.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn read(server: &Key, under: &Prefix, bytes: &[u8], unix: u64) -> Result<Self, BadPlace> {
        let place: Self = match postcard::take_from_bytes(bytes) {
            Ok((place, [])) => place,
            _ => return Err(BadPlace::Nonsense),
        };
        if place.prefix() != *under {
            return Err(BadPlace::Name);
        }
        place.check(server, unix)?;
        Ok(place)
    }
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

    fn place(signer: u8, seq: u64, doors: Vec<u32>) -> Place<u32> {
        let token = Token::issue(&key(1), "alice", public(2), NOW + 86_400);
        Place::new(&key(signer), token, seq, public(9), doors)
    }

    fn read(place: &Place<u32>, unix: u64) -> Result<Place<u32>, BadPlace> {
        Place::read(&public(1), &prefix(&public(2)), &place.to_bytes(), unix)
    }

    #[test]
    fn only_a_keys_owner_says_where_letters_to_it_are_taken() {
        let good = place(2, NOW * 1000, vec![7]);
        assert_eq!(read(&good, NOW), Ok(good.clone()));
        assert_eq!(read(&good, NOW + LIFE), Err(BadPlace::Expired));
        let thief = place(3, NOW * 1000, vec![7]);
        assert_eq!(read(&thief, NOW), Err(BadPlace::Invalid(Invalid::Forged)));
        let bytes = good.to_bytes();
        let foreign = Place::<u32>::read(&public(8), &good.prefix(), &bytes, NOW);
        assert_eq!(foreign, Err(BadPlace::Invalid(Invalid::Foreign)));
        let other = Place::<u32>::read(&public(1), &prefix(&public(3)), &bytes, NOW);
        assert_eq!(other, Err(BadPlace::Name));
        for change in [
            |p: &mut Place<u32>| p.seq += 1,
            |p: &mut Place<u32>| p.expires -= 1,
            |p: &mut Place<u32>| p.home = [3; 32],
            |p: &mut Place<u32>| p.doors = vec![8],
        ] {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(read(&changed, NOW), Err(BadPlace::Invalid(Invalid::Forged)));
        }
        let early = place(2, (NOW + SKEW + 1) * 1000, vec![7]);
        assert_eq!(read(&early, NOW), Err(BadPlace::Range));
        for doors in [vec![], vec![1, 2, 3, 4]] {
            assert_eq!(
                read(&place(2, NOW * 1000, doors), NOW),
                Err(BadPlace::Range)
            );
        }
    }

    #[test]
    fn a_place_ends_with_its_token_and_fits_an_item_of_the_ring() {
        let token = Token::issue(&key(1), &"a".repeat(32), public(2), NOW + 5);
        let door = std::net::SocketAddr::from(([0xffff_u16; 8], 65_535));
        let place = Place::new(
            &key(2),
            token,
            u64::MAX / 2,
            public(9),
            vec![door; MAX_DOORS],
        );
        assert_eq!(place.expires, NOW + 5);
        assert!(place.to_bytes().len() < 500, "{}", place.to_bytes().len());
        assert_eq!(read_name(&name(&place.prefix())), Some(place.prefix()));
        assert_eq!(read_name(b"alice"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at in 0_usize..300, with: u8) {
            prop_assert!(Place::<u32>::read(&public(1), &prefix(&public(2)), &bytes, NOW).is_err());
            let good = place(2, NOW * 1000, vec![7]);
            let mut bytes = good.to_bytes();
            let n = bytes.len();
            if let Some(byte) = bytes.get_mut(at % n.max(1)) {
                *byte ^= with;
            }
            let read = Place::<u32>::read(&public(1), &good.prefix(), &bytes, NOW);
            prop_assert_eq!(read.is_ok(), bytes == good.to_bytes());
        }
    }
}
