//! An index of files by the words of their paths: a log of records, and for each word the ascending
//! list of the records whose path holds it. A Napster hub's is of what its users share, the
//! library's of one's own files.
//!
//! Records are numbered as they come. A file that is withdrawn is only marked; when a third of the
//! log is such waste, the log is cleaned from its old end, a few records for each new or withdrawn
//! one: a record that still lives is appended again, and in every list that names it the record
//! cleaned is the first, so that no list is ever searched for it. Numbers wrap around, which is
//! sound while fewer than 2^31 are in use.

mod cleaning;
mod dictionary;
mod files;
mod searching;
mod terms;

pub use files::{Found, LocalFile, LocalFiles, Search};
pub use terms::Terms;

use std::collections::VecDeque;
use std::hash::Hasher;
use std::marker::PhantomData;

use hashbrown::HashTable;
use rustc_hash::FxHasher;
use shoal_base::words::{each_word, text_of};
use smallvec::SmallVec;

use dictionary::Dictionary;

/// Records of one block of the log.
const BLOCK: usize = 1024;
/// Waste below which nothing is cleaned.
const CLEAN_FROM: usize = 4096;

/// A sharer's number, given by the user of the index.
pub type Owner = u32;

#[derive(Debug, Default)]
struct Block {
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Folder {
    text: Box<[u8]>,
    files: u32,
    words: SmallVec<[u32; 8]>,
}

#[derive(Debug, Default)]
struct Sharer {
    /// The living records of this owner, by path.
    files: HashTable<u32>,
}

/// What an index keeps of a file beside its path.
pub trait Facts: Sized {
    /// Length in bytes.
    fn size(&self) -> u64;
    /// Appends its own bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads what [`Facts::encode`] wrote, and what follows it.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])>;
    /// The hashes that it can be found by.
    fn hashes(&self) -> [Option<&[u8]>; 2] {
        [None, None]
    }
}

/// One file as the index holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a, F> {
    /// Its number, until the index is cleaned.
    pub id: u32,
    /// Whose it is.
    pub owner: Owner,
    /// The folder, with its last separator.
    pub folder: &'a [u8],
    /// The name in it.
    pub name: &'a [u8],
    /// What is said of it.
    pub facts: F,
}

/// All files that are shared.
#[derive(Debug)]
pub struct Index<F> {
    blocks: VecDeque<Block>,
    /// Number of the first record of the first block.
    base: u32,
    /// Number of the first record not yet cleaned.
    head: u32,
    /// Number of the next record.
    next: u32,
    living: usize,
    bytes: u64,
    words: Dictionary,
    folders: Vec<Folder>,
    free_folders: Vec<u32>,
    by_folder: HashTable<u32>,
    /// The folder of the last file, which is mostly that of the next.
    last_folder: Option<u32>,
    sharers: Vec<Sharer>,
    /// The living records by their hashes.
    by_hash: [HashTable<u32>; 2],
    scratch: Scratch,
    facts: PhantomData<F>,
}

impl<F> Default for Index<F> {
    fn default() -> Self {
        Self {
            blocks: VecDeque::new(),
            base: 0,
            head: 0,
            next: 0,
            living: 0,
            bytes: 0,
            words: Dictionary::default(),
            folders: Vec::new(),
            free_folders: Vec::new(),
            by_folder: HashTable::new(),
            last_folder: None,
            sharers: Vec::new(),
            by_hash: Default::default(),
            scratch: Scratch::default(),
            facts: PhantomData,
        }
    }
}

#[derive(Debug, Default)]
struct Scratch {
    word: String,
    ids: SmallVec<[u32; 32]>,
    record: Vec<u8>,
}

/// Words of one path that are indexed at most.
const MAX_WORDS: usize = 64;

const DEAD: u8 = 1;

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = FxHasher::default();
    // Byte by byte over the parts, so that where a path was cut does not matter.
    let mut word = 0u64;
    let mut n = 0u32;
    for byte in parts.iter().copied().flatten() {
        word = (word << 8) | u64::from(*byte);
        n += 1;
        if n.is_multiple_of(8) {
            hasher.write_u64(word);
            word = 0;
        }
    }
    hasher.write_u64(word);
    hasher.write_u32(n);
    hasher.finish()
}

