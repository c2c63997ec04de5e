//! Calls on real sockets and a real clock. The rules are those of `shoal_call::media`.
//!
//! ```text
//!  line      what the two ends say to each other before the sound: over a connection between nodes,
//!            over TCP, or through files
//!  callers   nodes that call
//!  carrier   what carries the sound: such a connection, or ways of the call's own
//!  ways      sockets, addresses seen by STUN servers, addresses at relays
//!  setup     offer and answer, signed and checked
//!  conference several calls at once, all heard together
//!  talk      the loop: sockets, clock, microphone, loudspeaker
//!  page      the browser's end: a page, and this node as its signalling
//! ```

mod callers;
mod carrier;
mod conference;
mod line;
mod page;
mod setup;
mod talk;
mod ways;

pub use callers::{Caller, Callers, Letters};
pub use conference::{Conference, Happened, MayCall, Member};
pub use line::{FileLine, Line, TcpLine};
pub use page::{PageNet, PageServer, PageSettings};
pub use setup::{Made, answer, answer_node, call, call_node};
pub use shoal_call::media::card;
pub use shoal_call::media::resample::{RATES, to_call_rate};
pub use shoal_call::media::session::{
    CallStats, CardDelays, Ended, Leg, SessionConfig, SessionError,
};
pub use shoal_call::media::{FRAME, RATE};
pub use shoal_reach::turn::credential::Credential;
pub use talk::talk;
pub use ways::{Relay, WaySettings};

use ed25519_dalek::SigningKey;
use shoal_call::media::binding::BindingError;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

/// Microphone and loudspeaker. Both are asked every 20 ms, from one thread that must not wait.
pub trait Sound {
    /// Fills a frame of [`FRAME`] samples from the microphone; false when there will be no more.
    fn record(&mut self, frame: &mut [i16]) -> bool;
    /// Plays a frame.
    fn play(&mut self, frame: &[i16]);
    /// How long sound takes through the cards, as far as that is known.
    fn delays(&self) -> CardDelays {
        CardDelays::default()
    }
}

/// Settings of one end.
#[derive(Debug, Clone)]
pub struct CallSettings {
    /// Who we are.
    pub key: SigningKey,
    /// Ways to us.
    pub ways: WaySettings,
    /// The sound's settings.
    pub session: SessionConfig,
}

/// What happens in a call.
#[derive(Debug, Clone, PartialEq)]
pub enum CallEvent {
    /// The other end was told, and lets it ring.
    Ringing,
    /// Both descriptions are there.
    Described {
        /// Who signed the other one.
        key: [u8; 32],
        /// To be compared by voice.
        digits: String,
    },
    /// The next part of the beginning was reached.
    Reached(Leg),
    /// The path, or another one.
    Path {
        /// Our end.
        local: SocketAddr,
        /// The other.
        remote: SocketAddr,
        /// Whether it leads through a relay, and whose.
        relayed: Option<Whose>,
    },
    /// The way of the connection that carries the call, or another one.
    Way {
        /// Relays on it: ours by its address, theirs by their address at it; none when it is direct.
        relays: Vec<SocketAddr>,
        /// Its round trip.
        rtt: Duration,
        /// Ways that work, with this one.
        ways: usize,
    },
    /// How it goes, once a second, with the relays of a connection's way.
    Stats(Box<CallStats>, Vec<SocketAddr>),
}

/// Whose relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Ours.
    Ours,
    /// The other end's.
    Theirs,
    /// Both.
    Both,
}

impl Whose {
    /// By what the statistics of a call say.
    pub fn of(ours: bool, theirs: bool) -> Option<Self> {
        match (ours, theirs) {
            (false, false) => None,
            (true, false) => Some(Self::Ours),
            (false, true) => Some(Self::Theirs),
            (true, true) => Some(Self::Both),
        }
    }
}

/// The next caller at a listener that does not block; none when `stop` says so.
pub fn wait_for_call(listener: &TcpListener, stop: &AtomicBool) -> Option<TcpStream> {
    Some(crate::accept::wait(listener, stop)?.0)
}

/// Not to be foreseen.
pub(crate) fn entropy() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard hasher's keys come from the operating system.
    RandomState::new().hash_one(SystemTime::now())
}

/// Why there was no call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No socket could be opened.
    #[error("no way to be reached: {0}")]
    Ways(String),
    /// The other end could not be told, or went away before it answered.
    #[error("signalling: {0}")]
    Line(String),
    /// Reading or writing what is said.
    #[error("signalling")]
    LineIo(#[from] io::Error),
    /// Nobody answered in time.
    #[error("signalling: no answer within {0} s")]
    NoAnswer(u64),
    /// The other end does not want to talk.
    #[error("refused: {0}")]
    Refused(String),
    /// What was said is not what it should be.
    #[error("signalling: {0}")]
    Binding(#[from] BindingError),
    /// The call cannot be made of it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Stopped before there was an answer.
    #[error("stopped")]
    Stopped,
}

#[cfg(test)]
mod tests;
