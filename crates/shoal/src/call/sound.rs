//! What we say in a call and what we hear: a microphone and a loudspeaker, or files in their place.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::rc::Rc;

use crossbeam_channel::{Receiver, never};
use shoal_node::call::card::{CardCounts, Intake, Loudspeaker, Microphone, Outlet};
use shoal_node::call::{CardDelays, FRAME, Sound};

use super::{FRAME_MICROS, micros_now, wav};
use crate::cli::{AnswerArgs, TalkFlags};
use crate::failure::{Failure, Outcome};
use crate::report::{CallReport, CardFigures, SoundFigures};
use crate::sound::{self, Clock, Happened, InUse, Which};
use crate::supernode::lines;
use crate::ui::Ui;

/// What a full sine would be, and the least that a level is told of, decibels.
const FULL: f64 = 32_768.0;
const LEAST: f64 = -90.0;

/// Microphone and loudspeaker of one end.
pub(super) struct CallSound {
    said: Vec<i16>,
    place: usize,
    heard: Option<wav::Writer>,
    failed: Option<io::Error>,
    /// Frames until there is no more.
    limit: Option<u64>,
    pub(super) recorded_at: Option<u64>,
    pub(super) played_at: Option<u64>,
    clock: Clock,
    microphone: Option<Card<Intake, Microphone>>,
    loudspeaker: Option<Card<Outlet, Loudspeaker>>,
    /// Lines of the user's, while a microphone hears him.
    typed: Receiver<String>,
    muted: bool,
    watch: Rc<RefCell<Watch>>,
}

/// A device, and what of the call works with it while it is there.
struct Card<P, W> {
    device: InUse<P>,
    works: Option<W>,
    /// What went wrong before the device was lost and opened again.
    before: CardCounts,
}

/// What the user is told of the devices.
#[derive(Default)]
pub(super) struct Watch {
    news: Vec<(Which, News)>,
    figures: SoundFigures,
    /// The squares of what the microphone gave since it was asked last, and how many.
    loud: (f64, u32),
}

enum News {
    Open { name: String, rate: u32 },
    Lost(String),
    Muted(bool),
}

/// Which device is wanted: its name, empty for the default one.
struct Wanted<'a> {
    name: &'a str,
    /// Nobody asked for it by itself, so that the call goes on without.
    usual: bool,
}

/// The devices that flags ask for. A caller at a terminal who names no files means to talk.
fn wanted(flags: &TalkFlags, calls: bool, terminal: bool) -> [Option<Wanted<'_>>; 2] {
    let files = flags.wav_in.is_some() || flags.wav_out.is_some();
    let usual = calls && terminal && !files && !flags.no_sound && sound::is_built_in();
    [&flags.microphone, &flags.loudspeaker].map(|named| match named {
        Some(name) => Some(Wanted { name, usual: false }),
        None => usual.then_some(Wanted {
            name: "",
            usual: true,
        }),
    })
}

/// Lines by which the user mutes his microphone; none if he is not at the terminal.
fn muting(ui: &Ui) -> Receiver<String> {
    if !io::stdin().is_terminal() || !is_in_front() {
        return never();
    }
    ui.status("Mute", "m and Enter: nobody hears you; again: they do");
    lines()
}

/// The same for all calls of `answer`; none if there is no microphone, or lines are texts.
pub(super) fn muting_of(args: &AnswerArgs, ui: &Ui) -> Receiver<String> {
    if args.talk.microphone.is_none() || args.chat.chat.is_some() {
        return never();
    }
    muting(ui)
}

/// Whether the terminal is ours to read from: who reads without is stopped by the system.
fn is_in_front() -> bool {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return true;
    };
    // After the program's name: its state, parent, group, session, terminal, and the terminal's group.
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().take(6).collect();
    // Who has no terminal of his session's may read from any.
    matches!(*fields, [_, _, group, _, _, front] if group == front || front == "-1")
}

/// What is said when a device cannot be had and nobody asked for it.
fn without(failure: &Failure, instead: &str, ui: &Ui) {
    let why = failure.because.last().unwrap_or(&failure.what);
    let why = why.trim_end_matches('.');
    ui.status("Sound", &format!("{}: {why}; {instead}", failure.what));
}

impl CallSound {
    /// What a caller says and hears.
    pub(super) fn of_caller(flags: &TalkFlags, ui: &Ui) -> Outcome<Self> {
        let terminal = io::stderr().is_terminal() && !ui.is_json();
        Self::open(flags, wanted(flags, true, terminal), ui)
    }

