//! How much of a store each source takes, so that who floods it displaces only itself.

use super::node::Source;
use shoal_base::Rng;
use std::collections::BTreeMap;

/// Entries of each source.
#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<Source, u32>);

impl Shares {
    /// One entry more.
    pub(super) fn add(&mut self, source: Source) {
        *self.0.entry(source).or_insert(0) += 1;
    }

    /// One entry less.
    pub(super) fn remove(&mut self, source: Source) {
        if let Some(count) = self.0.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&source);
            }
        }
    }

    /// Who has most entries; one of them at random if several have as many.
    pub(super) fn heaviest(&self, rng: &mut Rng) -> Option<Source> {
        let most = self.0.values().max()?;
        let heaviest: Vec<_> = self.0.iter().filter(|(_, n)| *n == most).collect();
        rng.pick(&heaviest).map(|(source, _)| **source)
    }

    /// Sources counted.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
