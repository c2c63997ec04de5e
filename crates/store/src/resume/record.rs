//! What the database keeps of a torrent, and its bytes: a version, a check, and a bencoded
//! dictionary, so that later versions can add keys.
//!
//! The info dictionary is kept apart: it is large, never changes, and is not needed to list.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use sha1::{Digest, Sha1};
use shoal_base::bencode::{self, Dict, Encoder};
use shoal_base::{Bitfield, InfoHash};
use shoal_content::{Geometry, PieceIndex};

use super::ResumeId;
use super::journal::{BootId, Change};
use crate::files::FileStamp;

const VERSION: u8 = 1;
/// Pieces a record may have: bounds what a damaged one can make us allocate.
const MAX_PIECES: u32 = 1 << 25;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a version of the program that this one does not know, or no record at all.
    #[error("unknown version of a resume record")]
    Version,
    /// The bytes do not match their check.
    #[error("damaged resume record: the check does not match")]
    Check,
    /// A field is missing or makes no sense.
    #[error("damaged resume record: field {0:?}")]
    Field(&'static str),
}

/// What the user asked for: known from the start, changed by commands only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TorrentSettings {
    /// Name to show until the metadata is there.
    pub name: String,
    /// The download folder.
    pub dir: PathBuf,
    /// Trackers in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// The files wanted, by number; none: all.
    pub wanted_files: Option<Vec<u32>>,
    /// Whether the user paused it.
    pub paused: bool,
}

/// All that is kept of a torrent but its info dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: ResumeId,
    pub(super) info_hash: InfoHash,
    pub(super) settings: TorrentSettings,
    /// None until the metadata is known.
    pub(super) geometry: Option<Geometry>,
    pub(super) have: Bitfield,
    /// Verified in this boot and not known to be durable; a subset of `have`.
    pub(super) soft: Bitfield,
    /// To be checked before they are believed; none of `have`.
    pub(super) recheck: Bitfield,
    /// Pieces of which some blocks are on disk, rising; none of `have`.
    pub(super) partial: Vec<(PieceIndex, Bitfield)>,
    pub(super) boot: BootId,
    pub(super) uploaded: u64,
    pub(super) downloaded: u64,
    pub(super) finished: bool,
    /// What the files looked like at a clean stop, in the layout's order; none after any change
    /// since.
    pub(super) stamps: Option<Vec<Option<FileStamp>>>,
}

impl Record {
    /// A torrent of which nothing is there yet.
    pub(super) fn new(
        id: ResumeId,
        info_hash: InfoHash,
        settings: TorrentSettings,
        geometry: Option<Geometry>,
        boot: BootId,
    ) -> Self {
        let pieces = geometry.map_or(0, |g| g.pieces());
        Self {
            id,
            info_hash,
            settings,
            geometry,
            have: Bitfield::new(pieces),
            soft: Bitfield::new(pieces),
            recheck: Bitfield::new(pieces),
            partial: Vec::new(),
            boot,
            uploaded: 0,
            downloaded: 0,
            finished: false,
            stamps: None,
        }
    }

    /// Takes the metadata in: how many pieces there are.
    pub(super) fn set_geometry(&mut self, geometry: Geometry) {
        if self.geometry == Some(geometry) {
            return;
        }
        let pieces = geometry.pieces();
        self.geometry = Some(geometry);
        self.have = Bitfield::new(pieces);
        self.soft = Bitfield::new(pieces);
        self.recheck = Bitfield::new(pieces);
        self.partial.clear();
        self.stamps = None;
    }

    /// Believes only what is durable if the machine was started anew since.
    pub(super) fn settle(&mut self, boot: &BootId) {
        if self.boot == *boot {
            return;
        }
        for piece in self.soft.iter() {
            self.have.clear(piece);
            self.recheck.set(piece);
        }
        self.soft = Bitfield::new(self.have.len());
        self.partial.clear();
        self.boot = *boot;
    }

