//! Query: which files are wanted (0.4 §"Query", "Min Speed" reinterpreted, HUGE 0.94).

use shoal_base::Cursor;

use super::{Malformed, ping::read_number};
use crate::ggep::{self, Writer};
use crate::huge::{Extension, SEPARATOR, Urn, extensions, urn_of_ggep};

/// Longest text that is asked for or answered, in bytes.
pub const MAX_TEXT: usize = 256;

/// What the first two bytes say when their top bit is set ("New Interpretation of the MinSpeed
/// field in Queries"): big-endian, unlike all other numbers of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The bytes are flags, not a speed.
    pub const MARK: u16 = 1 << 15;
    /// Who asks cannot be connected to.
    pub const FIREWALLED: u16 = 1 << 14;
    /// Wants metadata as XML.
    pub const XML: u16 = 1 << 13;
    /// A leaf that tells how many results it kept.
    pub const GUIDED: u16 = 1 << 12;
    /// Takes hashes in GGEP (H).
    pub const GGEP_H: u16 = 1 << 11;
    /// Answers may go to it by UDP; the GUID tells where.
    pub const OUT_OF_BAND: u16 = 1 << 10;

    /// Whether `flag` is said.
    pub fn has(self, flag: u16) -> bool {
        self.0 & Self::MARK != 0 && self.0 & flag != 0
    }
}

/// A query as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// Speed or flags.
    pub flags: Flags,
    /// The words.
    pub text: &'a [u8],
    /// The extensions, see [`extensions`].
    pub area: &'a [u8],
}

/// What a query's extensions ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Files with one of these contents.
    pub urns: Vec<Urn>,
    /// Kinds of media, bits of GGEP `M` (0x04 audio, 0x08 video, 0x10 documents, 0x20 images, 0x40
    /// Windows programs, 0x80 others'); zero for all.
    pub media: u32,
}

impl<'a> Query<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// It ends early.
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(payload);
        let flags = Flags(c.u16()?);
        let end = c.rest().iter().position(|b| *b == 0);
        let (text, area) = match end.and_then(|at| c.rest().split_at_checked(at)) {
            Some((text, area)) => (text, area.get(1..).unwrap_or_default()),
            // Some old programs forget the NUL when nothing follows.
            None => (c.rest(), &[][..]),
        };
        Ok(Self { flags, text, area })
    }

    /// What the extensions ask for.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        if self.area.is_empty() {
            return wanted;
        }
        for extension in extensions(self.area) {
            match extension {
                Extension::Urn(urn) => wanted.urns.push(urn),
                Extension::Ggep(items) => {
                    if let Some(media) = ggep::find(&items, b"M").and_then(read_number) {
                        wanted.media = media;
                    }
                    let hashes = items.iter().filter(|i| i.id == b"H");
                    wanted
                        .urns
                        .extend(hashes.filter_map(|i| urn_of_ggep(&i.data)));
                }
                Extension::WantsUrns | Extension::Text(_) => {}
            }
        }
        wanted
    }

    /// Whether answers out of band are to repeat a token (SO).
    pub fn wants_token(&self) -> bool {
        extensions(self.area).any(|extension| match extension {
            Extension::Ggep(items) => ggep::find(&items, b"SO").is_some(),
            _ => false,
        })
    }

    /// Whether it asks for all files of the neighbour: four spaces.
    pub fn is_index(&self) -> bool {
        self.text == b"    "
    }
}

/// Writes a query's payload: the words, these URNs, and kinds of media.
pub fn write(flags: u16, text: &[u8], wanted: &Wanted) -> Vec<u8> {
    let mut out = (flags | Flags::MARK).to_be_bytes().to_vec();
    let text = text.get(..MAX_TEXT).unwrap_or(text);
    out.extend(text.iter().filter(|b| **b != 0));
    out.push(0);
    // No `urn:` alone: everybody tells SHA-1s unasked, and GnutellaBun takes it for a content that it
    // does not have.
    for (n, urn) in wanted.urns.iter().enumerate() {
        if n > 0 {
            out.push(SEPARATOR);
        }
        out.extend_from_slice(urn.to_string().as_bytes());
    }
    let token = flags & Flags::OUT_OF_BAND != 0;
    if wanted.media != 0 || token {
        if !wanted.urns.is_empty() {
            out.push(SEPARATOR);
        }
        let media = wanted.media.to_le_bytes();
        let mut block = Writer::new(&mut out, true);
        if wanted.media != 0 {
            block.item(b"M", super::ping::trim(&media));
        }
        if token {
            block.item(b"SO", &[]);
        }
        block.finish();
    }
    if !wanted.urns.is_empty() || wanted.media != 0 || token {
        out.push(0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_is_laid_out_as_0_6_says() {
        let bytes = write(Flags::GUIDED, b"rare song", &Wanted::default());
        assert_eq!(bytes, b"\x90\x00rare song\0");
        let query = Query::read(&bytes).unwrap();
        assert!(query.flags.has(Flags::GUIDED) && !query.flags.has(Flags::FIREWALLED));
        assert_eq!(query.text, b"rare song");
        // What is a speed has no flags.
        assert!(!Flags(0x1000).has(Flags::GUIDED));
        // As GnutellaBun and old programs end it, and as those who forget the end do.
        assert_eq!(Query::read(b"\0\0abc\0").unwrap().text, b"abc");
        assert_eq!(Query::read(b"\0\0abc").unwrap().text, b"abc");
        assert!(Query::read(b"\0\0    \0").unwrap().is_index());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            flags in 0_u16..0x8000,
            text in "[a-z ]{0,40}",
            sha1: Option<[u8; 20]>,
            root: Option<[u8; 24]>,
            media in 0_u32..256,
        ) {
            let urns = sha1.map(Urn::Sha1).into_iter().chain(root.map(|root| Urn::Tiger(crate::huge::TigerRoot(root)))).collect();
            let wanted = Wanted { urns, media };
            let bytes = write(flags, text.as_bytes(), &wanted);
            let query = Query::read(&bytes).unwrap();
            prop_assert_eq!(query.flags, Flags(flags | Flags::MARK));
            prop_assert_eq!(query.text, text.as_bytes());
            prop_assert_eq!(query.wanted(), wanted);
            prop_assert_eq!(query.wants_token(), flags & Flags::OUT_OF_BAND != 0);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            match Query::read(&bytes) {
                Ok(query) => { query.wanted(); }
                Err(_) => prop_assert!(bytes.len() < 2),
            }
        }
    }
}
