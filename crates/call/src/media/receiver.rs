//! Packets to sound: puts them in order, waits as long as it pays, and fills what is missing.
//!
//! Time is that of the sound, in samples. Every time sound runs out the next packet's worth is made:
//! from the packet, if it is there; from the redundancy in the one after it; else it is made up. When
//! nothing came at all, the sound already played goes on without time going on with it, and what comes
//! later is played later. Playing is sped up or slowed down by periods of the voice until sound lies as
//! far behind as [`DelayMeter`] says.

use super::codec::{CodecError, Decoder};
use super::delay::DelayMeter;
use super::sender::is_silence;
use super::stretch::{shrink, stretch};
use super::{FRAME, FRAME_MICROS, MAX_PAYLOAD, micros};
use shoal_base::Time;
use std::collections::BTreeMap;

const FRAME_SAMPLES: u64 = FRAME as u64;
/// Packets that wait at most: four seconds.
const MOST_PACKETS: usize = 200;
/// A step in time so far, either way, is another source's: ten seconds.
const OTHER_SOURCE: u64 = 480_000;
/// Beyond the target before playing is sped up, microseconds.
const TOO_FAR: i64 = 20_000;
/// Short of the target before it is slowed down.
const TOO_NEAR: i64 = -8_000;
/// Beyond the target by this much, any place will do for a cut.
const MUCH_TOO_FAR: i64 = 80_000;
/// Beyond the target by this much, packets are thrown away.
const HOPELESS: i64 = 400_000;
/// Frames between two changes of speed.
const REST: u32 = 2;
/// Loss from which playing waits for the next packet, which may hold what was lost.
const WAIT_FOR_RECOVERY: f64 = 0.005;

/// A packet as it came.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Counts packets, without wrapping.
    pub sequence: u64,
    /// When its sound begins, in samples, without wrapping.
    pub time: u64,
    /// Opus.
    pub payload: Vec<u8>,
}

/// What a receiver did so far, and how it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReceiverStats {
    /// Packets that came.
    pub received: u64,
    /// Packets that did not come until they were needed.
    pub lost: u64,
    /// Of the lost ones, those whose sound the next packet brought.
    pub recovered: u64,
    /// Packets that came after they were needed.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets that held no Opus, or more than Opus can be.
    pub bad: u64,
    /// Milliseconds of sound that were made up, silences aside.
    pub concealed_ms: u64,
    /// Milliseconds by which playing was slowed down.
    pub stretched_ms: u64,
    /// Milliseconds by which playing was sped up.
    pub shrunk_ms: u64,
    /// How far behind the fastest packets sound is played, milliseconds.
    pub lag_ms: f64,
    /// How far it should be, milliseconds.
    pub target_ms: f64,
    /// How far the last packet was behind the fastest, milliseconds.
    pub queue_ms: f64,
    /// Mean change of the delay from packet to packet, milliseconds.
    pub jitter_ms: f64,
}

/// Makes sound of packets.
#[derive(Debug)]
pub struct Receiver {
    decoder: Decoder,
    waiting: BTreeMap<u64, Packet>,
    delay: DelayMeter,
    /// Sound that is made and not played.
    pub(super) sound: Vec<i16>,
    /// When the next sound to be made begins; none before the first packet is played.
    next: Option<u64>,
    last_sequence: u64,
    /// The last packet said that nothing more comes for a while.
    silent: bool,
    /// Samples made up while time stood still.
    standing: u64,
    rest: u32,
    /// Of the last hundred packets or so, the part that was lost.
    loss: f64,
    stats: ReceiverStats,
    counted: Counted,
}

/// Samples, of which the statistics tell milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    concealed: u64,
    stretched: u64,
    shrunk: u64,
}

