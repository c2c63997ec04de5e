//! Names of contents by their hashes, as Gnutella and magnet links write them (HUGE 0.94 §3):
//! `urn:sha1:`, `urn:tree:tiger:` and `urn:bitprint:`, which is both.

use std::fmt;
use std::str::FromStr;

use shoal_base::base32;

use crate::tiger::TigerRoot;

/// A name that says what the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Urn {
    /// SHA-1 of the whole file.
    Sha1([u8; 20]),
    /// The root of its Tiger tree.
    Tiger(TigerRoot),
    /// Both.
    Bitprint([u8; 20], TigerRoot),
}

/// Why a text is no [`Urn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrnError {
    /// It begins otherwise.
    #[error("it begins with none of urn:sha1:, urn:tree:tiger: and urn:bitprint:")]
    Scheme,
    /// What follows is no such hash.
    #[error("its hash is not the base32 that the name promises")]
    Hash,
}

impl Urn {
    /// The SHA-1, if it says one.
    #[must_use]
    pub fn sha1(&self) -> Option<[u8; 20]> {
        match self {
            Self::Sha1(sha1) | Self::Bitprint(sha1, _) => Some(*sha1),
            Self::Tiger(_) => None,
        }
    }

    /// The root of the Tiger tree, if it says one.
    #[must_use]
    pub fn tiger(&self) -> Option<TigerRoot> {
        match self {
            Self::Tiger(root) | Self::Bitprint(_, root) => Some(*root),
            Self::Sha1(_) => None,
        }
    }
}

impl fmt::Display for Urn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha1(sha1) => write!(f, "urn:sha1:{}", base32::encode(sha1)),
            Self::Tiger(root) => write!(f, "urn:tree:tiger:{root}"),
            Self::Bitprint(sha1, root) => {
                write!(f, "urn:bitprint:{}.{root}", base32::encode(sha1))
            }
        }
    }
}

/// What follows `prefix`, which may be written in either case.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

impl FromStr for Urn {
    type Err = UrnError;

    /// Also `urn:tree:tiger/:`, which some servents write.
    fn from_str(text: &str) -> Result<Self, UrnError> {
        let sha1 = |text: &str| base32::decode(text.as_bytes()).ok_or(UrnError::Hash);
        let tiger = |text: &str| text.parse::<TigerRoot>().map_err(|_| UrnError::Hash);
        if let Some(hash) = after(text, "urn:sha1:") {
            return Ok(Self::Sha1(sha1(hash)?));
        }
        let tree = after(text, "urn:tree:tiger:").or_else(|| after(text, "urn:tree:tiger/:"));
        if let Some(hash) = tree {
            return Ok(Self::Tiger(tiger(hash)?));
        }
        let both = after(text, "urn:bitprint:").ok_or(UrnError::Scheme)?;
        let (first, second) = both.split_once('.').ok_or(UrnError::Hash)?;
        Ok(Self::Bitprint(sha1(first)?, tiger(second)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_in_either_case() {
        // HUGE 0.94 §3.3: the example of a bitprint.
        let sha1 = "PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB";
        let root = "LWPNACQDBZRYXW3VHJVCJ64QBZNGHOHHHZWCLNQ";
        let urn: Urn = format!("URN:SHA1:{}", sha1.to_lowercase())
            .parse()
            .expect("a name");
        assert_eq!(urn.to_string(), format!("urn:sha1:{sha1}"));
        let urn: Urn = format!("urn:bitprint:{sha1}.{root}")
            .parse()
            .expect("a name");
        assert_eq!(urn.tiger(), Some(TigerRoot::of(b"")));
        assert!(urn.sha1().is_some());
        let slash = format!("urn:tree:tiger/:{root}");
        assert_eq!(slash.parse(), Ok(Urn::Tiger(TigerRoot::of(b""))));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "urn:",
            "urn:md5:abc",
            "sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB",
            "üüüüüü",
        ] {
            assert_eq!(text.parse::<Urn>(), Err(UrnError::Scheme), "{text}");
        }
        for text in [
            "urn:sha1:",
            "urn:sha1:PLSTHIPQ",
            "urn:bitprint:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB",
        ] {
            assert_eq!(text.parse::<Urn>(), Err(UrnError::Hash), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sha1: [u8; 20], tiger: [u8; 24]) {
            let root = TigerRoot(tiger);
            for urn in [Urn::Sha1(sha1), Urn::Tiger(root), Urn::Bitprint(sha1, root)] {
                prop_assert_eq!(urn.to_string().parse(), Ok(urn));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(?i)(urn:)?(sha1|tree:tiger|bitprint)?[:.]?.{0,50}") {
            if let Ok(urn) = text.parse::<Urn>() {
                prop_assert_eq!(urn.to_string().parse(), Ok(urn));
            }
        }
    }
}
