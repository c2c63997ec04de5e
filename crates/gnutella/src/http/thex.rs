//! THEX (draft-jchapweske-thex-02): how a file's hash tree travels. An XML head says what the tree
//! is of, a second record has its hashes, the root first, level by level.
//!
//! What the hashes are worth is not known here: who fetched them checks them against the root.

use std::fmt::Write as _;

use super::dime::{self, DimeError, Record, TypeFormat};
use crate::huge::TigerRoot;

/// Bytes of a tree's message at most: 11 levels of 24 bytes, and its head, twice over.
pub const MAX_LEN: usize = 128 * 1024;
/// The type of the record that holds the hashes.
const TREE_TYPE: &str = "http://open-content.net/spec/thex/breadthfirst";
const DIGEST: &str = "http://open-content.net/spec/digest/tiger";
const DOCTYPE: &str = "http://open-content.net/spec/thex/thex.dtd";
/// The media type of the message.
pub const MEDIA_TYPE: &str = "application/dime";

/// A tree as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Bytes of the file, if the head says so.
    pub file_len: Option<u64>,
    /// Hashes of 24 bytes, the root first, level by level.
    pub levels: Vec<u8>,
}

/// Why a message brings no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ThexError {
    /// It is no message.
    #[error(transparent)]
    Dime(#[from] DimeError),
    /// More than [`MAX_LEN`] bytes.
    #[error("the tree takes more than {MAX_LEN} bytes")]
    TooLong,
    /// No record holds hashes.
    #[error("the message holds no hash tree")]
    NoTree,
    /// Of other leaves than 1024 bytes, or another hash.
    #[error("the tree is not of Tiger hashes of 1024 bytes")]
    Kind,
    /// Not a whole number of hashes.
    #[error("{0} bytes are no whole number of hashes")]
    Length(usize),
}

/// The value of `name="…"` in the element `element` of a head. Heads are a few hundred bytes that
/// programs wrote: some are cut short or have stray quotes, which a strict reader would not take.
fn attribute<'a>(xml: &'a str, element: &str, name: &str) -> Option<&'a str> {
    let mut rest = xml;
    loop {
        let (_, after) = rest.split_once('<')?;
        rest = after;
        if let Some(tag) = after.strip_prefix(element)
            && tag.starts_with(|c: char| c.is_ascii_whitespace())
        {
            let tag = tag.split('>').next()?;
            let at = tag.match_indices(name).find(|(at, _)| {
                let blank = tag.as_bytes().get(at.wrapping_sub(1));
                blank.is_some_and(u8::is_ascii_whitespace)
            });
            let value = tag.get(at?.0 + name.len()..)?.trim_start();
            let value = value.strip_prefix('=')?.trim_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            return value.get(1..)?.split(quote).next();
        }
    }
}

/// Reads a message.
///
/// # Errors
/// [`ThexError`].
pub fn read(bytes: &[u8]) -> Result<Tree, ThexError> {
    if bytes.len() > MAX_LEN {
        return Err(ThexError::TooLong);
    }
    let records = dime::read(bytes)?;
    let is = |record: &&Record<'_>, kind: &str| record.kind.eq_ignore_ascii_case(kind.as_bytes());
    let head = records.iter().find(|r| is(r, "text/xml"));
    let xml = head.map(|r| String::from_utf8_lossy(r.data));
    let value = |element, name| attribute(xml.as_deref()?, element, name);
    let other =
        |found: Option<&str>, wanted: &str| found.is_some_and(|found| found.trim() != wanted);
    if other(value("file", "segmentsize"), "1024")
        || other(value("digest", "algorithm"), DIGEST)
        || other(value("digest", "outputsize"), "24")
        || other(value("serializedtree", "type"), TREE_TYPE)
    {
        return Err(ThexError::Kind);
    }
    let file_len = value("file", "size").and_then(super::head::number);
    // Some name the record other than the head does: its type is enough.
    let tree = records.iter().find(|r| is(r, TREE_TYPE));
    let levels = tree.ok_or(ThexError::NoTree)?.data;
    if levels.is_empty() || levels.len() % 24 != 0 {
        return Err(ThexError::Length(levels.len()));
    }
    Ok(Tree {
        file_len,
        levels: levels.to_vec(),
    })
}

