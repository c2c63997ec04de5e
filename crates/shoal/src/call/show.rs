//! What the user sees of a call.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use shoal_base::id::to_hex;
use shoal_node::call::{CallEvent, Leg, Whose};

use super::sound::Watch;
use crate::report::{CallReport, leg, via, whose};
use crate::ui::Ui;

/// Shows one call, from now on.
pub(super) struct Shower<'a> {
    pub(super) ui: &'a Ui,
    began: Instant,
    /// Milliseconds from then on.
    reached: Option<u64>,
    ringing: Option<u64>,
    answered: Option<u64>,
    /// Relays on the way of the connection, if there is one.
    pub(super) relays: Vec<SocketAddr>,
    /// The sound cards, while it is talked.
    sound: Option<Rc<RefCell<Watch>>>,
    /// What else goes on: done at each event, at least once a second.
    beside: Option<Box<dyn FnMut() + 'a>>,
}

impl<'a> Shower<'a> {
    pub(super) fn new(ui: &'a Ui) -> Self {
        Self {
            ui,
            began: Instant::now(),
            reached: None,
            ringing: None,
            answered: None,
            relays: Vec::new(),
            sound: None,
            beside: None,
        }
    }

    /// Does this at each event, too.
    pub(super) fn beside(&mut self, beside: impl FnMut() + 'a) {
        self.beside = Some(Box::new(beside));
    }

    /// Tells of these sound cards too.
    pub(super) fn listen(&mut self, sound: Rc<RefCell<Watch>>) {
        self.sound = Some(sound);
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// There is a connection to the other's node.
    pub(super) fn reached(&mut self) {
        self.reached = Some(self.ms());
    }

    /// The way, for people.
    fn by(&self) -> String {
        match self.relays.first() {
            None => "direct".to_owned(),
            Some(relay) => format!("relayed by {relay}"),
        }
    }

    /// There is sound: tells how long all took.
    fn set_up(&self) {
        let sound_ms = self.ms();
        self.ui.report(&CallReport::CallSetUp {
            reached_ms: self.reached,
            ringing_ms: self.ringing,
            answered_ms: self.answered,
            sound_ms,
            ring_to_sound_ms: self.ringing.map(|r| sound_ms.saturating_sub(r)),
        });
    }

    /// Shows an event.
    pub(super) fn show(&mut self, event: &CallEvent) {
        let ui = self.ui;
        if let Some(beside) = &mut self.beside {
            beside();
        }
        match event {
            CallEvent::Ringing => {
                self.ringing = self.ringing.or(Some(self.ms()));
                ui.status("Ringing", "the other end was told");
                ui.report(&CallReport::CallLeg { leg: "ringing" });
            }
            CallEvent::Described { key, digits } => {
                self.answered = Some(self.ms());
                let key = to_hex(key);
                ui.status("With", &key);
                ui.status(
                    "Compare",
                    &format!("{digits}: the other end must read the same"),
                );
                ui.report(&CallReport::CallDescribed {
                    key,
                    digits: digits.clone(),
                });
            }
            CallEvent::Reached(reached) => {
                let words = match reached {
                    Leg::Answer => "waiting for the answer",
                    Leg::Path => "looking for a path",
                    Leg::Encryption => "a path is there; agreeing on keys",
                    Leg::Sound => "encrypted; waiting for sound",
                    Leg::Talking => "talking",
                };
                ui.status("Call", words);
                ui.report(&CallReport::CallLeg { leg: leg(*reached) });
                if *reached == Leg::Talking {
                    self.set_up();
                }
            }
            CallEvent::Path {
                local,
                remote,
                relayed,
            } => {
                let way = match relayed {
                    None => "direct".to_owned(),
                    Some(Whose::Ours) => format!("through our relay at {}", local.ip()),
                    Some(Whose::Theirs) => format!("through their relay at {}", remote.ip()),
                    Some(Whose::Both) => {
                        format!("through relays at {} and {}", local.ip(), remote.ip())
                    }
                };
                ui.status("Path", &format!("{way} ({local} to {remote})"));
                ui.report(&CallReport::CallPath {
                    local: *local,
                    remote: *remote,
                    via: via(*relayed),
                });
            }
            CallEvent::Way { relays, rtt, ways } => {
                self.relays.clone_from(relays);
                let rtt_ms = rtt.as_secs_f64() * 1000.0;
                let by = self.by();
                ui.status(
                    "Way",
                    &format!("{by}, round trip {rtt_ms:.0} ms, {ways} ways work"),
                );
                ui.report(&CallReport::CallWay {
                    direct: relays.is_empty(),
                    relays: relays.clone(),
                    rtt_ms,
                    ways: *ways,
                });
            }
            CallEvent::Stats(stats, relays) => {
                self.relays.clone_from(relays);
                let sound = self.sound.as_ref().map(|sound| {
                    let mut sound = sound.borrow_mut();
                    sound.tell(ui);
                    sound.figures()
                });
                let sound = sound.unwrap_or_default();
                let r = stats.receiver;
                let all = (r.received + r.lost).max(1);
                let ms = |v: Option<f64>| v.map_or_else(|| "?".to_owned(), |v| format!("{v:.0}"));
                let (level, ear) = match sound.level_db {
                    // Both fit into a line of 80 columns so.
                    Some(level) => (format!("mic {level:.0} dB, "), "delay"),
                    None => (String::new(), "mouth to ear"),
                };
                let line = format!(
                    "{level}{}, RTT {} ms, loss {:.1} %, {} kbit/s, {ear} {} ms",
                    match relays.is_empty() {
                        true => via(whose(stats)).to_owned(),
                        false => self.by(),
                    },
                    ms(stats.rtt.map(|t| t.as_secs_f64() * 1000.0)),
                    r.lost as f64 * 100.0 / all as f64,
                    stats.bitrate / 1000,
                    ms(stats.mouth_to_ear_ms()),
                );
                ui.line("Talking", &line);
                let stats = Box::new((**stats).into());
                let relays = relays.clone();
                ui.report(&CallReport::CallStats {
                    stats,
                    relays,
                    sound,
                });
            }
        }
    }
}
