//! How a call goes.

use crate::media::ReceiverStats;
use std::net::SocketAddr;
use std::time::Duration;

/// What the codec looks ahead, milliseconds, besides the frame itself.
const LOOKAHEAD_MS: f64 = 6.5;
/// A frame is complete after this, milliseconds.
const FRAME_MS: f64 = 20.0;

/// How long sound takes through sound cards, where there are any and it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CardDelays {
    /// From our mouth until we have it.
    pub microphone: Option<Duration>,
    /// From us to our ear.
    pub loudspeaker: Option<Duration>,
}

/// How a call goes, both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CallStats {
    /// What came, and what became of it.
    pub receiver: ReceiverStats,
    /// Bits a second that we encode with.
    pub bitrate: u32,
    /// Round trip, if measured.
    pub rtt: Option<Duration>,
    /// The path leads through a relay of ours.
    pub our_relay: bool,
    /// The path leads through a relay of theirs.
    pub their_relay: bool,
    /// Our address and theirs, once there is a path.
    pub path: Option<(SocketAddr, SocketAddr)>,
    /// Bytes of sound sent.
    pub sent_bytes: u64,
    /// Packets of ours that the other end reported on.
    pub reported: u64,
    /// Of them those that it lacks.
    pub reported_lost: u64,
    /// What our cards add.
    pub cards: CardDelays,
    /// What the other end's microphone adds, if it told.
    pub their_microphone: Option<Duration>,
}

impl CallStats {
    /// From their mouth to our ear, milliseconds: their microphone if they told, the frame, the codec, half
    /// the round trip, how long sound waits here, and our loudspeaker.
    pub fn mouth_to_ear_ms(&self) -> Option<f64> {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let way = ms(self.rtt?) / 2.0;
        let cards = [self.their_microphone, self.cards.loudspeaker];
        let cards: f64 = cards.into_iter().flatten().map(ms).sum();
        Some(FRAME_MS + LOOKAHEAD_MS + way + self.receiver.lag_ms.max(0.0) + cards)
    }

    /// Whether the path leads through a relay.
    pub fn is_relayed(&self) -> bool {
        self.our_relay || self.their_relay
    }
}
