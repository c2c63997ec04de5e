//! HUGE 0.94: URNs of files and where messages carry them. Extensions of queries and results are
//! parted by 0x1C; each is a URN, other text (XML), or a GGEP block.

use crate::ggep::{self, Item};

/// What parts extensions.
pub const SEPARATOR: u8 = 0x1c;
/// Extensions of one area that are read at most.
pub const MAX_PARTS: usize = 32;

pub use shoal_base::urn::{Sha1, TigerRoot, Urn};

/// What GGEP `H` says: its first byte tells the hash.
pub fn urn_of_ggep(data: &[u8]) -> Option<Urn> {
    let (kind, rest) = data.split_first()?;
    match kind {
        1 => rest.try_into().ok().map(Urn::Sha1),
        2 => {
            let (sha1, rest) = rest.split_first_chunk::<20>()?;
            Some(Urn::Bitprint(*sha1, TigerRoot(rest.try_into().ok()?)))
        }
        _ => None,
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
    use shoal_base::base32;

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
            urn_of_ggep(&[[1; 21].to_vec()].concat()),
            Some(Urn::Sha1([1; 20]))
        );
        assert_eq!(
            urn_of_ggep(&[2; 45]),
            Some(Urn::Bitprint([2; 20], TigerRoot([2; 24])))
        );
        assert_eq!(urn_of_ggep(&[2; 44]), None);
        assert_eq!(urn_of_ggep(&[3; 17]), None);
    }

    proptest! {
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
