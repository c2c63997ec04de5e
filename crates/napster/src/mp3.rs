//! What an MP3 file's first frame says: bitrate, frequency, and so how long it plays.
//!
//! MPEG 1, 2 and 2.5, layers II and III; files of varying bitrate by their Xing or Info header.

/// What is told of an MP3 in a list of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sound {
    /// Kilobits a second; the mean if it varies.
    pub bitrate: u32,
    /// Samples a second.
    pub frequency: u32,
    /// Length in seconds.
    pub seconds: u32,
}

/// Bytes of the ID3v2 tag that a file begins with; zero if there is none.
pub fn tag_len(head: &[u8]) -> u64 {
    match head {
        [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..]
            if [a, b, c, d].iter().all(|x| **x < 0x80) =>
        {
            let size = [a, b, c, d]
                .iter()
                .fold(0u64, |n, x| n << 7 | u64::from(**x));
            10 + size + if flags & 0x10 == 0 { 0 } else { 10 }
        }
        _ => 0,
    }
}

const LAYER3_V1: [u32; 14] = [
    32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
];
const LAYER2_V1: [u32; 14] = [
    32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
];
const V2: [u32; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

struct Frame {
    bitrate: u32,
    frequency: u32,
    /// Samples in a frame.
    samples: u32,
    len: usize,
    /// Where a Xing header would be.
    xing: usize,
}

fn frame(bytes: &[u8]) -> Option<Frame> {
    let &[0xff, b, c, d, ..] = bytes else {
        return None;
    };
    let (version, layer) = (b >> 3 & 3, b >> 1 & 3);
    if b & 0xe0 != 0xe0 || version == 1 || !(1..=2).contains(&layer) {
        return None;
    }
    let v1 = version == 3;
    let rates = match (v1, layer) {
        (true, 1) => &LAYER3_V1,
        (true, _) => &LAYER2_V1,
        (false, _) => &V2,
    };
    let bitrate = *rates.get(usize::from(c >> 4).checked_sub(1)?)?;
    let base = *[44_100, 48_000, 32_000].get(usize::from(c >> 2 & 3))?;
    let frequency: u32 = match version {
        3 => base,
        2 => base / 2,
        _ => base / 4,
    };
    let samples = if layer == 1 && !v1 { 576 } else { 1152 };
    let padding = u32::from(c >> 1 & 1);
    let len = samples / 8 * bitrate * 1000 / frequency + padding;
    let mono = d >> 6 == 3;
    let side = match (v1, mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    Some(Frame {
        bitrate,
        frequency,
        samples,
        len: len as usize,
        xing: 4 + side,
    })
}

/// Reads the first frame in `head`, the bytes after the tag, of `len` bytes of sound in all. Two
/// frames in a row are wanted, for one may be chance.
pub fn parse(head: &[u8], len: u64) -> Option<Sound> {
    let (at, first) = (0..head.len().min(8192)).find_map(|at| {
        let first = frame(head.get(at..)?)?;
        let next = head.get(at + first.len..).filter(|rest| rest.len() >= 4);
        next.is_none_or(|rest| frame(rest).is_some())
            .then_some((at, first))
    })?;
    let sound = len.saturating_sub(at as u64);
    let xing = head.get(at + first.xing..).unwrap_or_default();
    if let Some((b"Xing" | b"Info", rest)) = xing.split_first_chunk::<4>().map(|(m, r)| (&m[..], r))
        && let Some((&[.., 1 | 3 | 5 | 7 | 9 | 11 | 13 | 15], rest)) = rest.split_first_chunk::<4>()
        && let Some((frames, _)) = rest.split_first_chunk::<4>()
    {
        let samples = u64::from(u32::from_be_bytes(*frames)) * u64::from(first.samples);
        let ms = samples * 1000 / u64::from(first.frequency);
        if let Some(bitrate) = sound.saturating_mul(8).checked_div(ms) {
            return Some(Sound {
                bitrate: u32::try_from(bitrate).unwrap_or(first.bitrate),
                frequency: first.frequency,
                seconds: u32::try_from(ms / 1000).unwrap_or(u32::MAX),
            });
        }
    }
    Some(Sound {
        bitrate: first.bitrate,
        frequency: first.frequency,
        seconds: u32::try_from(sound.saturating_mul(8) / (u64::from(first.bitrate) * 1000))
            .unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames of 128 kbit/s at 44,100 Hz: 417 bytes each.
    fn frames(n: usize) -> Vec<u8> {
        let mut one = vec![0xff, 0xfb, 0x90, 0x00];
        one.resize(417, 0);
        one.repeat(n)
    }

    #[test]
    fn the_first_frame_tells_bitrate_frequency_and_length() {
        let plain = frames(400);
        let want = Sound {
            bitrate: 128,
            frequency: 44_100,
            seconds: 10,
        };
        assert_eq!(parse(&plain, plain.len() as u64), Some(want));
        let mut late = vec![0xff; 100];
        late.extend(&plain);
        assert_eq!(parse(&late, late.len() as u64), Some(want));
        assert_eq!(tag_len(b"ID3\x03\x00\x00\x00\x00\x02\x01rest"), 10 + 257);
        assert_eq!(tag_len(&plain), 0);
        assert_eq!(parse(b"no sound at all", 15), None);
    }

    #[test]
    fn a_varying_bitrate_is_told_by_its_header() {
        let mut head = frames(3);
        let mut tag = b"Xing".to_vec();
        tag.extend(1u32.to_be_bytes());
        tag.extend(3829u32.to_be_bytes());
        head[36..36 + tag.len()].copy_from_slice(&tag);
        // 3,829 frames are 100 s; 2.5 MB of them 200 kbit/s.
        let sound = parse(&head, 2_500_000).expect("sound");
        assert_eq!((sound.bitrate, sound.seconds), (199, 100));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(head in proptest::collection::vec(any::<u8>(), 0..600), len: u64) {
            let _ = (tag_len(&head), parse(&head, len >> 8));
        }
    }
}
