//! What the clock brings: late handshakes end, kept connections are dialled again, hosts and figures are
//! written down.

use std::sync::PoisonError;

use shoal_base::Time;
use shoal_store::snapshot;

use super::{REDIAL, Worker};
use crate::gnutella::handle::Snapshot;
use std::time::Duration;

/// How often hosts are written to their file.
const KEEP_HOSTS: Duration = Duration::from_secs(300);

impl Worker {
    pub(super) fn look(&mut self, now: Time) {
        let late: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, c)| c.until <= now)
            .map(|(key, _)| key)
            .collect();
        for key in late {
            self.lost(key, "too slow");
        }
        self.redial(now);
        self.accept();
        let snapshot = Snapshot {
            stats: self.node.stats(),
            listen: self.node.config().listen,
            mode: self.node.config().mode,
            reached: self.node.is_reached().0,
            links: self.node.connections().collect(),
            failures: self.failures.iter().cloned().collect(),
        };
        *self
            .parts
            .snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = snapshot;
        if now.since(self.hosts_kept) >= KEEP_HOSTS {
            self.hosts_kept = now;
            self.keep_hosts();
        }
    }

    /// Dials the hosts with whom connections are kept and are not.
    pub(super) fn redial(&mut self, now: Time) {
        for n in 0..self.keep.len() {
            let Some(keep) = self.keep.get_mut(n) else {
                return;
            };
            let there = self.conns.iter().any(|(_, c)| c.peer == keep.addr);
            if there || now < keep.next {
                continue;
            }
            keep.next = now + keep.wait;
            keep.wait = (keep.wait * 2).min(REDIAL.1);
            let addr = keep.addr;
            self.dial(addr);
        }
    }

    fn keep_hosts(&mut self) {
        let bytes = self.node.hosts().to_bytes();
        if let Some(path) = &self.parts.hosts
            && let Err(error) = snapshot::save(path, &bytes)
        {
            tracing::warn!(%error, "the hosts known are not kept");
        }
    }

    /// Says farewell, as far as that goes at once.
    pub(super) fn farewell(&mut self) {
        self.with_node(|node, _, out| node.shutdown(out));
        self.keep_hosts();
    }
}
