//! Events of a call.

use std::net::SocketAddr;

use serde::Serialize;
use shoal_node::call::{CallStats, Leg, Whose};

use crate::sound::Which;

/// One line of `--json`. Times are milliseconds, unless their name says otherwise.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum CallReport {
    /// Our key, for the other end to expect.
    CallKey {
        /// In hexadecimal digits.
        key: String,
    },
    /// Where the page is.
    CallPage {
        /// Its address, with the token that makes it work.
        url: String,
    },
    /// Both ends know of each other.
    CallDescribed {
        /// The other's key.
        key: String,
        /// To be compared by voice.
        digits: String,
    },
    /// The next part of the call's beginning is reached.
    CallLeg {
        /// `answer`, `ringing`, `path`, `encryption`, `sound`, `talking`.
        leg: &'static str,
    },
    /// The path.
    CallPath {
        /// Our end.
        local: SocketAddr,
        /// The other.
        remote: SocketAddr,
        /// `direct`, or whose relay: `ours`, `theirs`, `both`.
        via: &'static str,
    },
    /// The way of the connection that carries the call, or another one.
    CallWay {
        /// Whether no relay is on it.
        direct: bool,
        /// Relays on it: ours, and the other's address at theirs.
        relays: Vec<SocketAddr>,
        /// Its round trip.
        rtt_ms: f64,
        /// Ways that work now.
        ways: usize,
    },
    /// How long the beginning took, from the start of the command, or at the callee from when the
    /// call came.
    CallSetUp {
        /// Until there was a connection to the other end's node.
        reached_ms: Option<u64>,
        /// Until it rang there.
        ringing_ms: Option<u64>,
        /// Until it was answered.
        answered_ms: Option<u64>,
        /// Until sound came.
        sound_ms: u64,
        /// From the ringing to the sound.
        ring_to_sound_ms: Option<u64>,
    },
    /// How it goes, once a second.
    CallStats {
        /// The figures: `via`, `rtt_ms`, `mouth_to_ear_ms`, `bitrate`, packets and milliseconds of sound.
        stats: Box<CallFigures>,
        /// Relays on the way of a connection.
        relays: Vec<SocketAddr>,
        /// Sound cards: `microphone` and `loudspeaker`, each null or with `delay_ms`, `gaps`, `dropped_ms`;
        /// `level_db` of what the microphone gave since the last time, 0 for a sine as loud as can be.
        sound: SoundFigures,
    },
    /// A microphone or loudspeaker was opened, or was lost and is tried again.
    CallCard {
        /// `microphone` or `loudspeaker`.
        which: Which,
        /// What was opened.
        open: Option<String>,
        /// Why it was lost.
        why: Option<String>,
    },
    /// The user muted his microphone, or no longer.
    CallMuted {
        /// Whether nobody hears him.
        muted: bool,
    },
    /// A microphone or loudspeaker of this machine (`shoal sound`).
    SoundDevice {
        /// `microphone` or `loudspeaker`.
        which: Which,
        /// What `--microphone` and `--loudspeaker` take.
        id: String,
        /// What people call it.
        name: String,
    },
    /// When sound began, by this machine's clock: with both ends on one machine this tells from mouth
    /// to ear.
    CallSound {
        /// When the microphone's first sample was taken, microseconds since 1970.
        recorded_at_micros: Option<u64>,
        /// When the loudspeaker's first sample was played, microseconds since 1970.
        played_at_micros: Option<u64>,
    },
    /// Somebody is heard in a conference.
    CallJoined {
        /// His key.
        key: String,
        /// To be compared by voice.
        digits: String,
        /// He has calls of his own with those that have: nobody but the others is passed on to him.
        meshed: bool,
    },
    /// Who mixes the voices of a large group, from now on.
    CallMixed {
        /// His key.
        key: String,
        /// It is we.
        ours: bool,
    },
    /// Somebody is no longer in a conference, or could not be called.
    CallLeft {
        /// His key.
        key: String,
        /// Why.
        reason: String,
        /// How it went, as in `call_stats`; none if he was not heard.
        stats: Option<Box<CallFigures>>,
    },
    /// It is over.
    CallEnded {
        /// Why.
        reason: String,
        /// How it went, as in `call_stats`.
        stats: Box<CallFigures>,
        /// Relays on the last way of a connection.
        relays: Vec<SocketAddr>,
    },
}

/// How a sound card does.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CardFigures {
    pub(crate) delay_ms: Option<f64>,
    pub(crate) gaps: u64,
    pub(crate) dropped_ms: u64,
}

/// How the sound cards of a call do.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct SoundFigures {
    pub(crate) microphone: Option<CardFigures>,
    pub(crate) loudspeaker: Option<CardFigures>,
    pub(crate) level_db: Option<f64>,
}

/// The figures of a call.
#[derive(Debug, Serialize)]
pub(crate) struct CallFigures {
    via: &'static str,
    rtt_ms: Option<f64>,
    mouth_to_ear_ms: Option<f64>,
    bitrate: u32,
    sent_bytes: u64,
    reported: u64,
    reported_lost: u64,
    received: u64,
    lost: u64,
    recovered: u64,
    late: u64,
    duplicates: u64,
    bad: u64,
    concealed_ms: u64,
    stretched_ms: u64,
    shrunk_ms: u64,
    lag_ms: f64,
    target_ms: f64,
    jitter_ms: f64,
}

impl From<CallStats> for CallFigures {
    fn from(s: CallStats) -> Self {
        let r = s.receiver;
        Self {
            via: via(whose(&s)),
            rtt_ms: s.rtt.map(|t| t.as_secs_f64() * 1000.0),
            mouth_to_ear_ms: s.mouth_to_ear_ms(),
            bitrate: s.bitrate,
            sent_bytes: s.sent_bytes,
            reported: s.reported,
            reported_lost: s.reported_lost,
            received: r.received,
            lost: r.lost,
            recovered: r.recovered,
            late: r.late,
            duplicates: r.duplicates,
            bad: r.bad,
            concealed_ms: r.concealed_ms,
            stretched_ms: r.stretched_ms,
            shrunk_ms: r.shrunk_ms,
            lag_ms: r.lag_ms,
            target_ms: r.target_ms,
            jitter_ms: r.jitter_ms,
        }
    }
}

/// Whose relay a call goes through.
pub(crate) fn whose(stats: &CallStats) -> Option<Whose> {
    Whose::of(stats.our_relay, stats.their_relay)
}

/// `direct`, or whose relay.
pub(crate) const fn via(relayed: Option<Whose>) -> &'static str {
    match relayed {
        None => "direct",
        Some(Whose::Ours) => "ours",
        Some(Whose::Theirs) => "theirs",
        Some(Whose::Both) => "both",
    }
}

/// The name of a leg.
pub(crate) const fn leg(leg: Leg) -> &'static str {
    match leg {
        Leg::Answer => "answer",
        Leg::Path => "path",
        Leg::Encryption => "encryption",
        Leg::Sound => "sound",
        Leg::Talking => "talking",
    }
}
