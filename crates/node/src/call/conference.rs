//! Several calls at once, all heard together: with ends that call each other as well, or with such
//! that hear each other through us.
//!
//! Each call has its thread, as a call alone has; the mixer is between them and our sound.
//!
//! ```text
//!  state     who is there, and who is let in
//!  hosting   a group that the strongest end mixes for
//!  strength  what we would be as a host
//! ```

mod hosting;
mod state;
mod strength;

use super::callers::Caller;
use super::setup::{LOOK, Made, answer_member, call_member};
use super::talk::{BEHIND, LINGER, talk_beside};
use super::{CallError, CallEvent, CallSettings, CallStats, Ended, FRAME, Leg, Sound};
use crate::reach::{NodeId, Reach};
use crossbeam_channel::{Receiver, Sender, bounded};
use hosting::{InCall, Loss};
use shoal_base::{Rng, Time};
use shoal_call::media::FRAME_MICROS;
use shoal_call::media::mixer::{MOST_VOICES, Mixer, VoiceId};
use shoal_call::media::say::{Group, MOST_MESHED};
use state::{Place, State};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Threads of calls at most, those that may still be refused among them.
const MOST_CALLS: usize = 2 * MOST_VOICES;
/// News that nobody took; more are not told.
const MOST_NEWS: usize = 256;
/// How long a member is called again that has not said yes to the group yet, and how often.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(500);
/// How long we stay for those that heard the others through us, until they do through somebody else.
const HAND_OVER: Duration = Duration::from_secs(4);
/// How long the last words to the members may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Says of a key whether its owner may call.
pub type MayCall = Arc<dyn Fn(&[u8; 32]) -> bool + Send + Sync>;

/// What happened to one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Whose key is at its other end.
    pub key: [u8; 32],
    /// What.
    pub what: Happened,
}

/// What happens to a call of a conference.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    /// It rings there.
    Ringing,
    /// Sound comes.
    Joined {
        /// To be compared by voice.
        digits: String,
        /// The other end has calls of its own with those that have, so that nobody is passed on to it but
        /// who has not.
        meshed: bool,
    },
    /// It is over, or could not be made.
    Left {
        /// Why.
        why: String,
        /// How it went, if there was sound.
        stats: Option<Box<CallStats>>,
    },
    /// From now on the voices of a large group are mixed by this end, or by us if it is our key.
    Mixes,
}

/// See the module's text. Ends with its last handle.
#[derive(Debug)]
pub struct Conference {
    shared: Arc<Shared>,
    /// What happens.
    pub told: Receiver<Member>,
}

#[derive(Debug)]
struct Shared {
    settings: CallSettings,
    reach: Arc<Reach>,
    /// We mix for others.
    mixes: bool,
    began: Instant,
    mixer: Mutex<Mixer>,
    state: Mutex<State>,
    stop: AtomicBool,
    tell: Sender<Member>,
}

/// A call to be made.
struct Errand {
    key: [u8; 32],
    group: Option<Group>,
    /// How long who refuses is called again.
    patience: Duration,
    /// To be mixed there; else to talk.
    follows: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One voice at the mixer.
struct Seat<'a> {
    mixer: &'a Mutex<Mixer>,
    id: VoiceId,
}

impl Sound for Seat<'_> {
    fn record(&mut self, frame: &mut [i16]) -> bool {
        lock(self.mixer).said(self.id, frame);
        true
    }

    fn play(&mut self, frame: &[i16]) {
        lock(self.mixer).heard(self.id, frame);
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        lock(self.mixer).leave(self.id);
    }
}

impl Conference {
    /// Nobody is there yet. `mixes`: if need be we mix the voices of a group that somebody else called.
    pub fn new(settings: CallSettings, reach: Arc<Reach>, mixes: bool) -> Self {
        let (tell, told) = bounded(MOST_NEWS);
        let shared = Arc::new(Shared {
            settings,
            reach,
            mixes,
            began: Instant::now(),
            mixer: Mutex::default(),
            state: Mutex::default(),
            stop: AtomicBool::new(false),
            tell,
        });
        Self { shared, told }
    }

    /// Calls all these. So few that each can have a call with each are a group, in which all that know
    /// of groups call each other. The others hear each other through the strongest of us, and until it is
    /// known who that is through us.
    pub fn invite(&self, keys: &[[u8; 32]]) {
        let mut id = [0; 16];
        Rng::from_seed(super::entropy()).fill(&mut id);
        let mut group = None;
        if (2..MOST_MESHED).contains(&keys.len()) {
            let members = keys.iter().copied().chain([self.shared.ours()]).collect();
            group = Some(Group { id, members });
        } else if keys.len() >= MOST_MESHED {
            self.shared.lead(id, keys);
        }
        lock(&self.shared.state).group.clone_from(&group);
        for key in keys {
            self.shared.spawn_call(Errand {
                key: *key,
                group: group.clone(),
                patience: Duration::ZERO,
                follows: false,
            });
        }
    }

