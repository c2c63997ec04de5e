//! When one torrent announces to which of its trackers (BEP 3, BEP 12).
//!
//! Trackers come in tiers. Each tier is shuffled once; in every tier the first tracker that
//! answers is used and moved to the front, and all tiers are used at once, as most clients do. A
//! private torrent uses one tracker at all (BEP 27): its tiers are tried in order. A tier in which
//! every tracker failed waits, longer each time.
//!
//! ```text
//! waiting --(interval over, peers wanted, completed)--> in flight --ok--> waiting
//!    ^                                                    | failed
//!    +------(tier exhausted: growing delay)---------------+--> next tracker, at once
//! ```

use super::{AnnounceEvent, AnnounceReply};
use shoal_base::time::earliest;
use shoal_base::{Machine, Rng, Time};
use std::time::Duration;

/// Trackers of a torrent that are used; further ones are left out.
const MAX_TRACKERS: usize = 100;
/// Bytes of a tracker's URL; longer ones are left out.
const MAX_URL: usize = 1024;
/// Bounds of the interval a tracker may set.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(6 * 3600));
/// The least wait between two announces for more peers, unless the tracker says more.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// The first wait after a tier failed; doubles up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(15);
/// The longest wait after a tier failed.
const MAX_BACKOFF: Duration = Duration::from_secs(30 * 60);
/// How many peers a regular announce asks for.
const NUM_WANT: u32 = 100;

/// What happens to an announcer.
#[derive(Debug)]
pub enum AnnouncerInput<'a> {
    /// The clock reached the deadline.
    Tick,
    /// An announce that was ordered is over. Every order gets exactly one of these.
    Done {
        /// Of the order.
        tracker: usize,
        /// The reply; or, of a failure, when the tracker said to come back.
        result: Result<&'a AnnounceReply, Option<Duration>>,
    },
    /// Whether the torrent could use more peers.
    WantsPeers(bool),
    /// The download became complete just now.
    Completed,
    /// The session ends: says so to every tracker that knows of us, then falls silent.
    Stop,
}

/// An announce to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceOrder {
    /// Which tracker; see [`Announcer::url`].
    pub tracker: usize,
    /// What to say.
    pub event: AnnounceEvent,
    /// How many peers to ask for.
    pub num_want: u32,
    /// What the tracker gave us to send back.
    pub tracker_id: Option<Vec<u8>>,
}

/// What an announcer wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnouncerOutput {
    /// Make this announce and report its end.
    Announce(AnnounceOrder),
    /// For the user: an announce failed and that tier is tried again after this long (zero: the
    /// next tracker is asked at once).
    Failed {
        /// Which tracker.
        tracker: usize,
        /// Until the next try.
        retry_in: Duration,
    },
}

#[derive(Debug)]
struct Tracker {
    url: String,
    tracker_id: Option<Vec<u8>>,
    /// It was told that we started and not yet that we stopped.
    knows_us: bool,
}

#[derive(Debug)]
struct Tier {
    /// Indices of trackers, in the order of trying.
    order: Vec<usize>,
    /// Which of `order` is asked next.
    at: usize,
    in_flight: Option<AnnounceEvent>,
    next: Time,
    /// Before this no announce for more peers.
    not_before: Time,
    /// The regular announce; [`Tier::next`] may come sooner.
    regular: Time,
    /// Passes through the whole tier that failed since one succeeded.
    failed_passes: u32,
    /// Extra announces in a row that brought no peers.
    fruitless: u32,
    completed: bool,
}

/// The announces of one torrent.
#[derive(Debug)]
pub struct Announcer {
    trackers: Vec<Tracker>,
    tiers: Vec<Tier>,
    /// `stopped` announces under way.
    stopping: usize,
    stopped: bool,
    wants_peers: bool,
    private: bool,
    rng: Rng,
}

