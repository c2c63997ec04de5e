//! Names of contents by their hashes, as Gnutella and magnet links write them (HUGE 0.94 §3):
//! `urn:sha1:`, `urn:tree:tiger:` and `urn:bitprint:`, which is both.

use std::fmt;
use std::str::FromStr;

use crate::base32;

/// The SHA-1 of a whole file.
pub type Sha1 = [u8; 20];

/// The root of a file's Tiger tree (THEX), written as 39 digits of base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TigerRoot(pub [u8; 24]);

/// Why a text is no root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a Tiger tree's root has 39 digits of base32")]
pub struct ParseRootError;

impl fmt::Display for TigerRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

impl fmt::Debug for TigerRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TigerRoot({self})")
    }
}

impl FromStr for TigerRoot {
    type Err = ParseRootError;

    fn from_str(text: &str) -> Result<Self, ParseRootError> {
        let read = base32::decode(text.as_bytes());
        read.map(Self).ok_or(ParseRootError)
    }
}

/// A name that says what the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Urn {
    /// SHA-1 of the whole file.
    Sha1(Sha1),
    /// The root of its Tiger tree.
    Tiger(TigerRoot),
    /// Both.
    Bitprint(Sha1, TigerRoot),
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
    /// Reads one from bytes, in any case; none if they are no such name.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        str::from_utf8(text).ok()?.parse().ok()
    }

    /// By what a file is asked for where one hash is enough: the SHA-1, if it says one.
    #[must_use]
    pub fn shortest(&self) -> Self {
        match self {
            Self::Bitprint(sha1, _) => Self::Sha1(*sha1),
            urn => *urn,
        }
    }

    /// The one name of a file with these hashes; none without any.
    #[must_use]
    pub fn of(sha1: Option<Sha1>, tiger: Option<TigerRoot>) -> Option<Self> {
        match (sha1, tiger) {
            (Some(sha1), Some(root)) => Some(Self::Bitprint(sha1, root)),
            (Some(sha1), None) => Some(Self::Sha1(sha1)),
            (None, Some(root)) => Some(Self::Tiger(root)),
            (None, None) => None,
        }
    }

    /// Whether both can be of one file: no hash that both say differs.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        let sha1 = self.sha1().zip(other.sha1());
        let tiger = self.tiger().zip(other.tiger());
        sha1.is_none_or(|(a, b)| a == b) && tiger.is_none_or(|(a, b)| a == b)
    }

    /// Whether this is the name of a file with these hashes: one of its own is among them, and none differs.
    #[must_use]
    pub fn is_of(&self, sha1: Option<Sha1>, tiger: Option<TigerRoot>) -> bool {
        let shares =
            self.sha1().is_some() && sha1.is_some() || self.tiger().is_some() && tiger.is_some();
        shares && Self::of(sha1, tiger).is_some_and(|urn| self.agrees(&urn))
    }

    /// Twenty bytes that name the file among others of this machine: of the first hash it says.
    #[must_use]
    pub fn key(&self) -> [u8; 20] {
        match self {
            Self::Sha1(sha1) | Self::Bitprint(sha1, _) => *sha1,
            Self::Tiger(root) => std::array::from_fn(|n| root.0.get(n).copied().unwrap_or(0)),
        }
    }

    /// The SHA-1, if it says one.
    #[must_use]
    pub fn sha1(&self) -> Option<Sha1> {
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

    /// Also `urn:tree:tiger/:` and `urn:tree:tiger/`, which some servents write.
    fn from_str(text: &str) -> Result<Self, UrnError> {
        let sha1 = |text: &str| base32::decode(text.as_bytes()).ok_or(UrnError::Hash);
        let tiger = |text: &str| text.parse::<TigerRoot>().map_err(|_| UrnError::Hash);
        if let Some(hash) = after(text, "urn:sha1:") {
            return Ok(Self::Sha1(sha1(hash)?));
        }
        let forms = ["urn:tree:tiger:", "urn:tree:tiger/:", "urn:tree:tiger/"];
        let tree = forms.iter().find_map(|form| after(text, form));
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
        let empty: TigerRoot = root.parse().expect("a root");
        assert_eq!(urn.tiger(), Some(empty));
        assert!(urn.sha1().is_some());
        for old in ["urn:tree:tiger/:", "urn:tree:tiger/"] {
            assert_eq!(format!("{old}{root}").parse(), Ok(Urn::Tiger(empty)));
        }
    }

    #[test]
    fn two_names_agree_if_no_hash_differs() {
        let (one, other) = (TigerRoot([1; 24]), TigerRoot([2; 24]));
        let both = Urn::Bitprint([7; 20], one);
        assert!(both.agrees(&Urn::Sha1([7; 20])) && both.agrees(&Urn::Tiger(one)));
        assert!(!both.agrees(&Urn::Tiger(other)) && !both.agrees(&Urn::Sha1([8; 20])));
        assert!(Urn::Sha1([7; 20]).agrees(&Urn::Tiger(other)));
        assert_eq!(both.shortest(), Urn::Sha1([7; 20]));
        assert_eq!(Urn::of(both.sha1(), both.tiger()), Some(both));
        assert_eq!(Urn::Tiger(one).key(), [1; 20]);
        assert!(both.is_of(Some([7; 20]), None) && both.is_of(None, Some(one)));
        assert!(!both.is_of(Some([7; 20]), Some(other)) && !both.is_of(None, None));
        assert!(!Urn::Tiger(one).is_of(Some([7; 20]), None));
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
