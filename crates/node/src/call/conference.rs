//! Several calls at once, all heard together: with ends that call each other as well, or with such
//! that hear each other through us.
//!
//! Each call has its thread, as a call alone has; the mixer is between them and our sound.

use super::callers::Caller;
use super::line::{Group, MOST_MEMBERS};
use super::setup::{LOOK, Made, answer_member, call_member};
use super::talk::{BEHIND, LINGER, talk};
use super::{CallError, CallEvent, CallSettings, CallStats, FRAME, Leg, Sound};
use crate::reach::{NodeId, Reach};
use crossbeam_channel::{Receiver, Sender, bounded};
use shoal_base::Rng;
use shoal_call::media::FRAME_MICROS;
use shoal_call::media::mixer::{MOST_VOICES, Mixer, VoiceId};
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
    mixer: Mutex<Mixer>,
    state: Mutex<State>,
    stop: AtomicBool,
    tell: Sender<Member>,
}

#[derive(Debug, Default)]
struct State {
    /// Threads.
    calls: usize,
    /// Those that were not refused.
    admitted: usize,
    group: Option<Group>,
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
    /// Nobody is there yet.
    pub fn new(settings: CallSettings, reach: Arc<Reach>) -> Self {
        let (tell, told) = bounded(MOST_NEWS);
        let shared = Arc::new(Shared {
            settings,
            reach,
            mixer: Mutex::default(),
            state: Mutex::default(),
            stop: AtomicBool::new(false),
            tell,
        });
        Self { shared, told }
    }

    /// Calls all these. So few that each can have a call with each are a group, in which all that know
    /// of groups call each other; the others hear each other through us.
    pub fn invite(&self, keys: &[[u8; 32]]) {
        let ours = self.shared.ours();
        let mut group = None;
        if (2..MOST_MEMBERS).contains(&keys.len()) {
            let mut id = [0; 16];
            Rng::from_seed(super::entropy()).fill(&mut id);
            let members = keys.iter().copied().chain([ours]).collect();
            group = Some(Group { id, members });
        }
        lock(&self.shared.state).group.clone_from(&group);
        for key in keys {
            self.shared.spawn_call(*key, group.clone(), false);
        }
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
        lock(&self.shared.state).calls == 0
    }

