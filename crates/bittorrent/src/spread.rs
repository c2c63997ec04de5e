//! Which of a peer's requests to answer first.
//!
//! When several leechers draw on one uplink, a piece sent to one of them soon reaches the others;
//! sending it to a second is wasted. So a peer is first given what nobody else was given, and
//! what another has already been sent waits at the end of its queue: by then it may have been
//! fetched there and cancelled. Nothing waits for ever, and nobody is passed over.

use rustc_hash::FxHashMap;
use shoal_content::{Block, PieceIndex};
use std::collections::VecDeque;

/// How far into a queue something new is looked for.
const MAX_LOOKS: usize = 64;
/// After being passed over this often the first in the queue is served.
const MAX_PASSED: u32 = 64;

/// What was sent to whom first, over the peers of one torrent.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    first: FxHashMap<PieceIndex, u32>,
    /// How often the first request of each peer was passed over.
    passed: FxHashMap<u32, u32>,
}

impl Spread {
    /// Nothing was sent yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves up to `max` requests of `peer` from `queue` to `out`, in the order to be served, and
    /// counts them as sent.
    pub fn take(
        &mut self,
        peer: u32,
        queue: &mut VecDeque<Block>,
        max: usize,
        out: &mut Vec<Block>,
    ) {
        for _ in 0..max {
            let Some(front) = queue.front() else { return };
            let at = if self.is_new(front.piece, peer) {
                0
            } else {
                self.look(peer, queue)
            };
            if let Some(block) = queue.remove(at) {
                self.first.entry(block.piece).or_insert(peer);
                out.push(block);
            }
        }
    }

    /// The peer has gone. Others may need what it alone was given.
    pub fn on_gone(&mut self, peer: u32) {
        self.passed.remove(&peer);
        self.first.retain(|_, first| *first != peer);
    }

    /// Whether nobody but `peer` was sent any of `piece`.
    fn is_new(&self, piece: PieceIndex, peer: u32) -> bool {
        self.first.get(&piece).is_none_or(|first| *first == peer)
    }

    /// The place of the request to serve next, when the first in the queue is nothing new.
    fn look(&mut self, peer: u32, queue: &VecDeque<Block>) -> usize {
        let passed = self.passed.get(&peer).copied().unwrap_or(0);
        let new = queue
            .iter()
            .take(MAX_LOOKS)
            .position(|block| self.is_new(block.piece, peer))
            .filter(|_| passed < MAX_PASSED);
        self.passed
            .insert(peer, if new.is_some() { passed + 1 } else { 0 });
        new.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(piece: u32, n: u32) -> Block {
        Block {
            piece,
            begin: n * 16_384,
            len: 16_384,
        }
    }

    fn take(spread: &mut Spread, peer: u32, queue: &mut VecDeque<Block>, max: usize) -> Vec<u32> {
        let mut out = Vec::new();
        spread.take(peer, queue, max, &mut out);
        out.iter().map(|b| b.piece).collect()
    }

    #[test]
    fn what_another_was_sent_waits() {
        let mut spread = Spread::new();
        let mut first: VecDeque<_> = [block(1, 0), block(1, 1), block(2, 0)].into();
        assert_eq!(take(&mut spread, 7, &mut first, 9), [1, 1, 2]);
        let mut second: VecDeque<_> = [block(1, 0), block(3, 0), block(2, 0), block(4, 0)].into();
        assert_eq!(take(&mut spread, 8, &mut second, 9), [3, 4, 1, 2]);
        let mut again: VecDeque<_> = [block(1, 2)].into();
        assert_eq!(
            take(&mut spread, 7, &mut again, 9),
            [1],
            "its own piece goes on"
        );
    }

    #[test]
    fn nothing_waits_for_ever() {
        let mut spread = Spread::new();
        take(&mut spread, 1, &mut [block(0, 0)].into(), 1);
        let mut queue: VecDeque<_> = [block(0, 0)].into();
        let mut rounds = 0;
        for piece in 1.. {
            queue.push_back(block(piece, 0));
            rounds += 1;
            if take(&mut spread, 2, &mut queue, 1) == [0] {
                break;
            }
        }
        assert_eq!(rounds, MAX_PASSED + 1);
    }

    #[test]
    fn what_only_a_lost_peer_had_is_new_again() {
        let mut spread = Spread::new();
        take(&mut spread, 1, &mut [block(5, 0)].into(), 1);
        let queue = || VecDeque::from([block(5, 0), block(6, 0)]);
        assert_eq!(take(&mut spread.clone(), 2, &mut queue(), 2), [6, 5]);
        spread.on_gone(1);
        assert_eq!(take(&mut spread, 2, &mut queue(), 2), [5, 6]);
    }

    proptest! {
        #[test]
        fn every_request_is_served_once(
            requests in prop::collection::vec((0u32..4, 0u32..20, 0u32..16), 0..300),
            max in 1usize..5,
        ) {
            let mut spread = Spread::new();
            let mut queues: Vec<VecDeque<Block>> = vec![VecDeque::new(); 4];
            for (peer, piece, n) in &requests {
                queues[*peer as usize].push_back(block(*piece, *n));
            }
            let mut served: Vec<Vec<Block>> = vec![Vec::new(); 4];
            for _ in 0..requests.len() {
                for peer in 0..4 {
                    spread.take(peer as u32, &mut queues[peer], max, &mut served[peer]);
                }
            }
            for (peer, served) in served.iter_mut().enumerate() {
                let mine = requests.iter().filter(|r| r.0 as usize == peer);
                let mut asked: Vec<_> = mine.map(|r| block(r.1, r.2)).collect();
                asked.sort_unstable();
                served.sort_unstable();
                prop_assert_eq!(&asked, served);
            }
        }
    }
}
