//! Making torrents, without touching the files.
//!
//! A [`Plan`] says in which order the files lie and how long the pieces are; whoever can read
//! files hashes [`Plan::layout`] piece by piece and hands the hashes to [`Plan::finish`]. The same
//! files give the same info-hash on every machine. v1 (BEP 3, 27, 47); trackers, web seeds and
//! dates are fields of the [`crate::Metainfo`] made of the result.

use crate::layout::{FileAttr, Layout};
use crate::metainfo::{Info, Link, MAX_PIECE_LEN, MetainfoError, RawFile, lay_out};
use crate::path::{Naming, PathError, SafePath, sanitise_component};
use shoal_base::bencode::Encoder;
use std::sync::Arc;

/// The shortest piece made: one block. Other clients refuse shorter ones.
pub const MIN_PIECE_LEN: u32 = 16 * 1024;

/// How many pieces a content is cut into at most before they grow: 40 KiB of hashes.
const WANTED_PIECES: u64 = 2048;

/// Pieces do not grow beyond this by themselves, so that a peer soon has something to offer.
const MAX_AUTOMATIC_PIECE_LEN: u32 = 16 << 20;

/// A file to be part of a torrent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewFile {
    /// The components of its path below the torrent's folder.
    pub path: Vec<String>,
    /// Length in bytes; zero for a link.
    pub len: u64,
    /// Marked executable.
    pub executable: bool,
    /// Hidden, where a system has that.
    pub hidden: bool,
    /// A symbolic link to this path, also below the torrent's folder.
    pub symlink: Option<Vec<String>>,
}

/// How a torrent is made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CreateOptions {
    /// Bytes in a piece, a power of two; chosen by [`piece_len_for`] if none.
    pub piece_len: Option<u32>,
    /// Peers come from its trackers only (BEP 27).
    pub private: bool,
    /// Every file starts at a piece (BEP 47), so that single files can be checked and shared
    /// between torrents.
    pub align: bool,
    /// A tag that makes the info-hash another one.
    pub source: Option<String>,
}

/// Why files make no torrent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// Nothing to share.
    #[error("no files")]
    NoFiles,
    /// Other clients refuse a torrent without pieces.
    #[error("all files are empty")]
    NoBytes,
    /// The torrent's name is not a file name.
    #[error("{0:?} cannot be the name of a torrent")]
    Name(String),
    /// A path that others could not store.
    #[error("{path:?}: {fault}")]
    Path {
        /// The components joined by `/`.
        path: String,
        /// What is wrong.
        fault: PathError,
    },
    /// A path that is there twice, or of a file and of a folder.
    #[error("{0}: there is another file of this name")]
    Collision(SafePath),
    /// A link that has bytes.
    #[error("{0}: a symbolic link has no bytes of its own")]
    LinkLength(SafePath),
    /// A link to nothing in the torrent, which others would read as one to something else.
    #[error("{0}: the symbolic link leads to nothing in the torrent")]
    Dangling(SafePath),
    /// A piece length we do not make.
    #[error("a piece length of {0} bytes; it must be a power of two from 16 KiB to 256 MiB")]
    PieceLength(u32),
    /// Hashes for another number of pieces.
    #[error("{got} hashes for {need} pieces")]
    PieceCount {
        /// Hashes handed in.
        got: usize,
        /// Pieces there are.
        need: u32,
    },
    /// The files do not make a sound torrent.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
}

/// A torrent that lacks only its hashes.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    single: bool,
    options: CreateOptions,
    layout: Arc<Layout>,
}

/// The length of a piece for `total_len` bytes: a power of two from 16 KiB to 16 MiB that makes
/// at most 2048 pieces, as far as that goes.
pub fn piece_len_for(total_len: u64) -> u32 {
    let mut len = MIN_PIECE_LEN;
    while len < MAX_AUTOMATIC_PIECE_LEN && total_len.div_ceil(u64::from(len)) > WANTED_PIECES {
        len *= 2;
    }
    len
}

impl Plan {
    /// A torrent of one file.
    pub fn file(
        name: &str,
        len: u64,
        executable: bool,
        options: CreateOptions,
    ) -> Result<Self, CreateError> {
        let path = root(name)?;
        let attr = FileAttr {
            executable,
            ..FileAttr::default()
        };
        let files = vec![RawFile::new(path, len, attr)];
        Self::of(name, true, files, options)
    }

