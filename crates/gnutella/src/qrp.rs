//! Query routing (QRP 0.6, Ultrapeer Query Routing 0.1): which words may be found behind a
//! neighbour, as a table of bits.
//!
//! A leaf's table has its files' words, an ultrapeer's also its leaves'. A query goes to a leaf, or
//! on its last hop to an ultrapeer, only if the table has all its words.

use shoal_base::words::each_word;
use smallvec::SmallVec;

use crate::huge::{Sha1, Urn};
use crate::words;

mod patch;
mod receive;

pub use patch::{MAX_PART, patches, reset};
pub use receive::{Receiver, RouteError};

/// Words of fewer letters are neither put into tables nor looked up, as gtk-gnutella and LimeWire
/// have it.
pub const MIN_WORD: usize = 3;
/// How many letters are cut from a word's end so that plurals and beginnings match.
const MAX_CUT: usize = 5;
/// Two to this are the slots of our tables (Ultrapeer Query Routing §2.5).
pub const BITS: u8 = 16;
/// The value that means "not here" in our updates of 4 and 8 bits.
pub const INFINITY: u8 = 7;

/// QRP 0.6 §5: (sqrt(5) - 1) / 2 * 2^32.
const GOLDEN: u32 = 0x4f1b_bcdc;

/// The hash of a word before it is cut to a table's size. ASCII letters are folded.
pub fn hash(word: &[u8]) -> u32 {
    let mut n = 0_u32;
    for (at, byte) in word.iter().enumerate() {
        n ^= u32::from(byte.to_ascii_lowercase()) << (8 * (at & 3));
    }
    n.wrapping_mul(GOLDEN)
}

/// The slot of a hash in a table of 2^`bits` slots.
pub fn slot(hash: u32, bits: u8) -> u32 {
    match bits {
        0 => 0,
        bits => hash >> (32 - u32::from(bits.min(32))),
    }
}

/// One bit for each hash: whether a word with it may be there.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    bits: u8,
    /// The first slot is the top bit of the first byte.
    slots: Box<[u8]>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} of 2^{})", self.count(), self.bits)
    }
}

impl Table {
    /// An empty table of 2^`bits` slots, 3 to 21.
    pub fn new(bits: u8) -> Self {
        let bits = bits.clamp(3, 21);
        Self {
            bits,
            slots: vec![0; 1 << (bits - 3)].into(),
        }
    }

    /// Two to this are its slots.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// How many slots are set.
    pub fn count(&self) -> u32 {
        self.slots.iter().map(|b| b.count_ones()).sum()
    }

    /// Whether a word with this hash may be there.
    pub fn has(&self, hash: u32) -> bool {
        let slot = slot(hash, self.bits);
        let byte = self.slots.get(slot as usize / 8);
        byte.is_some_and(|b| b & 0x80 >> (slot & 7) != 0)
    }

    /// Says that a word with this hash is there.
    pub fn insert(&mut self, hash: u32) {
        let slot = slot(hash, self.bits);
        if let Some(byte) = self.slots.get_mut(slot as usize / 8) {
            *byte |= 0x80 >> (slot & 7);
        }
    }

    /// Adds a name's words and their beginnings, and its content.
    pub fn add(&mut self, name: &str, sha1: Option<Sha1>) {
        each_word(name, &mut String::new(), |word| {
            let mut rest = word;
            for _ in 0..=MAX_CUT {
                if rest.len() < MIN_WORD {
                    break;
                }
                self.insert(hash(rest.as_bytes()));
                let last = rest.char_indices().next_back();
                rest = last.and_then(|(at, _)| rest.get(..at)).unwrap_or_default();
            }
        });
        if let Some(sha1) = sha1 {
            self.insert(hash(Urn::Sha1(sha1).to_string().as_bytes()));
        }
    }

    /// Adds all that another table has; it may be of another size.
    pub fn merge(&mut self, other: &Self) {
        if other.bits == self.bits {
            for (mine, theirs) in self.slots.iter_mut().zip(&other.slots) {
                *mine |= theirs;
            }
            return;
        }
        for (at, byte) in other.slots.iter().enumerate().filter(|(_, b)| **b != 0) {
            for bit in (0..8).filter(|bit| byte & 0x80 >> bit != 0) {
                self.cover(at * 8 + bit, other.bits);
            }
        }
    }

    /// Sets what slot `n` of a table of 2^`bits` slots stands for here: hashes are cut from the top,
    /// so that a slot of a smaller table is a run of slots of a larger one.
    fn cover(&mut self, n: usize, bits: u8) {
        if bits >= self.bits {
            let slot = n >> (bits - self.bits);
            if let Some(byte) = self.slots.get_mut(slot / 8) {
                *byte |= 0x80 >> (slot & 7);
            }
            return;
        }
        let more = self.bits - bits;
        for slot in n << more..(n + 1) << more {
            if let Some(byte) = self.slots.get_mut(slot / 8) {
                *byte |= 0x80 >> (slot & 7);
            }
        }
    }

    /// Whether a query may be answered there.
    pub fn may_answer(&self, probe: &Probe) -> bool {
        if probe.urns.iter().any(|urn| self.has(*urn)) {
            return true;
        }
        match probe.words.as_slice() {
            // Nothing that the table could tell.
            [] => probe.urns.is_empty(),
            words => words.iter().all(|word| self.has(*word)),
        }
    }

    fn slots_mut(&mut self) -> &mut [u8] {
        &mut self.slots
    }
}

/// A query's hashes, made once and looked up in many tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    words: SmallVec<[u32; 8]>,
    urns: SmallVec<[u32; 2]>,
}

impl Probe {
    /// The hashes of a query's words and contents.
    pub fn new(words: &[String], urns: &[Urn]) -> Self {
        let long = words.iter().filter(|w| w.len() >= MIN_WORD);
        let sha1s = urns.iter().filter_map(Urn::sha1).map(Urn::Sha1);
        Self {
            words: long.map(|w| hash(w.as_bytes())).collect(),
            urns: sha1s.map(|u| hash(u.to_string().as_bytes())).collect(),
        }
    }

    /// The hashes of a query as it came.
    pub fn of_text(text: &[u8], urns: &[Urn]) -> Self {
        Self::new(&words::fold(text), urns)
    }
}

#[cfg(test)]
mod tests;