/// Whether `a` is before `b` among numbers that wrap.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn decode<F: Facts>(record: &[u8]) -> Option<(u8, u32, u32, F, &[u8])> {
    let (&[flags], rest) = record.split_first_chunk::<1>()?;
    let (owner, rest) = rest.split_first_chunk::<4>()?;
    let (folder, rest) = rest.split_first_chunk::<4>()?;
    let (facts, name) = F::decode(rest)?;
    let owner = u32::from_le_bytes(*owner);
    Some((flags, owner, u32::from_le_bytes(*folder), facts, name))
}

impl<F: Facts> Index<F> {
    /// One that finds words by their beginnings too, for a little memory.
    #[must_use]
    pub fn with_beginnings() -> Self {
        Self {
            words: Dictionary::sorted(),
            ..Self::default()
        }
    }

    /// Files shared.
    pub fn len(&self) -> usize {
        self.living
    }

    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.living == 0
    }

    /// Bytes of all shared files together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Different words known.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Files of one owner.
    pub fn files_of(&self, owner: Owner) -> usize {
        self.sharers
            .get(owner as usize)
            .map_or(0, |s| s.files.len())
    }

    fn record(&self, id: u32) -> Option<&[u8]> {
        let at = id.wrapping_sub(self.base) as usize;
        let block = self.blocks.get(at / BLOCK)?;
        let slot = at % BLOCK;
        let from = *block.offsets.get(slot)? as usize;
        let to = block
            .offsets
            .get(slot + 1)
            .map_or(block.bytes.len(), |o| *o as usize);
        block.bytes.get(from..to)
    }

    fn flags_mut(&mut self, id: u32) -> Option<&mut u8> {
        let at = id.wrapping_sub(self.base) as usize;
        let block = self.blocks.get_mut(at / BLOCK)?;
        let from = *block.offsets.get(at % BLOCK)? as usize;
        block.bytes.get_mut(from)
    }

    /// A living file by its number.
    pub fn entry(&self, id: u32) -> Option<Entry<'_, F>> {
        let (flags, owner, folder, facts, name) = decode(self.record(id)?)?;
        if flags & DEAD != 0 {
            return None;
        }
        let folder = &self.folders.get(folder as usize)?.text;
        Some(Entry {
            id,
            owner,
            folder,
            name,
            facts,
        })
    }

    fn path_hash(&self, id: u32) -> u64 {
        self.entry(id).map_or(0, |e| hash(&[e.folder, e.name]))
    }

    fn is_path(&self, id: u32, folder: &[u8], name: &[u8]) -> bool {
        self.entry(id).is_some_and(|e| {
            e.folder.len() + e.name.len() == folder.len() + name.len()
                && e.folder.iter().chain(e.name).eq(folder.iter().chain(name))
        })
    }

    /// The number of an owner's file; the path is that of both parts together.
    pub fn find(&self, owner: Owner, folder: &[u8], name: &[u8]) -> Option<u32> {
        let sharer = self.sharers.get(owner as usize)?;
        let found = sharer
            .files
            .find(hash(&[folder, name]), |id| self.is_path(*id, folder, name));
        found.copied()
    }

    /// Adds a file; false if its owner shares that path already.
    pub fn add(&mut self, owner: Owner, folder: &[u8], name: &[u8], facts: &F) -> bool {
        if self.find(owner, folder, name).is_some() {
            return false;
        }
        let folder = self.folder(folder);
        let id = self.append(owner, folder, name, facts);
        let at = owner as usize;
        if self.sharers.len() <= at {
            self.sharers.resize_with(at + 1, Sharer::default);
        }
        self.enlist(owner, id);
        self.living += 1;
        self.bytes = self.bytes.saturating_add(facts.size());
        self.clean();
        true
    }

    fn enlist(&mut self, owner: Owner, id: u32) {
        let hash = self.path_hash(id);
        let Some(sharer) = self.sharers.get_mut(owner as usize) else {
            return;
        };
        let mut files = std::mem::take(&mut sharer.files);
        files.insert_unique(hash, id, |id| self.path_hash(*id));
        if let Some(sharer) = self.sharers.get_mut(owner as usize) {
            sharer.files = files;
        }
    }

    /// Appends a record and names it in the lists of its words.
    fn append(&mut self, owner: Owner, folder: u32, name: &[u8], facts: &F) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let mut record = std::mem::take(&mut self.scratch.record);
        record.clear();
        record.push(0);
        record.extend_from_slice(&owner.to_le_bytes());
        record.extend_from_slice(&folder.to_le_bytes());
        facts.encode(&mut record);
        record.extend_from_slice(name);
        if self.blocks.back().is_none_or(|b| b.offsets.len() >= BLOCK) {
            if let Some(full) = self.blocks.back_mut() {
                full.bytes.shrink_to_fit();
            }
            let offsets = Vec::with_capacity(BLOCK);
            self.blocks.push_back(Block {
                offsets,
                bytes: Vec::new(),
            });
        }
        if let Some(block) = self.blocks.back_mut() {
            block.offsets.push(block.bytes.len() as u32);
            block.bytes.extend_from_slice(&record);
        }
        self.scratch.record = record;
        if let Some(folder) = self.folders.get_mut(folder as usize) {
            folder.files += 1;
        }
        let words = self.words_of(folder, name, true);
        for word in &words {
            self.words.push(*word, id);
        }
        self.scratch.ids = words;
        self.remember_hashes(id, facts);
        id
    }

    /// The different words of a path, each once.
    fn words_of(&mut self, folder: u32, name: &[u8], make: bool) -> SmallVec<[u32; 32]> {
        let mut ids = std::mem::take(&mut self.scratch.ids);
        let mut buf = std::mem::take(&mut self.scratch.word);
        ids.clear();
        if let Some(folder) = self.folders.get(folder as usize) {
            ids.extend_from_slice(&folder.words);
        }
        each_word(&text_of(name), &mut buf, |word| {
            if ids.len() < MAX_WORDS
                && let Some(id) = if make {
                    Some(self.words.number(word))
                } else {
                    self.words.known(word)
                }
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        });
        self.scratch.word = buf;
        ids
    }

    fn folder(&mut self, text: &[u8]) -> u32 {
        let is = |id: &u32| {
            self.folders
                .get(*id as usize)
                .is_some_and(|f| &*f.text == text)
        };
        if let Some(last) = self.last_folder
            && is(&last)
        {
            return last;
        }
        let found = self.by_folder.find(hash(&[text]), is).copied();
        let id = found.unwrap_or_else(|| self.new_folder(text));
        self.last_folder = Some(id);
        id
    }

    fn new_folder(&mut self, text: &[u8]) -> u32 {
        let mut words = SmallVec::new();
        let mut buf = std::mem::take(&mut self.scratch.word);
        each_word(&text_of(text), &mut buf, |word| {
            if words.len() < MAX_WORDS / 2 {
                let id = self.words.number(word);
                if !words.contains(&id) {
                    words.push(id);
                }
            }
        });
        self.scratch.word = buf;
        let folder = Folder {
            text: text.into(),
            files: 0,
            words,
        };
        let id = self.free_folders.pop().unwrap_or(self.folders.len() as u32);
        match self.folders.get_mut(id as usize) {
            Some(slot) => *slot = folder,
            None => self.folders.push(folder),
        }
        let folders = &self.folders;
        self.by_folder.insert_unique(hash(&[text]), id, |id| {
            hash(&[folders.get(*id as usize).map_or(&[][..], |f| &f.text)])
        });
        id
    }

    /// Calls `each` with the files of an owner, in the order of the log.
    pub fn each_of(&self, owner: Owner, mut each: impl FnMut(&Entry<'_, F>)) {
        let Some(sharer) = self.sharers.get(owner as usize) else {
            return;
        };
        let mut ids: Vec<u32> = sharer.files.iter().copied().collect();
        ids.sort_unstable_by_key(|id| id.wrapping_sub(self.head));
        for id in ids {
            if let Some(entry) = self.entry(id) {
                each(&entry);
            }
        }
    }

    fn remember_hashes(&mut self, id: u32, facts: &F) {
        for (n, wanted) in facts.hashes().into_iter().enumerate() {
            if let Some(wanted) = wanted
                && let Some(table) = self.by_hash.get_mut(n)
            {
                let mut table = std::mem::take(table);
                table.insert_unique(hash(&[wanted]), id, |id| self.nth_hash(*id, n));
                if let Some(slot) = self.by_hash.get_mut(n) {
                    *slot = table;
                }
            }
        }
    }

    fn nth_hash(&self, id: u32, n: usize) -> u64 {
        let of = |e: Entry<'_, F>| Some(hash(&[(*e.facts.hashes().get(n)?)?]));
        self.entry(id).and_then(of).unwrap_or(0)
    }

    /// Takes a record that still lives out of the tables of hashes.
    fn forget_hashes(&mut self, id: u32) {
        let Some(facts) = self.entry(id).map(|e| e.facts) else {
            return;
        };
        for (table, known) in self.by_hash.iter_mut().zip(facts.hashes()) {
            if let Some(known) = known
                && let Ok(found) = table.find_entry(hash(&[known]), |i| *i == id)
            {
                found.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests;
