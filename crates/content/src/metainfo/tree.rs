//! The `file tree` of a v2 or hybrid info dictionary (BEP 52).

use super::fault::{Fault, MetainfoError, fail};
use super::files::{RawFile, below};
use crate::path::{Naming, SafePath};
use shoal_base::bencode::Dict;

/// The shortest piece of a v2 torrent: one block.
const MIN_PIECE_LEN: u32 = 16 * 1024;

/// The files of the tree in its order, without padding.
pub(super) fn read_v2(
    info: &Dict<'_>,
    root: &SafePath,
    raw_name: &[u8],
    naming: Naming,
) -> Result<Vec<RawFile>, MetainfoError> {
    let key = "info.file tree";
    let tree = info
        .get("file tree")
        .ok_or_else(|| fail(key, Fault::Missing))?
        .as_dict()
        .ok_or_else(|| fail(key, Fault::NotA("a dictionary")))?;
    if tree.is_empty() {
        return Err(fail(key, Fault::Empty));
    }
    let mut reader = Reader {
        root,
        naming,
        parts: Vec::new(),
        files: Vec::new(),
    };
    reader.folder(tree, key)?;
    // One file of the torrent's own name is not put into a folder.
    let single = tree.len() == 1
        && tree
            .dict(raw_name)
            .is_some_and(|leaf| leaf.dict("").is_some());
    if let ([file], true) = (reader.files.as_mut_slice(), single) {
        file.path = root.clone();
    }
    Ok(reader.files)
}

/// Checks the piece length against BEP 52.
pub(super) fn check_piece_len(piece_len: u32) -> Result<(), MetainfoError> {
    if piece_len.is_power_of_two() && piece_len >= MIN_PIECE_LEN {
        Ok(())
    } else {
        Err(fail("info.piece length", Fault::PieceLengthV2(piece_len)))
    }
}

/// Adds the padding that BEP 52 implies: every file with bytes starts at a piece.
pub(crate) fn aligned(files: Vec<RawFile>, root: &SafePath, piece_len: u32) -> Vec<RawFile> {
    let last = files.iter().rposition(|f| f.len > 0).unwrap_or(0);
    let mut out = Vec::with_capacity(files.len());
    for (n, file) in files.into_iter().enumerate() {
        let over = file.len % u64::from(piece_len);
        out.push(file);
        if over > 0 && n < last {
            out.push(RawFile::padding(u64::from(piece_len) - over, root));
        }
    }
    out
}

/// Takes the merkle roots of `v2` over to the files of `v1`, which must be the same (BEP 52:
/// a client must refuse a hybrid whose halves differ).
pub(super) fn join_hybrid(
    v1: &mut [RawFile],
    v2: &[RawFile],
    piece_len: u32,
) -> Result<(), MetainfoError> {
    let mut offset = 0_u64;
    let mut tree = v2.iter();
    let mut number = 0;
    for file in v1 {
        let start = offset;
        offset = offset.saturating_add(file.len);
        if file.attr.pad {
            continue;
        }
        let same = tree
            .next()
            .filter(|f| f.path == file.path && f.len == file.len);
        let twin = same.ok_or_else(|| fail("info.file tree", Fault::HybridDiffers(number)))?;
        if file.len > 0 && !start.is_multiple_of(u64::from(piece_len)) {
            return Err(fail("info.files", Fault::HybridUnaligned(number)));
        }
        file.root = twin.root;
        number += 1;
    }
    match tree.next() {
        Some(_) => Err(fail("info.file tree", Fault::HybridDiffers(number))),
        None => Ok(()),
    }
}

struct Reader<'a> {
    root: &'a SafePath,
    naming: Naming,
    parts: Vec<&'a [u8]>,
    files: Vec<RawFile>,
}

impl<'a> Reader<'a> {
    /// Nested no deeper than the bencode reader lets it.
    fn folder(&mut self, tree: &Dict<'a>, at: &str) -> Result<(), MetainfoError> {
        for (name, node) in tree.iter() {
            let key = || format!("{at}.{}", name.escape_ascii());
            let node = node
                .as_dict()
                .ok_or_else(|| fail(key(), Fault::NotA("a dictionary")))?;
            if name.is_empty() {
                return Err(fail(at, Fault::NotA("a folder or a file")));
            }
            self.parts.push(name);
            match node.get("") {
                None if node.is_empty() => {}
                None => self.folder(node, &key())?,
                Some(leaf) => {
                    let leaf = leaf
                        .as_dict()
                        .filter(|_| node.len() == 1)
                        .ok_or_else(|| fail(key(), Fault::NotA("a folder or a file")))?;
                    self.file(leaf, &key())?;
                }
            }
            self.parts.pop();
        }
        Ok(())
    }

    fn file(&mut self, leaf: &Dict<'a>, at: &str) -> Result<(), MetainfoError> {
        let path = below(self.root, &self.parts, self.naming).map_err(|fault| fail(at, fault))?;
        let mut file = RawFile::read(leaf, path, self.naming, at)?;
        file.root = match leaf.get("pieces root") {
            Some(root) if file.len > 0 => {
                let key = || format!("{at}.pieces root");
                let root = root
                    .as_bytes()
                    .ok_or_else(|| fail(key(), Fault::NotA("a string")))?;
                let whole = <[u8; 32]>::try_from(root);
                Some(whole.map_err(|_| fail(key(), Fault::RootLength(root.len())))?)
            }
            None if file.len > 0 => {
                return Err(fail(format_args!("{at}.pieces root"), Fault::Missing));
            }
            _ => None,
        };
        self.files.push(file);
        Ok(())
    }
}
