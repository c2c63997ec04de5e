//! The files of an info dictionary: the v1 list, and what v1 and v2 files have in common.

use super::fault::{Fault, MetainfoError, fail};
use super::link::Link;
use crate::layout::{FileAttr, Layout};
use crate::names::Names;
use crate::path::{Naming, SafePath};
use shoal_base::bencode::{Dict, Value};

/// A file as it was read, before names are told apart.
#[derive(Debug)]
pub(crate) struct RawFile {
    pub(crate) path: SafePath,
    pub(crate) len: u64,
    /// Without the link.
    pub(crate) attr: FileAttr,
    pub(crate) link: Option<Link>,
    /// Merkle root (v2).
    pub(crate) root: Option<[u8; 32]>,
}

impl RawFile {
    /// A file without a link and a merkle root.
    pub(crate) fn new(path: SafePath, len: u64, attr: FileAttr) -> Self {
        Self {
            path,
            len,
            attr,
            link: None,
            root: None,
        }
    }

    /// Reads what v1 and v2 files have in common; `at` is where `dict` was found.
    pub(super) fn read(
        dict: &Dict<'_>,
        path: SafePath,
        naming: Naming,
        at: &str,
    ) -> Result<Self, MetainfoError> {
        let flags = dict.bytes("attr").unwrap_or_default();
        let linked = flags.contains(&b'l');
        // libtorrent leaves out the length of a link in a file tree.
        let len = match dict.get("length") {
            None if linked => 0,
            _ => length(dict, at)?,
        };
        if linked && len > 0 {
            return Err(fail(format_args!("{at}.length"), Fault::LinkLength(len)));
        }
        let attr = FileAttr {
            pad: false,
            executable: flags.contains(&b'x') && !linked,
            hidden: flags.contains(&b'h'),
            symlink: None,
        };
        let mut file = Self::new(path, len, attr);
        if linked {
            file.link = Some(Link::read(dict, naming, at)?);
        }
        Ok(file)
    }

    /// Padding of `len` bytes. It is never stored, so its name is ours to choose; this is BEP 47's.
    pub(super) fn padding(len: u64, root: &SafePath) -> Self {
        let path = SafePath::new(&format!("{}/.pad/{len}", root.as_str()));
        let attr = FileAttr {
            pad: true,
            ..FileAttr::default()
        };
        Self::new(path.unwrap_or_else(|_| root.clone()), len, attr)
    }
}

/// A length in bytes.
pub(super) fn length(dict: &Dict<'_>, at: &str) -> Result<u64, MetainfoError> {
    let key = || format!("{at}.length");
    let value = dict
        .get("length")
        .ok_or_else(|| fail(key(), Fault::Missing))?;
    let len = value
        .as_int()
        .ok_or_else(|| fail(key(), Fault::NotA("an integer")))?;
    u64::try_from(len).map_err(|_| fail(key(), Fault::Negative(len)))
}

/// The v1 list (`files`), or the one file (`length`).
pub(super) fn read_v1(
    info: &Dict<'_>,
    root: &SafePath,
    naming: Naming,
) -> Result<Vec<RawFile>, MetainfoError> {
    let Some(files) = info.get("files") else {
        return Ok(vec![RawFile::read(info, root.clone(), naming, "info")?]);
    };
    let files = files
        .as_list()
        .ok_or_else(|| fail("info.files", Fault::NotA("a list")))?;
    if files.is_empty() {
        return Err(fail("info.files", Fault::Empty));
    }
    let read = |(n, file): (usize, &Value<'_>)| {
        let at = format!("info.files[{n}]");
        let file = file
            .as_dict()
            .ok_or_else(|| fail(&at, Fault::NotA("a dictionary")))?;
        if file.bytes("attr").is_some_and(|attr| attr.contains(&b'p')) {
            return Ok(RawFile::padding(length(file, &at)?, root));
        }
        RawFile::read(file, path(file, root, naming, &at)?, naming, &at)
    };
    files.iter().enumerate().map(read).collect()
}

fn path(
    file: &Dict<'_>,
    root: &SafePath,
    naming: Naming,
    at: &str,
) -> Result<SafePath, MetainfoError> {
    let parts = match file.list("path.utf-8") {
        Some(parts) if !parts.is_empty() && parts.iter().all(|p| p.as_str().is_some()) => parts,
        _ => {
            let key = || format!("{at}.path");
            let path = file
                .get("path")
                .ok_or_else(|| fail(key(), Fault::Missing))?;
            path.as_list()
                .ok_or_else(|| fail(key(), Fault::NotA("a list")))?
        }
    };
    let mut bytes = Vec::with_capacity(parts.len());
    for (n, part) in parts.iter().enumerate() {
        let part = part.as_bytes();
        bytes.push(
            part.ok_or_else(|| fail(format_args!("{at}.path[{n}]"), Fault::NotA("a string")))?,
        );
    }
    below(root, &bytes, naming).map_err(|fault| fail(format_args!("{at}.path"), fault))
}

/// A path of a stranger's components below the torrent's folder, at least one level.
pub(super) fn below(root: &SafePath, parts: &[&[u8]], naming: Naming) -> Result<SafePath, Fault> {
    let path = SafePath::sanitise(parts.iter().copied(), naming)?;
    Ok(root.join(&path)?)
}

/// Tells the files apart, follows the links and lays everything out. `key` names the field of a
/// file for an error.
pub(crate) fn lay_out(
    files: Vec<RawFile>,
    piece_len: u32,
    naming: Naming,
    key: impl Fn(usize) -> String,
) -> Result<Layout, MetainfoError> {
    let mut paths: Vec<SafePath> = files
        .iter()
        .filter(|f| !f.attr.pad)
        .map(|f| f.path.clone())
        .collect();
    let names = Names::tell_apart(&mut paths, naming);
    let mut paths = paths.into_iter();
    let mut entries = Vec::with_capacity(files.len());
    for (n, mut file) in files.into_iter().enumerate() {
        if let Some(link) = &file.link {
            let target = link.resolve(&file.path, &names);
            let wrong = |fault| fail(format_args!("{}.symlink path", key(n)), fault);
            file.attr.symlink = Some(target.map_err(wrong)?);
        }
        if !file.attr.pad {
            file.path = paths.next().unwrap_or(file.path);
        }
        entries.push((file.path, file.len, file.attr));
    }
    Ok(Layout::new(entries, piece_len)?)
}
