//! Several voices at one end: who hears what, 20 ms a turn.
//!
//! All are heard by our loudspeaker. A voice whose owner hears the others by calls of its own gets our
//! microphone and whom else nobody passes on to it; one that has only us gets all others. Nobody gets
//! himself. Sums are kept within 16 bits by a limiter for each listener.
//!
//! Calls run on their own 20 ms, so that each voice has a few frames before a turn and after it.

use super::FRAME;
use std::collections::{BTreeMap, VecDeque};

/// Voices at most.
pub const MOST_VOICES: usize = 16;
/// Frames that wait on each side of a turn, at most: more is time that nobody gets back.
const MOST_FRAMES: usize = 3;
/// What a sum may reach: a decibel below the whole range, for what a decoder adds.
const CEILING: f32 = 29_200.0;
/// Of what is missing to full loudness, what a frame gives back.
const RELEASE: f32 = 0.08;
/// Samples over which the loudness falls: a millisecond.
const ATTACK: usize = 48;

/// Names a voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VoiceId(u64);

/// See the module's text.
#[derive(Debug, Default)]
pub struct Mixer {
    voices: BTreeMap<VoiceId, Voice>,
    next: u64,
    loudspeaker: Limiter,
}

#[derive(Debug)]
struct Voice {
    /// Its owner has calls with the others.
    meshed: bool,
    /// It is neither heard nor told anything.
    waits: bool,
    heard: VecDeque<Vec<i16>>,
    said: VecDeque<Vec<i16>>,
    limiter: Limiter,
}

/// Makes a sum as soft as needed, at once, and as loud as it was within half a second.
#[derive(Debug)]
struct Limiter {
    gain: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { gain: 1.0 }
    }
}

impl Limiter {
    fn limit(&mut self, sum: &[i32], out: &mut [i16]) {
        let peak = sum.iter().map(|s| s.saturating_abs()).max().unwrap_or(0) as f32;
        let most = (CEILING / peak.max(1.0)).min(1.0);
        let (from, to) = (
            self.gain,
            (self.gain + (1.0 - self.gain) * RELEASE).min(most),
        );
        for (n, (out, sum)) in out.iter_mut().zip(sum).enumerate() {
            let part = (n as f32 / ATTACK as f32).min(1.0);
            let gain = from + (to - from) * part;
            *out = (*sum as f32 * gain).clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16;
        }
        self.gain = to;
    }
}

fn push(frames: &mut VecDeque<Vec<i16>>, frame: Vec<i16>) {
    if frames.len() >= MOST_FRAMES {
        frames.pop_front();
    }
    frames.push_back(frame);
}

fn add(sum: &mut [i32], frame: &[i16]) {
    for (sum, sample) in sum.iter_mut().zip(frame) {
        *sum += i32::from(*sample);
    }
}

impl Mixer {
    /// One more voice; `meshed`: its owner has calls with the others that are meshed. None if there
    /// are too many.
    pub fn join(&mut self, meshed: bool) -> Option<VoiceId> {
        if self.voices.len() >= MOST_VOICES {
            return None;
        }
        self.next += 1;
        let id = VoiceId(self.next);
        let voice = Voice {
            meshed,
            waits: false,
            heard: VecDeque::new(),
            said: VecDeque::new(),
            limiter: Limiter::default(),
        };
        self.voices.insert(id, voice);
        Some(id)
    }

    /// Whether a voice waits: it is neither heard nor told anything. Who changes from one call to another has
    /// both for a moment, and what it hears in the one must not go into the other.
    pub fn set_waits(&mut self, id: VoiceId, waits: bool) {
        if let Some(voice) = self.voices.get_mut(&id) {
            voice.waits = waits;
            voice.heard.clear();
            voice.said.clear();
        }
    }

    /// A voice has gone.
    pub fn leave(&mut self, id: VoiceId) {
        self.voices.remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.voices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.voices.is_empty()
    }

    /// Takes a frame that came from a voice.
    pub fn heard(&mut self, id: VoiceId, frame: &[i16]) {
        if frame.len() == FRAME
            && let Some(voice) = self.voices.get_mut(&id)
            && !voice.waits
        {
            push(&mut voice.heard, frame.to_vec());
        }
    }

    /// Fills a frame for a voice; silence if no turn has made one.
    pub fn said(&mut self, id: VoiceId, frame: &mut [i16]) {
        frame.fill(0);
        let voice = self.voices.get_mut(&id);
        if let Some(said) = voice.and_then(|v| v.said.pop_front()) {
            for (to, from) in frame.iter_mut().zip(said) {
                *to = from;
            }
        }
    }