    /// Takes a change in that is in the page cache at least.
    pub(super) fn apply(&mut self, change: Change) {
        self.stamps = None;
        match change {
            Change::Blocks {
                piece,
                first,
                count,
            } => {
                let Some(geometry) = self.geometry else {
                    return;
                };
                let blocks = geometry.blocks(piece);
                if blocks == 0 || self.have.get(piece) {
                    return;
                }
                let at = match self.partial.binary_search_by_key(&piece, |(p, _)| *p) {
                    Ok(at) => at,
                    Err(at) => {
                        self.partial.insert(at, (piece, Bitfield::new(blocks)));
                        at
                    }
                };
                if let Some((_, bits)) = self.partial.get_mut(at) {
                    for n in first.min(blocks)..first.saturating_add(count).min(blocks) {
                        bits.set(n);
                    }
                }
            }
            Change::Verified { first, count } => {
                for piece in self.clamp(first, count) {
                    self.have.set(piece);
                    self.soft.set(piece);
                    self.recheck.clear(piece);
                    self.forget_partial(piece);
                }
            }
            Change::Lost { first, count } => {
                for piece in self.clamp(first, count) {
                    self.have.clear(piece);
                    self.soft.clear(piece);
                    self.recheck.clear(piece);
                    self.forget_partial(piece);
                }
            }
        }
    }

    /// Takes in a change of another boot: what was verified then is worth a check, no more.
    pub(super) fn apply_doubtful(&mut self, change: Change) {
        self.stamps = None;
        match change {
            Change::Blocks { .. } => {}
            Change::Verified { first, count } => {
                for piece in self.clamp(first, count) {
                    self.set_doubtful(piece);
                }
            }
            Change::Lost { .. } => self.apply(change),
        }
    }

    /// Wants `piece` checked before it is believed again.
    pub(super) fn set_doubtful(&mut self, piece: PieceIndex) {
        self.have.clear(piece);
        self.soft.clear(piece);
        self.recheck.set(piece);
        self.forget_partial(piece);
    }

    fn clamp(&self, first: PieceIndex, count: u32) -> std::ops::Range<PieceIndex> {
        let pieces = self.have.len();
        first.min(pieces)..first.saturating_add(count).min(pieces)
    }

    fn forget_partial(&mut self, piece: PieceIndex) {
        if let Ok(at) = self.partial.binary_search_by_key(&piece, |(p, _)| *p) {
            self.partial.remove(at);
        }
    }

    // ---- bytes ----

