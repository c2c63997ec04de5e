//! Files of the hub's users as the overlay is told of them: fetched once, hashed, and served from
//! here; beside what the node itself shares.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use shoal_content::file_hashes::FileHasher;
use shoal_gnutella::http::files::{Files, Lookup, Offer};
use shoal_gnutella::huge::{TigerRoot, Urn};
use shoal_napster::client::Hit;
use shoal_store::Served;
use shoal_supernode::wire::{File, Sound};

use crate::gnutella::transfer::Openable;

/// The first key of mirrors; a node's own files have smaller ones.
const FIRST: u64 = 1 << 62;
/// Bytes hashed at a time.
const READ: usize = 256 << 10;

/// One file that is mirrored.
#[derive(Debug)]
struct Mirror {
    path: PathBuf,
    /// Whose it is.
    nick: String,
    told: File,
    /// The hash tree, root first.
    levels: Vec<u8>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    files: BTreeMap<u64, Mirror>,
    by_sha1: BTreeMap<[u8; 20], u64>,
    bytes: u64,
}

/// All mirrors, and what the node shares itself.
pub(super) struct Mirrors {
    own: Arc<dyn Openable>,
    held: RwLock<Held>,
}

impl std::fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirrors")
            .field("files", &self.read().files.len())
            .finish_non_exhaustive()
    }
}

/// Hashes a file; its bytes are those of now.
fn hash(path: &Path) -> io::Result<(u64, [u8; 20], Vec<u8>)> {
    let file = Served::open(path)?;
    let mut hasher = FileHasher::new(file.len());
    let mut buf = vec![0; READ];
    loop {
        let n = file.read_at(hasher.len(), &mut buf)?;
        if n == 0 {
            break;
        }
        hasher.update(buf.get(..n).unwrap_or_default());
    }
    let hashes = hasher.finish();
    Ok((hashes.len, hashes.sha1, hashes.tree.to_levels()))
}

impl Mirrors {
    /// No mirrors yet, beside `own`.
    pub(super) fn new(own: Arc<dyn Openable>) -> Self {
        let held = RwLock::default();
        Self { own, held }
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes a file that was fetched as `hit` says, to be told of as `told`; what is said of it. The
    /// oldest go while there are more than `most` bytes: their paths.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn add(
        &self,
        path: PathBuf,
        hit: &Hit,
        told: String,
        most: u64,
    ) -> io::Result<(File, Vec<String>)> {
        let (len, sha1, levels) = hash(&path)?;
        let (nick, facts) = (hit.nick.as_str(), &hit.facts);
        // As its sharer says, whose word it stays: the file is not looked into.
        let sound = (facts.bitrate > 0).then(|| Sound {
            bitrate: u16::try_from(facts.bitrate).unwrap_or(u16::MAX),
            frequency: facts.frequency,
            seconds: facts.seconds,
        });
        let file = File {
            path: told,
            size: len,
            sha1,
            tiger: levels.first_chunk().copied(),
            sound,
        };
        let mirror = Mirror {
            path,
            nick: nick.to_owned(),
            told: file.clone(),
            levels,
        };
        let mut held = self.write();
        let mut gone = Vec::new();
        while held.bytes.saturating_add(len) > most
            && let Some(oldest) = held.files.keys().next().copied()
        {
            gone.extend(held.remove(oldest));
        }
        let key = FIRST + held.next;
        held.next += 1;
        held.bytes += len;
        held.by_sha1.insert(sha1, key);
        held.files.insert(key, mirror);
        Ok((file, gone))
    }

    /// Whether this content is a mirror.
    pub(super) fn is_mirror(&self, sha1: &[u8; 20]) -> bool {
        self.read().by_sha1.contains_key(sha1)
    }

    /// Whether a file is mirrored that is told of by this path and has so many bytes.
    pub(super) fn has(&self, told: &str, size: u64) -> bool {
        let held = self.read();
        let mut files = held.files.values();
        files.any(|m| m.told.path == told && m.told.size == size)
    }

    /// A user of the hub left: its files are no longer told of; their paths.
    pub(super) fn withdraw(&self, nick: &str) -> Vec<String> {
        let mut held = self.write();
        let theirs = held.files.iter().filter(|(_, m)| m.nick == nick);
        let theirs: Vec<u64> = theirs.map(|(key, _)| *key).collect();
        theirs
            .into_iter()
            .filter_map(|key| held.remove(key))
            .collect()
    }

