//! The loop of a call: sockets, clock, microphone, loudspeaker.

use super::line::Say;
use super::setup::Made;
use super::{CallEvent, FRAME, Sound, Whose};
use shoal_call::media::FRAME_MICROS;
use shoal_call::media::session::{CallStats, Ended, Told};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the statistics are told.
const TELL: Duration = Duration::from_secs(1);
/// How long goes by between the last of what the microphone gave and hanging up: what is under way
/// shall be heard.
const LINGER: Duration = Duration::from_millis(1500);
/// Sound that a machine which stood still missed is not made up for beyond this.
const BEHIND: Duration = Duration::from_millis(200);
/// The shortest wait; a deadline that is due is served at once.
const SOON: Duration = Duration::from_micros(200);

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
        mut ways,
        mut line,
    } = made;
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
            let time = ways.now();
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
        if now >= told + TELL {
            told = now;
            last = session.stats();
            tell(&CallEvent::Stats(last));
        }
        ways.tick();
        if session.deadline() <= ways.now() {
            session.on_deadline(ways.now());
        }
        let time = ways.now();
        ways.receive(&mut |_, source, destination, bytes| {
            session.on_datagram(time, source, destination, bytes);
        });
        for datagram in session.datagrams() {
            ways.send(datagram.source, datagram.destination, &datagram.bytes);
        }
        for news in session.told() {
            let event = match news {
                Told::Reached(leg) => CallEvent::Reached(leg),
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
            let stats = session.stats();
            let _ = line.send(&Say::Bye.to_line());
            return (ended, if stats.path.is_some() { stats } else { last });
        }
        let until = session.deadline().since(ways.now());
        let wait = until.min(tick.saturating_duration_since(Instant::now()));
        if wait > SOON {
            ways.wait(wait);
        }
    }
}