    /// Lets all hear each other, and us, until nobody is there any more or `each`, which is asked every
    /// 20 ms, says that it is enough. With `hang_up` it is when the microphone has no more.
    pub fn run(&self, sound: &mut dyn Sound, hang_up: bool, each: &mut dyn FnMut() -> bool) {
        let frame_time = Duration::from_micros(FRAME_MICROS);
        let (mut said, mut heard) = ([0i16; FRAME], [0i16; FRAME]);
        let (mut tick, mut silent_since) = (Instant::now(), None);
        while each() {
            let now = Instant::now();
            if now > tick + BEHIND {
                tick = now;
            }
            tick += frame_time;
            let mut mixer = lock(&self.shared.mixer);
            let anybody = !mixer.is_empty();
            if anybody {
                // Nobody is recorded whom nobody hears.
                if !sound.record(&mut said) {
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
            if hang_up && silent_since.is_some_and(|s| now > s + LINGER) {
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
                    shared.dismiss();
                    shared.tell(key, ended);
                }
                lock(&shared.state).calls -= 1;
            });
        if started.is_err() {
            lock(&self.state).calls -= 1;
        }
    }

    /// One that was admitted is no longer there.
    fn dismiss(&self) {
        let mut state = lock(&self.state);
        state.admitted = state.admitted.saturating_sub(1);
        if state.admitted == 0 {
            state.group = None;
        }
    }

    /// Calls somebody; with `again` until it has said yes to who invited us both.
    fn spawn_call(self: &Arc<Self>, key: [u8; 32], group: Option<Group>, again: bool) {
        lock(&self.state).admitted += 1;
        self.spawn(key, move |shared| {
            let end = Instant::now() + PATIENCE;
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
                    Ok(made) => return Some(shared.converse(made, &digits)),
                    Err(CallError::Refused(_)) if again && Instant::now() < end => {
                        thread::sleep(AGAIN); // it may say yes meanwhile, of which nobody tells us
                    }
                    Err(error) => return Some(failed(&error)),
                }
            }
        });
    }

    /// Says whether a caller is let in, and with what group.
    fn admit(
        &self,
        key: &[u8; 32],
        group: Option<&Group>,
        may_call: &dyn Fn(&[u8; 32]) -> bool,
    ) -> Result<bool, &'static str> {
        let mut state = lock(&self.state);
        if state.admitted >= MOST_VOICES {
            return Err("busy");
        }
        let names = |group: &Group, key: &[u8; 32]| group.members.contains(key);
        let joins = match (group, &state.group) {
            // Whoever we said yes to named him.
            (Some(theirs), Some(ours)) if theirs.id == ours.id && names(ours, key) => true,
            _ if !may_call(key) => return Err("not a key that may call here"),
            (Some(theirs), None) if state.admitted == 0 => {
                let whole = names(theirs, key) && names(theirs, &self.ours());
                if whole {
                    state.group = Some(theirs.clone());
                }
                whole
            }
            // Somebody else's group is not for those who talk here.
            (_, Some(_)) => return Err("busy"),
            (_, None) => false,
        };
        state.admitted += 1;
        Ok(joins)
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
            let joins = self.admit(key, group, may_call)?;
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
        let made = answer_member(&self.settings, caller, &judge, &self.stop, &mut tell);
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
                self.spawn_call(*key, Some(group.clone()), true);
            }
        }
        Some(self.converse(made, &digits))
    }

    /// Talks until it is over.
    fn converse(&self, made: Made, digits: &str) -> Happened {
        let (key, meshed) = (made.peer, made.joins);
        let id = lock(&self.mixer).join(meshed);
        let Some(id) = id else {
            return Happened::Left {
                why: "too many voices".to_owned(),
                stats: None,
            };
        };
        let mut seat = Seat {
            mixer: &self.mixer,
            id,
        };
        let mut joined = false;
        let mut tell = |event: &CallEvent| {
            if *event == CallEvent::Reached(Leg::Talking) {
                let digits = digits.to_owned();
                joined = true;
                self.tell(key, Happened::Joined { digits, meshed });
            }
        };
        let (ended, stats) = talk(made, &mut seat, false, &self.stop, &mut tell);
        Happened::Left {
            why: ended.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::{nodes, settings};

    #[test]
    fn a_group_is_for_its_members_and_a_room_for_all_who_may_call() {
        let conference = Conference::new(settings(1), nodes(|letter| letter).0);
        let (shared, ours) = (&conference.shared, conference.shared.ours());
        let [friend, named, stranger] = [[2; 32], [3; 32], [4; 32]];
        let may_call = |key: &[u8; 32]| *key == friend;
        let admit = |key, group| shared.admit(key, group, &may_call);
        let group = |id: u8, members: &[[u8; 32]]| Group {
            id: [id; 16],
            members: members.to_vec(),
        };
        let theirs = group(7, &[ours, friend, named]);
        assert!(admit(&named, Some(&theirs)).is_err());
        assert_eq!(admit(&friend, Some(&theirs)), Ok(true));
        assert_eq!(admit(&named, Some(&theirs)), Ok(true));
        assert!(admit(&stranger, Some(&theirs)).is_err());
        let (other, without) = (group(8, &[ours, friend, named]), group(9, &[friend, named]));
        assert_eq!(admit(&friend, Some(&other)), Err("busy"));
        assert_eq!(admit(&friend, None), Err("busy"));
        shared.dismiss();
        assert!(lock(&shared.state).group.is_some());
        shared.dismiss();
        // Nobody is left: the next one may begin anything. Who does not name us invites nobody.
        assert_eq!(admit(&friend, Some(&without)), Ok(false));
        assert_eq!(admit(&friend, None), Ok(false));
        // A room is no group, and has an end.
        assert_eq!(admit(&friend, Some(&theirs)), Ok(false));
        while lock(&shared.state).admitted < MOST_VOICES {
            assert_eq!(admit(&friend, None), Ok(false));
        }
        assert_eq!(admit(&friend, None), Err("busy"));
    }
}
