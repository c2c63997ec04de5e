//! What a hub's users share: the index of the core `content`, with Napster's facts.

use shoal_content::keywords;

use crate::file::{Facts, put_md5};

pub use keywords::{Owner, Terms};

/// All files that are shared with a hub.
pub type Index = keywords::Index<Facts>;
/// One of them.
pub type Entry<'a> = keywords::Entry<'a, Facts>;

const HAS_MD5: u8 = 1;

impl keywords::Facts for Facts {
    fn size(&self) -> u64 {
        self.size
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.md5.is_some() { HAS_MD5 } else { 0 });
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.bitrate.to_le_bytes());
        out.extend_from_slice(&self.frequency.to_le_bytes());
        out.extend_from_slice(&self.seconds.to_le_bytes());
        out.extend(self.md5.iter().flatten());
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[flags], rest) = bytes.split_first_chunk::<1>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (bitrate, rest) = rest.split_first_chunk::<4>()?;
        let (frequency, rest) = rest.split_first_chunk::<4>()?;
        let (seconds, rest) = rest.split_first_chunk::<4>()?;
        let (md5, rest) = if flags & HAS_MD5 == 0 {
            (None, rest)
        } else {
            let (md5, rest) = rest.split_first_chunk::<16>()?;
            (Some(*md5), rest)
        };
        let facts = Self {
            size: u64::from_le_bytes(*size),
            bitrate: u32::from_le_bytes(*bitrate),
            frequency: u32::from_le_bytes(*frequency),
            seconds: u32::from_le_bytes(*seconds),
            md5,
        };
        Some((facts, rest))
    }
}

/// Appends `"path" md5 size bitrate frequency seconds`.
pub fn put(entry: &Entry<'_>, out: &mut Vec<u8>) {
    put_path(entry, out);
    entry.facts.put(out);
}

/// Appends `"path" md5`.
pub fn put_short(entry: &Entry<'_>, out: &mut Vec<u8>) {
    put_path(entry, out);
    put_md5(entry.facts.md5, out);
}

fn put_path(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(entry.folder);
    out.extend_from_slice(entry.name);
    out.extend_from_slice(b"\" ");
}
