//! How a node behaves: list lengths and times.

use std::time::Duration;

/// A node's settings; many nodes share one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// r: length of the successor list, at least 1. 2 log2 N survives the death of half of all
    /// nodes at once (ToN 2003, section VI.E).
    pub successors: usize,
    /// Mean time between two stabilisations; each waits uniformly from half to one and a half of
    /// it. None: never by itself.
    pub stabilise: Option<Duration>,
    /// Mean time between the looking up of two fingers, jittered alike. The first table after
    /// joining is filled without pause.
    pub fix_fingers: Option<Duration>,
    /// Mean time between two questions whether the predecessor lives, jittered alike.
    pub check_predecessor: Option<Duration>,
    /// How long after its successor list changed a node tells its predecessor, which then
    /// stabilises, so that news runs along the ring instead of waiting for each one's timer. None:
    /// it does not tell.
    pub nudge: Option<Duration>,
    /// Mean time to the first look whether a node that was lost is in another ring now, jittered
    /// alike; later ones wait up to sixteen times as long. None: who is lost is forgotten.
    pub merge: Option<Duration>,
    /// How long to wait for an answer to one message.
    pub timeout: Duration,
    /// How often an unanswered maintenance message, or the last hop of a lookup, is sent before
    /// its receiver counts as dead. 1 where no message is ever lost.
    pub attempts: u8,
    /// How long a node that did not answer is passed over. Zero: it is tried again by the next
    /// lookup.
    pub suspicion: Duration,
    /// Most hops of a lookup.
    pub hop_limit: u32,
    /// Recursive: how long to wait for the end of a lookup before starting it again.
    pub restart: Duration,
    /// How long a lookup, or joining, may take altogether.
    pub deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            successors: 16,
            stabilise: Some(Duration::from_secs(15)),
            fix_fingers: Some(Duration::from_secs(15)),
            check_predecessor: Some(Duration::from_secs(15)),
            nudge: Some(Duration::from_millis(500)),
            merge: Some(Duration::from_secs(30)),
            timeout: Duration::from_millis(750),
            attempts: 3,
            suspicion: Duration::from_secs(60),
            hop_limit: 128,
            restart: Duration::from_secs(6),
            deadline: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Settings that send nothing by themselves: no timers. For rings whose tables are given.
    pub fn still() -> Self {
        Self {
            stabilise: None,
            fix_fingers: None,
            check_predecessor: None,
            nudge: None,
            merge: None,
            ..Self::default()
        }
    }
}
