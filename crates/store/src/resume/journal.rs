//! The journal: what was written and verified since the last checkpoint, appended record by
//! record.
//!
//! It is never synced. A process killed at any moment leaves it whole in the page cache; after a
//! power loss it is not believed, and the boot id in its header tells the two apart.
//!
//! ```text
//! header (48 bytes): magic 8 · generation 8 · database id 8 · boot id 16 · check 8
//! record (24 bytes): kind 1 · zero 3 · torrent 4 · a 4 · b 4 · c 4 · check 4
//! ```
//!
//! Numbers are big-endian. A check is the head of a SHA-1 over the fields before it, and for a
//! record over generation, database id and the record's own number too, so that no stale or
//! shifted record passes. Reading stops at the first record that does not check.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use shoal_base::Cursor;
use shoal_content::PieceIndex;

use super::ResumeId;

const MAGIC: &[u8; 8] = b"shoalj1\n";
pub(super) const HEADER_LEN: usize = 48;
pub(super) const RECORD_LEN: usize = 24;

/// Identifies a run of the machine: changes with every boot.
pub(super) type BootId = [u8; 16];

/// Something that happened to a torrent's pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `count` blocks of `piece` from number `first` on are on disk, not yet verified.
    Blocks {
        /// The piece.
        piece: PieceIndex,
        /// Number of the first block within the piece.
        first: u32,
        /// How many blocks.
        count: u32,
    },
    /// `count` pieces from `first` on are on disk and match their hashes.
    Verified {
        /// The first piece.
        first: PieceIndex,
        /// How many pieces.
        count: u32,
    },
    /// `count` pieces from `first` on are not to be believed any more, nor any block of them.
    Lost {
        /// The first piece.
        first: PieceIndex,
        /// How many pieces.
        count: u32,
    },
}

/// A change and the torrent it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which torrent.
    pub torrent: ResumeId,
    /// What happened.
    pub change: Change,
}

/// What stands at the head of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Rises by one with every checkpoint.
    pub(super) generation: u64,
    /// Random number of the database it belongs to.
    pub(super) database: u64,
    /// The boot it was written in.
    pub(super) boot: BootId,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.generation.to_be_bytes());
        out[16..24].copy_from_slice(&self.database.to_be_bytes());
        out[24..40].copy_from_slice(&self.boot);
        let check = Sha1::digest(&out[..40]);
        out[40..].copy_from_slice(&check[..8]);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(bytes);
        let magic = c.array::<8>().ok()?;
        let header = Self {
            generation: c.u64().ok()?,
            database: c.u64().ok()?,
            boot: c.array().ok()?,
        };
        let check = c.array::<8>().ok()?;
        (magic == *MAGIC && header.encode()[40..] == check).then_some(header)
    }

    fn encode_record(&self, number: u64, entry: &Entry) -> [u8; RECORD_LEN] {
        let (kind, a, b, c) = match entry.change {
            Change::Blocks {
                piece,
                first,
                count,
            } => (1, piece, first, count),
            Change::Verified { first, count } => (2, first, count, 0),
            Change::Lost { first, count } => (3, first, count, 0),
        };
        let mut out = [0; RECORD_LEN];
        out[0] = kind;
        out[4..8].copy_from_slice(&entry.torrent.0.to_be_bytes());
        out[8..12].copy_from_slice(&a.to_be_bytes());
        out[12..16].copy_from_slice(&b.to_be_bytes());
        out[16..20].copy_from_slice(&c.to_be_bytes());
        let check = self.check_record(number, &out);
        out[20..].copy_from_slice(&check);
        out
    }

    /// The check of record `number` with these bytes; 44 bytes hashed, one SHA-1 block.
    fn check_record(&self, number: u64, record: &[u8; RECORD_LEN]) -> [u8; 4] {
        let mut salted = [0; 44];
        salted[..8].copy_from_slice(&self.generation.to_be_bytes());
        salted[8..16].copy_from_slice(&self.database.to_be_bytes());
        salted[16..24].copy_from_slice(&number.to_be_bytes());
        salted[24..].copy_from_slice(&record[..20]);
        let digest = Sha1::digest(salted);
        [digest[0], digest[1], digest[2], digest[3]]
    }

    fn decode_record(&self, number: u64, record: &[u8; RECORD_LEN]) -> Option<Entry> {
        if self.check_record(number, record) != record[20..] {
            return None;
        }
        let mut cursor = Cursor::new(record);
        let kind = cursor.u8().ok()?;
        cursor.take(3).ok()?;
        let torrent = ResumeId(cursor.u32().ok()?);
        let (a, b, c) = (cursor.u32().ok()?, cursor.u32().ok()?, cursor.u32().ok()?);
        let change = match kind {
            1 => Change::Blocks {
                piece: a,
                first: b,
                count: c,
            },
            2 => Change::Verified { first: a, count: b },
            3 => Change::Lost { first: a, count: b },
            _ => return None,
        };
        Some(Entry { torrent, change })
    }
}

/// A journal as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replay {
    pub(super) header: Header,
    /// The records up to the first bad one.
    pub(super) entries: Vec<Entry>,
    /// Bytes after the last good record: torn or corrupt.
    pub(super) cut: usize,
}

