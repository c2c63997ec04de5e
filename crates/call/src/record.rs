//! Where somebody's letters are kept, and by which key they are sealed: signed by the key that has the
//! name, with the certificate inside, so that everybody checks it offline.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use shoal_supernode::Address;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::fold::fold;
use shoal_supernode::token::{Invalid, Key, Sealed};

/// Homes of a record at most.
pub const MAX_HOMES: usize = 3;
/// For how long a record may hold at most, in seconds: thirty days.
pub const MAX_LIFE: u64 = 30 * 86_400;
/// How far clocks may differ, in seconds.
pub const SKEW: u64 = 600;
const RECORD: &str = "record";

/// A supernode that keeps letters for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Home<A> {
    /// Where it is.
    pub addr: A,
    /// Its key.
    pub key: Key,
}

/// A key that letters are sealed to for some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prekey {
    /// Tells apart those of one owner.
    pub id: u32,
    /// An X25519 public key.
    pub key: [u8; 32],
}

/// The record. See the module's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Record<A> {
    /// Whose it is.
    pub certificate: Certificate,
    /// Grows with each record of one key; Unix seconds, mostly.
    pub seq: u64,
    /// Until when it holds, in Unix seconds.
    pub expires: u64,
    /// Supernodes that keep letters, three at most.
    pub homes: Vec<Home<A>>,
    /// What letters are sealed to.
    pub prekey: Prekey,
    seal: Sealed,
}

/// Why a record does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// These bytes are none.
    #[error("it is no record")]
    Nonsense,
    /// It is kept under another name than its own.
    #[error("it is another name's")]
    Name,
    /// Its certificate does not hold.
    #[error("its certificate does not hold: {0}")]
    Certificate(Invalid),
    /// The key that has the name did not sign it.
    #[error("it is not signed by the key that has the name")]
    Forged,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It says that it is of the future, or holds for too long, or names too many homes.
    #[error("its time or its homes are out of range")]
    Range,
}

impl<A: Address> Record<A> {
    /// Signs one. Ends no later than its certificate, nor than [`MAX_LIFE`] from `seq` on.
    pub fn new(
        key: &SigningKey,
        certificate: Certificate,
        seq: u64,
        homes: Vec<Home<A>>,
        prekey: Prekey,
    ) -> Self {
        let expires = certificate.expires.min(seq.saturating_add(MAX_LIFE));
        let mut record = Self {
            certificate,
            seq,
            expires,
            homes,
            prekey,
            seal: Sealed::new(key, RECORD, &()),
        };
        let seal = Sealed::new(key, RECORD, &record.what());
        record.seal = seal;
        record
    }

    fn what(&self) -> impl Serialize + '_ {
        let (certificate, homes) = (&self.certificate, &self.homes);
        (certificate, self.seq, self.expires, homes, self.prekey)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data: its encoding cannot fail.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Under which name of its login server it is kept.
    pub fn name(&self) -> String {
        fold(&self.certificate.name)
    }

    /// Of two records of a name the one with the higher rank holds: first the later key counts, then
    /// the later record.
    pub fn rank(&self) -> i64 {
        let seq = i64::try_from(self.seq & ((1 << 40) - 1)).unwrap_or(0);
        let generation = i64::from(self.certificate.generation.min((1 << 22) - 1));
        generation << 40 | seq
    }

    /// Reads the record of a name and checks it at `unix` (seconds), for those who trust `server`.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn check(server: &Key, name: &str, bytes: &[u8], unix: u64) -> Result<Self, BadRecord> {
        let record: Self = match postcard::take_from_bytes(bytes) {
            Ok((record, [])) => record,
            _ => return Err(BadRecord::Nonsense),
        };
        if record.name() != name {
            return Err(BadRecord::Name);
        }
        let certificate = &record.certificate;
        certificate
            .check(server, unix)
            .map_err(BadRecord::Certificate)?;
        if !record.seal.is_by(&certificate.key, RECORD, &record.what()) {
            return Err(BadRecord::Forged);
        }
        if unix >= record.expires {
            return Err(BadRecord::Expired);
        }
        let long = record.expires > record.seq.saturating_add(MAX_LIFE);
        if record.seq > unix + SKEW || long || record.homes.len() > MAX_HOMES {
            return Err(BadRecord::Range);
        }
        Ok(record)
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

