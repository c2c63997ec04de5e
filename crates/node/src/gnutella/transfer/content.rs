//! What is fetched, as far as it is known, and its bytes in the resume database.

use shoal_base::bencode::{self, Encoder};
use shoal_content::{
    FileAttr, Geometry, Layout, LayoutError, PieceHashes, SafePath, TigerRoot, TigerTree,
};

/// Pieces that are checked on their own are no shorter: a shorter one costs more than it saves.
const MIN_SPAN: u64 = 64 << 10;
/// Bytes in a piece of which nothing is known.
const BLIND_PIECE: u32 = 1 << 20;
/// The longest piece: a file that needs longer ones is beyond a terabyte.
const MAX_PIECE: u64 = 1 << 30;

/// A content: its length, its name, and its hash tree if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) len: u64,
    pub(super) name: SafePath,
    /// The tree, and whether its root is the user's: then it cannot be a stranger's invention.
    pub(super) tree: Option<(TigerTree, bool)>,
}

impl Content {
    /// A content with a tree, if there is one and its spans are not too long.
    pub(super) fn new(len: u64, name: SafePath, tree: Option<(TigerTree, bool)>) -> Self {
        let tree = tree.map(|(tree, sure)| (tree.with_spans_of(MIN_SPAN), sure));
        Self {
            len,
            name,
            tree: tree.filter(|(tree, _)| tree.span_len() <= MAX_PIECE),
        }
    }

    /// Whether its pieces prove that it is the file that the user named.
    pub(super) fn is_sure(&self) -> bool {
        matches!(self.tree, Some((_, true)))
    }

    /// How it is cut into pieces.
    pub(super) fn layout(&self) -> Result<Layout, LayoutError> {
        let span = self.tree.as_ref().map(|(tree, _)| tree.span_len());
        let piece_len = span.and_then(|span| u32::try_from(span).ok());
        let file = (self.name.clone(), self.len, FileAttr::default());
        Layout::new([file], piece_len.unwrap_or(BLIND_PIECE))
    }

    /// What its pieces are checked against.
    pub(super) fn hashes(&self, geometry: Geometry) -> PieceHashes {
        match &self.tree {
            Some((tree, _)) => PieceHashes::tiger(tree),
            None => PieceHashes::Unknown(geometry.pieces()),
        }
    }

    /// Its bytes in the resume database.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.dict(|d| {
            d.key("len").int(self.len.cast_signed());
            d.key("name").bytes(self.name.as_str());
            if let Some((tree, sure)) = &self.tree {
                d.key("sure").int(i64::from(*sure));
                d.key("tiger").bytes(tree.to_levels());
            }
        });
        out.into_bytes()
    }

    /// Reads what [`Self::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let value = bencode::decode(bytes).ok()?;
        let d = value.as_dict()?;
        let len = d.int("len")?.cast_unsigned();
        let tree = match d.bytes("tiger") {
            Some(levels) => {
                let root = TigerRoot(*levels.first_chunk()?);
                let tree = TigerTree::from_levels(len, root, levels).ok()?;
                Some((tree, d.int("sure") == Some(1)))
            }
            None => None,
        };
        Some(Self {
            len,
            name: SafePath::new(d.str("name")?).ok()?,
            tree,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_content::tiger::TreeBuilder;

    #[test]
    fn a_content_survives_its_bytes() {
        let name = || SafePath::new("a song.mp3").expect("safe");
        let mut builder = TreeBuilder::new();
        builder.update(&vec![7; 3_000_000]);
        let with = Content::new(3_000_000, name(), Some((builder.finish(), true)));
        let geometry = with.layout().expect("cut").geometry();
        assert_eq!((geometry.piece_len(), geometry.pieces()), (65_536, 46));
        assert_eq!(with.hashes(geometry).pieces(), 46);
        let without = Content::new(3_000_000, name(), None);
        for content in [with, without] {
            assert_eq!(Content::decode(&content.encode()), Some(content));
        }
        assert_eq!(Content::decode(b"d3:leni5ee"), None);
        assert_eq!(Content::decode(b""), None);
    }
}
