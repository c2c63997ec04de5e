//! The files of an info dictionary: the v1 list, and what v1 and v2 files have in common.

use super::fault::{Fault, MetainfoError, fail};
use crate::layout::{FileAttr, Layout};
use crate::names::Names;
use crate::path::{Naming, SafePath};
use shoal_base::bencode::{Dict, Value};

/// A file as it was read, before names are told apart.
#[derive(Debug)]
pub(crate) struct RawFile {
    pub(crate) path: SafePath,
    pub(crate) len: u64,
    pub(crate) attr: FileAttr,
    /// Merkle root (v2).
    pub(crate) root: Option<[u8; 32]>,
}

impl RawFile {
    /// A file without a merkle root.
    pub(crate) fn new(path: SafePath, len: u64, attr: FileAttr) -> Self {
        Self {
            path,
            len,
            attr,
            root: None,
        }
    }

    /// The padding after a file of `len` bytes that makes the next one start at a piece.
    pub(crate) fn padding_after(len: u64, root: &SafePath, piece_len: u32) -> Option<Self> {
        let over = len % u64::from(piece_len);
        let len = u64::from(piece_len) - over;
        let attr = FileAttr {
            pad: true,
            ..FileAttr::default()
        };
        (over > 0).then(|| Self::new(pad_path(root, len), len, attr))
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

/// The attributes of BEP 47. The target of a link is still as it was read.
pub(super) fn attributes(
    dict: &Dict<'_>,
    root: &SafePath,
    len: u64,
    naming: Naming,
    at: &str,
) -> Result<FileAttr, MetainfoError> {
    let flags = dict.bytes("attr").unwrap_or_default();
    let mut attr = FileAttr {
        pad: flags.contains(&b'p'),
        executable: flags.contains(&b'x'),
        hidden: flags.contains(&b'h'),
        symlink: None,
    };
    if flags.contains(&b'l') && !attr.pad {
        if len > 0 {
            return Err(fail(format_args!("{at}.length"), Fault::LinkLength(len)));
        }
        attr.symlink = Some(link_target(dict, root, naming, at)?);
    }
    Ok(attr)
}

fn link_target(
    dict: &Dict<'_>,
    root: &SafePath,
    naming: Naming,
    at: &str,
) -> Result<SafePath, MetainfoError> {
    let key = format!("{at}.symlink path");
    let parts = dict
        .get("symlink path")
        .ok_or_else(|| fail(&key, Fault::Missing))?
        .as_list()
        .ok_or_else(|| fail(&key, Fault::NotA("a list")))?;
    if parts.is_empty() {
        return Err(fail(&key, Fault::Empty));
    }
    let mut components = vec![root.as_str().as_bytes()];
    for part in parts {
        let part = part
            .as_bytes()
            .ok_or_else(|| fail(&key, Fault::NotA("a list of strings")))?;
        // What sanitising would leave out or join must not decide where a link leads.
        let leads_away = matches!(part, b"" | b"." | b"..") || part.contains(&b'/');
        if leads_away || (naming != Naming::Local && part.contains(&b'\\')) {
            return Err(fail(&key, Fault::LinkEscapes));
        }
        components.push(part);
    }
    let target = SafePath::sanitise(components.iter().copied(), naming);
    let target = target.map_err(|e| fail(&key, e))?;
    if target.components().count() == components.len() {
        Ok(target)
    } else {
        Err(fail(&key, Fault::LinkEscapes))
    }
}

/// The v1 list (`files`), or the one file (`length`).
pub(super) fn read_v1(
    info: &Dict<'_>,
    root: &SafePath,
    naming: Naming,
) -> Result<Vec<RawFile>, MetainfoError> {
    let Some(files) = info.get("files") else {
        let len = length(info, "info")?;
        let attr = FileAttr {
            executable: info.bytes("attr").is_some_and(|a| a.contains(&b'x')),
            hidden: info.bytes("attr").is_some_and(|a| a.contains(&b'h')),
            ..FileAttr::default()
        };
        return Ok(vec![RawFile::new(root.clone(), len, attr)]);
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
        let len = length(file, &at)?;
        let attr = attributes(file, root, len, naming, &at)?;
        let path = if attr.pad {
            pad_path(root, len)
        } else {
            path(file, root, naming, &at)?
        };
        Ok(RawFile::new(path, len, attr))
    };
    files.iter().enumerate().map(read).collect()
}

/// Padding is never stored, so its name is ours to choose; this is BEP 47's.
pub(super) fn pad_path(root: &SafePath, len: u64) -> SafePath {
    let below = format!("{}/.pad/{len}", root.as_str());
    SafePath::new(&below).unwrap_or_else(|_| root.clone())
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
        if !file.attr.pad {
            file.path = paths.next().unwrap_or(file.path);
        }
        if let Some(target) = file.attr.symlink.take() {
            let through = |_| {
                fail(
                    format_args!("{}.symlink path", key(n)),
                    Fault::LinkThroughFile,
                )
            };
            file.attr.symlink = Some(names.resolve(&target).map_err(through)?);
        }
        entries.push((file.path, file.len, file.attr));
    }
    Ok(Layout::new(entries, piece_len)?)
}