    /// The record's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut e = Encoder::new();
        e.dict(|e| {
            e.key("added").int(int(self.settings.added));
            e.key("boot").bytes(self.boot);
            e.key("dir").bytes(self.settings.dir.as_os_str().as_bytes());
            e.key("downloaded").int(int(self.downloaded));
            if let Some(stamps) = &self.stamps {
                e.key("files").bytes(encode_stamps(stamps));
            }
            e.key("finished").int(i64::from(self.finished));
            e.key("hash").bytes(self.info_hash.0);
            e.key("have").bytes(encode_bits(&self.have));
            e.key("id").int(i64::from(self.id.0));
            e.key("name").bytes(&self.settings.name);
            if !self.partial.is_empty() {
                e.key("partial").list(|e| {
                    for (piece, bits) in &self.partial {
                        e.int(i64::from(*piece));
                        e.bytes(bits.as_bytes());
                    }
                });
            }
            e.key("paused").int(i64::from(self.settings.paused));
            if let Some(g) = self.geometry {
                e.key("piece length").int(i64::from(g.piece_len()));
            }
            e.key("recheck").bytes(encode_bits(&self.recheck));
            e.key("soft").bytes(encode_bits(&self.soft));
            if let Some(g) = self.geometry {
                e.key("total").int(int(g.total_len()));
            }
            e.key("trackers").list(|e| {
                for tier in &self.settings.trackers {
                    e.list(|e| tier.iter().for_each(|url| e.bytes(url)));
                }
            });
            e.key("uploaded").int(int(self.uploaded));
            if let Some(wanted) = &self.settings.wanted_files {
                e.key("wanted")
                    .list(|e| wanted.iter().for_each(|n| e.int(i64::from(*n))));
            }
            e.key("web seeds")
                .list(|e| self.settings.web_seeds.iter().for_each(|url| e.bytes(url)));
        });
        let body = e.into_bytes();
        let mut out = Vec::with_capacity(9 + body.len());
        out.push(VERSION);
        out.extend_from_slice(&Sha1::digest(&body)[..8]);
        out.extend_from_slice(&body);
        out
    }

    /// Reads a record's bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let [VERSION, rest @ ..] = bytes else {
            return Err(RecordError::Version);
        };
        let (check, body) = rest.split_at_checked(8).ok_or(RecordError::Check)?;
        if Sha1::digest(body)[..8] != *check {
            return Err(RecordError::Check);
        }
        Self::decode_unchecked(body)
    }

    /// Reads a record's dictionary alone.
    pub(super) fn decode_unchecked(body: &[u8]) -> Result<Self, RecordError> {
        let value = bencode::decode(body).map_err(|_| RecordError::Field("dictionary"))?;
        Self::from_dict(value.as_dict().ok_or(RecordError::Field("dictionary"))?)
    }

    fn from_dict(d: &Dict<'_>) -> Result<Self, RecordError> {
        let number = |key: &'static str| {
            let n = d.int(key).and_then(|n| u64::try_from(n).ok());
            n.ok_or(RecordError::Field(key))
        };
        let text = |key: &'static str| {
            let s = d.str(key).ok_or(RecordError::Field(key))?;
            Ok(s.to_owned())
        };
        let geometry = match (d.int("total"), d.int("piece length")) {
            (None, None) => None,
            (Some(total), Some(piece_len)) => {
                let bad = RecordError::Field("piece length");
                let (Ok(total), Ok(piece_len)) = (u64::try_from(total), u32::try_from(piece_len))
                else {
                    return Err(bad);
                };
                let geometry = Geometry::new(total, piece_len);
                Some(geometry.filter(|g| g.pieces() <= MAX_PIECES).ok_or(bad)?)
            }
            _ => return Err(RecordError::Field("total")),
        };
        let pieces = geometry.map_or(0, |g| g.pieces());
        let bits = |key: &'static str| {
            let bytes = d.bytes(key).ok_or(RecordError::Field(key))?;
            decode_bits(bytes, pieces).ok_or(RecordError::Field(key))
        };
        let have = bits("have")?;
        let (soft, recheck) = (bits("soft")?, bits("recheck")?);
        if soft.has_any_not_in(&have) || recheck.iter().any(|p| have.get(p)) {
            return Err(RecordError::Field("soft"));
        }
        let stamps = match d.get("files") {
            None => None,
            Some(v) => {
                let stamps = v.as_bytes().and_then(decode_stamps);
                Some(stamps.ok_or(RecordError::Field("files"))?)
            }
        };
        Ok(Self {
            id: ResumeId(u32::try_from(number("id")?).map_err(|_| RecordError::Field("id"))?),
            info_hash: InfoHash(array(d, "hash")?),
            settings: TorrentSettings {
                name: text("name")?,
                dir: PathBuf::from(OsStr::from_bytes(
                    d.bytes("dir").ok_or(RecordError::Field("dir"))?,
                )),
                trackers: decode_tiers(d).ok_or(RecordError::Field("trackers"))?,
                web_seeds: decode_urls(d).ok_or(RecordError::Field("web seeds"))?,
                added: number("added")?,
                wanted_files: match d.get("wanted") {
                    None => None,
                    Some(_) => Some(decode_wanted(d).ok_or(RecordError::Field("wanted"))?),
                },
                paused: number("paused")? != 0,
            },
            partial: decode_partial(d, geometry, &have).ok_or(RecordError::Field("partial"))?,
            geometry,
            have,
            soft,
            recheck,
            boot: array(d, "boot")?,
            uploaded: number("uploaded")?,
            downloaded: number("downloaded")?,
            finished: number("finished")? != 0,
            stamps,
        })
    }
}

