//! What the library keeps, and its bytes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use shoal_base::bencode::{self, Dict, Encoder};
use shoal_content::merkle::MerkleHash;

use shoal_content::{FileHashes, TigerRoot, TigerTree};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Spans of a Tiger tree are kept no shorter than this: a few bytes in a hundred thousand.
const MIN_SPAN: u64 = 64 << 10;
/// Bytes of a [`Stamp`].
pub(super) const STAMP_LEN: usize = 32;
/// Bytes of a [`FileRecord`].
const RECORD_LEN: usize = STAMP_LEN + 20 + 24 + 32;

/// Which file it is, and what it looked like when it was hashed. A file that is moved within its
/// file system keeps all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Stamp {
    /// The device it is on. Some have another number after each start of the machine.
    pub device: u64,
    /// Its number on the device.
    pub inode: u64,
    /// Length in bytes.
    pub len: u64,
    /// Time of the last change of its bytes, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        #[allow(
            clippy::unnecessary_cast,
            reason = "both are i64 here, but i32 or u64 on other architectures"
        )]
        let (seconds, nanos) = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: seconds.saturating_mul(1_000_000_000).saturating_add(nanos),
        }
    }

    /// What the file at `path` looks like now; a link is not followed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn at(path: &Path) -> std::io::Result<Self> {
        Ok(Self::of(&rustix::fs::lstat(path)?))
    }

    /// Whether the file at one path is still the same: the device's number may have changed.
    pub(super) fn same_at_path(&self, now: &Self) -> bool {
        (self.inode, self.len, self.mtime_ns) == (now.inode, now.len, now.mtime_ns)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.device.to_le_bytes());
        out.extend_from_slice(&self.inode.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.mtime_ns.to_le_bytes());
    }

    fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (device, rest) = bytes.split_first_chunk()?;
        let (inode, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (mtime, rest) = rest.split_first_chunk()?;
        let stamp = Self {
            device: u64::from_le_bytes(*device),
            inode: u64::from_le_bytes(*inode),
            len: u64::from_le_bytes(*len),
            mtime_ns: i64::from_le_bytes(*mtime),
        };
        Some((stamp, rest))
    }
}

/// One file: what it looked like, and its names by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRecord {
    /// What it looked like when it was hashed.
    pub stamp: Stamp,
    /// SHA-1 of the whole.
    pub sha1: [u8; 20],
    /// The root of its Tiger tree.
    pub tiger: TigerRoot,
    /// The v2 root; none of an empty file.
    pub root: Option<MerkleHash>,
}

impl FileRecord {
    pub(super) fn new(stamp: Stamp, hashes: &FileHashes) -> Self {
        Self {
            stamp,
            sha1: hashes.sha1,
            tiger: hashes.tree.root(),
            root: hashes.root,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_LEN);
        self.stamp.put(&mut out);
        out.extend_from_slice(&self.sha1);
        out.extend_from_slice(&self.tiger.0);
        out.extend_from_slice(&self.root.unwrap_or_default());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (stamp, rest) = Stamp::take(bytes)?;
        let (sha1, rest) = rest.split_first_chunk()?;
        let (tiger, rest) = rest.split_first_chunk::<24>()?;
        let (root, rest) = rest.split_first_chunk::<32>()?;
        rest.is_empty().then_some(Self {
            stamp,
            sha1: *sha1,
            tiger: TigerRoot(*tiger),
            root: (stamp.len > 0).then_some(*root),
        })
    }
}

/// The hashes of a file's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileParts {
    /// Bytes in a piece.
    pub piece_len: u32,
    /// SHA-1 of every piece (BEP 3).
    pub pieces: Vec<[u8; 20]>,
    /// The v2 hash of every piece (BEP 52); empty if there is one piece.
    pub layer: Vec<MerkleHash>,
    /// The upper levels of its Tiger tree.
    pub tree: TigerTree,
}

