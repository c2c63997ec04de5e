//! Who has which name: what the entries of the log, one after the other, have left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shoal_base::id::{from_hex, to_hex};

use super::MAX_ENTRIES;
use super::fold::fold;
use super::log::{Hash, Tree, leaf};
use crate::token::{Key, is_name};

/// How a name came to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// Nobody had it.
    Claimed,
    /// The key before said so.
    Key,
    /// The recovery key said so.
    Recovery,
}

impl How {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Claimed, "claimed"),
        (Self::Key, "key"),
        (Self::Recovery, "recovery"),
    ];

    /// In a word.
    pub fn word(self) -> &'static str {
        let all = Self::ALL.iter().find(|(how, _)| *how == self);
        all.map_or("claimed", |(_, word)| word)
    }
}

/// One entry of the public log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Whose it is from now on.
    pub key: Key,
    /// Who may take it back.
    pub recovery: Option<Key>,
    /// Changes of this name before.
    pub generation: u32,
    /// When, in Unix seconds.
    pub unix: u64,
    /// Who said so.
    pub how: How,
}

impl Entry {
    /// Its leaf of the log's tree.
    pub fn leaf(&self) -> Hash {
        // Plain data: its encoding cannot fail.
        leaf(&postcard::to_allocvec(self).unwrap_or_default())
    }

    /// A line of text, without its end.
    pub fn line(&self) -> String {
        let recovery = self.recovery.as_ref().map_or("-".into(), |r| to_hex(r));
        let (key, how) = (to_hex(&self.key), self.how.word());
        let (name, generation, unix) = (&self.name, self.generation, self.unix);
        format!("{name} {key} {recovery} {generation} {unix} {how}")
    }

    /// Reads [`Entry::line`].
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let name = fields.next().filter(|n| is_name(n))?.to_owned();
        let key = from_hex(fields.next()?).ok()?;
        let recovery = match fields.next()? {
            "-" => None,
            text => Some(from_hex(text).ok()?),
        };
        let generation = fields.next()?.parse().ok()?;
        let unix = fields.next()?.parse().ok()?;
        let word = fields.next()?;
        let (how, _) = How::ALL.into_iter().find(|(_, w)| *w == word)?;
        fields.next().is_none().then_some(Self {
            name,
            key,
            recovery,
            generation,
            unix,
            how,
        })
    }
}

/// The register. Names are told apart as [`fold`] says.
#[derive(Debug, Default)]
pub struct Register {
    entries: Vec<Entry>,
    tree: Tree,
    /// The last entry of each name.
    last: BTreeMap<String, usize>,
}

impl Register {
    /// The last entry of a name, and its number in the log.
    pub fn owner(&self, name: &str) -> Option<(u64, &Entry)> {
        let at = *self.last.get(&fold(name))?;
        Some((at as u64, self.entries.get(at)?))
    }

    /// Names that are somebody's.
    pub fn count(&self) -> usize {
        self.last.len()
    }

    /// The entry that would bind a name next: not in the log yet.
    pub fn next(&self, name: &str, key: Key, recovery: Option<Key>, unix: u64, how: How) -> Entry {
        let before = self.owner(name).map(|(_, e)| e);
        Entry {
            name: before.map_or(name, |e| e.name.as_str()).to_owned(),
            key,
            recovery: recovery.or(before.and_then(|e| e.recovery)),
            generation: before.map_or(0, |e| e.generation.saturating_add(1)),
            unix,
            how,
        }
    }

    /// Adds an entry that is kept; its number.
    pub fn push(&mut self, entry: Entry) -> u64 {
        let at = self.entries.len();
        self.last.insert(fold(&entry.name), at);
        self.tree.push(entry.leaf());
        self.entries.push(entry);
        at as u64
    }

    /// The log's tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Entries of the log, from this one on: as many as go into an answer.
    pub fn entries(&self, from: u64) -> &[Entry] {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let rest = self.entries.get(from..).unwrap_or_default();
        rest.get(..MAX_ENTRIES).unwrap_or(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_the_register() {
        let mut register = Register::default();
        let first = register.next("Alice", [1; 32], Some([9; 32]), 5, How::Claimed);
        assert_eq!(register.push(first), 0);
        let second = register.next("a1ice", [2; 32], None, 6, How::Key);
        assert_eq!((second.generation, second.recovery), (1, Some([9; 32])));
        register.push(second);
        let (at, entry) = register.owner("ALICE").expect("hers");
        assert_eq!((at, entry.key, entry.name.as_str()), (1, [2; 32], "Alice"));
        assert_eq!((register.count(), register.tree().len()), (1, 2));
        let mut again = Register::default();
        for entry in register.entries(0) {
            again.push(Entry::parse(&entry.line()).expect("reads"));
        }
        assert_eq!(again.tree().root(2), register.tree().root(2));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in "[ -~]{0,160}") {
            if let Some(entry) = Entry::parse(&line) {
                prop_assert_eq!(Entry::parse(&entry.line()), Some(entry));
            }
        }
    }
}
