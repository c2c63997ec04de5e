//! The loop of a call: sockets, clock, microphone, loudspeaker.

use super::carrier::Carrier;
use super::setup::Made;
use super::{CallEvent, FRAME, Sound, Whose};
use shoal_call::media::FRAME_MICROS;
use shoal_call::media::say::Say;
use shoal_call::media::session::{CallStats, CardDelays, Ended, Session, Told};
use shoal_reach::agent::Base;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the statistics are told.
const TELL: Duration = Duration::from_secs(1);
/// How long goes by between the last of what the microphone gave and hanging up: what is under way
/// shall be heard.
pub(super) const LINGER: Duration = Duration::from_millis(1500);
/// Sound that a machine which stood still missed is not made up for beyond this.
pub(super) const BEHIND: Duration = Duration::from_millis(200);
/// How often it is seen by which way a connection goes.
const LOOK: Duration = Duration::from_millis(200);
/// The other end is told of our microphone again when it takes longer or shorter by so many milliseconds.
const ANOTHER: u16 = 3;
/// The shortest wait; a deadline that is due is served at once.
const SOON: Duration = Duration::from_micros(200);

/// What else goes on in a call that is one of several.
pub(super) trait Aside {
    /// The next line for the other end.
    fn say(&mut self) -> Option<Say>;
    /// A line came.
    fn hear(&mut self, said: Say);
    /// Asked every 20 ms: whether to hang up. Nothing came for so long.
    fn is_over(&mut self, quiet: Duration) -> bool;
}

/// Nothing: the call is the only one.
struct Alone;

impl Aside for Alone {
    fn say(&mut self) -> Option<Say> {
        None
    }

    fn hear(&mut self, _said: Say) {}

    fn is_over(&mut self, _quiet: Duration) -> bool {
        false
    }
}

/// What was told of a connection's ways.
struct WayWatch {
    next: Instant,
    /// There is a connection, and a way of it was seen.
    known: bool,
    relays: Vec<SocketAddr>,
    /// Through a relay of ours, of theirs.
    relayed: (bool, bool),
}

impl Default for WayWatch {
    fn default() -> Self {
        Self {
            next: Instant::now(),
            known: false,
            relays: Vec::new(),
            relayed: (false, false),
        }
    }
}

impl WayWatch {
    fn look(
        &mut self,
        now: Instant,
        carrier: &Carrier,
        session: &mut Session,
        tell: &mut dyn FnMut(&CallEvent),
    ) {
        self.next = now + LOOK;
        let Some(status) = carrier.status() else {
            return;
        };
        let Some(status) = status else {
            // Nobody but the other end closes it while it is talked: a path that breaks ends the
            // call before the connection.
            session.hung_up();
            return;
        };
        let Some(in_use) = status.way else {
            return;
        };
        if self.known && self.relays == status.relays {
            return;
        }
        let ours = in_use.path.base != Base::Direct;
        self.relayed = (ours, in_use.hops > u8::from(ours));
        self.known = true;
        self.relays = status.relays;
        tell(&CallEvent::Way {
            relays: self.relays.clone(),
            rtt: in_use.rtt,
            ways: status.ways,
        });
    }

    /// Statistics with the relays on the way.
    fn complete(&self, stats: CallStats) -> CallStats {
        if !self.known {
            return stats;
        }
        CallStats {
            our_relay: self.relayed.0,
            their_relay: self.relayed.1,
            ..stats
        }
    }
}

/// What the ends know of each other's sound cards.
#[derive(Default)]
struct CardWatch {
    /// What the other end said of its microphone.
    theirs: Option<Duration>,
    /// What we said of ours, milliseconds.
    told: Option<u16>,
}

impl CardWatch {
    /// The other end tells of its microphone, in milliseconds.
    fn hear(&mut self, delay: u16) {
        self.theirs = Some(Duration::from_millis(delay.into()));
    }

    /// What to say of our microphone, if that is news.
    fn news(&mut self, cards: CardDelays) -> Option<Say> {
        let delay = u16::try_from(cards.microphone?.as_millis()).unwrap_or(u16::MAX);
        if self.told.is_some_and(|t| t.abs_diff(delay) < ANOTHER) {
            return None;
        }
        self.told = Some(delay);
        Some(Say::Microphone { delay })
    }

    fn complete(&self, stats: CallStats, cards: CardDelays) -> CallStats {
        CallStats {
            cards,
            their_microphone: self.theirs,
            ..stats
        }
    }
}

