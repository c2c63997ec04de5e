//! HUGE 0.94: URNs of files and where messages carry them. Extensions of queries and results are
//! parted by 0x1C; each is a URN, other text (XML), or a GGEP block.

use std::fmt;

use shoal_base::base32;

use crate::ggep::{self, Item};

/// What parts extensions.
pub const SEPARATOR: u8 = 0x1c;
/// Extensions of one area that are read at most.
pub const MAX_PARTS: usize = 32;

/// A file's SHA-1.
pub type Sha1 = [u8; 20];
/// The root of a file's Tiger tree.
pub type TigerRoot = [u8; 24];

/// A name for a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urn {
    /// `urn:sha1:`, 32 digits of base32.
    Sha1(Sha1),
    /// `urn:bitprint:`, the SHA-1, a dot, and the Tiger tree's root.
    Bitprint(Sha1, TigerRoot),
    /// `urn:tree:tiger:`, 39 digits.
    Tiger(TigerRoot),
}

impl Urn {
    /// Reads one, in any case.
    pub fn read(text: &[u8]) -> Option<Self> {
        if let Some(rest) = strip(text, b"urn:sha1:") {
            return base32::decode(rest).map(Self::Sha1);
        }
        if let Some(rest) = strip(text, b"urn:bitprint:") {
            let (sha1, rest) = rest.split_at_checked(32)?;
            let tiger = rest.strip_prefix(b".")?;
            return Some(Self::Bitprint(
                base32::decode(sha1)?,
                base32::decode(tiger)?,
            ));
        }
        // Older programs write `urn:tree:tiger/`.
        let rest = strip(text, b"urn:tree:tiger:").or_else(|| strip(text, b"urn:tree:tiger/"))?;
        base32::decode(rest).map(Self::Tiger)
    }

    /// The SHA-1, if it has one.
    pub fn sha1(&self) -> Option<Sha1> {
        match self {
            Self::Sha1(sha1) | Self::Bitprint(sha1, _) => Some(*sha1),
            Self::Tiger(_) => None,
        }
    }

    /// The Tiger tree's root, if it has one.
    pub fn tiger(&self) -> Option<TigerRoot> {
        match self {
            Self::Tiger(root) | Self::Bitprint(_, root) => Some(*root),
            Self::Sha1(_) => None,
        }
    }

    /// What GGEP `H` says: its first byte tells the hash.
    pub fn from_ggep(data: &[u8]) -> Option<Self> {
        let (kind, rest) = data.split_first()?;
        match kind {
            1 => rest.try_into().ok().map(Self::Sha1),
            2 => {
                let (sha1, rest) = rest.split_first_chunk::<20>()?;
                Some(Self::Bitprint(*sha1, rest.try_into().ok()?))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Urn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha1(sha1) => write!(f, "urn:sha1:{}", base32::encode(sha1)),
            Self::Bitprint(sha1, root) => {
                let (sha1, root) = (base32::encode(sha1), base32::encode(root));
                write!(f, "urn:bitprint:{sha1}.{root}")
            }
            Self::Tiger(root) => write!(f, "urn:tree:tiger:{}", base32::encode(root)),
        }
    }
}

fn strip<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// One extension of a query or a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension<'a> {
    /// A URN that names content.
    Urn(Urn),
    /// `urn:` or `urn:sha1:` alone: a wish for URNs in the answers.
    WantsUrns,
    /// Other text, such as XML.
    Text(&'a [u8]),
    /// A block of GGEP.
    Ggep(Vec<Item<'a>>),
}

/// Reads the extensions of an area. What cannot be read is passed over up to the next separator.
pub fn extensions(area: &[u8]) -> impl Iterator<Item = Extension<'_>> {
    let mut rest = area;
    let parts = std::iter::from_fn(move || {
        loop {
            match rest.split_first()? {
                (&SEPARATOR | 0, after) => rest = after,
                (&ggep::MAGIC, _) => {
                    if let Ok((items, used)) = ggep::read(rest) {
                        rest = rest.get(used..).unwrap_or_default();
                        return Some(Extension::Ggep(items));
                    }
                    rest = after_separator(rest);
                }
                _ => {
                    let end = rest.iter().position(|b| *b == SEPARATOR || *b == 0);
                    let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
                    rest = after;
                    if let Some(extension) = text(part) {
                        return Some(extension);
                    }
                }
            }
        }
    });
    parts.take(MAX_PARTS)
}

fn after_separator(rest: &[u8]) -> &[u8] {
    let at = rest.iter().position(|b| *b == SEPARATOR);
    at.and_then(|at| rest.get(at..)).unwrap_or_default()
}

fn text(part: &[u8]) -> Option<Extension<'_>> {
    let Some(rest) = strip(part, b"urn:") else {
        return Some(Extension::Text(part));
    };
    if rest.is_empty() || !rest.iter().rev().skip(1).any(|b| *b == b':') && rest.ends_with(b":") {
        return Some(Extension::WantsUrns);
    }
    Urn::read(part).map(Extension::Urn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_area_falls_into_its_parts() {
        let mut area = b"urn:\x1curn:sha1:".to_vec();
        area.extend_from_slice(base32::encode(&[9; 20]).as_bytes());
        area.push(SEPARATOR);
        // The block itself holds a separator.
        ggep::Writer::new(&mut area, true)
            .item(b"X", b"a\x1cb")
            .finish();
        area.extend_from_slice(b"\x1c<?xml?>");
        let parts: Vec<_> = extensions(&area).collect();
        assert_eq!(parts[0], Extension::WantsUrns);
        assert_eq!(parts[1], Extension::Urn(Urn::Sha1([9; 20])));
        assert!(matches!(&parts[2], Extension::Ggep(items) if &*items[0].data == b"a\x1cb"));
        assert_eq!(parts[3], Extension::Text(b"<?xml?>"));
        assert_eq!(parts.len(), 4);
    }

    #[test]
    fn hashes_in_ggep_say_their_kind() {
        assert_eq!(
            Urn::from_ggep(&[[1; 21].to_vec()].concat()),
            Some(Urn::Sha1([1; 20]))
        );
        assert_eq!(
            Urn::from_ggep(&[2; 45]),
            Some(Urn::Bitprint([2; 20], [2; 24]))
        );
        assert_eq!(Urn::from_ggep(&[2; 44]), None);
        assert_eq!(Urn::from_ggep(&[3; 17]), None);
    }

    proptest! {
        #[test]
        fn urns_round_trip(sha1: [u8; 20], root: [u8; 24]) {
            for urn in [Urn::Sha1(sha1), Urn::Bitprint(sha1, root), Urn::Tiger(root)] {
                let text = urn.to_string();
                prop_assert_eq!(Urn::read(text.as_bytes()), Some(urn));
                prop_assert_eq!(Urn::read(text.to_lowercase().as_bytes()), Some(urn));
                prop_assert_eq!(Urn::read(text.get(1..).unwrap_or_default().as_bytes()), None);
            }
        }

        #[test]
        fn arbitrary_areas_are_read_or_passed_over(mut area: Vec<u8>, marks: Vec<u8>) {
            for mark in marks {
                let at = usize::from(mark) % (area.len() + 1);
                area.insert(at, if mark & 1 == 0 { SEPARATOR } else { ggep::MAGIC });
            }
            prop_assert!(extensions(&area).count() <= MAX_PARTS);
        }
    }
}
