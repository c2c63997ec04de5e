//! Which torrents a tracker serves: a list of info-hashes to allow or to deny.

use rustc_hash::FxHashSet;
use shoal_base::InfoHash;

/// A line of a list that is no info-hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no info-hash of 40 hexadecimal digits: {text:?}")]
pub struct ListError {
    /// Counted from one.
    pub line: usize,
    /// Its first characters.
    pub text: String,
}

/// Which torrents are served.
#[derive(Debug, Clone, Default)]
pub enum AccessList {
    /// All.
    #[default]
    Open,
    /// Only these.
    Allow(FxHashSet<InfoHash>),
    /// All but these.
    Deny(FxHashSet<InfoHash>),
}

impl AccessList {
    /// Whether `torrent` is served.
    pub fn permits(&self, torrent: &InfoHash) -> bool {
        match self {
            Self::Open => true,
            Self::Allow(list) => list.contains(torrent),
            Self::Deny(list) => !list.contains(torrent),
        }
    }
}

/// Reads a list: an info-hash in hexadecimal a line; blank lines and what follows a `#` are
/// skipped.
pub fn parse_list(text: &str) -> Result<FxHashSet<InfoHash>, ListError> {
    let mut list = FxHashSet::default();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let hash = text.parse().map_err(|_| ListError {
            line,
            text: text.chars().take(50).collect(),
        })?;
        list.insert(hash);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_their_errors_located() {
        let list = parse_list("# ours\n\n0101010101010101010101010101010101010101 # one\n");
        let list = list.expect("a valid list");
        let (one, two) = (InfoHash([1; 20]), InfoHash([2; 20]));
        let allow = AccessList::Allow(list.clone());
        assert!(allow.permits(&one) && !allow.permits(&two));
        let deny = AccessList::Deny(list);
        assert!(!deny.permits(&one) && deny.permits(&two));
        assert!(AccessList::Open.permits(&two));
        let error = parse_list("\nabc").expect_err("too short");
        assert_eq!((error.line, error.text.as_str()), (2, "abc"));
    }
}