/// Runs a call until it ends: somebody hangs up, `stop` says so, or a leg fails. With `hang_up` we do
/// when the microphone has no more.
pub fn talk(
    made: Made,
    sound: &mut dyn Sound,
    hang_up: bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> (Ended, CallStats) {
    talk_beside(made, sound, hang_up, stop, tell, &mut Alone)
}

/// As [`talk`], in a call that is one of several.
pub(super) fn talk_beside(
    made: Made,
    sound: &mut dyn Sound,
    hang_up: bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
    aside: &mut dyn Aside,
) -> (Ended, CallStats) {
    let Made {
        mut session,
        mut carrier,
        mut line,
        ..
    } = made;
    let (mut way, mut cards) = (WayWatch::default(), CardWatch::default());
    let frame_time = Duration::from_micros(FRAME_MICROS);
    let (mut frame, mut tick, mut told) = ([0i16; FRAME], Instant::now(), Instant::now());
    let mut silent_since: Option<Instant> = None;
    let (mut line_open, mut came) = (true, Instant::now());
    let mut last = CallStats::default();
    loop {
        let now = Instant::now();
        if now >= tick {
            if now > tick + BEHIND {
                tick = now;
            }
            tick += frame_time;
            let time = carrier.now();
            session.play(time, &mut frame);
            sound.play(&frame);
            // Nobody is recorded whom nobody hears.
            if matches!(session.leg(), super::Leg::Sound | super::Leg::Talking) {
                if !sound.record(&mut frame) {
                    frame.fill(0);
                    silent_since.get_or_insert(now);
                }
                session.record(time, &frame);
            }
            let over = silent_since.is_some_and(|s| now > s + LINGER);
            while let Some(say) = aside.say() {
                let _ = line.send(&say.to_line()); // polling tells if nobody is there
            }
            let enough = aside.is_over(now.saturating_duration_since(came));
            if enough || stop.load(Ordering::Acquire) || (hang_up && over) {
                session.hang_up(time);
            }
            if line_open {
                match line.poll() {
                    Ok(Some(text)) => match Say::parse(&text) {
                        Ok(Say::Bye) => session.hung_up(),
                        Ok(Say::Microphone { delay }) => cards.hear(delay),
                        Ok(said) => aside.hear(said),
                        // A later version's.
                        Err(_) => {}
                    },
                    Ok(None) => {}
                    // The sound does not need it.
                    Err(_) => line_open = false,
                }
            }
        }
        if now >= way.next {
            way.look(now, &carrier, &mut session, tell);
        }
        if now >= told + TELL {
            told = now;
            let delays = sound.delays();
            last = cards.complete(way.complete(session.stats()), delays);
            if line_open && let Some(say) = cards.news(delays) {
                // The next one says it if this does not arrive.
                let _ = line.send(&say.to_line());
            }
            let relays = way.relays.clone();
            tell(&CallEvent::Stats(Box::new(last), relays));
        }
        carrier.tick();
        if session.deadline() <= carrier.now() {
            session.on_deadline(carrier.now());
        }
        let time = carrier.now();
        carrier.receive(&mut |source, destination, bytes| {
            came = now;
            session.on_datagram(time, source, destination, bytes);
        });
        for datagram in session.datagrams() {
            carrier.send(datagram.source, datagram.destination, &datagram.bytes);
        }
        for news in session.told() {
            let event = match news {
                Told::Reached(leg) => CallEvent::Reached(leg),
                // The connection's own ways are told instead.
                Told::Path { .. } if way.known => continue,
                Told::Path {
                    local,
                    remote,
                    our_relay,
                    their_relay,
                } => CallEvent::Path {
                    local,
                    remote,
                    relayed: Whose::of(our_relay, their_relay),
                },
                Told::Ended(_) => continue,
            };
            tell(&event);
        }
        if let Some(ended) = session.ended() {
            let stats = cards.complete(way.complete(session.stats()), sound.delays());
            let _ = line.send(&Say::Bye.to_line());
            // Why the other end has gone may have been said at the same time.
            while let Ok(Some(text)) = line.poll() {
                if let Ok(said) = Say::parse(&text) {
                    aside.hear(said);
                }
            }
            return (ended, if stats.path.is_some() { stats } else { last });
        }
        let until = session.deadline().since(carrier.now());
        let wait = until.min(tick.saturating_duration_since(Instant::now()));
        if wait > SOON {
            carrier.wait(wait);
        }
    }
}
