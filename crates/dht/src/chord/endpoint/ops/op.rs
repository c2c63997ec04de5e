//! One operation that was asked for, and what is known of it.

use crate::chord::place::Place;
use crate::chord::wire::Ask;
use crate::item::mutable_target;
use crate::keywords::{Record, word_key};
use crate::{Failure, Id, Item, OpId, Outcome, Request};
use shoal_base::Time;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How often a kept announcement is made again, jittered down to half; peers are kept for three
/// times this.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(15 * 60);
/// How many nodes answer before the newest certified value is believed: so many of four that two who
/// tell an older one than they were given are not enough. When some are silent two will do.
const CERTIFIED: u32 = 3;
const CERTIFIED_SILENT: u32 = 2;

/// An operation under way, or resting until it is done again.
pub(in crate::chord::endpoint) struct Op {
    pub(in crate::chord::endpoint) work: Work,
    /// A guest's: how many doors it has tried, and at which it waits for an answer.
    pub(super) doors: u32,
    pub(in crate::chord::endpoint) door: Option<SocketAddr>,
    pub(super) targets: VecDeque<Place>,
    pub(in crate::chord::endpoint) waiting: usize,
    pub(in crate::chord::endpoint) outcome: Outcome,
    /// Nodes that shall store and did not answer: asked once more when the others are done.
    pub(super) silent: VecDeque<Place>,
    pub(super) asked_again: bool,
    pub(super) best: Option<Item>,
    pub(super) failure: Option<Failure>,
    pub(super) told: BTreeSet<SocketAddr>,
    pub(super) scrape: (u32, u32),
    /// A word's greatest number of records, and where.
    pub(super) count: Option<(u32, Place)>,
    /// Somebody who was asked does not answer at once.
    pub(super) slow: bool,
    pub(super) again: Option<Time>,
}

pub(in crate::chord::endpoint) enum Work {
    /// Anything that asks the owner of one key.
    Api(Request),
    /// One word of a title or a search.
    Word {
        parent: OpId,
        word: String,
        record: Option<Record>,
    },
    /// An item that was handed to us and is not ours.
    Hand { target: Id },
    /// All words of a title.
    Publish {
        record: Record,
        keep: bool,
        left: usize,
    },
    /// A search: first how many records each word has, then the records.
    Search {
        words: Vec<String>,
        most: u8,
        left: usize,
        counts: Vec<(u32, String, Place)>,
    },
}

impl Work {
    pub(super) fn key(&self) -> Id {
        match self {
            Self::Api(request) => match request {
                Request::Put { item, .. } => item.target(),
                Request::GetImmutable { target } => *target,
                Request::GetMutable { key, salt, .. } | Request::Subscribe { key, salt } => {
                    mutable_target(key, salt)
                }
                Request::GetCertified { authority, name } => mutable_target(authority, name),
                Request::Announce { key, .. } | Request::Peers { key } => *key,
                Request::Publish { .. } | Request::Find { .. } => Id::default(),
            },
            Self::Hand { target } => *target,
            Self::Word { word, .. } => word_key(word),
            Self::Publish { .. } | Self::Search { .. } => Id::default(),
        }
    }

    pub(super) fn ask(&self) -> Option<Ask> {
        Some(match self {
            Self::Api(Request::Put { item, cas, .. }) => Ask::Put {
                item: item.clone(),
                cas: *cas,
            },
            Self::Api(Request::Announce {
                key, port, seed, ..
            }) => Ask::Announce {
                key: *key,
                port: port.unwrap_or(0),
                seed: *seed,
            },
            Self::Api(Request::Peers { key }) => Ask::Peers { key: *key },
            Self::Api(_) => Ask::Get { target: self.key() },
            Self::Word {
                word,
                record: Some(record),
                ..
            } => Ask::Publish {
                word: word.clone(),
                record: record.clone(),
            },
            Self::Word { word, .. } => Ask::Find {
                words: vec![word.clone()],
                most: 0,
            },
            Self::Hand { .. } | Self::Publish { .. } | Self::Search { .. } => return None,
        })
    }

    /// How many nodes are asked at once: all that shall store, or have a certified value; of those that
    /// may have another the first two, because the newer of two mutable values counts; else one after
    /// the other.
    pub(super) fn fan(&self) -> usize {
        match self {
            Self::Api(Request::GetImmutable { .. } | Request::Peers { .. }) => 1,
            Self::Api(Request::GetMutable { .. }) => 2,
            _ => usize::MAX,
        }
    }

    /// Whether it asks nodes to keep something.
    pub(super) fn stores(&self) -> bool {
        matches!(
            self,
            Self::Api(Request::Put { .. } | Request::Announce { .. })
                | Self::Word {
                    record: Some(_),
                    ..
                }
        )
    }

    /// How often a kept operation is done again.
    pub(super) fn period(&self, republish: Duration) -> Option<Duration> {
        match self {
            Self::Api(Request::Put { keep: true, .. }) => Some(republish),
            Self::Api(Request::Announce { keep: true, .. }) => Some(ANNOUNCE_AGAIN),
            Self::Publish { keep: true, .. } => Some(republish),
            _ => None,
        }
    }
}

impl Op {
    pub(super) fn new(work: Work) -> Self {
        Self {
            work,
            doors: 0,
            door: None,
            targets: VecDeque::new(),
            waiting: 0,
            outcome: Outcome::default(),
            silent: VecDeque::new(),
            asked_again: false,
            best: None,
            failure: None,
            told: BTreeSet::new(),
            scrape: (0, 0),
            count: None,
            slow: false,
            again: None,
        }
    }

    /// Whether so many have answered that no more are waited for.
    pub(super) fn has_enough(&self) -> bool {
        let wanted = if self.slow {
            CERTIFIED_SILENT
        } else {
            CERTIFIED
        };
        let certified = matches!(self.work, Work::Api(Request::GetCertified { .. }));
        certified && self.best.is_some() && self.outcome.answered >= wanted
    }

    pub(super) fn satisfied(&self) -> bool {
        self.best.is_some() || !self.told.is_empty()
    }
}