impl Announcer {
    /// An announcer for `tiers` of URLs; its first announces are due at once. URLs of unknown
    /// schemes and repeated ones are left out.
    pub fn new(now: Time, tiers: &[Vec<String>], private: bool, mut rng: Rng) -> Self {
        let mut trackers: Vec<Tracker> = Vec::new();
        let mut orders = Vec::new();
        for tier in tiers {
            let mut order = Vec::new();
            for url in tier {
                let url = url.trim();
                let known = trackers.iter().any(|t| t.url == url);
                if known || !is_supported(url) || trackers.len() == MAX_TRACKERS {
                    continue;
                }
                order.push(trackers.len());
                trackers.push(Tracker {
                    url: url.to_owned(),
                    tracker_id: None,
                    knows_us: false,
                });
            }
            rng.shuffle(&mut order);
            if private && let Some(first) = orders.first_mut() {
                let first: &mut Vec<usize> = first;
                first.append(&mut order);
            } else if !order.is_empty() {
                orders.push(order);
            }
        }
        let tier = |order| Tier {
            order,
            at: 0,
            in_flight: None,
            next: now,
            not_before: now,
            regular: now,
            failed_passes: 0,
            fruitless: 0,
            completed: false,
        };
        Self {
            trackers,
            tiers: orders.into_iter().map(tier).collect(),
            stopping: 0,
            stopped: false,
            wants_peers: true,
            private,
            rng,
        }
    }

    /// The URL of a tracker named by an output.
    pub fn url(&self, tracker: usize) -> Option<&str> {
        self.trackers.get(tracker).map(|t| t.url.as_str())
    }

    /// Whether it was stopped and every announce is over.
    pub fn is_finished(&self) -> bool {
        self.stopped && self.stopping == 0
    }

    fn on_tick(&mut self, now: Time, out: &mut Vec<AnnouncerOutput>) {
        if self.stopped {
            return;
        }
        let (trackers, wants) = (&self.trackers, self.wants_peers);
        for tier in &mut self.tiers {
            if tier.in_flight.is_some() || tier.next > now {
                continue;
            }
            let Some(tracker) = tier.order.get(tier.at).copied() else {
                continue;
            };
            let Some(Tracker {
                tracker_id,
                knows_us,
                ..
            }) = trackers.get(tracker)
            else {
                continue;
            };
            let event = match (knows_us, tier.completed) {
                (false, _) => AnnounceEvent::Started,
                (true, true) => AnnounceEvent::Completed,
                (true, false) => AnnounceEvent::None,
            };
            tier.in_flight = Some(event);
            out.push(AnnouncerOutput::Announce(AnnounceOrder {
                tracker,
                event,
                num_want: if wants { NUM_WANT } else { 0 },
                tracker_id: tracker_id.clone(),
            }));
        }
    }

    fn on_done(
        &mut self,
        now: Time,
        tracker: usize,
        result: Result<&AnnounceReply, Option<Duration>>,
        out: &mut Vec<AnnouncerOutput>,
    ) {
        if self.stopped {
            self.stopping = self.stopping.saturating_sub(1);
            return;
        }
        let wants = self.wants_peers;
        let current = |tier: &&mut Tier| {
            tier.in_flight.is_some() && tier.order.get(tier.at) == Some(&tracker)
        };
        let Some(tier) = self.tiers.iter_mut().find(current) else {
            return;
        };
        let event = tier.in_flight.take();
        match result {
            Ok(reply) => {
                if let Some(t) = self.trackers.get_mut(tracker) {
                    t.knows_us = true;
                    if reply.tracker_id.is_some() {
                        t.tracker_id.clone_from(&reply.tracker_id);
                    }
                }
                tier.succeed(now, event, reply, wants, self.private);
            }
            Err(come_back) => {
                let retry_in = tier.fail(now, come_back, &mut self.rng);
                out.push(AnnouncerOutput::Failed { tracker, retry_in });
            }
        }
        self.on_tick(now, out);
    }

    fn on_completed(&mut self, now: Time) {
        for tier in &mut self.tiers {
            let tracker = tier.order.get(tier.at).and_then(|t| self.trackers.get(*t));
            // A tracker that never heard of us learns it from `left` of the first announce; one
            // that is being told "started" just now learns it when that is over.
            if tracker.is_some_and(|t| t.knows_us) || tier.in_flight.is_some() {
                tier.completed = true;
                tier.next = tier.next.min(now);
            }
        }
    }

