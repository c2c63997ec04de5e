//! Sharers behind firewalls: they are called through others, and connect to us.

use std::net::SocketAddr;
use std::time::Duration;

use shoal_base::Time;
use shoal_gnutella::Guid;
use shoal_gnutella::http::locations::PushLocation;

use super::run::{Fetch, Who};
use crate::gnutella::transfer::listen::Listener;
use crate::gnutella::transfer::push_desk::push;

/// How often one that is not connected is called, and how often in a row in vain.
const AGAIN: Duration = Duration::from_secs(30);
const MAX_CALLS: u32 = 8;
/// How many are known at most.
const MAX_PUSHED: usize = 64;

#[derive(Debug)]
struct One {
    sharer: PushLocation,
    /// From where it connected last.
    addr: Option<SocketAddr>,
    call_at: Time,
    calls: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Pushed(Vec<One>);

impl Pushed {
    /// One more, unless it is known.
    pub(super) fn add(&mut self, sharer: PushLocation) {
        let known = self.0.iter().any(|one| one.sharer.guid == sharer.guid);
        if !known && self.0.len() < MAX_PUSHED {
            self.0.push(One {
                sharer,
                addr: None,
                call_at: Time::ZERO,
                calls: 0,
            });
        }
    }

    /// Somebody connected, from `addr`.
    pub(super) fn came(&mut self, guid: Guid, addr: SocketAddr) {
        if let Some(one) = self.0.iter_mut().find(|one| one.sharer.guid == guid) {
            (one.addr, one.calls) = (Some(addr), 0);
        }
    }

    /// Whether any may still come.
    pub(super) fn any_left(&self) -> bool {
        self.0.iter().any(|one| one.calls < MAX_CALLS)
    }

    /// When the next is to be called.
    pub(super) fn deadline(&self) -> Option<Time> {
        let left = self.0.iter().filter(|one| one.calls < MAX_CALLS);
        left.map(|one| one.call_at).min()
    }
}

impl Fetch {
    /// Calls those who are not connected.
    pub(super) fn call_pushed(&mut self, now: Time) {
        let Some(back) = self.settings.listener.as_ref().map(Listener::addr) else {
            // Nobody can connect to us.
            self.pushed.0.clear();
            return;
        };
        for one in &mut self.pushed.0 {
            if one.call_at > now || one.calls >= MAX_CALLS {
                continue;
            }
            one.call_at = now + AGAIN;
            let here = |addr| self.live.values().any(|live| live.who == Who::Host(addr));
            if !one.addr.is_some_and(here) {
                one.calls += 1;
                push(&one.sharer, back);
            }
        }
    }
}
