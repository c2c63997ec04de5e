//! What operations look for, and how far they are.

use super::{ITEM_ROUND, PEER_ROUND, RETRY};
use crate::mainline::bloom::Bloom;
use crate::mainline::lookup::Lookup;
use crate::mainline::node::Node;
use crate::{Failure, Id, Item, Outcome};
use shoal_base::Time;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What a query in flight is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mainline) enum Purpose {
    /// To see whether somebody is there.
    Verify,
    /// An operation's lookup.
    Lookup(u32),
    /// An operation's storing, counting or polling, after its lookup.
    After(u32),
}

/// What an operation does.
#[derive(Debug)]
pub(in crate::mainline) enum Work {
    /// Finds our own place.
    Join,
    /// Finds nodes that differ from us in this bit.
    Far {
        /// From 0.
        bit: u32,
    },
    /// See [`Request::Peers`], and [`Mainline::scrape`].
    Peers {
        key: Id,
        /// Counts only, but with all nodes near the key.
        scrape: bool,
        told: BTreeSet<SocketAddr>,
        /// Nodes that had peers.
        holders: Vec<Node>,
        filters: Option<(Bloom, Bloom)>,
    },
    /// See [`Request::Announce`].
    Announce {
        key: Id,
        port: Option<u16>,
        seed: bool,
        keep: bool,
        told: BTreeSet<SocketAddr>,
    },
    /// See [`Request::GetImmutable`].
    GetImmutable { target: Id },
    /// See [`Request::GetMutable`].
    GetMutable {
        key: [u8; 32],
        salt: Vec<u8>,
        newest: Option<i64>,
        found: bool,
    },
    /// See [`Request::Put`].
    Put {
        item: Item,
        cas: Option<i64>,
        keep: bool,
        /// Sequence number of the newest value seen on the way.
        newest: Option<i64>,
    },
    /// See [`Request::Subscribe`].
    Subscribe {
        key: [u8; 32],
        salt: Vec<u8>,
        newest: Option<i64>,
        /// Nodes near the target, read in turn.
        holders: VecDeque<SocketAddr>,
        interval: Duration,
        /// When to look for the nodes near the target again.
        renew: Time,
    },
    /// See [`Mainline::sample`].
    Sample { target: Id },
}

impl Work {
    /// Counts the peers of `key`.
    pub(in crate::mainline) fn scrape(key: Id) -> Self {
        Self::peers(key, true)
    }

    pub(super) fn peers(key: Id, scrape: bool) -> Self {
        Self::Peers {
            key,
            scrape,
            told: BTreeSet::new(),
            holders: Vec::new(),
            filters: None,
        }
    }

    /// Where it looks, for a node that is `own`.
    pub(super) fn target(&self, own: Id) -> Id {
        match self {
            Self::Join => own,
            Self::Far { bit } => {
                let mut far = own;
                if let Some(byte) = far.0.get_mut((bit / 8) as usize) {
                    *byte ^= 0x80 >> (bit % 8);
                }
                far
            }
            Self::Peers { key, .. } | Self::Announce { key, .. } => *key,
            Self::GetImmutable { target } | Self::Sample { target } => *target,
            Self::GetMutable { key, salt, .. } | Self::Subscribe { key, salt, .. } => {
                crate::item::mutable_target(key, salt)
            }
            Self::Put { item, .. } => item.target(),
        }
    }

    /// Between two rounds, if there is another.
    pub(super) fn round(&self) -> Option<Duration> {
        match self {
            Self::Announce { keep: true, .. } => Some(PEER_ROUND),
            Self::Put { keep: true, .. } => Some(ITEM_ROUND),
            Self::Subscribe { .. } => Some(RETRY),
            _ => None,
        }
    }
}

/// How far an operation got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Looking,
    /// Storing or counting.
    After,
    /// Until the next round or read.
    Resting,
}

/// An operation.
#[derive(Debug)]
pub(in crate::mainline) struct Op {
    pub(super) work: Work,
    /// Somebody asked for it and hears of it.
    pub(super) told: bool,
    pub(super) phase: Phase,
    pub(super) lookups: [Option<Lookup>; 2],
    /// Queries of the phase after the lookup that are in flight and in time.
    pub(super) waiting: u32,
    pub(super) deadline: Time,
    /// When it wants to be looked at; as in `Mainline::alarms`.
    pub wake: Time,
    pub(super) outcome: Outcome,
    pub(super) refusal: Option<Failure>,
    pub(super) mismatches: u32,
}
