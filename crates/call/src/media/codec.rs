//! Opus, as a call uses it.

use super::{FRAME, MAX_PAYLOAD, RATE};
use ropus::{Application, Bitrate, Channels, DecodeMode, InbandFec, Signal};

/// Samples of the longest packet that Opus knows: 120 ms.
const LONGEST: usize = 5760;

/// The codec could not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The encoder or decoder could not be made or set up.
    #[error("Opus cannot be set up")]
    Setup,
    /// A frame is not 20 ms long.
    #[error("a frame is 20 ms of sound")]
    FrameLength,
    /// The encoder failed.
    #[error("Opus could not encode")]
    Encode,
    /// These bytes are no Opus packet.
    #[error("no Opus packet")]
    BadPacket,
}

/// Frames of sound to packets.
pub struct Encoder {
    opus: ropus::Encoder,
    bitrate: u32,
    loss: u8,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("bitrate", &self.bitrate)
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for speech, with in-band FEC, at `bitrate` bit/s; `dtx`: it goes nearly silent
    /// when the speaker does.
    ///
    /// # Errors
    /// [`CodecError::Setup`].
    pub fn new(bitrate: u32, dtx: bool) -> Result<Self, CodecError> {
        let mut opus = ropus::Encoder::builder(RATE, Channels::Mono, Application::Voip)
            .build()
            .map_err(|_| CodecError::Setup)?;
        opus.set_bitrate(Bitrate::Bits(bitrate))
            .and_then(|()| opus.set_signal(Signal::Voice))
            .and_then(|()| opus.set_inband_fec(InbandFec::Enabled))
            .and_then(|()| opus.set_dtx(dtx))
            .map_err(|_| CodecError::Setup)?;
        Ok(Self {
            opus,
            bitrate,
            loss: 0,
        })
    }

    /// From now on `bitrate` bit/s, and as much redundancy as `loss` percent of lost packets ask for.
    ///
    /// # Errors
    /// [`CodecError::Setup`] for values that Opus does not take.
    pub fn tune(&mut self, bitrate: u32, loss: u8) -> Result<(), CodecError> {
        if bitrate != self.bitrate {
            self.opus
                .set_bitrate(Bitrate::Bits(bitrate))
                .map_err(|_| CodecError::Setup)?;
            self.bitrate = bitrate;
        }
        if loss != self.loss {
            self.opus
                .set_packet_loss_perc(loss.min(100))
                .map_err(|_| CodecError::Setup)?;
            self.loss = loss;
        }
        Ok(())
    }

    /// The packet of 20 ms.
    ///
    /// # Errors
    /// If the frame has another length, or Opus fails.
    pub fn encode(&mut self, frame: &[i16]) -> Result<Vec<u8>, CodecError> {
        if frame.len() != FRAME {
            return Err(CodecError::FrameLength);
        }
        let mut packet = vec![0; MAX_PAYLOAD];
        let n = self
            .opus
            .encode(frame, &mut packet)
            .map_err(|_| CodecError::Encode)?;
        packet.truncate(n);
        Ok(packet)
    }
}

/// Packets to sound.
pub struct Decoder(ropus::Decoder);

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder.
    ///
    /// # Errors
    /// [`CodecError::Setup`].
    pub fn new() -> Result<Self, CodecError> {
        ropus::Decoder::new(RATE, Channels::Mono)
            .map(Self)
            .map_err(|_| CodecError::Setup)
    }

    /// Appends the sound of a packet; says how many samples it has.
    ///
    /// # Errors
    /// If it is no packet.
    pub fn decode(&mut self, packet: &[u8], out: &mut Vec<i16>) -> Result<usize, CodecError> {
        // Opus takes nothing for a lost packet.
        if packet.is_empty() {
            return Err(CodecError::BadPacket);
        }
        self.run(packet, LONGEST, DecodeMode::Normal, out)
    }

    /// Appends the 20 ms before `packet`, from the redundancy that it carries (or made up, if none).
    ///
    /// # Errors
    /// If it is no packet.
    pub fn recover(&mut self, packet: &[u8], out: &mut Vec<i16>) -> Result<usize, CodecError> {
        if packet.is_empty() {
            return Err(CodecError::BadPacket);
        }
        self.run(packet, FRAME, DecodeMode::Fec, out)
    }

    /// Appends 20 ms that go on as what came before did, fading.
    ///
    /// # Errors
    /// Never for a decoder that works.
    pub fn conceal(&mut self, out: &mut Vec<i16>) -> Result<usize, CodecError> {
        self.run(&[], FRAME, DecodeMode::Normal, out)
    }

    fn run(
        &mut self,
        packet: &[u8],
        room: usize,
        mode: DecodeMode,
        out: &mut Vec<i16>,
    ) -> Result<usize, CodecError> {
        let start = out.len();
        out.resize(start + room, 0);
        let result = match out.get_mut(start..) {
            Some(free) => self.0.decode(packet, free, mode),
            None => return Err(CodecError::BadPacket),
        };
        let n = result.unwrap_or(0).min(room);
        out.truncate(start + n);
        result.map(|_| n).map_err(|_| CodecError::BadPacket)
    }
}