    /// Lets the user mute the microphone, if there is one and he is at the terminal.
    pub(super) fn mutable(mut self, ui: &Ui) -> Self {
        if self.microphone.is_some() {
            self.typed = muting(ui);
        }
        self
    }

    /// What one who is called says and hears: no microphone opens by itself, since he answers everybody.
    /// `typed` mutes it: see [`muting_of`].
    pub(super) fn of_callee(flags: &TalkFlags, typed: &Receiver<String>, ui: &Ui) -> Outcome<Self> {
        let mut sound = Self::open(flags, wanted(flags, false, false), ui)?;
        // What was typed before the call is not of it.
        typed.try_iter().for_each(drop);
        sound.typed = typed.clone();
        Ok(sound)
    }

    /// Looks whether the devices that are asked for work, and lets them go again: nobody is listened to
    /// before he talks with somebody.
    pub(super) fn check(flags: &TalkFlags) -> Outcome {
        let clock = Clock::start();
        if let Some(name) = &flags.microphone {
            sound::microphone(name, clock)?;
        }
        if let Some(name) = &flags.loudspeaker {
            sound::loudspeaker(name, clock)?;
        }
        Ok(())
    }

    fn open(
        flags: &TalkFlags,
        [microphone, loudspeaker]: [Option<Wanted<'_>>; 2],
        ui: &Ui,
    ) -> Outcome<Self> {
        let said = flags.wav_in.as_deref().map(wav::read).transpose()?;
        let heard = flags
            .wav_out
            .as_deref()
            .map(wav::Writer::create)
            .transpose()?;
        let clock = Clock::start();
        let mut sound = Self {
            said: said.unwrap_or_default(),
            place: 0,
            heard,
            failed: None,
            limit: None,
            recorded_at: None,
            played_at: None,
            clock,
            microphone: None,
            loudspeaker: None,
            typed: never(),
            muted: false,
            watch: Rc::default(),
        };
        if let Some(wanted) = microphone {
            match sound::microphone(wanted.name, clock) {
                Ok(device) => sound.microphone = Some(Card::new(device)),
                Err(failure) if wanted.usual => without(&failure, "we say nothing", ui),
                Err(failure) => return Err(failure),
            }
        }
        if let Some(wanted) = loudspeaker {
            match sound::loudspeaker(wanted.name, clock) {
                Ok(device) => sound.loudspeaker = Some(Card::new(device)),
                Err(failure) if wanted.usual => without(&failure, "nothing is heard here", ui),
                Err(failure) => return Err(failure),
            }
        }
        sound.look();
        sound.watch.borrow_mut().tell(ui);
        Ok(sound)
    }

    /// Ends after the time that is asked for, if one is.
    pub(super) fn limit_to(&mut self, flags: &TalkFlags) {
        self.limit = flags.limit.map(|s| s * 1_000_000 / FRAME_MICROS);
    }

    /// What there is to tell of the devices.
    pub(super) fn watch(&self) -> Rc<RefCell<Watch>> {
        Rc::clone(&self.watch)
    }

    /// Writes what was heard to its end.
    pub(super) fn finish(&mut self) -> Outcome {
        let result = match (self.failed.take(), &mut self.heard) {
            (Some(error), _) => Err(error),
            (None, Some(file)) => file.finish(),
            (None, None) => Ok(()),
        };
        result.map_err(|e| Failure::failed("cannot write what was heard").because(&e))
    }

    /// Hears of devices that came or went, and of the user.
    fn look(&mut self) {
        let mut watch = self.watch.borrow_mut();
        for line in self.typed.try_iter() {
            if line.trim() == "m" {
                self.muted = !self.muted;
                watch
                    .news
                    .push((Which::Microphone, News::Muted(self.muted)));
            }
        }
        if let Some(card) = &mut self.microphone {
            let of = |card: &Microphone| card.counts();
            card.look(Which::Microphone, Microphone::new, of, &mut watch.news);
        }
        if let Some(card) = &mut self.loudspeaker {
            let of = |card: &Loudspeaker| card.counts();
            card.look(Which::Loudspeaker, Loudspeaker::new, of, &mut watch.news);
        }
    }

    /// A frame of the file; whether it was a whole one.
    fn read(&mut self, frame: &mut [i16]) -> bool {
        let rest = self.said.get(self.place..).unwrap_or_default();
        let n = rest.len().min(frame.len());
        frame.fill(0);
        for (to, from) in frame.iter_mut().zip(rest) {
            *to = *from;
        }
        self.place += n;
        n == FRAME
    }
}

impl<P, W> Card<P, W> {
    fn new(device: InUse<P>) -> Self {
        Self {
            device,
            works: None,
            before: CardCounts::default(),
        }
    }