    /// Calls one more. Who comes to a large group moves to who mixes for it, as the others did; to a small one,
    /// in which each has a call with each, he comes through us.
    ///
    /// # Errors
    /// Why he cannot be called.
    pub fn add(&self, key: [u8; 32]) -> Result<(), &'static str> {
        self.shared.admit_more(key)?;
        self.shared.spawn_call(Errand {
            key,
            group: None,
            patience: Duration::ZERO,
            follows: false,
        });
        Ok(())
    }

    /// Takes a caller, if `may_call` says yes to its key, or if whom we said yes to named it.
    pub fn take(&self, caller: Caller, may_call: &MayCall) {
        let may_call = Arc::clone(may_call);
        let key = caller.key();
        let run = move |shared: &Arc<Shared>| shared.answer(caller, &*may_call);
        self.shared.spawn(key, run);
    }

    /// Whether nobody is there, or called, or wants to come in.
    pub fn is_empty(&self) -> bool {
        lock(&self.shared.state).is_empty(self.shared.now())
    }

    /// Lets all hear each other, and us, until nobody is there any more or `each`, which is asked every
    /// 20 ms, says that it is enough. With `hang_up` it is when the microphone has no more. Who mixes stays
    /// until the others hear each other through somebody else.
    pub fn run(&self, sound: &mut dyn Sound, hang_up: bool, each: &mut dyn FnMut() -> bool) {
        let frame_time = Duration::from_micros(FRAME_MICROS);
        let (mut said, mut heard) = ([0i16; FRAME], [0i16; FRAME]);
        let (mut tick, mut silent_since) = (Instant::now(), None);
        let mut leaves: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let enough = !each() || (hang_up && silent_since.is_some_and(|s| now > s + LINGER));
            match leaves {
                None if enough && !self.shared.leave() => break,
                None if enough => leaves = Some(now + HAND_OVER),
                // Whoever is the last there is the next one to mix, or has nobody to hear.
                Some(end) if now >= end || lock(&self.shared.state).served() < 2 => break,
                _ => {}
            }
            self.shared.follow();
            if now > tick + BEHIND {
                tick = now;
            }
            tick += frame_time;
            let mut mixer = lock(&self.shared.mixer);
            let anybody = !mixer.is_empty();
            if anybody {
                // Nobody is recorded whom nobody hears.
                if leaves.is_some() || !sound.record(&mut said) {
                    said.fill(0);
                    silent_since.get_or_insert(now);
                }
                mixer.turn(&said, &mut heard);
            }
            drop(mixer);
            if anybody {
                sound.play(&heard);
            } else if self.is_empty() {
                break;
            }
            thread::sleep(tick.saturating_duration_since(Instant::now()));
        }
    }

    /// Hangs up everywhere.
    pub fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let end = Instant::now() + LAST_WORDS;
        while !self.is_empty() && Instant::now() < end {
            // Each call says goodbye in its own thread.
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Conference {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn ours(&self) -> [u8; 32] {
        self.settings.key.verifying_key().to_bytes()
    }

    fn now(&self) -> Time {
        let micros = self.began.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn tell(&self, key: [u8; 32], what: Happened) {
        // Who does not listen does not care.
        let _ = self.tell.try_send(Member { key, what });
    }

    /// Runs a call in a thread, and tells how it ended; `run` gives that, or none if it was refused.
    fn spawn(
        self: &Arc<Self>,
        key: [u8; 32],
        run: impl FnOnce(&Arc<Self>) -> Option<Happened> + Send + 'static,
    ) {
        let mut state = lock(&self.state);
        if state.calls >= MOST_CALLS {
            return;
        }
        state.calls += 1;
        drop(state);
        let shared = Arc::clone(self);
        let started = thread::Builder::new()
            .name("conference".to_owned())
            .spawn(move || {
                if let Some(ended) = run(&shared) {
                    lock(&shared.state).dismiss();
                    shared.tell(key, ended);
                }
                lock(&shared.state).calls -= 1;
            });
        if started.is_err() {
            lock(&self.state).calls -= 1;
        }
    }

    /// Calls somebody; who refuses is called again for a while, since it may not have said yes yet to who
    /// invited us both.
    fn spawn_call(self: &Arc<Self>, errand: Errand) {
        let Errand {
            key,
            group,
            patience,
            follows,
        } = errand;
        let mut state = lock(&self.state);
        state.admitted += 1;
        let number = state.open(Place {
            key,
            follows,
            ..Place::default()
        });
        drop(state);
        self.spawn(key, move |shared| {
            let end = Instant::now() + patience;
            loop {
                let mut digits = String::new();
                let mut tell = |event: &CallEvent| match event {
                    CallEvent::Ringing => shared.tell(key, Happened::Ringing),
                    CallEvent::Described { digits: told, .. } => digits.clone_from(told),
                    _ => {}
                };
                let connected = shared.reach.connect(NodeId(key));
                let made = connected
                    .map_err(|e| CallError::Line(e.to_string()))
                    .and_then(|connection| {
                        let (settings, group) = (&shared.settings, group.as_ref());
                        call_member(settings, connection, group, &shared.stop, &mut tell)
                    });
                match made {
                    Ok(made) => return Some(shared.converse(number, made, &digits)),
                    Err(CallError::Refused(_)) if Instant::now() < end => {
                        thread::sleep(AGAIN); // it may say yes meanwhile, of which nobody tells us
                    }
                    Err(error) => {
                        shared.on_end(number, matches!(error, CallError::Refused(_)));
                        return Some(failed(&error));
                    }
                }
            }
        });
    }

    fn answer(
        self: &Arc<Self>,
        caller: Caller,
        may_call: &dyn Fn(&[u8; 32]) -> bool,
    ) -> Option<Happened> {
        let admitted = AtomicBool::new(false);
        let first = Mutex::new(None);
        let judge = |key: &[u8; 32], group: Option<&Group>| {
            let alone = lock(&self.state).group.is_none();
            let ours = self.ours();
            let joins = lock(&self.state).admit(&ours, key, group, may_call)?;
            admitted.store(true, Ordering::Release);
            if joins && alone {
                *lock(&first) = group.cloned();
            }
            Ok(joins)
        };
        let mut digits = String::new();
        let mut tell = |event: &CallEvent| {
            if let CallEvent::Described { digits: told, .. } = event {
                digits.clone_from(told);
            }
        };
        let from = caller.key();
        let ours = Some(strength::strength(self.mixes, &self.reach));
        let made = answer_member(&self.settings, caller, &judge, ours, &self.stop, &mut tell);
        let made = match made {
            Ok(made) => made,
            // Nobody here needs to hear of who was refused.
            Err(_) if !admitted.load(Ordering::Acquire) => return None,
            Err(error) => return Some(failed(&error)),
        };
        let group = lock(&first).take();
        if let Some(group) = group {
            // Of two members the one with the larger key calls.
            let ours = self.ours();
            let below = |key: &&[u8; 32]| **key < ours && **key != from;
            for key in group.members.iter().filter(below) {
                self.spawn_call(Errand {
                    key: *key,
                    group: Some(group.clone()),
                    patience: PATIENCE,
                    follows: false,
                });
            }
        }
        let mut state = lock(&self.state);
        let knows = state.hosted.is_some();
        let number = state.open(Place {
            key: from,
            came: true,
            knows,
            ..Place::default()
        });
        drop(state);
        Some(self.converse(number, made, &digits))
    }

    /// Talks until it is over.
    fn converse(self: &Arc<Self>, number: u64, made: Made, digits: &str) -> Happened {
        let (key, meshed) = (made.peer, made.joins);
        let id = lock(&self.mixer).join(meshed);
        let Some(id) = id else {
            self.on_end(number, false);
            return Happened::Left {
                why: "too many voices".to_owned(),
                stats: None,
            };
        };
        let mut seat = Seat {
            mixer: &self.mixer,
            id,
        };
        let mut state = lock(&self.state);
        if let Some(place) = state.places.get_mut(&number) {
            place.voice = Some(id);
            place.strength = made.strength;
            place.knows |= made.strength.is_some();
            // Until it is known that it is better than what we have.
            lock(&self.mixer).set_waits(id, place.follows);
        }
        drop(state);
        let (mut joined, mut loss) = (false, Loss::default());
        let mut tell = |event: &CallEvent| {
            self.note(number, key, event, &mut loss);
            if *event == CallEvent::Reached(Leg::Talking) {
                let digits = digits.to_owned();
                joined = true;
                self.on_sound(number);
                self.tell(key, Happened::Joined { digits, meshed });
            }
        };
        let mut aside = InCall {
            shared: self,
            number,
        };
        let (ended, stats) = talk_beside(made, &mut seat, false, &self.stop, &mut tell, &mut aside);
        let moved = lock(&self.state)
            .places
            .get(&number)
            .map(|p| p.moved || p.over);
        self.on_end(number, ended == Ended::Remote);
        Happened::Left {
            why: match moved {
                Some(true) => "the others are heard through another one now".to_owned(),
                _ => ended.to_string(),
            },
            stats: joined.then(|| Box::new(stats)),
        }
    }
}

fn failed(error: &CallError) -> Happened {
    Happened::Left {
        why: error.to_string(),
        stats: None,
    }
}
