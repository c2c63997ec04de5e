//! Rate limits of the whole node; each torrent has its own beside them.

use crate::session::SessionConfig;
use shoal_base::{Time, TokenBucket};
use shoal_bittorrent::peers::is_local;
use std::net::IpAddr;

/// A pair of token buckets.
pub(super) struct Limits {
    pub(super) up: TokenBucket,
    pub(super) down: TokenBucket,
    lan_unlimited: bool,
}

impl Limits {
    pub(super) fn new(config: &SessionConfig) -> Self {
        Self {
            up: TokenBucket::new(config.up_limit),
            down: TokenBucket::new(config.down_limit),
            lan_unlimited: config.lan_unlimited,
        }
    }

    pub(super) fn of_torrent(up: Option<u64>, down: Option<u64>) -> Self {
        Self {
            up: TokenBucket::new(up),
            down: TokenBucket::new(down),
            lan_unlimited: false,
        }
    }

    /// Whether the limits hold for a peer at `ip`.
    pub(super) fn apply_to(&self, ip: IpAddr) -> bool {
        !(self.lan_unlimited && is_local(ip))
    }

    /// When `bytes` may be received under both this limit and `other`.
    pub(super) fn down_ready(&mut self, other: &mut Self, now: Time, bytes: usize) -> Time {
        self.down
            .ready_at(now, bytes)
            .max(other.down.ready_at(now, bytes))
    }

    /// When `bytes` may be sent under both this limit and `other`.
    pub(super) fn up_ready(&mut self, other: &mut Self, now: Time, bytes: usize) -> Time {
        self.up
            .ready_at(now, bytes)
            .max(other.up.ready_at(now, bytes))
    }
}
