//! One relay, and how far we are with it.

use crate::agent::RelayId;
use crate::stun::TransactionId;
use crate::turn::client::TurnClient;
use shoal_base::Time;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug)]
pub(super) enum Life {
    /// Nothing but questions.
    Idle,
    /// A connection is being made.
    Opening(Time),
    /// An allocation was asked for.
    Asking(Box<TurnClient>),
    /// There is one.
    Up {
        client: Box<TurnClient>,
        relayed: Vec<SocketAddr>,
    },
}

#[derive(Debug)]
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) at: SocketAddr,
    pub(super) tcp: bool,
    pub(super) ticket: usize,
    pub(super) life: Life,
    /// The question under way, and when it was asked.
    pub(super) asked: Option<(TransactionId, Time)>,
    pub(super) misses: u32,
    pub(super) next: Time,
    /// Not before then is it used again.
    pub(super) not_before: Time,
    pub(super) rtt: Option<Duration>,
    pub(super) mapped: Option<SocketAddr>,
    /// How busy it said it is, in thousandths.
    pub(super) load: u16,
    /// What came of a stream and is no whole frame yet.
    pub(super) rest: Vec<u8>,
}

impl Relay {
    pub(super) fn client(&mut self) -> Option<&mut TurnClient> {
        match &mut self.life {
            Life::Asking(client) | Life::Up { client, .. } => Some(client),
            Life::Idle | Life::Opening(_) => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.life, Life::Up { .. })
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.life, Life::Opening(_))
    }
}
