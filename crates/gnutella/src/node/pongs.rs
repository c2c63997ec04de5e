//! The pong cache: hosts that pongs told of, from which pings are answered without being passed on
//! (Pong Caching 0.1).

use std::collections::VecDeque;
use std::time::Duration;

use shoal_base::Time;

use super::ConnId;
use crate::message::ping::Pong;

/// Pongs that are kept.
const MOST: usize = 60;
/// How long one is good.
const FRESH: Duration = Duration::from_secs(600);
/// Pongs of the same connection at most: one neighbour does not fill the cache.
const MOST_OF_ONE: usize = 20;

#[derive(Debug)]
struct Cached {
    pong: Pong,
    hops: u8,
    from: ConnId,
    at: Time,
}

#[derive(Debug, Default)]
pub(super) struct Pongs {
    kept: VecDeque<Cached>,
}

impl Pongs {
    /// Keeps a pong that took `hops`.
    pub(super) fn add(&mut self, now: Time, pong: Pong, hops: u8, from: ConnId) {
        self.kept
            .retain(|c| c.pong.addr != pong.addr && now.since(c.at) < FRESH);
        let of_one = self.kept.iter().filter(|c| c.from == from).count();
        if of_one >= MOST_OF_ONE {
            let first = self.kept.iter().position(|c| c.from == from);
            first.map(|at| self.kept.remove(at));
        }
        if self.kept.len() >= MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(Cached {
            pong,
            hops,
            from,
            at: now,
        });
    }

    /// Up to `most` pongs for a ping that came from `asker`, the newest first, none twice of the
    /// same hops while others are there; with their hops.
    pub(super) fn pick(&self, now: Time, asker: ConnId, most: usize) -> Vec<(Pong, u8)> {
        let fresh = self
            .kept
            .iter()
            .rev()
            .filter(|c| c.from != asker && now.since(c.at) < FRESH);
        let mut picked: Vec<&Cached> = fresh.take(most * 2).collect();
        // Spread over hops: near ones for newcomers, far ones for those who want a wider horizon.
        picked.sort_by_key(|c| picked_rank(c.hops));
        picked.truncate(most);
        picked.iter().map(|c| (c.pong.clone(), c.hops)).collect()
    }
}

fn picked_rank(hops: u8) -> u8 {
    // Pongs of no hop are the neighbours themselves.
    hops.min(3)
}
