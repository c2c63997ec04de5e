//! Connection ids of the UDP tracker (BEP 15) without state: a keyed hash of address and time.
//!
//! An id proves that its bearer receives what is sent to that address, so that nobody can announce
//! somebody else or make the tracker flood a third party. The lowest bit tells which of two time
//! slots it was made in, so that checking costs one hash.

use super::siphash::SipKey;
use shoal_base::{Rng, Time};
use std::net::IpAddr;

/// Seconds in a time slot. An id lives for one to two of them (BEP 15: at least two minutes).
const SLOT_SECS: u64 = 120;

/// Makes and checks connection ids.
#[derive(Debug, Clone)]
pub struct ConnectionIds(SipKey);

impl ConnectionIds {
    /// Ids under a fresh secret. All workers of one tracker share it.
    pub fn new(rng: &mut Rng) -> Self {
        Self(SipKey::generate(rng))
    }

    /// An id for `ip`.
    pub fn issue(&self, now: Time, ip: IpAddr) -> u64 {
        self.id(slot(now), ip)
    }

    /// Whether `id` was issued to `ip` in this time slot or the one before.
    pub fn check(&self, now: Time, ip: IpAddr, id: u64) -> bool {
        let current = slot(now);
        let slot = if (current ^ id) & 1 == 0 {
            Some(current)
        } else {
            current.checked_sub(1)
        };
        slot.is_some_and(|slot| self.id(slot, ip) == id)
    }

    fn id(&self, slot: u64, ip: IpAddr) -> u64 {
        let mut message = [0; 24];
        let (time, address) = message.split_at_mut(8);
        time.copy_from_slice(&slot.to_le_bytes());
        let tag = match ip {
            IpAddr::V4(ip) => {
                address[..4].copy_from_slice(&ip.octets());
                self.0.tag(&message[..12])
            }
            IpAddr::V6(ip) => {
                address.copy_from_slice(&ip.octets());
                self.0.tag(&message)
            }
        };
        tag & !1 | slot & 1
    }
}

fn slot(now: Time) -> u64 {
    now.as_micros() / (SLOT_SECS * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_base::Rng;

    proptest! {
        #[test]
        fn ids_live_two_to_four_minutes_for_their_address_only(seed: u64, start in 0u64..10_000, ip: IpAddr, other: IpAddr, flip in 0u32..64) {
            let ids = ConnectionIds::new(&mut Rng::from_seed(seed));
            let id = ids.issue(Time::from_secs(start), ip);
            for (after, valid) in [(0, true), (60, true), (120, true), (240, false), (360, false), (480, false)] {
                prop_assert_eq!(ids.check(Time::from_secs(start + after), ip, id), valid);
            }
            prop_assert_eq!(ids.check(Time::from_secs(start), other, id), ip == other);
            prop_assert!(!ids.check(Time::from_secs(start), ip, id ^ (1 << flip)));
        }
    }
}
