//! Ways back: from which connection a message came, so that its answers go there.

use std::time::Duration;

use rustc_hash::FxSeededState;
use shoal_base::{Rng, Time};

use super::ConnId;
use crate::guid::Guid;

/// What a GUID names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// A ping: pongs go back.
    Ping,
    /// A query: hits go back.
    Query,
    /// A servent: pushes go there.
    Servent,
}

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// The connection; none for our own.
    pub(super) conn: Option<ConnId>,
    /// The highest TTL it came with.
    pub(super) ttl: u8,
    /// The class of a query's words, for [`super::guard::Answerers`].
    pub(super) text: u8,
}

impl Route {
    /// The way to a neighbour, or to ourselves.
    pub(super) fn to(conn: Option<ConnId>) -> Self {
        Self {
            conn,
            ttl: 0,
            text: 0,
        }
    }
}

// Seeded, so that nobody can choose GUIDs that fall together; never iterated.
#[allow(
    clippy::disallowed_types,
    reason = "what is disallowed is its random order, which nobody sees"
)]
type Map = std::collections::HashMap<(Guid, Way), Route, FxSeededState>;

/// Remembers ways back for one span of time at least and two at most, and two maps of a given size
/// at most.
#[derive(Debug)]
pub(super) struct Routes {
    young: Map,
    old: Map,
    most: usize,
    span: Duration,
    turn: Time,
}

impl Routes {
    pub(super) fn new(now: Time, most: usize, span: Duration, rng: &mut Rng) -> Self {
        let state = FxSeededState::with_seed(rng.next_u64() as usize);
        Self {
            young: Map::with_hasher(state.clone()),
            old: Map::with_hasher(state),
            most,
            span,
            turn: now + span,
        }
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(super) fn get(&self, guid: Guid, way: Way) -> Option<Route> {
        let key = (guid, way);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    pub(super) fn set(&mut self, now: Time, guid: Guid, way: Way, route: Route) {
        if now >= self.turn || self.young.len() >= self.most {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.turn = now + self.span;
        }
        self.young.insert((guid, way), route);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guid(n: u32) -> Guid {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        Guid(bytes)
    }

    #[test]
    fn ways_are_remembered_for_a_while_and_in_bounded_memory() {
        let span = Duration::from_secs(300);
        let mut routes = Routes::new(Time::ZERO, 100, span, &mut Rng::from_seed(1));
        let route = Route::to(None);
        let mut now = Time::ZERO;
        for n in 0..1000 {
            routes.set(now, guid(n), Way::Query, route);
            assert!(routes.len() <= 200);
        }
        assert!(routes.get(guid(950), Way::Query).is_some());
        assert!(routes.get(guid(950), Way::Ping).is_none());
        assert!(routes.get(guid(700), Way::Query).is_none());
        now += span;
        routes.set(now, guid(2000), Way::Query, route);
        assert!(routes.get(guid(999), Way::Query).is_some());
        now += span;
        routes.set(now, guid(2001), Way::Query, route);
        assert!(routes.get(guid(999), Way::Query).is_none());
    }
}
