//! Where the symbolic links of a torrent lead (BEP 47).
//!
//! The specification counts `symlink path` from the torrent's folder; libtorrent writes it as the
//! link itself has it, from the link's folder and with `..`. As libtorrent does, the first reading
//! that leads to something in the torrent is taken. No reading may leave the torrent's folder or
//! go through another link, so that nothing can be written or read outside.

use super::fault::{Fault, MetainfoError, fail};
use crate::names::{Names, Place};
use crate::path::{Naming, SafePath, sanitise_component};
use shoal_base::bencode::Dict;

/// A link as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link(Vec<Step>);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Up,
    Down(String),
}

impl Link {
    /// Reads the target of the link that `dict`, found at `at`, describes.
    pub(super) fn read(dict: &Dict<'_>, naming: Naming, at: &str) -> Result<Self, MetainfoError> {
        let key = || format!("{at}.symlink path");
        let parts = dict
            .get("symlink path")
            .ok_or_else(|| fail(key(), Fault::Missing))?
            .as_list()
            .ok_or_else(|| fail(key(), Fault::NotA("a list")))?;
        if parts.is_empty() {
            return Err(fail(key(), Fault::Empty));
        }
        let mut steps = Vec::with_capacity(parts.len());
        for part in parts {
            let part = part
                .as_bytes()
                .ok_or_else(|| fail(key(), Fault::NotA("a list of strings")))?;
            // An empty first part is the root of the file system.
            let absolute = part.is_empty() || part.contains(&b'/');
            if absolute || (naming != Naming::Local && part.contains(&b'\\')) {
                return Err(fail(key(), Fault::LinkEscapes));
            }
            match part {
                b"." => {}
                b".." => steps.push(Step::Up),
                name => {
                    let name = sanitise_component(name, naming);
                    let name = name.ok_or_else(|| fail(key(), Fault::LinkEscapes))?;
                    steps.push(Step::Down(name));
                }
            }
        }
        Ok(Self(steps))
    }

    /// A link to `target`, a path below the torrent's folder.
    pub(crate) fn to(target: &SafePath) -> Self {
        let steps = target.components().skip(1);
        Self(steps.map(|name| Step::Down(name.to_owned())).collect())
    }

    /// Where the link at `from` leads; paths begin with the torrent's name and are those before
    /// renaming.
    pub(super) fn resolve(&self, from: &SafePath, names: &Names) -> Result<SafePath, Fault> {
        let from: Vec<&str> = from.components().collect();
        let root = from.get(..1).unwrap_or_default();
        let folder = from.get(..from.len().saturating_sub(1)).unwrap_or_default();
        let from_folder = self.walk(folder)?;
        let dangling = if self.0.contains(&Step::Up) {
            from_folder
        } else {
            let from_root = self.walk(root)?;
            if names.place(&from_root) == Place::Taken {
                return Ok(names.current(&from_root));
            }
            if names.place(&from_folder) == Place::Taken {
                return Ok(names.current(&from_folder));
            }
            from_root
        };
        match names.place(&dangling) {
            Place::ThroughFile => Err(Fault::LinkThroughFile),
            Place::Taken | Place::Free => Ok(names.current(&dangling)),
        }
    }

    fn walk(&self, start: &[&str]) -> Result<SafePath, Fault> {
        let mut at = start.to_vec();
        for step in &self.0 {
            match step {
                Step::Down(name) => at.push(name),
                Step::Up if at.len() > 1 => {
                    at.pop();
                }
                Step::Up => return Err(Fault::LinkEscapes),
            }
        }
        Ok(SafePath::new(&at.join("/"))?)
    }
}
