//! Where `share` and `fetch` keep what they need to go on later.
//!
//! Each download has a folder of its own, named by info-hash and download folder: so processes at
//! the same time never clash, and the same command finds its state again.

use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use shoal_base::InfoHash;
use shoal_base::id::to_hex;

/// The folder for all state: the flag or its environment variable if given, else
/// `$XDG_STATE_HOME/shoal`, else `~/.local/state/shoal`; with no home at all, `.shoal` in `dir`.
pub(crate) fn base(flag: Option<&Path>, dir: &Path) -> PathBuf {
    if let Some(flag) = flag {
        return flag.to_owned();
    }
    let var = |name: &str| {
        let value = std::env::var_os(name)?;
        let path = PathBuf::from(value);
        // The XDG specification: relative paths are to be ignored.
        path.is_absolute().then_some(path)
    };
    if let Some(state) = var("XDG_STATE_HOME") {
        state.join("shoal")
    } else if let Some(home) = var("HOME") {
        home.join(".local/state/shoal")
    } else {
        dir.join(".shoal")
    }
}

/// The folder for the state of these torrents, whose data lies in or below absolute folders.
pub(crate) fn folder<'a>(
    base: &Path,
    torrents: impl IntoIterator<Item = (InfoHash, &'a Path)>,
) -> PathBuf {
    let mut sha1 = Sha1::new();
    let mut name = None;
    for (info_hash, dir) in torrents {
        name.get_or_insert(info_hash);
        sha1.update(info_hash.as_bytes());
        let dir = dir.as_os_str().as_encoded_bytes();
        sha1.update((dir.len() as u64).to_be_bytes());
        sha1.update(dir);
    }
    let place: [u8; 20] = sha1.finalize().into();
    let name = name.map(|n| n.to_string()).unwrap_or_default();
    base.join(format!("{name}-{}", to_hex(&place[..6])))
}

/// Removes the state of a finished download. What cannot be removed does no harm.
pub(crate) fn forget(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_apart_for_each_torrent_and_folder() {
        let base = Path::new("/state");
        let one = InfoHash([1; 20]);
        let a = folder(base, [(one, Path::new("/a"))]);
        let b = folder(base, [(one, Path::new("/b"))]);
        let c = folder(base, [(InfoHash([2; 20]), Path::new("/a"))]);
        assert_ne!(a, b);
        assert_ne!(a, c);
        assert_eq!(a, folder(base, [(one, Path::new("/a"))]));
        assert!(a.starts_with(base));
    }

    #[test]
    fn the_flag_wins() {
        let flag = Path::new("/flag");
        assert_eq!(base(Some(flag), Path::new("/dir")), flag);
        assert!(base(None, Path::new("/dir")).is_absolute());
    }
}
