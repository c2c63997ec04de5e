//! What the index of a supernode keeps of a file, and how it is told again.

use shoal_content::TigerRoot;
use shoal_content::keywords::{Entry, Facts, LocalFile};

use crate::wire::{File, Sound};

/// A file of the index, beside its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    file: LocalFile,
    sound: Option<Sound>,
}

impl Kept {
    /// None of what has no hash tree.
    pub(super) fn of(file: &File) -> Option<Self> {
        let local = LocalFile {
            size: file.size,
            sha1: file.sha1,
            tiger: TigerRoot(file.tiger?),
        };
        Some(Self {
            file: local,
            sound: file.sound,
        })
    }

    /// As its sharer told it.
    pub(super) fn told(entry: &Entry<'_, Self>) -> File {
        let path = [entry.folder, entry.name].concat();
        File {
            path: String::from_utf8_lossy(&path).into_owned(),
            size: entry.facts.file.size,
            sha1: entry.facts.file.sha1,
            tiger: Some(entry.facts.file.tiger.0),
            sound: entry.facts.sound,
        }
    }
}

impl Facts for Kept {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.file.encode(out);
        // Most files are no sound: a byte is enough of those.
        let Some(sound) = self.sound else {
            return out.push(0);
        };
        out.push(1);
        out.extend_from_slice(&sound.bitrate.to_le_bytes());
        out.extend_from_slice(&sound.frequency.to_le_bytes());
        out.extend_from_slice(&sound.seconds.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (file, rest) = LocalFile::decode(bytes)?;
        let (has_sound, rest) = rest.split_first()?;
        if *has_sound == 0 {
            return Some((Self { file, sound: None }, rest));
        }
        let (bitrate, rest) = rest.split_first_chunk::<2>()?;
        let (frequency, rest) = rest.split_first_chunk::<4>()?;
        let (seconds, rest) = rest.split_first_chunk::<4>()?;
        let sound = Some(Sound {
            bitrate: u16::from_le_bytes(*bitrate),
            frequency: u32::from_le_bytes(*frequency),
            seconds: u32::from_le_bytes(*seconds),
        });
        Some((Self { file, sound }, rest))
    }

    fn hashes(&self) -> [Option<&[u8]>; 2] {
        self.file.hashes()
    }
}