    fn look(
        &mut self,
        which: Which,
        make: impl Fn(std::sync::Arc<P>) -> W,
        counts: impl Fn(&W) -> CardCounts,
        news: &mut Vec<(Which, News)>,
    ) {
        for happened in self.device.happened.try_iter() {
            if let Some(works) = self.works.take() {
                self.before = sum(self.before, counts(&works));
            }
            news.push(match happened {
                Happened::Open(passage, name, rate) => {
                    self.works = Some(make(passage));
                    (which, News::Open { name, rate })
                }
                Happened::Lost(why) => (which, News::Lost(why)),
            });
        }
    }

    fn figures(
        &self,
        counts: impl Fn(&W) -> CardCounts,
        delay: impl Fn(&W) -> Option<std::time::Duration>,
    ) -> CardFigures {
        let works = self.works.as_ref();
        let counts = sum(self.before, works.map(counts).unwrap_or_default());
        CardFigures {
            delay_ms: works.and_then(delay).map(|d| d.as_secs_f64() * 1000.0),
            gaps: counts.gaps,
            dropped_ms: counts.dropped_ms,
        }
    }
}

fn sum(a: CardCounts, b: CardCounts) -> CardCounts {
    CardCounts {
        gaps: a.gaps + b.gaps,
        dropped_ms: a.dropped_ms + b.dropped_ms,
    }
}

impl Watch {
    /// Tells what happened to the devices.
    pub(super) fn tell(&mut self, ui: &Ui) {
        for (which, news) in self.news.drain(..) {
            let (words, open, why) = match news {
                News::Muted(muted) => {
                    ui.status(which.title(), ["on", "muted"][usize::from(muted)]);
                    ui.report(&CallReport::CallMuted { muted });
                    continue;
                }
                News::Open { name, rate } => {
                    let khz = f64::from(rate) / 1000.0;
                    (format!("{name}, {khz} kHz"), Some(name), None)
                }
                News::Lost(why) => {
                    let words = format!("lost: {why}; the call goes on, and it is tried again");
                    (words, None, Some(why))
                }
            };
            ui.status(which.title(), &words);
            ui.report(&CallReport::CallCard { which, open, why });
        }
    }

    /// How the devices do, and how loud the microphone was since this was asked last.
    pub(super) fn figures(&mut self) -> SoundFigures {
        let (squares, samples) = std::mem::take(&mut self.loud);
        self.figures.level_db = (samples > 0).then(|| {
            let mean = (squares / f64::from(samples)).sqrt() / FULL;
            // A sine that is as loud as can be has 0 dB.
            (20.0 * (mean * std::f64::consts::SQRT_2).log10()).max(LEAST)
        });
        self.figures
    }
}

impl Sound for CallSound {
    fn record(&mut self, frame: &mut [i16]) -> bool {
        // A microphone gives a frame when all of it was said.
        self.recorded_at
            .get_or_insert_with(|| micros_now() - FRAME_MICROS);
        self.look();
        let more = match &mut self.microphone {
            Some(card) => {
                match &mut card.works {
                    Some(works) => {
                        works.take(self.clock.now(), frame);
                    }
                    None => frame.fill(0),
                }
                if self.muted {
                    // The card's turns go on, so that it is not behind later.
                    frame.fill(0);
                }
                let mut watch = self.watch.borrow_mut();
                watch.loud.0 += frame.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>();
                watch.loud.1 += FRAME as u32;
                let figures = card.figures(Microphone::counts, Microphone::delay);
                watch.figures.microphone = Some(figures);
                true
            }
            None => self.read(frame),
        };
        match &mut self.limit {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => more,
        }
    }

    fn play(&mut self, frame: &[i16]) {
        self.played_at.get_or_insert_with(micros_now);
        self.look();
        if let Some(card) = &mut self.loudspeaker {
            if let Some(works) = &mut card.works {
                works.give(self.clock.now(), frame);
            }
            let figures = card.figures(Loudspeaker::counts, Loudspeaker::delay);
            self.watch.borrow_mut().figures.loudspeaker = Some(figures);
        }
        if self.failed.is_none()
            && let Some(file) = &mut self.heard
            && let Err(error) = file.write(frame)
        {
            self.failed = Some(error);
        }
    }

    fn delays(&self) -> CardDelays {
        let microphone = self.microphone.as_ref().and_then(|c| c.works.as_ref());
        let loudspeaker = self.loudspeaker.as_ref().and_then(|c| c.works.as_ref());
        CardDelays {
            microphone: microphone.and_then(Microphone::delay),
            loudspeaker: loudspeaker.and_then(Loudspeaker::delay),
        }
    }
}