fn array<const N: usize>(d: &Dict<'_>, key: &'static str) -> Result<[u8; N], RecordError> {
    let bytes = d.bytes(key).and_then(|b| b.try_into().ok());
    bytes.ok_or(RecordError::Field(key))
}

fn decode_tiers(d: &Dict<'_>) -> Option<Vec<Vec<String>>> {
    let tiers = d.list("trackers")?.iter();
    let urls = |tier: &[bencode::Value<'_>]| {
        let urls = tier.iter().map(|url| url.as_str().map(str::to_owned));
        urls.collect::<Option<Vec<_>>>()
    };
    tiers.map(|tier| urls(tier.as_list()?)).collect()
}

fn decode_urls(d: &Dict<'_>) -> Option<Vec<String>> {
    let urls = d.list("web seeds")?.iter();
    urls.map(|url| url.as_str().map(str::to_owned)).collect()
}

fn decode_wanted(d: &Dict<'_>) -> Option<Vec<u32>> {
    let wanted = d.list("wanted")?.iter();
    wanted
        .map(|n| n.as_int().and_then(|n| u32::try_from(n).ok()))
        .collect()
}

fn decode_partial(
    d: &Dict<'_>,
    geometry: Option<Geometry>,
    have: &Bitfield,
) -> Option<Vec<(PieceIndex, Bitfield)>> {
    if d.get("partial").is_none() {
        return Some(Vec::new());
    }
    let (items, rest) = d.list("partial")?.as_chunks::<2>();
    let mut out: Vec<(PieceIndex, Bitfield)> = Vec::new();
    for [piece, bits] in items {
        let piece = u32::try_from(piece.as_int()?).ok()?;
        let blocks = geometry?.blocks(piece);
        let rises = out.last().is_none_or(|(last, _)| *last < piece);
        if blocks == 0 || !rises || have.get(piece) {
            return None;
        }
        out.push((piece, Bitfield::from_bytes(bits.as_bytes()?, blocks)?));
    }
    rest.is_empty().then_some(out)
}

/// `0`: none set; `1`: all set; `2` and the bits otherwise.
fn encode_bits(bits: &Bitfield) -> Vec<u8> {
    if bits.count() == 0 {
        vec![0]
    } else if bits.is_full() {
        vec![1]
    } else {
        [&[2], bits.as_bytes()].concat()
    }
}

fn decode_bits(bytes: &[u8], len: u32) -> Option<Bitfield> {
    match bytes {
        [0] => Some(Bitfield::new(len)),
        [1] => Some(Bitfield::full(len)),
        [2, bits @ ..] => Bitfield::from_bytes(bits, len),
        _ => None,
    }
}

/// 16 bytes a file: length, time; all ones for a file that is not there.
fn encode_stamps(stamps: &[Option<FileStamp>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stamps.len() * 16);
    for stamp in stamps {
        let (len, mtime) = stamp.map_or((u64::MAX, -1), |s| (s.len, s.mtime_ns));
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&mtime.to_be_bytes());
    }
    out
}

fn decode_stamps(bytes: &[u8]) -> Option<Vec<Option<FileStamp>>> {
    let (chunks, rest) = bytes.as_chunks::<16>();
    let stamp = |chunk: &[u8; 16]| {
        let n = u128::from_be_bytes(*chunk);
        (n != u128::MAX).then_some(FileStamp {
            len: (n >> 64) as u64,
            mtime_ns: n as u64 as i64,
        })
    };
    rest.is_empty().then(|| chunks.iter().map(stamp).collect())
}
