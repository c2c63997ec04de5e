//! What an end must not forget, as lines of a journal.

use serde::{Deserialize, Serialize};
use shoal_supernode::Address;
use shoal_supernode::token::Key;

use super::{Chat, StreamId};

/// Something that happened and is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A name has this key, of this generation.
    Met(String, Key, u32),
    /// We wrote a text: to whom, in which stream, its number, when, what.
    Sent(String, StreamId, u64, u64, String),
    /// All of our texts in this stream below this number were delivered, or given up.
    Done(String, StreamId, u64),
    /// A text was told: whose, of which stream, its number, when it was written, what it says.
    Told(String, StreamId, u64, u64, String),
    /// Numbers of a stream below this were given up for lost.
    Skipped(String, StreamId, u64),
    /// Somebody is a buddy, or is none any more.
    Buddy(String, bool),
    /// A record of ours with this sequence number is published.
    Published(u64),
}

impl Entry {
    /// Its bytes, with their length before them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        shoal_supernode::wire::encode(self, &mut bytes);
        bytes
    }

    /// The entries of a journal, and how many of its bytes are whole entries.
    pub fn read(mut bytes: &[u8]) -> (Vec<Self>, usize) {
        let (mut entries, mut used) = (Vec::new(), 0);
        while let Ok(Some((entry, n))) = shoal_supernode::wire::decode(bytes) {
            entries.push(entry);
            used += n;
            bytes = bytes.get(n..).unwrap_or_default();
        }
        (entries, used)
    }
}

impl<A: Address> Chat<A> {
    /// Takes in what an earlier run kept.
    pub(super) fn replay(&mut self, entry: Entry) {
        let name = match &entry {
            Entry::Met(name, ..)
            | Entry::Sent(name, ..)
            | Entry::Done(name, ..)
            | Entry::Told(name, ..)
            | Entry::Skipped(name, ..)
            | Entry::Buddy(name, _) => name.clone(),
            Entry::Published(seq) => {
                self.seq = self.seq.max(*seq);
                return;
            }
        };
        let Some(person) = self.person(&name) else {
            return;
        };
        match entry {
            Entry::Met(_, key, generation) => person.key = Some((key, generation)),
            Entry::Sent(_, stream, seq, unix, text) => person.out.resent(stream, seq, unix, text),
            Entry::Done(_, stream, upto) => {
                person.out.done(&stream, upto);
            }
            Entry::Told(_, stream, seq, ..) => {
                person.streams.entry(stream).or_default().was_told(seq);
            }
            Entry::Skipped(_, stream, upto) => {
                person.streams.entry(stream).or_default().was_skipped(upto);
            }
            Entry::Buddy(_, is) => person.buddy = is,
            // It is nobody else's.
            Entry::Published(_) => {}
        }
    }
}