    fn on_stop(&mut self, out: &mut Vec<AnnouncerOutput>) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        for (index, tracker) in self.trackers.iter_mut().enumerate() {
            let asked =
                |tier: &Tier| tier.in_flight.is_some() && tier.order.get(tier.at) == Some(&index);
            // An announce under way still reports its end, and may have made us known.
            let in_flight = self.tiers.iter().any(asked);
            self.stopping += usize::from(in_flight);
            if in_flight || tracker.knows_us {
                self.stopping += 1;
                out.push(AnnouncerOutput::Announce(AnnounceOrder {
                    tracker: index,
                    event: AnnounceEvent::Stopped,
                    num_want: 0,
                    tracker_id: tracker.tracker_id.take(),
                }));
            }
        }
    }
}

impl Tier {
    fn succeed(
        &mut self,
        now: Time,
        event: Option<AnnounceEvent>,
        reply: &AnnounceReply,
        wants_peers: bool,
        private: bool,
    ) {
        self.failed_passes = 0;
        if event == Some(AnnounceEvent::Completed) {
            self.completed = false;
        }
        // BEP 12: what works moves to the front. In a private torrent the one in use stays in
        // use, and the order of the tiers is kept.
        if !private && self.at < self.order.len() {
            let tracker = self.order.remove(self.at);
            self.order.insert(0, tracker);
            self.at = 0;
        }
        let seconds = |s: u32| Duration::from_secs(u64::from(s));
        let interval = seconds(reply.interval).clamp(INTERVAL.0, INTERVAL.1);
        let at_least = reply.min_interval.map_or(Duration::ZERO, seconds);
        let at_least = at_least.max(MIN_INTERVAL).min(interval);
        self.fruitless = if reply.peers.is_empty() {
            self.fruitless.saturating_add(1).min(10)
        } else {
            0
        };
        self.regular = now + interval;
        // More peers may be asked for sooner, but ever later while none come.
        let wait = at_least.saturating_mul(1 << self.fruitless);
        self.not_before = now + wait.min(interval);
        self.schedule(now, wants_peers);
    }

    /// Notes a failure and tells when the tier is tried again.
    fn fail(&mut self, now: Time, come_back: Option<Duration>, rng: &mut Rng) -> Duration {
        self.at += 1;
        if self.at < self.order.len() {
            self.next = now;
            return Duration::ZERO;
        }
        self.at = 0;
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failed_passes.min(16));
        let backoff = backoff.min(MAX_BACKOFF).mul_f64(0.9 + 0.2 * rng.unit());
        self.failed_passes = self.failed_passes.saturating_add(1);
        let asked = come_back.unwrap_or_default().min(INTERVAL.1);
        let retry_in = backoff.max(asked);
        self.next = now + retry_in;
        self.not_before = self.next;
        self.regular = self.next;
        retry_in
    }

    fn schedule(&mut self, now: Time, wants_peers: bool) {
        self.next = if self.completed {
            now
        } else if wants_peers {
            self.regular.min(self.not_before)
        } else {
            self.regular
        };
    }
}

impl Machine for Announcer {
    type Input<'a> = AnnouncerInput<'a>;
    type Output = AnnouncerOutput;

    fn handle(&mut self, now: Time, input: AnnouncerInput<'_>, out: &mut Vec<AnnouncerOutput>) {
        match input {
            AnnouncerInput::Tick => self.on_tick(now, out),
            AnnouncerInput::Done { tracker, result } => self.on_done(now, tracker, result, out),
            AnnouncerInput::WantsPeers(wants) => {
                if self.wants_peers != wants {
                    self.wants_peers = wants;
                    let waiting = self.tiers.iter_mut().filter(|t| t.in_flight.is_none());
                    waiting.for_each(|tier| tier.schedule(now, wants));
                }
            }
            AnnouncerInput::Completed => {
                self.on_completed(now);
                self.on_tick(now, out);
            }
            AnnouncerInput::Stop => self.on_stop(out),
        }
    }

    fn deadline(&self) -> Option<Time> {
        if self.stopped {
            return None;
        }
        let waiting = self.tiers.iter().filter(|t| t.in_flight.is_none());
        waiting.fold(None, |soonest, t| earliest(soonest, Some(t.next)))
    }
}

/// Whether a tracker's URL is of a scheme that is spoken here.
fn is_supported(url: &str) -> bool {
    url.len() <= MAX_URL
        && ["http://", "https://", "udp://"].iter().any(|scheme| {
            url.get(..scheme.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(scheme))
        })
}

#[cfg(test)]
mod tests;
