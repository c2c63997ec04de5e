//! What the tracker counts.

use shoal_bittorrent::tracker::swarms::Census;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one worker, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    pub(super) udp_connects: AtomicU64,
    pub(super) udp_announces: AtomicU64,
    pub(super) udp_scrapes: AtomicU64,
    pub(super) http_announces: AtomicU64,
    pub(super) http_scrapes: AtomicU64,
    pub(super) http_connections: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

/// Adds one. Only its own worker writes a counter, so a load and a store do.
pub(super) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Adds `n`; see [`count`].
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Requests since the start, or in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// UDP connects answered.
    pub udp_connects: u64,
    /// UDP announces answered.
    pub udp_announces: u64,
    /// UDP scrapes answered.
    pub udp_scrapes: u64,
    /// HTTP announces answered.
    pub http_announces: u64,
    /// HTTP scrapes answered.
    pub http_scrapes: u64,
    /// HTTP connections accepted.
    pub http_connections: u64,
    /// Requests answered with an error: a torrent that is not served, a stale connection id, a
    /// limit of peers.
    pub refused: u64,
    /// Requests over the rate of their address.
    pub limited: u64,
    /// Requests that could not be read.
    pub malformed: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of replies.
    pub bytes_out: u64,
}

impl Traffic {
    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Counters>) -> Self {
        let mut sum = Self::default();
        for c in all {
            sum.udp_connects += c.udp_connects.load(Relaxed);
            sum.udp_announces += c.udp_announces.load(Relaxed);
            sum.udp_scrapes += c.udp_scrapes.load(Relaxed);
            sum.http_announces += c.http_announces.load(Relaxed);
            sum.http_scrapes += c.http_scrapes.load(Relaxed);
            sum.http_connections += c.http_connections.load(Relaxed);
            sum.refused += c.refused.load(Relaxed);
            sum.limited += c.limited.load(Relaxed);
            sum.malformed += c.malformed.load(Relaxed);
            sum.bytes_in += c.bytes_in.load(Relaxed);
            sum.bytes_out += c.bytes_out.load(Relaxed);
        }
        sum
    }

    /// Names and numbers, for reports.
    pub fn fields(&self) -> [(&'static str, u64); 11] {
        [
            ("udp_connects", self.udp_connects),
            ("udp_announces", self.udp_announces),
            ("udp_scrapes", self.udp_scrapes),
            ("http_announces", self.http_announces),
            ("http_scrapes", self.http_scrapes),
            ("http_connections", self.http_connections),
            ("refused", self.refused),
            ("limited", self.limited),
            ("malformed", self.malformed),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
        ]
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            udp_connects: self.udp_connects.saturating_sub(earlier.udp_connects),
            udp_announces: self.udp_announces.saturating_sub(earlier.udp_announces),
            udp_scrapes: self.udp_scrapes.saturating_sub(earlier.udp_scrapes),
            http_announces: self.http_announces.saturating_sub(earlier.http_announces),
            http_scrapes: self.http_scrapes.saturating_sub(earlier.http_scrapes),
            http_connections: self
                .http_connections
                .saturating_sub(earlier.http_connections),
            refused: self.refused.saturating_sub(earlier.refused),
            limited: self.limited.saturating_sub(earlier.limited),
            malformed: self.malformed.saturating_sub(earlier.malformed),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
        }
    }
}

/// A tracker's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Seconds since the start.
    pub uptime_secs: u64,
    /// Torrents and peers now.
    pub census: Census,
    /// Since the start.
    pub total: Traffic,
    /// In the last minute (or since the start, if that is less).
    pub last_minute: Traffic,
}

/// Totals of the last minute, one a second.
#[derive(Debug, Default)]
pub(super) struct Minute(VecDeque<Traffic>);

impl Minute {
    pub(super) fn note(&mut self, total: Traffic) {
        if self.0.len() == 60 {
            self.0.pop_front();
        }
        self.0.push_back(total);
    }

    pub(super) fn last(&self, total: &Traffic) -> Traffic {
        // A ring that is not full reaches back to the start, when all was zero.
        let oldest = self.0.front().filter(|_| self.0.len() == 60);
        total.since(oldest.unwrap_or(&Traffic::default()))
    }
}