impl FileParts {
    /// What is worth keeping; none of a file whose names by hash say all.
    pub(super) fn of(hashes: &FileHashes) -> Option<Self> {
        let tree = hashes.tree.clone().with_spans_of(MIN_SPAN);
        let alone = hashes.pieces.is_empty() && tree.spans().len() <= 1;
        (!alone).then(|| Self {
            piece_len: hashes.piece_len,
            pieces: hashes.v1_pieces(),
            layer: hashes.layer.clone(),
            tree,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.dict(|d| {
            d.key("layer").bytes(self.layer.as_flattened());
            d.key("len").int(self.tree.file_len().cast_signed());
            d.key("piece length").int(i64::from(self.piece_len));
            d.key("pieces").bytes(self.pieces.as_flattened());
            d.key("tiger").bytes(self.tree.to_levels());
        });
        out.into_bytes()
    }

    pub(super) fn decode(bytes: &[u8], tiger: TigerRoot) -> Option<Self> {
        let value = bencode::decode(bytes).ok()?;
        let d = value.as_dict()?;
        let len = d.int("len")?.cast_unsigned();
        let tree = TigerTree::from_levels(len, tiger, d.bytes("tiger")?).ok()?;
        Some(Self {
            piece_len: u32::try_from(d.int("piece length")?).ok()?,
            pieces: cut(d.bytes("pieces")?)?,
            layer: cut(d.bytes("layer")?)?,
            tree,
        })
    }
}

/// Hashes of `N` bytes side by side.
pub(super) fn cut<const N: usize>(bytes: &[u8]) -> Option<Vec<[u8; N]>> {
    let (hashes, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| hashes.to_vec())
}

/// With whom a folder is shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Audience {
    /// With everyone.
    #[default]
    Everyone,
    /// With those who prove one of these Ed25519 keys.
    Keys(BTreeSet<[u8; 32]>),
    /// With nobody: its files are hashed, found by their owner, and not told.
    Nobody,
}

/// A folder of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// Its number, which no other folder of this library ever has.
    pub id: u32,
    /// Where it is: absolute, without links.
    pub path: PathBuf,
    /// With whom.
    pub audience: Audience,
    /// Whether files and folders whose names begin with a dot are shared too.
    pub hidden: bool,
    /// When it was last scanned to its end, in seconds since 1970.
    pub scanned: Option<u64>,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether it was not there at the last scan, as a disk that is not plugged in: its files are
    /// remembered and not shared.
    pub away: bool,
}

const MAX_FOLDERS_VERSION: i64 = 1;

/// All folders and the next one's number, as the file `folders` has them.
pub(super) fn encode_folders(folders: &[SharedFolder], next_id: u32) -> Vec<u8> {
    let mut out = Encoder::new();
    out.dict(|d| {
        d.key("folders").list(|list| {
            for folder in folders {
                list.dict(|d| encode_folder(d, folder));
            }
        });
        d.key("next").int(i64::from(next_id));
        d.key("version").int(MAX_FOLDERS_VERSION);
    });
    out.into_bytes()
}

fn encode_folder(d: &mut Encoder, folder: &SharedFolder) {
    d.key("away").int(i64::from(folder.away));
    d.key("bytes").int(folder.bytes.cast_signed());
    d.key("files").int(folder.files.cast_signed());
    d.key("hidden").int(i64::from(folder.hidden));
    d.key("id").int(i64::from(folder.id));
    match &folder.audience {
        Audience::Everyone => {}
        Audience::Nobody => d.key("keys").list(|_| {}),
        Audience::Keys(keys) => {
            let all = keys.iter();
            d.key("keys")
                .list(|list| all.for_each(|key| list.bytes(key)));
        }
    }
    d.key("path").bytes(folder.path.as_os_str().as_bytes());
    if let Some(scanned) = folder.scanned {
        d.key("scanned").int(scanned.cast_signed());
    }
}

/// What [`encode_folders`] wrote.
pub(super) fn decode_folders(bytes: &[u8]) -> Option<(Vec<SharedFolder>, u32)> {
    let value = bencode::decode(bytes).ok()?;
    let d = value.as_dict()?;
    if d.int("version")? != MAX_FOLDERS_VERSION {
        return None;
    }
    let folders = d.list("folders")?.iter();
    let folders = folders.map(|f| decode_folder(f.as_dict()?));
    let next = u32::try_from(d.int("next")?).ok()?;
    Some((folders.collect::<Option<_>>()?, next))
}