impl Receiver {
    /// A receiver to which nothing came yet.
    ///
    /// # Errors
    /// If Opus cannot be set up.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self {
            decoder: Decoder::new()?,
            waiting: BTreeMap::new(),
            delay: DelayMeter::default(),
            sound: Vec::new(),
            next: None,
            last_sequence: 0,
            silent: false,
            standing: 0,
            rest: 0,
            loss: 0.0,
            stats: ReceiverStats::default(),
            counted: Counted::default(),
        })
    }

    /// Takes a packet.
    pub fn on_packet(&mut self, now: Time, packet: Packet) {
        if packet.payload.is_empty() || packet.payload.len() > MAX_PAYLOAD {
            self.stats.bad += 1;
            return;
        }
        let reference = self.next.or_else(|| self.waiting.keys().next().copied());
        if reference.is_some_and(|n| n.abs_diff(packet.time) > OTHER_SOURCE) {
            self.restart();
        }
        self.stats.received += 1;
        self.delay.on_packet(now, packet.time);
        let late = self.next.is_some_and(|n| packet.time < n);
        if late && !(self.silent && packet.sequence > self.last_sequence) {
            self.stats.late += 1;
            return;
        }
        if self.waiting.len() >= MOST_PACKETS {
            self.waiting.pop_first();
        }
        if self.waiting.insert(packet.time, packet).is_some() {
            self.stats.duplicates += 1;
        }
    }

    /// Fills `out` with the sound to be heard next. To be called as the loudspeaker asks, silence
    /// before the first packets.
    pub fn pull(&mut self, now: Time, out: &mut [i16]) {
        while self.sound.len() < out.len() {
            if self.next.is_none() && !self.begins(now) {
                self.sound.resize(out.len(), 0);
                break;
            }
            let before = self.sound.len();
            self.make(now);
            if self.sound.len() == before {
                // Only a decoder that does not work gets here.
                self.sound.resize(out.len(), 0);
            }
        }
        let n = out.len();
        for (to, from) in out.iter_mut().zip(self.sound.drain(..n)) {
            *to = from;
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> ReceiverStats {
        ReceiverStats {
            concealed_ms: self.counted.concealed / 48,
            stretched_ms: self.counted.stretched / 48,
            shrunk_ms: self.counted.shrunk / 48,
            target_ms: self.target() as f64 / 1000.0,
            queue_ms: self.delay.queue() as f64 / 1000.0,
            jitter_ms: self.delay.jitter() / 1000.0,
            ..self.stats
        }
    }

    fn restart(&mut self) {
        self.waiting.clear();
        self.delay = DelayMeter::default();
        self.next = None;
        self.silent = false;
        self.standing = 0;
    }

    /// How far behind sound should be played, microseconds.
    fn target(&self) -> i64 {
        let wait = if self.loss > WAIT_FOR_RECOVERY {
            FRAME_MICROS as i64
        } else {
            0
        };
        self.delay.target() + wait
    }

    /// How far behind sound that begins at `time` is, if it is made now.
    fn lag(&self, now: Time, time: u64) -> i64 {
        self.delay.lag(now, time) + micros(self.sound.len() as u64) as i64
    }

    /// Whether playing can begin: the first packet has waited for long enough.
    fn begins(&mut self, now: Time) -> bool {
        let Some(first) = self.waiting.first_key_value().map(|f| *f.0) else {
            return false;
        };
        if self.lag(now, first) < self.target() {
            return false;
        }
        self.next = Some(first);
        if let Some(packet) = self.waiting.get(&first) {
            self.last_sequence = packet.sequence.wrapping_sub(1);
        }
        true
    }

    /// Appends the next 20 ms or so.
    fn make(&mut self, now: Time) {
        let Some(mut next) = self.next else {
            return;
        };
        let lag = self.lag(now, next);
        self.stats.lag_ms = lag as f64 / 1000.0;
        let beyond = lag - self.target();
        if beyond > HOPELESS {
            next = self.skip(next, beyond);
        }
        let head = self.waiting.first_key_value();
        let head = head.map(|(&time, packet)| (time, packet.sequence));
        match head {
            None => {
                if self.silent {
                    next += FRAME_SAMPLES;
                } else {
                    self.standing += FRAME_SAMPLES;
                    self.counted.concealed += FRAME_SAMPLES;
                }
                self.conceal();
            }
            // After a silence the distance can be chosen anew.
            Some((time, sequence)) if self.silent && sequence == self.last_sequence + 1 => {
                if self.lag(now, time) < self.target() {
                    self.conceal();
                    next += FRAME_SAMPLES;
                } else {
                    next = self.play(time, 0);
                }
            }
            Some((time, _)) => {
                let missing = time.saturating_sub(next);
                let stood = missing.min(self.standing);
                self.standing = 0;
                self.count_lost(stood / FRAME_SAMPLES);
                match missing - stood {
                    0 => next = self.play(time, beyond),
                    1..=FRAME_SAMPLES => {
                        self.count_lost(1);
                        self.recover(time);
                        next = time;
                    }
                    _ => {
                        self.count_lost(1);
                        self.counted.concealed += FRAME_SAMPLES;
                        self.conceal();
                        next += stood + FRAME_SAMPLES;
                    }
                }
            }
        }
        self.next = Some(next);
    }

    /// Gives up what is hopelessly late, after the path stood still.
    fn skip(&mut self, next: u64, beyond: i64) -> u64 {
        let samples = u64::try_from(beyond).unwrap_or(0) * 48 / 1000;
        let goal = next + samples;
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() >= goal || self.waiting.len() == 1 {
                break;
            }
            self.waiting.pop_first();
            self.stats.late += 1;
        }
        self.standing = 0;
        self.waiting.keys().next().map_or(next, |&t| t.max(next))
    }

    /// Plays the packet whose sound begins at `time`; says when it ends.
    fn play(&mut self, time: u64, beyond: i64) -> u64 {
        let Some(packet) = self.waiting.remove(&time) else {
            return time;
        };
        let mut made = Vec::new();
        let silence = is_silence(&packet.payload);
        self.last_sequence = packet.sequence;
        self.loss *= 0.99;
        let Ok(samples) = self.decoder.decode(&packet.payload, &mut made) else {
            self.stats.bad += 1;
            self.counted.concealed += FRAME_SAMPLES;
            self.conceal();
            return time + FRAME_SAMPLES;
        };
        self.silent = silence;
        self.rest = self.rest.saturating_sub(1);
        if self.rest == 0 {
            let changed = if beyond > TOO_FAR {
                let out = shrink(&mut made, beyond > MUCH_TOO_FAR);
                self.counted.shrunk += out as u64;
                out
            } else if beyond < TOO_NEAR {
                let put = stretch(&mut made, false);
                self.counted.stretched += put as u64;
                put
            } else {
                0
            };
            if changed > 0 && beyond <= MUCH_TOO_FAR {
                self.rest = REST;
            }
        }
        self.sound.append(&mut made);
        time + samples as u64
    }

    /// Makes the 20 ms before the packet at `time`, out of what that packet carries of them.
    fn recover(&mut self, time: u64) {
        let mut made = Vec::new();
        let result = match self.waiting.get(&time) {
            Some(packet) if !is_silence(&packet.payload) => {
                self.decoder.recover(&packet.payload, &mut made)
            }
            _ => Err(CodecError::BadPacket),
        };
        if result.is_ok() {
            self.stats.recovered += 1;
            self.sound.append(&mut made);
        } else {
            self.counted.concealed += FRAME_SAMPLES;
            self.conceal();
        }
    }

    fn conceal(&mut self) {
        let before = self.sound.len();
        if self.decoder.conceal(&mut self.sound).is_err() {
            self.sound.resize(before + FRAME, 0);
        }
    }

    fn count_lost(&mut self, packets: u64) {
        self.stats.lost += packets;
        self.loss += (1.0 - self.loss) * 0.01 * packets.min(100) as f64;
    }
}