/// Writes the message for a file of `file_len` bytes, whose hashes are `levels`.
pub fn write(file_len: u64, root: &TigerRoot, levels: &[u8]) -> Vec<u8> {
    let depth = depth(file_len, levels.len() / 24);
    let mut id = String::from("uuid:");
    for (n, byte) in root.0.iter().take(16).enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        // A string takes what is written.
        let _ = write!(id, "{byte:02x}");
    }
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n\
         <!DOCTYPE hashtree SYSTEM \"{DOCTYPE}\">\r\n\
         <hashtree>\r\n\
         <file size=\"{file_len}\" segmentsize=\"1024\"/>\r\n\
         <digest algorithm=\"{DIGEST}\" outputsize=\"24\"/>\r\n\
         <serializedtree depth=\"{depth}\" type=\"{TREE_TYPE}\" uri=\"{id}\"/>\r\n\
         </hashtree>\r\n"
    );
    dime::write(&[
        Record {
            format: TypeFormat::Media,
            id: b"",
            kind: b"text/xml",
            data: xml.as_bytes(),
        },
        Record {
            format: TypeFormat::Uri,
            id: id.as_bytes(),
            kind: TREE_TYPE.as_bytes(),
            data: levels,
        },
    ])
}

/// Levels below the root that so many hashes of a file's tree make.
fn depth(file_len: u64, hashes: usize) -> u32 {
    let leaves = file_len.div_ceil(1024).max(1);
    let full = leaves.next_power_of_two().trailing_zeros();
    let (mut seen, mut depth) = (0, 0);
    for level in 0..=full {
        seen += leaves.div_ceil(1 << (full - level));
        if seen > hashes as u64 {
            break;
        }
        depth = level;
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_head_tells_what_the_tree_is_of() {
        // Five leaves: levels of 1, 2, 3 and 5 hashes.
        let levels = vec![7; 24 * 11];
        let bytes = write(5000, &TigerRoot([1; 24]), &levels);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("depth=\"3\"") && text.contains("size=\"5000\""));
        assert!(text.contains("uuid:01010101-0101-0101-0101-010101010101"));
        assert_eq!(depth(5000, 6), 2);
        assert_eq!(depth(0, 1), 0);
        assert_eq!(depth(u64::MAX, 2047), 10);
        let tree = Tree {
            file_len: Some(5000),
            levels,
        };
        assert_eq!(read(&bytes), Ok(tree));
    }

    #[test]
    fn heads_that_are_cut_short_are_read_and_other_trees_refused() {
        let message = |xml: &str, hashes: usize| {
            let record = |kind, data| Record {
                format: TypeFormat::Media,
                id: b"",
                kind,
                data,
            };
            let levels = vec![0; hashes];
            dime::write(&[
                record(b"TEXT/XML", xml.as_bytes()),
                record(TREE_TYPE.as_bytes(), &levels),
            ])
        };
        let tree = read(&message("<hashtree><file segmentsize='1024' size='9'", 24));
        assert_eq!(tree.map(|t| t.file_len), Ok(Some(9)));
        assert!(read(&message("", 48)).is_ok());
        let other = "<file size=\"9\" segmentsize=\"4096\"/>";
        assert_eq!(read(&message(other, 24)), Err(ThexError::Kind));
        assert_eq!(read(&message("", 25)), Err(ThexError::Length(25)));
        assert_eq!(read(&message("", 0)), Err(ThexError::Length(0)));
        assert_eq!(read(&vec![0; MAX_LEN + 1]), Err(ThexError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(file_len: u64, root: [u8; 24], hashes in 1usize..100, fill: u8) {
            let levels = vec![fill; hashes * 24];
            let tree = Tree { file_len: Some(file_len), levels: levels.clone() };
            prop_assert_eq!(read(&write(file_len, &TigerRoot(root), &levels)), Ok(tree));
        }

        #[test]
        fn arbitrary_heads_are_read_or_refused(xml in "[<>/a-z=\"' ]{0,60}(file|digest)[ -~]{0,60}") {
            for name in ["size", "file", "a"] {
                let _ = attribute(&xml, "file", name);
                let _ = attribute(&xml, "", name);
            }
        }
    }
}
