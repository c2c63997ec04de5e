//! Datagrams that ask hosts, before and between connections, whether they have a file and a slot for us (HEAD
//! pings, LIME/23): whom to connect to first.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use shoal_base::{Rng, Time};

use crate::guid::Guid;
use crate::huge::Sha1;
use crate::message::probe::{HeadPing, HeadPong};
use crate::message::vendor::Vendor;
use crate::message::{HEADER, Header, Kind, Packet};

/// Hosts that are remembered.
const MAX: usize = 256;
/// How soon a host is asked again: what it has to give changes.
const AGAIN: Duration = Duration::from_secs(60);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(700);

#[derive(Debug)]
struct Asked {
    guid: Guid,
    at: Time,
    open: bool,
}

/// What a host has for us: who is better is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlook {
    /// It said that it does not have the file.
    Nothing,
    /// It lets nobody have anything now.
    Closed,
    /// All its slots are taken, and so many wait.
    Waits(std::cmp::Reverse<u8>),
    /// It was not asked, or did not answer.
    Unknown,
    /// It has so many slots free.
    Free(u8),
}

impl Outlook {
    /// What a pong says. Queue: free slots if negative, downloaders that wait otherwise, 127 if it serves nobody.
    fn of(pong: &HeadPong) -> Self {
        match pong.queue {
            _ if !pong.has_any() => Self::Nothing,
            i8::MAX => Self::Closed,
            queue if queue < 0 => Self::Free(queue.unsigned_abs()),
            queue => Self::Waits(std::cmp::Reverse(queue.unsigned_abs())),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What the host has for us.
    pub outlook: Outlook,
    /// Who else has the file, as it says.
    pub alternates: Vec<SocketAddrV4>,
}

/// The hosts of one file that are asked.
#[derive(Debug)]
pub struct HeadPings {
    sha1: Sha1,
    asked: BTreeMap<SocketAddr, Asked>,
}

impl HeadPings {
    /// Nobody was asked yet.
    pub fn new(sha1: Sha1) -> Self {
        Self {
            sha1,
            asked: BTreeMap::new(),
        }
    }

    /// The datagram for a host; none if it was asked lately, or cannot be.
    pub fn ask(&mut self, now: Time, host: SocketAddr, rng: &mut Rng) -> Option<Vec<u8>> {
        let lately = |asked: &Asked| now.since(asked.at) < AGAIN;
        if self.asked.get(&host).is_some_and(lately) || !host.is_ipv4() {
            return None;
        }
        if self.asked.len() >= MAX && !self.asked.contains_key(&host) {
            self.asked.retain(|_, asked| lately(asked));
            if self.asked.len() >= MAX {
                return None;
            }
        }
        let guid = Guid::random(rng);
        let (at, open) = (now, true);
        self.asked.insert(host, Asked { guid, at, open });
        let ping = Vendor::HeadPing(HeadPing {
            sha1: self.sha1,
            alternates: true,
            servent: None,
            second: true,
        });
        let packet = Packet::ours(Kind::Vendor, guid, 1, &ping.write());
        Some(packet.bytes().to_vec())
    }

    /// Until when it is worth waiting for answers that are still to come; none if there are none.
    pub fn patience(&self, now: Time) -> Option<Time> {
        let open = self.asked.values().filter(|a| a.open);
        open.map(|a| a.at + PATIENCE).filter(|at| *at > now).max()
    }

    /// A datagram came; none if it is no answer to what was asked of who sent it.
    pub fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<Told> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let header = Header::read(bytes).ok()?;
        let payload = bytes.get(HEADER..)?.get(..header.len)?;
        let asked = self.asked.get_mut(&from)?;
        if !asked.open || header.guid != asked.guid || header.known() != Some(Kind::Vendor) {
            return None;
        }
        let Ok(Vendor::HeadPong(pong)) = Vendor::read(payload) else {
            return None;
        };
        asked.open = false;
        let named =
            |addr: &SocketAddrV4| super::locations::may_name(from.ip(), SocketAddr::V4(*addr));
        Some(Told {
            outlook: Outlook::of(&pong),
            alternates: pong.alternates.into_iter().filter(named).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::proptest;

    fn host(n: u8) -> SocketAddr {
        SocketAddr::from(([44, 20, 3, n], 6346))
    }

    fn pong(bytes: &[u8], complete: bool, queue: i8) -> Vec<u8> {
        let header = Header::read(bytes).expect("a header");
        let pong = Vendor::HeadPong(HeadPong {
            complete,
            partial: false,
            firewalled: false,
            vendor: *b"TEST",
            queue,
            alternates: vec![
                SocketAddrV4::new([44, 20, 3, 99].into(), 1),
                SocketAddrV4::new([127, 0, 0, 1].into(), 1),
            ],
            second: true,
        });
        let packet = Packet::ours(Kind::Vendor, header.guid, 1, &pong.write());
        packet.bytes().to_vec()
    }

    #[test]
    fn a_host_is_asked_once_a_minute_and_its_answer_heard_once() {
        let (mut pings, mut rng) = (HeadPings::new([1; 20]), Rng::from_seed(1));
        let now = Time::from_secs(5);
        let ping = pings.ask(now, host(1), &mut rng).expect("a datagram");
        assert_eq!(pings.ask(now, host(1), &mut rng), None);
        assert!(pings.patience(now).is_some());
        let answer = pong(&ping, true, -3);
        assert_eq!(pings.on_datagram(host(2), &answer), None, "another host");
        let told = pings.on_datagram(host(1), &answer).expect("an answer");
        assert_eq!(told.outlook, Outlook::Free(3));
        assert_eq!(told.alternates.len(), 1, "nobody names our own machine");
        assert_eq!(pings.on_datagram(host(1), &answer), None, "once");
        assert_eq!(pings.patience(now), None);
        let later = now + AGAIN;
        assert!(pings.ask(later, host(1), &mut rng).is_some());
    }

    #[test]
    fn who_has_more_free_comes_first_and_who_waits_most_last() {
        let waits = |n| Outlook::Waits(std::cmp::Reverse(n));
        let order = [
            Outlook::Nothing,
            Outlook::Closed,
            waits(9),
            waits(0),
            Outlook::Unknown,
            Outlook::Free(1),
            Outlook::Free(4),
        ];
        assert!(order.is_sorted());
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_passed_over(bytes: Vec<u8>, cut in 0usize..200) {
            let (mut pings, mut rng) = (HeadPings::new([1; 20]), Rng::from_seed(1));
            let ping = pings.ask(Time::from_secs(5), host(1), &mut rng).expect("a datagram");
            let _ = pings.on_datagram(host(1), &bytes);
            let answer = pong(&ping, true, 3);
            let _ = pings.on_datagram(host(1), answer.get(..cut).unwrap_or(&answer));
        }
    }
}