/// Reads a journal's bytes; none if not even the header is good.
pub(super) fn decode(bytes: &[u8]) -> Option<Replay> {
    let header = Header::decode(bytes)?;
    let body = bytes.get(HEADER_LEN..).unwrap_or_default();
    let (records, _) = body.as_chunks::<RECORD_LEN>();
    let entries: Vec<Entry> = records
        .iter()
        .zip(0..)
        .map_while(|(record, number)| header.decode_record(number, record))
        .collect();
    let cut = body.len() - entries.len() * RECORD_LEN;
    Some(Replay {
        header,
        entries,
        cut,
    })
}

/// The journal being written.
#[derive(Debug)]
pub(super) struct Journal {
    header: Header,
    file: File,
    path: PathBuf,
    records: u64,
    /// Bytes of the file that are good: anything after them is a failed append.
    good: u64,
    buf: Vec<u8>,
}

/// The file name of a journal's generation.
pub(super) fn file_name(generation: u64) -> String {
    format!("resume-{generation:016x}.journal")
}

/// The generation that a file name stands for.
pub(super) fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("resume-")?.strip_suffix(".journal")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

impl Journal {
    /// Starts an empty journal in `dir`.
    pub(super) fn create(dir: &Path, header: Header) -> io::Result<Self> {
        let path = dir.join(file_name(header.generation));
        let mut file = File::create(&path)?;
        file.write_all(&header.encode())?;
        Ok(Self {
            header,
            file,
            path,
            records: 0,
            good: HEADER_LEN as u64,
            buf: Vec::new(),
        })
    }

    /// Appends `entries` with one write. If it fails, nothing of it stays.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.buf.clear();
        for (entry, number) in entries.iter().zip(self.records..) {
            let record = self.header.encode_record(number, entry);
            self.buf.extend_from_slice(&record);
        }
        let written =
            rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.file, &self.buf, self.good));
        match written {
            Ok(n) if n == self.buf.len() => {
                self.good += n as u64;
                self.records += entries.len() as u64;
                Ok(())
            }
            // What a short write left is overwritten by the next append, or cut when read back.
            Ok(_) => Err(io::ErrorKind::StorageFull.into()),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// How many records it has.
    pub(super) fn records(&self) -> u64 {
        self.records
    }
}

/// Reads the journal at `path`; none if its header is bad.
pub(super) fn read(path: &Path) -> io::Result<Option<Replay>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(decode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            generation: 7,
            database: 99,
            boot: *b"0123456789abcdef",
        }
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let n = any::<u32>;
        prop_oneof![
            (n(), n(), n()).prop_map(|(piece, first, count)| Change::Blocks {
                piece,
                first,
                count
            }),
            (n(), n()).prop_map(|(first, count)| Change::Verified { first, count }),
            (n(), n()).prop_map(|(first, count)| Change::Lost { first, count }),
        ]
        .prop_flat_map(move |change| {
            n().prop_map(move |id| Entry {
                torrent: ResumeId(id),
                change,
            })
        })
    }

    fn journal_bytes(entries: &[Entry]) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut journal = Journal::create(dir.path(), header()).expect("created");
        for entry in entries {
            journal.append(&[*entry]).expect("appended");
        }
        std::fs::read(journal.path()).expect("readable")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_journal_torn_at_any_byte_keeps_the_records_before(entries in prop::collection::vec(entry(), 0..8)) {
            let bytes = journal_bytes(&entries);
            for end in 0..=bytes.len() {
                match decode(&bytes[..end]) {
                    None => prop_assert!(end < HEADER_LEN),
                    Some(replay) => {
                        let whole = (end - HEADER_LEN) / RECORD_LEN;
                        prop_assert_eq!(&replay.entries[..], &entries[..whole]);
                        prop_assert_eq!(replay.cut, (end - HEADER_LEN) % RECORD_LEN);
                        prop_assert_eq!(replay.header, header());
                    }
                }
            }
        }

        #[test]
        fn a_changed_byte_cuts_the_journal_there(
            entries in prop::collection::vec(entry(), 1..8),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let mut bytes = journal_bytes(&entries);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            match decode(&bytes) {
                None => prop_assert!(at < HEADER_LEN),
                Some(replay) => {
                    let whole = (at - HEADER_LEN) / RECORD_LEN;
                    prop_assert_eq!(&replay.entries[..], &entries[..whole]);
                }
            }
        }

        #[test]
        fn moved_or_stale_records_do_not_pass(entries in prop::collection::vec(entry(), 2..6)) {
            prop_assume!(entries[0] != entries[1]);
            let mut bytes = journal_bytes(&entries);
            let (a, b) = bytes[HEADER_LEN..].split_at_mut(RECORD_LEN);
            a.swap_with_slice(&mut b[..RECORD_LEN]);
            prop_assert_eq!(decode(&bytes).map(|r| r.entries.len()), Some(0));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode(&bytes);
        }
    }

    #[test]
    fn file_names_tell_the_generation() {
        assert_eq!(generation_of(&file_name(0xabc)), Some(0xabc));
        for bad in ["resume-1.journal", "resume-.journal", "x", "resume.redb"] {
            assert_eq!(generation_of(bad), None);
        }
    }
}
