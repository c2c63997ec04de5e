//! Sharers behind firewalls: who may ask them to connect to us, and when to do so again.

use std::net::IpAddr;
use std::time::Duration;

use shoal_base::Time;

use super::locations::{PushLocation, may_name};
use crate::guid::Guid;

/// Sharers that are remembered.
const MAX: usize = 64;
/// How long one may take to connect before it is asked again; twice as long each further time.
const AGAIN: Duration = Duration::from_secs(30);
/// How often one is asked in a row before it is given up.
const MAX_ASKED: u32 = 6;
/// In place of how often one was asked: it is asked no more.
const GIVEN_UP: u32 = u32::MAX;

#[derive(Debug)]
struct Sharer {
    location: PushLocation,
    /// How often it was asked since it last connected.
    asked: u32,
    /// When it is to be asked; never while it is connected.
    at: Time,
}

/// The sharers of one file that connect to us when they are asked to.
#[derive(Debug, Default)]
pub struct Pushes(Vec<Sharer>);

impl Pushes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one that `teller` told of: true if it is new. Proxies that the teller may not make us
    /// connect to are left out, and sharers without any.
    pub fn learn(&mut self, now: Time, mut location: PushLocation, teller: IpAddr) -> bool {
        location.proxies.retain(|proxy| may_name(teller, *proxy));
        if location.proxies.is_empty() {
            return false;
        }
        if let Some(known) = self.find(location.guid) {
            // Where its proxies are changes with its connections.
            known.location = location;
            return false;
        }
        if self.0.len() >= MAX {
            let over = self.0.iter().position(|s| !s.is_left());
            let Some(over) = over else { return false };
            self.0.swap_remove(over);
        }
        self.0.push(Sharer {
            location,
            asked: 0,
            at: now,
        });
        true
    }

    /// Takes in one that the user, or the network itself, named: as it is.
    pub fn name(&mut self, now: Time, location: PushLocation) {
        if self.find(location.guid).is_none() && self.0.len() < MAX {
            self.0.push(Sharer {
                location,
                asked: 0,
                at: now,
            });
        }
    }

    fn find(&mut self, guid: Guid) -> Option<&mut Sharer> {
        self.0.iter_mut().find(|s| s.location.guid == guid)
    }

    /// How many there are that may still connect.
    pub fn left(&self) -> usize {
        self.0.iter().filter(|s| s.is_left()).count()
    }

    /// When [`Self::due`] next has somebody.
    pub fn deadline(&self) -> Option<Time> {
        let left = self.0.iter().filter(|s| s.is_left() && s.at < Time::FAR);
        left.map(|s| s.at).min()
    }

    /// Those who are to be asked now.
    pub fn due(&mut self, now: Time) -> Vec<PushLocation> {
        let mut due = Vec::new();
        for sharer in &mut self.0 {
            if !sharer.is_left() || sharer.at > now {
                continue;
            }
            if sharer.asked == MAX_ASKED {
                // The last time was in vain too.
                sharer.asked = GIVEN_UP;
                continue;
            }
            sharer.at = now + AGAIN * (1 << sharer.asked);
            sharer.asked += 1;
            due.push(sharer.location.clone());
        }
        due
    }

    /// One is connected.
    pub fn connected(&mut self, guid: Guid) {
        if let Some(sharer) = self.find(guid) {
            (sharer.asked, sharer.at) = (0, Time::FAR);
        }
    }

    /// Its connection is gone.
    pub fn lost(&mut self, now: Time, guid: Guid) {
        if let Some(sharer) = self.find(guid) {
            sharer.at = now + AGAIN;
        }
    }

    /// It is of no use: it is asked no more.
    pub fn drop(&mut self, guid: Guid) {
        if let Some(sharer) = self.find(guid) {
            sharer.asked = GIVEN_UP;
        }
    }
}

impl Sharer {
    /// Whether it may still connect, or is connected.
    fn is_left(&self) -> bool {
        self.asked < GIVEN_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn location(n: u8) -> PushLocation {
        PushLocation {
            guid: Guid([n; 16]),
            proxies: vec![SocketAddr::from(([44, 20, n, 1], 6346))],
        }
    }

    fn teller() -> IpAddr {
        IpAddr::from([44, 20, 9, 1])
    }

    #[test]
    fn a_sharer_is_asked_until_it_comes_and_again_when_it_goes() {
        let mut pushes = Pushes::new();
        let mut now = Time::ZERO;
        assert!(pushes.learn(now, location(1), teller()));
        assert!(!pushes.learn(now, location(1), teller()), "known");
        assert_eq!(pushes.due(now), [location(1)]);
        assert_eq!(pushes.due(now), []);
        now = pushes.deadline().expect("asked again");
        assert_eq!(now, Time::ZERO + AGAIN);
        assert_eq!(pushes.due(now), [location(1)]);
        pushes.connected(Guid([1; 16]));
        assert_eq!((pushes.deadline(), pushes.left()), (None, 1));
        pushes.lost(now, Guid([1; 16]));
        for _ in 0..MAX_ASKED {
            now = pushes.deadline().expect("asked again");
            assert_eq!(pushes.due(now).len(), 1);
        }
        let last = pushes.deadline().expect("a while to come");
        assert_eq!((pushes.left(), pushes.due(last)), (1, vec![]));
        assert_eq!((pushes.deadline(), pushes.left()), (None, 0), "given up");
    }

    #[test]
    fn nobody_makes_us_connect_where_he_may_not() {
        let mut pushes = Pushes::new();
        let mut bad = location(1);
        bad.proxies = vec![SocketAddr::from(([127, 0, 0, 1], 80))];
        assert!(!pushes.learn(Time::ZERO, bad.clone(), teller()));
        bad.proxies.extend(location(2).proxies);
        assert!(pushes.learn(Time::ZERO, bad, teller()));
        assert_eq!(pushes.due(Time::ZERO)[0].proxies, location(2).proxies);
        for n in 2..=255 {
            pushes.learn(Time::ZERO, location(n), teller());
        }
        assert_eq!(pushes.left(), MAX);
        pushes.drop(Guid([1; 16]));
        assert_eq!(pushes.left(), MAX - 1);
    }
}
