//! The loop of a call: sockets, clock, microphone, loudspeaker.

use super::carrier::Carrier;
use super::line::Say;
use super::setup::Made;
use super::{CallEvent, FRAME, Sound, Whose};
use shoal_call::media::FRAME_MICROS;
use shoal_call::media::session::{CallStats, Ended, Session, Told};
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
/// The shortest wait; a deadline that is due is served at once.
const SOON: Duration = Duration::from_micros(200);

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

/// Runs a call until it ends: somebody hangs up, `stop` says so, or a leg fails. With `hang_up` we do
/// when the microphone has no more.
pub fn talk(
    made: Made,
    sound: &mut dyn Sound,
    hang_up: bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> (Ended, CallStats) {
    let Made {
        mut session,
        mut carrier,
        mut line,
        ..
    } = made;
    let mut way = WayWatch::default();
    let frame_time = Duration::from_micros(FRAME_MICROS);
    let (mut frame, mut tick, mut told) = ([0i16; FRAME], Instant::now(), Instant::now());
    let mut silent_since: Option<Instant> = None;
    let mut line_open = true;
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
            if stop.load(Ordering::Acquire) || (hang_up && over) {
                session.hang_up(time);
            }
            if line_open {
                match line.poll() {
                    Ok(Some(text)) if matches!(Say::parse(&text), Ok(Say::Bye)) => {
                        session.hung_up();
                    }
                    Ok(_) => {}
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
            last = way.complete(session.stats());
            let relays = way.relays.clone();
            tell(&CallEvent::Stats(last, relays));
        }
        carrier.tick();
        if session.deadline() <= carrier.now() {
            session.on_deadline(carrier.now());
        }
        let time = carrier.now();
        carrier.receive(&mut |source, destination, bytes| {
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
            let stats = way.complete(session.stats());
            let _ = line.send(&Say::Bye.to_line());
            return (ended, if stats.path.is_some() { stats } else { last });
        }
        let until = session.deadline().since(carrier.now());
        let wait = until.min(tick.saturating_duration_since(Instant::now()));
        if wait > SOON {
            carrier.wait(wait);
        }
    }
}
