//! What children share, for another network that this supernode answers for: files that anybody can
//! fetch from the child itself.

use shoal_content::keywords::{Entry, Terms};

use super::Node;
use super::kept::Kept;
use crate::Address;
use crate::wire::File;

/// Files that are looked at for one question, at most.
const LOOKED: usize = 2000;

/// What another network asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfChildren {
    /// Files whose paths are so.
    Words(Terms),
    /// The file with this SHA-1.
    Sha1([u8; 20]),
}

impl<A: Address> Node<A> {
    /// Files of children that others can connect to, at most `most`, and where they are fetched.
    pub fn of_children(&self, wanted: &OfChildren, most: usize) -> Vec<(File, A)> {
        let (mut found, mut looked) = (Vec::new(), 0);
        let take = |entry: &Entry<'_, Kept>| {
            looked += 1;
            if let Some(at) = self.files_at(entry.owner) {
                found.push((Kept::told(entry), at));
            }
            found.len() < most && looked < LOOKED
        };
        match wanted {
            OfChildren::Words(terms) => self.index.search(terms, 0, take),
            OfChildren::Sha1(sha1) => self.index.with_hash(sha1, take),
        }
        found.truncate(most);
        found
    }

    /// Hands over every such file, until `each` returns false.
    pub fn each_of_children(&self, mut each: impl FnMut(&File) -> bool) {
        self.index.each(|entry| match self.files_at(entry.owner) {
            Some(_) => each(&Kept::told(entry)),
            None => true,
        });
    }

    /// A number that changes when those files do.
    pub fn children_version(&self) -> u64 {
        self.shared_version
    }

    /// Where a child's files are fetched; none of this node's own, and of who is not reached.
    fn files_at(&self, owner: u32) -> Option<A> {
        let link = self.owners.get(owner as usize).copied().flatten()?;
        self.links.get(&link)?.theirs.as_ref()?.files
    }
}