    fn offer(&self, key: u64) -> Option<Offer> {
        let held = self.read();
        let file = &held.files.get(&key)?.told;
        Some(Offer {
            key,
            name: file.path.rsplit('/').next()?.to_owned(),
            len: file.size,
            sha1: file.sha1,
            tiger: file.tiger.map(TigerRoot),
            available: None,
        })
    }
}

impl Held {
    /// The path that it was told by.
    fn remove(&mut self, key: u64) -> Option<String> {
        let mirror = self.files.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(mirror.told.size);
        if self.by_sha1.get(&mirror.told.sha1) == Some(&key) {
            self.by_sha1.remove(&mirror.told.sha1);
        }
        if let Err(error) = std::fs::remove_file(&mirror.path) {
            tracing::warn!(path = %mirror.path.display(), %error, "a mirror stays on the disk");
        }
        Some(mirror.told.path)
    }
}

impl Files for Mirrors {
    fn by_urn(&self, urn: &Urn) -> Lookup {
        let own = self.own.by_urn(urn);
        if matches!(own, Lookup::Found(_)) {
            return own;
        }
        let key = urn
            .sha1()
            .and_then(|sha1| self.read().by_sha1.get(&sha1).copied());
        let offer = key.and_then(|key| self.offer(key));
        let fits = |o: &Offer| urn.is_of(Some(o.sha1), o.tiger);
        offer.filter(fits).map_or(own, Lookup::Found)
    }

    fn by_index(&self, index: u32) -> Lookup {
        self.own.by_index(index)
    }

    fn tree(&self, file: &Offer) -> Option<Vec<u8>> {
        if file.key < FIRST {
            return self.own.tree(file);
        }
        Some(self.read().files.get(&file.key)?.levels.clone())
    }

    fn browse(&self) -> Option<Vec<u8>> {
        self.own.browse()
    }
}

impl Openable for Mirrors {
    fn open(&self, key: u64) -> io::Result<Served> {
        if key < FIRST {
            return self.own.open(key);
        }
        let path = self.read().files.get(&key).map(|m| m.path.clone());
        Served::open(&path.ok_or(io::ErrorKind::NotFound)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gnutella::transfer::NoFiles;
    use shoal_napster::file::Facts;
    use std::net::Ipv4Addr;

    #[test]
    fn mirrors_are_served_by_their_hash_until_their_sharer_leaves_or_others_need_the_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let mirrors = Mirrors::new(Arc::new(NoFiles));
        let file = |name: &str, byte: u8| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![byte; 3000]).expect("written");
            path
        };
        let add = |name: &str, byte: u8, nick: &str| {
            let told = format!("{nick}/{name}");
            let hit = Hit {
                path: name.as_bytes().to_vec(),
                facts: Facts {
                    bitrate: 128,
                    ..Facts::default()
                },
                nick: nick.to_owned(),
                ip: Ipv4Addr::LOCALHOST,
                link: 0,
            };
            mirrors
                .add(file(name, byte), &hit, told, 7000)
                .expect("there")
        };
        let (a, gone) = add("a.mp3", 1, "ann");
        assert!(gone.is_empty() && mirrors.is_mirror(&a.sha1));
        assert_eq!(a.sound.map(|sound| sound.bitrate), Some(128));
        let Lookup::Found(offer) = mirrors.by_urn(&Urn::Sha1(a.sha1)) else {
            panic!("it is found");
        };
        assert_eq!((offer.len, offer.name.as_str()), (3000, "a.mp3"));
        let tree = mirrors.tree(&offer).expect("its tree");
        let root = tree.first_chunk().copied().map(TigerRoot);
        assert_eq!(root.map(|r| r.0), a.tiger);
        assert_eq!(mirrors.open(offer.key).expect("opens").len(), 3000);
        let (b, _) = add("b.mp3", 2, "bob");
        let (_, gone) = add("c.mp3", 3, "bob");
        assert_eq!(gone, ["ann/a.mp3"], "two of them fit");
        assert!(mirrors.open(offer.key).is_err() && !dir.path().join("a.mp3").exists());
        assert_eq!(mirrors.withdraw("ann").len(), 0);
        assert_eq!(mirrors.withdraw("bob").len(), 2);
        assert!(!mirrors.is_mirror(&b.sha1) && mirrors.read().bytes == 0);
    }
}