fn decode_folder(d: &Dict<'_>) -> Option<SharedFolder> {
    let audience = match d.list("keys") {
        None => Audience::Everyone,
        Some([]) => Audience::Nobody,
        Some(keys) => {
            let keys = keys
                .iter()
                .map(|k| <[u8; 32]>::try_from(k.as_bytes()?).ok());
            Audience::Keys(keys.collect::<Option<_>>()?)
        }
    };
    Some(SharedFolder {
        id: u32::try_from(d.int("id")?).ok()?,
        path: Path::new(OsStr::from_bytes(d.bytes("path")?)).to_owned(),
        audience,
        hidden: d.int("hidden")? != 0,
        scanned: d.int("scanned").map(i64::cast_unsigned),
        files: d.int("files")?.cast_unsigned(),
        bytes: d.int("bytes")?.cast_unsigned(),
        away: d.int("away")? != 0,
    })
}

/// The database's key of a file: its folder's number, then the components of its path below it,
/// parted by zero bytes, so that keys come in the order of a walk that sorts each folder by name.
pub(super) fn file_key(folder: u32, path: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + path.len());
    key.extend_from_slice(&folder.to_be_bytes());
    key.extend(path.bytes().map(|b| if b == b'/' { 0 } else { b }));
    key
}

/// The folder's number and the path of a file.
pub(super) fn read_key(key: &[u8]) -> Option<(u32, String)> {
    let (folder, path) = key.split_first_chunk::<4>()?;
    let path = path
        .iter()
        .map(|b| if *b == 0 { b'/' } else { *b })
        .collect();
    Some((u32::from_be_bytes(*folder), String::from_utf8(path).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_content::FileHasher;

    fn folders() -> impl Strategy<Value = SharedFolder> {
        let audience = prop_oneof![
            Just(Audience::Everyone),
            Just(Audience::Nobody),
            prop::collection::btree_set(any::<[u8; 32]>(), 1..4).prop_map(Audience::Keys),
        ];
        let rest = (
            any::<u32>(),
            "[a-z/]{1,20}",
            any::<(bool, bool, u32, u32)>(),
            any::<Option<u32>>(),
        );
        (audience, rest).prop_map(
            |(audience, (id, path, (hidden, away, files, bytes), scanned))| SharedFolder {
                id,
                path: PathBuf::from(path),
                audience,
                hidden,
                scanned: scanned.map(u64::from),
                files: files.into(),
                bytes: bytes.into(),
                away,
            },
        )
    }

    proptest! {
        #[test]
        fn folders_survive(all in prop::collection::vec(folders(), 0..5), next: u32) {
            let bytes = encode_folders(&all, next);
            prop_assert_eq!(decode_folders(&bytes), Some((all, next)));
        }

        #[test]
        fn records_survive(device: u64, inode: u64, mtime_ns: i64, len in 0..300_000_usize) {
            let mut hasher = FileHasher::new(len as u64);
            hasher.update(&vec![inode as u8; len]);
            let hashes = hasher.finish();
            let stamp = Stamp { device, inode, len: len as u64, mtime_ns };
            let record = FileRecord::new(stamp, &hashes);
            prop_assert_eq!(FileRecord::decode(&record.encode()), Some(record));
            let parts = FileParts::of(&hashes);
            prop_assert_eq!(parts.is_some(), len > 16 << 10);
            if let Some(parts) = parts {
                let read = FileParts::decode(&parts.encode(), record.tiger);
                prop_assert_eq!(read, Some(parts));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode_folders(&bytes);
            let _ = FileParts::decode(&bytes, TigerRoot([0; 24]));
            if let Some(record) = FileRecord::decode(&bytes) {
                prop_assert_eq!(record.encode().len(), bytes.len());
            }
        }

        #[test]
        fn keys_order_as_sorted_walks_do(mut paths in prop::collection::vec("[a.]{1,3}(/[a.]{1,3}){0,2}", 2..6)) {
            paths.sort_by(|a, b| a.split('/').cmp(b.split('/')));
            let keys: Vec<_> = paths.iter().map(|p| file_key(7, p)).collect();
            prop_assert!(keys.is_sorted());
            for (key, path) in keys.iter().zip(paths) {
                prop_assert_eq!(read_key(key), Some((7, path)));
            }
        }
    }
}