    /// A turn: a frame from our microphone, one for our loudspeaker, and one for each voice.
    pub fn turn(&mut self, microphone: &[i16], loudspeaker: &mut [i16]) {
        let (mut all, mut passed) = ([0i32; FRAME], [0i32; FRAME]);
        let mut frames = Vec::with_capacity(self.voices.len());
        for voice in self.voices.values_mut() {
            let frame = voice.heard.pop_front().unwrap_or_default();
            add(&mut all, &frame);
            if !voice.meshed {
                add(&mut passed, &frame);
            }
            frames.push(frame);
        }
        self.loudspeaker.limit(&all, loudspeaker);
        let told = self.voices.values_mut().zip(&frames);
        for (voice, own) in told.filter(|(voice, _)| !voice.waits) {
            let mut sum = if voice.meshed { passed } else { all };
            if !voice.meshed {
                for (sum, sample) in sum.iter_mut().zip(own) {
                    *sum -= i32::from(*sample);
                }
            }
            add(&mut sum, microphone);
            let mut frame = vec![0; FRAME];
            voice.limiter.limit(&sum, &mut frame);
            push(&mut voice.said, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(value: i16) -> [i16; FRAME] {
        [value; FRAME]
    }

    /// What each of the voices and we hear when the voices say these.
    fn turn(mixer: &mut Mixer, ids: &[VoiceId], say: &[i16], ours: i16) -> (Vec<i16>, i16) {
        for (id, value) in ids.iter().zip(say) {
            mixer.heard(*id, &flat(*value));
        }
        let mut loudspeaker = flat(0);
        mixer.turn(&flat(ours), &mut loudspeaker);
        let mut out = flat(0);
        let told = ids.iter().map(|id| {
            mixer.said(*id, &mut out);
            out[FRAME - 1]
        });
        (told.collect(), loudspeaker[FRAME - 1])
    }

    #[test]
    fn everybody_hears_all_others_and_nobody_himself() {
        let mut mixer = Mixer::default();
        let ids: Vec<_> = (0..3).filter_map(|_| mixer.join(false)).collect();
        let (told, ours) = turn(&mut mixer, &ids, &[100, 20, 3], 4000);
        assert_eq!(told, [4023, 4103, 4120]);
        assert_eq!(ours, 123);
        // Alone, a voice hears no echo of itself.
        let (told, _) = turn(&mut mixer, &ids, &[9000, 0, 0], 0);
        assert_eq!(told[0], 0);
        mixer.leave(ids[1]);
        let (told, ours) = turn(&mut mixer, &ids, &[100, 20, 3], 0);
        assert_eq!((told, ours), (vec![3, 0, 100], 103));
    }

    #[test]
    fn who_has_calls_of_its_own_is_not_told_twice() {
        let mut mixer = Mixer::default();
        let ids: Vec<_> = [true, true, false]
            .iter()
            .filter_map(|meshed| mixer.join(*meshed))
            .collect();
        let (told, ours) = turn(&mut mixer, &ids, &[100, 20, 3], 4000);
        // The third has only us: it hears all, and the others hear it through us.
        assert_eq!(told, [4003, 4003, 4120]);
        assert_eq!(ours, 123);
    }

    #[test]
    fn who_changes_from_one_call_to_another_is_heard_once() {
        let mut mixer = Mixer::default();
        let ids: Vec<_> = (0..3).filter_map(|_| mixer.join(false)).collect();
        mixer.set_waits(ids[1], true);
        let (told, ours) = turn(&mut mixer, &ids, &[100, 20, 3], 4000);
        assert_eq!((told, ours), (vec![4003, 0, 4100], 103));
        mixer.set_waits(ids[1], false);
        mixer.set_waits(ids[0], true);
        let (told, ours) = turn(&mut mixer, &ids, &[100, 20, 3], 4000);
        assert_eq!((told, ours), (vec![0, 4003, 4020], 23));
    }

    #[test]
    fn many_loud_voices_are_made_softer_and_one_soon_loud_again() {
        let mut mixer = Mixer::default();
        let ids: Vec<_> = (0..10).filter_map(|_| mixer.join(false)).collect();
        let loud = [20_000; 10];
        for _ in 0..5 {
            let (told, ours) = turn(&mut mixer, &ids, &loud, 0);
            let fits = |v: &i16| (29_000..=29_300).contains(v);
            assert!(told.iter().all(fits) && fits(&ours), "{told:?} {ours}");
        }
        let mut one = [0; 10];
        one[0] = 10_000;
        for _ in 0..60 {
            turn(&mut mixer, &ids, &one, 0);
        }
        let (told, _) = turn(&mut mixer, &ids, &one, 0);
        assert!(told[1] > 9_700 && told[0] == 0, "{told:?}");
    }

    #[test]
    fn what_comes_too_fast_does_not_pile_up() {
        let mut mixer = Mixer::default();
        let id = mixer.join(false).expect("a place");
        for n in 0..50 {
            mixer.heard(id, &flat(n));
        }
        let mut loudspeaker = flat(0);
        mixer.turn(&flat(0), &mut loudspeaker);
        assert_eq!(loudspeaker[0], 47);
        // A voice that is late is silent, and the others go on.
        for _ in 0..3 {
            mixer.turn(&flat(0), &mut loudspeaker);
        }
        assert_eq!(loudspeaker[0], 0);
        for _ in 0..MOST_VOICES {
            mixer.join(true);
        }
        assert_eq!((mixer.join(true), mixer.len()), (None, MOST_VOICES));
    }
}
