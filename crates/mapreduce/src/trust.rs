//! Whether to believe a stranger's result: adaptive replication as BOINC has it, with a quorum of two.
//!
//! A stranger earns trust by results that another worker's confirm. Until ten in a row did, every
//! result of his is computed twice; after n, one in n. One wrong result and he is never asked again.
//! Whoever is ours is believed, and settles a dispute.

use shoal_base::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// A stranger's key.
pub type Key = [u8; 32];

/// Equal results by different strangers that make a result true.
pub const QUORUM: usize = 2;

/// What is known of strangers.
#[derive(Debug, Clone, Default)]
pub struct Reputations {
    agreed: BTreeMap<Key, u32>,
    liars: BTreeSet<Key>,
}

/// What a set of results of one task says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// One more result is wanted.
    Undecided,
    /// This result counts.
    Accept {
        /// Its place among the results.
        index: usize,
        /// Whether it was compared with another's or comes from one of ours.
        verified: bool,
        /// Strangers whose results are other than what is now known to be true.
        liars: Vec<Key>,
        /// Strangers whose results another's confirmed: one entry for each result.
        confirmed: Vec<Key>,
    },
}

impl Reputations {
    /// Whether a stranger was ever caught.
    pub fn is_liar(&self, key: &Key) -> bool {
        self.liars.contains(key)
    }

    /// A stranger was caught. False if that was known.
    pub fn condemn(&mut self, key: Key) -> bool {
        self.agreed.remove(&key);
        self.liars.insert(key)
    }

    /// Confirmed results in a row.
    pub fn agreed(&self, key: &Key) -> u32 {
        self.agreed.get(key).copied().unwrap_or(0)
    }

    /// How likely it is that the next result of a stranger is checked.
    pub fn check_chance(&self, key: &Key, trust_after: u32) -> f64 {
        match self.agreed(key) {
            n if n < trust_after.max(1) => 1.0,
            n => 1.0 / f64::from(n),
        }
    }

    /// A stranger's result was confirmed by another's.
    pub fn confirm(&mut self, key: Key) {
        let agreed = self.agreed.entry(key).or_default();
        *agreed = agreed.saturating_add(1);
    }

    /// Judges the results of one task, the newest last: who made each (nobody for one of ours) and
    /// what it made. Liars and who gains trust are only named.
    pub fn judge<R: PartialEq>(
        &self,
        results: &[(Option<Key>, R)],
        trust_after: u32,
        rng: &mut Rng,
    ) -> Verdict {
        let truth = results
            .iter()
            .position(|(key, _)| key.is_none())
            .or_else(|| {
                results.iter().position(|(_, made)| {
                    let same = results.iter().filter(|(_, m)| m == made);
                    same.count() >= QUORUM
                })
            });
        if let Some((index, (_, true_one))) = truth.and_then(|i| Some((i, results.get(i)?))) {
            let (right, wrong): (Vec<_>, Vec<_>) =
                results.iter().partition(|(_, made)| made == true_one);
            let keys = |some: &[&(Option<Key>, R)]| some.iter().filter_map(|r| r.0).collect();
            return Verdict::Accept {
                index,
                verified: true,
                liars: keys(&wrong),
                confirmed: match right.len() {
                    0 | 1 => Vec::new(),
                    _ => keys(&right),
                },
            };
        }
        match results {
            [(Some(key), _)] if !rng.chance(self.check_chance(key, trust_after)) => {
                Verdict::Accept {
                    index: 0,
                    verified: false,
                    liars: Vec::new(),
                    confirmed: Vec::new(),
                }
            }
            _ => Verdict::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: u8 = 1;
    const LIE: u8 = 2;

    /// Judges, and remembers who was confirmed.
    fn judge(known: &mut Reputations, results: &[(Option<Key>, u8)], rng: &mut Rng) -> Verdict {
        let verdict = known.judge(results, 10, rng);
        if let Verdict::Accept { confirmed, .. } = &verdict {
            confirmed.iter().for_each(|key| known.confirm(*key));
        }
        verdict
    }

    #[test]
    fn a_new_stranger_needs_a_second_opinion_and_one_of_ours_does_not() {
        let mut known = Reputations::default();
        let mut rng = Rng::from_seed(1);
        let one = [(Some([7; 32]), TRUTH)];
        assert_eq!(judge(&mut known, &one, &mut rng), Verdict::Undecided);
        let ours = [(None, TRUTH)];
        let accept = |index, confirmed| Verdict::Accept {
            index,
            verified: true,
            liars: vec![],
            confirmed,
        };
        assert_eq!(judge(&mut known, &ours, &mut rng), accept(0, vec![]));
        let two = [(Some([7; 32]), TRUTH), (Some([8; 32]), TRUTH)];
        assert_eq!(
            judge(&mut known, &two, &mut rng),
            accept(0, vec![[7; 32], [8; 32]])
        );
        assert_eq!(known.agreed(&[7; 32]), 1);
    }

    #[test]
    fn a_dispute_is_settled_by_a_third_or_by_one_of_ours() {
        let mut known = Reputations::default();
        let mut rng = Rng::from_seed(1);
        let mut results = vec![(Some([7; 32]), LIE), (Some([8; 32]), TRUTH)];
        assert_eq!(judge(&mut known, &results, &mut rng), Verdict::Undecided);
        results.push((Some([9; 32]), TRUTH));
        let expected = |confirmed| Verdict::Accept {
            index: 1,
            verified: true,
            liars: vec![[7; 32]],
            confirmed,
        };
        let both = vec![[8; 32], [9; 32]];
        assert_eq!(judge(&mut known, &results, &mut rng), expected(both));
        let ours = [(Some([7; 32]), LIE), (None, TRUTH)];
        assert_eq!(judge(&mut known, &ours, &mut rng), expected(vec![]));
    }

    #[test]
    fn at_steady_trust_checking_costs_at_most_a_tenth() {
        let mut known = Reputations::default();
        let mut rng = Rng::from_seed(3);
        let (key, other) = (Some([7; 32]), Some([8; 32]));
        while known.agreed(&[7; 32]) < 10 {
            judge(&mut known, &[(key, TRUTH), (other, TRUTH)], &mut rng);
        }
        let mut checks = 0;
        for _ in 0..2000 {
            if judge(&mut known, &[(key, TRUTH)], &mut rng) == Verdict::Undecided {
                checks += 1;
                judge(&mut known, &[(key, TRUTH), (other, TRUTH)], &mut rng);
            }
        }
        assert!(
            (10..=200).contains(&checks),
            "{checks} of 2000 were checked"
        );
    }

    #[test]
    fn who_is_caught_is_never_believed_again() {
        let mut known = Reputations::default();
        assert!(known.condemn([7; 32]) && !known.condemn([7; 32]));
        assert!(known.is_liar(&[7; 32]) && !known.is_liar(&[8; 32]));
    }
}
