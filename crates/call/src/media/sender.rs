//! Frames of sound to packets.

use super::FRAME;
use super::codec::{CodecError, Encoder};

/// A payload so short says: nothing to hear (RFC 7587, 3.1.3; Opus writes no frame).
const SILENCE: usize = 2;

/// Whether a payload only says that the speaker is silent.
pub(crate) const fn is_silence(payload: &[u8]) -> bool {
    payload.len() <= SILENCE
}

/// A packet to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Counts packets; the wire carries its lower 16 bits.
    pub sequence: u64,
    /// When its sound begins, in samples since the first.
    pub time: u64,
    /// Whether somebody begins to speak after a silence (RFC 3551, 4.1).
    pub marker: bool,
    /// Opus.
    pub payload: Vec<u8>,
}

/// Makes packets of sound.
#[derive(Debug)]
pub struct Sender {
    encoder: Encoder,
    sequence: u64,
    time: u64,
    /// The packet before said that there is silence.
    silent: bool,
}

impl Sender {
    /// A sender that begins at `bitrate` bit/s. With `dtx` it sends next to nothing while the speaker
    /// is silent, as what falls away is a hint to whoever counts packets, only where it is asked for.
    ///
    /// # Errors
    /// If Opus cannot be set up.
    pub fn new(bitrate: u32, dtx: bool) -> Result<Self, CodecError> {
        Ok(Self {
            encoder: Encoder::new(bitrate, dtx)?,
            sequence: 0,
            time: 0,
            silent: false,
        })
    }

    /// From now on `bitrate` bit/s for a path that loses `loss` percent.
    ///
    /// # Errors
    /// If Opus does not take the values.
    pub fn tune(&mut self, bitrate: u32, loss: u8) -> Result<(), CodecError> {
        self.encoder.tune(bitrate, loss)
    }

    /// Takes 20 ms of sound; gives a packet unless there is nothing to say.
    ///
    /// # Errors
    /// If the frame is not 20 ms long, or Opus fails. Time goes on all the same.
    pub fn push(&mut self, frame: &[i16]) -> Result<Option<Sent>, CodecError> {
        let time = self.time;
        self.time += FRAME as u64;
        let payload = self.encoder.encode(frame)?;
        let silent = is_silence(&payload);
        // The first tells the other end why no more come.
        if silent && self.silent {
            return Ok(None);
        }
        let marker = time == 0 || (self.silent && !silent);
        self.silent = silent;
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(Some(Sent {
            sequence,
            time,
            marker,
            payload,
        }))
    }
}
