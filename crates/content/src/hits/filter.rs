//! Which hits somebody wants to see.

use std::ops::RangeInclusive;

use super::Hit;
use crate::file_kind::FileKind;
use crate::keywords::Terms;

/// What a hit must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What its name must not hold; words that it must hold are the overlays' to understand.
    pub terms: Terms,
    /// What the ending of its name promises.
    pub kind: Option<FileKind>,
    /// Its size in bytes.
    pub size: RangeInclusive<u64>,
    /// Kilobits a second at least; a hit that does not say is left out if this is not zero.
    pub min_bitrate: u32,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            terms: Terms::default(),
            kind: None,
            size: 0..=u64::MAX,
            min_bitrate: 0,
        }
    }
}

impl Filter {
    /// Whether a hit is wanted.
    #[must_use]
    pub fn admits(&self, hit: &Hit) -> bool {
        self.size.contains(&hit.size)
            && hit.bitrate >= self.min_bitrate
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| kind.is_of(hit.name.as_bytes()))
            && !self.terms.bans(&hit.name)
    }
}
