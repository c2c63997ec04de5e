//! Who has an overlay address. A letter without a text asks whoever has such a key; the answer is a
//! sealed letter, whose signature shows that its sender has the key.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use shoal_reach::overlay::{HERE, address, question};
use shoal_reach::sealed;

use super::Inner;
use crate::reach::{NodeId, random};

/// Nodes remembered.
const MAX_KNOWN: usize = 4096;
/// When a question is asked anew, and when it is given up.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
];
/// Questions answered in a minute, whoever asks.
const ANSWERS: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Names {
    known: BTreeMap<Ipv6Addr, NodeId>,
    asked: BTreeSet<Ipv6Addr>,
    /// Since when so many questions were answered.
    answered: Option<(Instant, u32)>,
}

impl Names {
    pub(super) fn learn(&mut self, node: NodeId) {
        let ip = address(&node);
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&ip) {
            // They are asked for again when they are needed.
            self.known.clear();
        }
        self.known.insert(ip, node);
    }

    pub(super) fn known(&self, ip: Ipv6Addr) -> Option<NodeId> {
        self.known.get(&ip).copied()
    }

    /// Whether one more question is answered.
    fn answers(&mut self) -> bool {
        let now = Instant::now();
        match &mut self.answered {
            Some((since, n)) if now.duration_since(*since) < MINUTE => {
                *n += 1;
                *n <= ANSWERS
            }
            answered => {
                *answered = Some((now, 1));
                true
            }
        }
    }
}

impl Inner {
    /// Who has an address.
    ///
    /// # Errors
    /// Nobody said so.
    pub(super) fn who(&self, ip: Ipv6Addr) -> io::Result<NodeId> {
        let mut state = self.lock();
        for wait in AGAIN {
            if let Some(node) = state.names.known.get(&ip) {
                return Ok(*node);
            }
            if address(&self.reach.id()) == ip {
                return Ok(self.reach.id());
            }
            state.names.asked.insert(ip);
            drop(state);
            (self.write)(question(ip), Vec::new());
            let until = Instant::now() + wait;
            state = self.lock();
            while !state.names.known.contains_key(&ip) {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(|e| e.into_inner()).0;
            }
        }
        state.names.asked.remove(&ip);
        state.names.known.get(&ip).copied().ok_or_else(|| {
            let what = format!("no node on the overlay answers for {ip}");
            io::Error::new(io::ErrorKind::HostUnreachable, what)
        })
    }

    /// A letter: a question for us, an answer to one of ours, or reach's.
    pub(super) fn letter(&self, from: [u8; 32], letter: Vec<u8>) {
        if letter.is_empty() {
            return self.answer(NodeId(from));
        }
        let asked = self.lock().names.asked.contains(&address(&NodeId(from)));
        if asked
            && let Ok((sender, text)) = sealed::open(&self.identity, &letter)
            && text == HERE
        {
            let mut state = self.lock();
            state.names.asked.remove(&address(&sender));
            state.names.learn(sender);
            drop(state);
            return self.changed.notify_all();
        }
        self.reach.letter(letter);
    }

    fn answer(&self, to: NodeId) {
        if !self.lock().names.answers() {
            return;
        }
        let mut fresh = [0; 32];
        random(&mut fresh);
        match sealed::seal(&self.identity, &to, fresh, HERE) {
            Ok(letter) => (self.write)(to.0, letter),
            Err(error) => tracing::debug!(%error, "somebody asks who has no key"),
        }
    }
}
