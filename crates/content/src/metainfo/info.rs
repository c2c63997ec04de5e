//! The info dictionary: what a torrent is, whoever tracks it.

use super::fault::{Fault, MetainfoError, fail};
use super::files::{RawFile, lay_out, read_v1};
use super::tree::{aligned, check_piece_len, join_hybrid, read_v2};
use crate::hashes::PieceHashes;
use crate::layout::Layout;
use crate::path::{Naming, SafePath, sanitise_component};
use crate::{Geometry, MAX_PIECE_LEN};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use shoal_base::bencode::{Dict, decode};
use shoal_base::{InfoHash, InfoHashV2};
use std::sync::Arc;

/// A parsed info dictionary, with its bytes as they were sent. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// The torrent's name, safe as a file name: of its one file or of its folder.
    pub name: String,
    /// Peers come from its trackers only (BEP 27).
    pub private: bool,
    /// Where the files lie.
    pub layout: Arc<Layout>,
    /// What the pieces must hash to.
    pub hashes: Arc<PieceHashes>,
    /// A private tag that only makes the info-hash differ between trackers.
    pub source: Option<String>,
    raw: Arc<[u8]>,
    id: Id,
}

/// The hashes of the dictionary that name the torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Id {
    V1(InfoHash),
    Hybrid(InfoHash, InfoHashV2),
    V2(InfoHashV2),
}

impl Info {
    /// Reads an info dictionary, as a `.torrent` file holds it and peers send it (BEP 9), with
    /// names changed as downloads need.
    pub fn parse(raw: &[u8]) -> Result<Self, MetainfoError> {
        Self::parse_named(raw, Naming::Download)
    }

    /// Reads an info dictionary, with names changed as `naming` says: [`Naming::Local`] finds
    /// files that were on this disk before.
    pub fn parse_named(raw: &[u8], naming: Naming) -> Result<Self, MetainfoError> {
        match decode(raw)?.as_dict() {
            Some(info) => Self::from_dict(info, naming),
            None => Err(MetainfoError::NotADictionary),
        }
    }

    /// The same torrent under other names.
    pub fn renamed(&self, naming: Naming) -> Result<Self, MetainfoError> {
        Self::parse_named(&self.raw, naming)
    }

    pub(super) fn from_dict(info: &Dict<'_>, naming: Naming) -> Result<Self, MetainfoError> {
        let raw = info.raw();
        let version = match info.get("meta version") {
            None => 1,
            Some(version) => version
                .as_int()
                .ok_or_else(|| fail("info.meta version", Fault::NotA("an integer")))?,
        };
        let has_v2 = match version {
            1 => false,
            2 => true,
            other => return Err(fail("info.meta version", Fault::Version(other))),
        };
        let has_v1 = !has_v2 || info.get("pieces").is_some();
        let v1 = || InfoHash(Sha1::digest(raw).into());
        let v2 = || InfoHashV2(Sha256::digest(raw).into());
        let id = match (has_v1, has_v2) {
            (true, true) => Id::Hybrid(v1(), v2()),
            (true, false) => Id::V1(v1()),
            (false, _) => Id::V2(v2()),
        };

        let piece_len = piece_len(info)?;
        if has_v2 {
            check_piece_len(piece_len)?;
        }
        let raw_name = raw_name(info)?;
        let name =
            sanitise_component(raw_name, naming).unwrap_or_else(|| id.v1_or_short().to_string());
        let root = SafePath::new(&name).map_err(|e| fail("info.name", e))?;

        let tree = match has_v2 {
            true => read_v2(info, &root, raw_name, naming)?,
            false => Vec::new(),
        };
        let files = if has_v1 {
            let mut files = read_v1(info, &root, naming)?;
            if has_v2 {
                join_hybrid(&mut files, &tree, piece_len)?;
            }
            files
        } else {
            aligned(tree, &root, piece_len)
        };

        let roots: Box<[_]> = files.iter().map(|f: &RawFile| f.root).collect();
        let layout = lay_out(files, piece_len, naming, |n| match has_v1 {
            true => format!("info.files[{n}]"),
            false => format!("info.file tree (file {n})"),
        })?;
        let hashes = match (has_v1, has_v2) {
            (true, false) => PieceHashes::V1(piece_hashes(info, layout.geometry())?),
            (true, true) => PieceHashes::Hybrid {
                v1: piece_hashes(info, layout.geometry())?,
                roots,
            },
            (false, _) => PieceHashes::V2 { roots },
        };
        Ok(Self {
            name,
            private: info.int("private").is_some_and(|flag| flag != 0),
            layout: Arc::new(layout),
            hashes: Arc::new(hashes),
            source: info.str("source").map(str::to_owned),
            raw: raw.into(),
            id,
        })
    }