    fn record(owner: u8, generation: u32, seq: u64) -> Record<u32> {
        let expires = NOW + 86_400;
        let certificate =
            Certificate::issue(&key(1), ("Alice", public(owner)), (generation, 3), expires);
        let homes = vec![Home {
            addr: 7,
            key: public(9),
        }];
        let prekey = Prekey {
            id: 1,
            key: [5; 32],
        };
        Record::new(&key(owner), certificate, seq, homes, prekey)
    }

    fn check(record: &Record<u32>, unix: u64) -> Result<Record<u32>, BadRecord> {
        Record::check(&public(1), "allce", &record.to_bytes(), unix)
    }

    #[test]
    fn only_the_owner_of_a_name_says_where_it_is() {
        let good = record(2, 0, NOW);
        assert_eq!(check(&good, NOW), Ok(good.clone()));
        assert_eq!(
            check(&good, NOW + 86_400),
            Err(BadRecord::Certificate(Invalid::Expired))
        );
        assert_eq!(check(&record(2, 0, NOW + 700), NOW), Err(BadRecord::Range));
        let foreign = Record::<u32>::check(&public(8), "allce", &good.to_bytes(), NOW);
        assert_eq!(foreign, Err(BadRecord::Certificate(Invalid::Foreign)));
        let other = Record::<u32>::check(&public(1), "bob", &good.to_bytes(), NOW);
        assert_eq!(other, Err(BadRecord::Name));
        // A certificate of somebody else, with words of one's own.
        let certificate = good.certificate.clone();
        let stolen = Record::new(&key(3), certificate, NOW, good.homes.clone(), good.prekey);
        assert_eq!(check(&stolen, NOW), Err(BadRecord::Forged));
        // A second key for the name, certified by oneself.
        let own = Certificate::issue(&key(3), ("alice", public(3)), (9, 0), NOW + 99);
        let own = Record::new(&key(3), own, NOW, Vec::<Home<u32>>::new(), good.prekey);
        assert_eq!(
            check(&own, NOW),
            Err(BadRecord::Certificate(Invalid::Foreign))
        );
        for change in [
            |r: &mut Record<u32>| r.seq += 1,
            |r: &mut Record<u32>| r.expires += 1,
            |r: &mut Record<u32>| r.homes.clear(),
            |r: &mut Record<u32>| r.prekey.key = [6; 32],
        ] {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(check(&changed, NOW), Err(BadRecord::Forged));
        }
        let short = record(2, 0, NOW - MAX_LIFE);
        assert_eq!(check(&short, NOW), Err(BadRecord::Expired));
    }

    #[test]
    fn a_later_key_outranks_later_words() {
        let ranks = [(0, NOW), (0, NOW + 1), (1, 5), (2, 1)].map(|(g, s)| record(2, g, s).rank());
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }

    #[test]
    fn the_longest_record_fits_an_item() {
        let certificate = Certificate::issue(
            &key(1),
            ("abcdefghijklmnopqrstuvwxyzabcdef", public(2)),
            (u32::MAX, u64::MAX),
            u64::MAX,
        );
        let addr = std::net::SocketAddr::from(([0xffff_u16; 8], 65_535));
        let homes = vec![
            Home {
                addr,
                key: public(9)
            };
            MAX_HOMES
        ];
        let prekey = Prekey {
            id: u32::MAX,
            key: [255; 32],
        };
        let record = Record::new(&key(2), certificate, u64::MAX - MAX_LIFE, homes, prekey);
        assert!(record.to_bytes().len() < 600, "{}", record.to_bytes().len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 0_usize..300, at in 0_usize..300, with: u8) {
            prop_assert!(Record::<u32>::check(&public(1), "allce", &bytes, NOW).is_err());
            let mut bytes = record(2, 0, NOW).to_bytes();
            bytes.truncate(cut.max(bytes.len().saturating_sub(cut)));
            let n = bytes.len();
            if let Some(byte) = bytes.get_mut(at % n.max(1)) {
                *byte ^= with;
            }
            let same = bytes == record(2, 0, NOW).to_bytes();
            let read = Record::<u32>::check(&public(1), "allce", &bytes, NOW);
            prop_assert_eq!(read.is_ok(), same);
        }
    }
}