    /// A torrent of a folder. The files may come in any order; they are put into that of their
    /// paths' bytes, component by component.
    pub fn folder(
        name: &str,
        mut files: Vec<NewFile>,
        options: CreateOptions,
    ) -> Result<Self, CreateError> {
        let root = root(name)?;
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let below = |parts: &[String]| {
            let path = parts.join("/");
            // A separator inside a component would make it two.
            let whole = parts.iter().all(|p| !p.contains('/'));
            let made = if whole {
                SafePath::new(&path).and_then(|p| root.join(&p))
            } else {
                Err(PathError::Unsafe)
            };
            made.map_err(|fault| CreateError::Path { path, fault })
        };
        let mut raw = Vec::with_capacity(files.len());
        let mut targets = Vec::new();
        for file in files {
            let path = below(&file.path)?;
            let target = file.symlink.as_deref().map(below).transpose()?;
            if target.is_some() && file.len > 0 {
                return Err(CreateError::LinkLength(path));
            }
            let attr = FileAttr {
                executable: file.executable && target.is_none(),
                hidden: file.hidden,
                ..FileAttr::default()
            };
            let mut file = RawFile::new(path, file.len, attr);
            file.link = target.as_ref().map(Link::to);
            raw.push(file);
            targets.extend(target);
        }
        let plan = Self::of(name, false, raw, options)?;
        let links = plan.layout.files().iter();
        let links = links.filter_map(|f| Some((f, f.attr.symlink.as_ref()?)));
        for ((link, leads_to), wanted) in links.zip(&targets) {
            if leads_to != wanted {
                return Err(CreateError::Dangling(link.path.clone()));
            }
        }
        Ok(plan)
    }

    fn of(
        name: &str,
        single: bool,
        files: Vec<RawFile>,
        options: CreateOptions,
    ) -> Result<Self, CreateError> {
        if files.is_empty() {
            return Err(CreateError::NoFiles);
        }
        let total = files.iter().fold(0_u64, |sum, f| sum.saturating_add(f.len));
        if total == 0 {
            return Err(CreateError::NoBytes);
        }
        let piece_len = options.piece_len.unwrap_or_else(|| piece_len_for(total));
        if !piece_len.is_power_of_two() || !(MIN_PIECE_LEN..=MAX_PIECE_LEN).contains(&piece_len) {
            return Err(CreateError::PieceLength(piece_len));
        }
        let files = match options.align {
            true => crate::metainfo::aligned(files, &root(name)?, piece_len),
            false => files,
        };
        let paths: Vec<_> = files.iter().map(|f| f.path.clone()).collect();
        let shown = |n: usize| paths.get(n).map(SafePath::to_string).unwrap_or_default();
        let layout = lay_out(files, piece_len, Naming::Local, shown)?;
        let made = layout.files().iter().map(|f| &f.path);
        if let Some((_, wanted)) = made.zip(&paths).find(|(made, wanted)| made != wanted) {
            return Err(CreateError::Collision(wanted.clone()));
        }
        Ok(Self {
            name: name.to_owned(),
            single,
            options,
            layout: Arc::new(layout),
        })
    }

    /// The files and pieces to hash. Paths are as they are on this disk, below the folder that
    /// holds the torrent's file or folder; padding reads as zeros.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The torrent, given SHA-1 of every piece in order.
    pub fn finish(&self, hashes: &[[u8; 20]]) -> Result<Info, CreateError> {
        let need = self.layout.geometry().pieces();
        if usize::try_from(need) != Ok(hashes.len()) {
            let got = hashes.len();
            return Err(CreateError::PieceCount { got, need });
        }
        let mut out = Encoder::new();
        out.dict(|d| self.encode(d, hashes));
        Ok(Info::parse_named(&out.into_bytes(), Naming::Local)?)
    }

    fn encode(&self, d: &mut Encoder, hashes: &[[u8; 20]]) {
        if self.single {
            for file in self.layout.files() {
                encode_attr(d, &file.attr);
                d.key("length").int(file.len.cast_signed());
            }
        } else {
            d.key("files").list(|list| {
                for file in self.layout.files() {
                    list.dict(|f| {
                        encode_attr(f, &file.attr);
                        f.key("length").int(file.len.cast_signed());
                        encode_path(f, "path", &file.path);
                        if let Some(target) = &file.attr.symlink {
                            encode_path(f, "symlink path", target);
                        }
                    });
                }
            });
        }
        d.key("name").bytes(&self.name);
        let piece_len = self.layout.geometry().piece_len();
        d.key("piece length").int(i64::from(piece_len));
        d.key("pieces").bytes(hashes.as_flattened());
        if self.options.private {
            d.key("private").int(1);
        }
        if let Some(source) = &self.options.source {
            d.key("source").bytes(source);
        }
    }
}

fn root(name: &str) -> Result<SafePath, CreateError> {
    let kept = sanitise_component(name.as_bytes(), Naming::Local).filter(|clean| clean == name);
    kept.and_then(|name| SafePath::new(&name).ok())
        .ok_or_else(|| CreateError::Name(name.to_owned()))
}

fn encode_attr(d: &mut Encoder, attr: &FileAttr) {
    let flags = [
        (attr.hidden, 'h'),
        (attr.symlink.is_some(), 'l'),
        (attr.pad, 'p'),
        (attr.executable, 'x'),
    ];
    let set = flags.iter().filter(|(set, _)| *set);
    let text: String = set.map(|(_, flag)| flag).collect();
    if !text.is_empty() {
        d.key("attr").bytes(text);
    }
}

/// Writes `path` without the torrent's name.
fn encode_path(d: &mut Encoder, key: &str, path: &SafePath) {
    d.key(key).list(|parts| {
        for part in path.components().skip(1) {
            parts.bytes(part);
        }
    });
}

#[cfg(test)]
mod tests;