    /// The dictionary's bytes: what the info-hash is taken over and peers are sent.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The bytes of [`Info::raw`], to share.
    pub fn raw_arc(&self) -> Arc<[u8]> {
        Arc::clone(&self.raw)
    }

    /// How the content is cut into pieces.
    pub fn geometry(&self) -> Geometry {
        self.layout.geometry()
    }

    /// The hash trackers and handshakes carry: v1 if there is one, else v2 cut to 20 bytes.
    pub fn info_hash(&self) -> InfoHash {
        self.id.v1_or_short()
    }

    /// SHA-1 of the dictionary; none for a v2-only torrent.
    pub fn info_hash_v1(&self) -> Option<InfoHash> {
        match self.id {
            Id::V1(v1) | Id::Hybrid(v1, _) => Some(v1),
            Id::V2(_) => None,
        }
    }

    /// SHA-256 of the dictionary; none for a v1-only torrent.
    pub fn info_hash_v2(&self) -> Option<InfoHashV2> {
        match self.id {
            Id::V1(_) => None,
            Id::Hybrid(_, v2) | Id::V2(v2) => Some(v2),
        }
    }

    /// Whether the content can be downloaded and checked, or why not.
    pub fn check_supported(&self) -> Result<(), MetainfoError> {
        match self.id {
            Id::V2(_) => Err(MetainfoError::V2Only),
            Id::V1(_) | Id::Hybrid(..) => Ok(()),
        }
    }
}

impl Id {
    fn v1_or_short(self) -> InfoHash {
        match self {
            Self::V1(v1) | Self::Hybrid(v1, _) => v1,
            Self::V2(v2) => v2.truncated(),
        }
    }
}

fn piece_len(info: &Dict<'_>) -> Result<u32, MetainfoError> {
    let key = "info.piece length";
    let len = info
        .get("piece length")
        .ok_or_else(|| fail(key, Fault::Missing))?
        .as_int()
        .ok_or_else(|| fail(key, Fault::NotA("an integer")))?;
    u32::try_from(len)
        .ok()
        .filter(|len| (1..=MAX_PIECE_LEN).contains(len))
        .ok_or_else(|| fail(key, Fault::PieceLength(len)))
}

fn raw_name<'a>(info: &Dict<'a>) -> Result<&'a [u8], MetainfoError> {
    if let Some(name) = info.str("name.utf-8").filter(|name| !name.is_empty()) {
        return Ok(name.as_bytes());
    }
    info.get("name")
        .ok_or_else(|| fail("info.name", Fault::Missing))?
        .as_bytes()
        .ok_or_else(|| fail("info.name", Fault::NotA("a string")))
}

fn piece_hashes(info: &Dict<'_>, geometry: Geometry) -> Result<Box<[[u8; 20]]>, MetainfoError> {
    let key = "info.pieces";
    let pieces = info
        .get("pieces")
        .ok_or_else(|| fail(key, Fault::Missing))?
        .as_bytes()
        .ok_or_else(|| fail(key, Fault::NotA("a string")))?;
    let need = geometry.pieces();
    let hashes =
        PieceHashes::cut_v1(pieces).ok_or_else(|| fail(key, Fault::CutHash(pieces.len())))?;
    if usize::try_from(need) == Ok(hashes.len()) {
        Ok(hashes)
    } else {
        let got = hashes.len();
        Err(fail(key, Fault::PieceCount { got, need }))
    }
}
