//! WAV files: 16-bit PCM, one or two channels, any usual rate; written with one channel at the call's.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use shoal_node::call::{FRAME, RATE, RATES, to_call_rate};

use crate::failure::{Failure, Outcome};

/// Bytes of a file at most: an hour and a half of stereo at 48 kHz.
const MOST: u64 = 1 << 30;
/// Bytes of the header that we write.
const HEADER: u32 = 44;

/// Reads a file: one channel at the call's rate.
pub(crate) fn read(path: &Path) -> Outcome<Vec<i16>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes))
        .map_err(|e| Failure::io("read", path, &e))?;
    parse(&bytes).map_err(|why| {
        Failure::failed(format!("{} is no WAV file for a call", path.display()))
            .reason(why)
            .hint("16-bit PCM with one or two channels: ffmpeg -i IN -c:a pcm_s16le OUT.wav")
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<i16>, &'static str> {
    let (riff, mut rest) = bytes.split_at_checked(12).ok_or("too short")?;
    if !riff.starts_with(b"RIFF") || !riff.ends_with(b"WAVE") {
        return Err("it does not begin with RIFF and WAVE");
    }
    let mut format = None;
    while let Some((head, tail)) = rest.split_at_checked(8) {
        let (name, length) = head.split_at(4);
        let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
        if name == b"data" {
            // What is written while it is read has a length of zero, or of all.
            let data = tail.get(..length).filter(|d| !d.is_empty()).unwrap_or(tail);
            return sound(data, format.ok_or("no fmt chunk before the data")?);
        }
        let chunk = tail
            .get(..length)
            .ok_or("a chunk is longer than the file")?;
        if name == b"fmt " {
            format = Some(parse_format(chunk)?);
        }
        rest = tail.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    Err("no data chunk")
}

/// Channels and rate.
fn parse_format(chunk: &[u8]) -> Result<(usize, u32), &'static str> {
    let &[t0, t1, c0, c1, r0, r1, r2, r3, _, _, _, _, _, _, b0, b1, ..] = chunk else {
        return Err("its fmt chunk is too short");
    };
    let kind = u16::from_le_bytes([t0, t1]);
    // WAVE_FORMAT_EXTENSIBLE says the same further on.
    let kind = match (kind, chunk.get(24..26)) {
        (0xfffe, Some(&[a, b])) => u16::from_le_bytes([a, b]),
        _ => kind,
    };
    if kind != 1 || u16::from_le_bytes([b0, b1]) != 16 {
        return Err("it is not 16-bit PCM");
    }
    let channels = usize::from(u16::from_le_bytes([c0, c1]));
    if !(1..=2).contains(&channels) {
        return Err("it has neither one channel nor two");
    }
    let rate = u32::from_le_bytes([r0, r1, r2, r3]);
    if !RATES.contains(&rate) {
        return Err("its rate is not one of sound");
    }
    Ok((channels, rate))
}

fn sound(data: &[u8], (channels, rate): (usize, u32)) -> Result<Vec<i16>, &'static str> {
    let mixed: Vec<i16> = data
        .chunks_exact(2 * channels)
        .map(|c| {
            let samples = c.chunks_exact(2).map(|s| match *s {
                [a, b] => i32::from(i16::from_le_bytes([a, b])),
                _ => 0,
            });
            (samples.sum::<i32>() / channels as i32) as i16
        })
        .collect();
    Ok(to_call_rate(&mixed, rate))
}

/// A file that grows. Its header tells its length again every second, so that a file whose writer was
/// killed can be read.
#[derive(Debug)]
pub(crate) struct Writer {
    file: BufWriter<File>,
    samples: u32,
}

impl Writer {
    /// Makes the file.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let make = || -> io::Result<Self> {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&header(0))?;
            Ok(Self { file, samples: 0 })
        };
        make().map_err(|e| Failure::io("write", path, &e))
    }

    /// Appends sound.
    pub(crate) fn write(&mut self, sound: &[i16]) -> io::Result<()> {
        for sample in sound {
            self.file.write_all(&sample.to_le_bytes())?;
        }
        let before = self.samples / RATE;
        self.samples = self
            .samples
            .saturating_add(sound.len().min(FRAME * 50) as u32);
        if self.samples / RATE != before {
            self.finish()?;
        }
        Ok(())
    }

    /// Writes the length.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header(self.samples))?;
        self.file.seek(SeekFrom::End(0))?;
        self.file.flush()
    }
}

fn header(samples: u32) -> Vec<u8> {
    let bytes = samples.saturating_mul(2).min(u32::MAX - HEADER);
    let mut out = Vec::with_capacity(HEADER as usize);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(bytes + HEADER - 8).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&16u32.to_le_bytes());
    out.extend_from_slice(&1u16.to_le_bytes());
    out.extend_from_slice(&1u16.to_le_bytes());
    out.extend_from_slice(&RATE.to_le_bytes());
    out.extend_from_slice(&(2 * RATE).to_le_bytes());
    out.extend_from_slice(&2u16.to_le_bytes());
    out.extend_from_slice(&16u16.to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&bytes.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.wav");
        let sound: Vec<i16> = (0..FRAME as i16).collect();
        let mut writer = Writer::create(&path).expect("made");
        for _ in 0..60 {
            writer.write(&sound).expect("written");
        }
        // Killed here, all but the part of a second is there.
        assert!(read(&path).expect("read").len() >= 48_000);
        writer.finish().expect("written");
        let got = read(&path).expect("read");
        assert_eq!((got.len(), &got[..FRAME]), (60 * FRAME, sound.as_slice()));
    }

    #[test]
    fn stereo_at_another_rate_is_mixed() {
        let mut bytes = header(0);
        bytes[22] = 2;
        bytes[24..28].copy_from_slice(&16_000u32.to_le_bytes());
        for _ in 0..1600 {
            bytes.extend_from_slice(&2000i16.to_le_bytes());
            bytes.extend_from_slice(&4000i16.to_le_bytes());
        }
        let got = parse(&bytes).expect("read");
        assert_eq!(got.len(), 4800);
        assert!((got[2400] - 3000).abs() < 20, "{}", got[2400]);
    }

    proptest! {
        #[test]
        fn nonsense_is_refused_or_read(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&tail);
            let mut bytes = header(7);
            bytes.extend_from_slice(&tail);
            let _ = parse(&bytes);
            let mut bytes = b"RIFF....WAVE".to_vec();
            bytes.extend_from_slice(&tail);
            let _ = parse(&bytes);
        }
    }
}
