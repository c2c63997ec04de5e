//! The bytes of what one ring position says to another: the body of an authenticated datagram.
//! `docs/protocols/chord.md` has the layout.

mod read;
#[cfg(test)]
mod tests;

pub(crate) use read::decode;

use super::message::{Contact, Message, Route, Style, Want};
use super::place::Place;
use crate::item::MAX_VALUE;
use crate::keywords::Record;
use crate::{Id, Item};
use shoal_base::Truncated;
use std::net::{IpAddr, SocketAddr};

/// Longest datagram: what is left of IPv6's smallest packet of 1280 bytes, so that none is ever
/// fragmented.
pub const MAX_DATAGRAM: usize = 1232;
/// Most contacts in one list.
pub(crate) const MAX_CONTACTS: usize = 20;
/// Most peers in one answer.
pub(crate) const MAX_PEERS: usize = 50;
/// Most words in one search.
pub(crate) const MAX_WORDS: usize = 8;
pub(crate) use crate::keywords::MAX_WORD;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// It ends early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// A field has a value that it cannot have.
    #[error("{0} is not valid")]
    Field(&'static str),
    /// Bytes are left over.
    #[error("bytes are left over")]
    Trailing,
}

/// What a datagram says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// Upkeep and lookups, between two ring positions.
    Ring {
        /// The receiver's ring position.
        to: u8,
        /// The sender's.
        from: u8,
        message: Message<Id, Place>,
    },
    /// A question about what is stored.
    Ask { number: u32, ask: Ask },
    /// Its answer.
    Reply { number: u32, reply: Reply },
}

/// A question about what is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    Get {
        target: Id,
    },
    Put {
        item: Item,
        cas: Option<i64>,
    },
    /// Hold this for its owner.
    Replicate {
        item: Item,
        /// Seconds it has left.
        left: u32,
        /// The first bytes of its publisher's key.
        publisher: u64,
        /// The sender owns it; else the receiver sees to it that the owner gets it.
        owned: bool,
    },
    Announce {
        key: Id,
        /// 0: the port this comes from.
        port: u16,
        seed: bool,
    },
    Peers {
        key: Id,
    },
    /// Tell me of values of `target` newer than `seq`.
    Subscribe {
        target: Id,
        seq: Option<i64>,
    },
    /// A new value of what the receiver has subscribed to.
    Push {
        item: Item,
    },
    /// Keep a record under a word.
    Publish {
        word: String,
        record: Record,
    },
    /// Records with all these words, of those kept under the first; none asked for: their number.
    Find {
        words: Vec<String>,
        most: u8,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Value(Option<Item>),
    Stored,
    /// A newer one is stored (BEP 44's error 302).
    Older(i64),
    /// BEP 44's error 301.
    Cas,
    Refused(Refusal),
    Peers {
        peers: Vec<SocketAddr>,
        seeds: u32,
        leechers: u32,
    },
    Records {
        count: u32,
        records: Vec<Record>,
    },
}

/// Why something is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Invalid,
    Full,
    Quota,
}

/// Who sends and who receives, which need not be said in the body.
pub(crate) struct Ends<'a> {
    /// The sender's socket address, as the receiver sees it.
    pub(crate) socket: SocketAddr,
    /// The sender's key.
    pub(crate) key: &'a [u8; 32],
}

/// Writes a body. `own` says under which index a ring position is the sender's own: its address is
/// left out, because only the receiver knows it.
pub(crate) fn encode(body: &Body, own: &dyn Fn(Id) -> Option<u8>) -> Vec<u8> {
    let mut w = Writer {
        out: Vec::with_capacity(128),
        own,
    };
    match body {
        Body::Ring { to, from, message } => {
            w.out.extend([0, *to, *from]);
            w.message(message);
        }
        Body::Ask { number, ask } => {
            w.u8(1);
            w.u32(*number);
            w.ask(ask);
        }
        Body::Reply { number, reply } => {
            w.u8(2);
            w.u32(*number);
            w.reply(reply);
        }
    }
    w.out
}

struct Writer<'a> {
    out: Vec<u8>,
    own: &'a dyn Fn(Id) -> Option<u8>,
}

impl Writer<'_> {
    fn u8(&mut self, n: u8) {
        self.out.push(n);
    }
    fn u16(&mut self, n: u16) {
        self.out.extend(n.to_be_bytes());
    }
    fn u32(&mut self, n: u32) {
        self.out.extend(n.to_be_bytes());
    }
    fn i64(&mut self, n: i64) {
        self.out.extend(n.to_be_bytes());
    }
    fn id(&mut self, id: &Id) {
        self.out.extend(id.0);
    }

    fn short(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..255).unwrap_or(bytes);
        self.u8(bytes.len() as u8);
        self.out.extend(bytes);
    }

    fn socket(&mut self, socket: &SocketAddr) {
        match socket.ip() {
            IpAddr::V4(ip) => {
                self.u8(4);
                self.out.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(6);
                self.out.extend(ip.octets());
            }
        }
        self.u16(socket.port());
    }

    fn contact(&mut self, contact: &Contact<Id, Place>) {
        if let Some(index) = (self.own)(contact.id) {
            self.out.extend([0, index]);
            return;
        }
        self.socket(&contact.addr.socket);
        self.u8(contact.addr.index);
        self.id(&contact.id);
    }

    fn contacts(&mut self, list: &[Contact<Id, Place>]) {
        let list = list.get(..MAX_CONTACTS).unwrap_or(list);
        self.u8(list.len() as u8);
        for contact in list {
            self.contact(contact);
        }
    }

    fn message(&mut self, message: &Message<Id, Place>) {
        match message {
            Message::Query(q) => {
                self.u8(0);
                self.u32(q.nonce);
                self.id(&q.key);
                let route = match q.lookup.route {
                    Route::Ring => 0,
                    Route::BothWays => 1,
                    Route::Shortcuts => 2,
                    Route::Fingers => 3,
                };
                let style = match q.lookup.style {
                    Style::Recursive => 0,
                    Style::Iterative => 1,
                };
                let want = match q.lookup.want {
                    Want::Named => 0,
                    Want::Owner => 1,
                    Want::Predecessor => 2,
                };
                let flag = |b: bool, bit: u8| u8::from(b) << bit;
                self.u8(route
                    | style << 2
                    | want << 3
                    | flag(q.last, 5)
                    | flag(q.trace.is_some(), 6));
                self.u8(q.lookup.replicas);
                self.u16(q.skip);
                self.u16(q.hops.min(u16::MAX.into()) as u16);
                self.u16(q.limit.min(u16::MAX.into()) as u16);
                self.u16(q.timeouts);
                self.u32(q.number);
                self.contact(&Contact::new(q.origin.id, q.origin));
                if let Some(trace) = &q.trace {
                    self.contacts(trace);
                }
            }
            Message::Taken { nonce } => self.bare(1, *nonce),
            Message::Next { nonce, hops, last } => {
                self.bare(2, *nonce);
                self.u8(u8::from(*last));
                self.contacts(hops);
            }
            Message::Found { number, found } => {
                self.bare(3, *number);
                self.id(&found.key);
                self.contact(&found.owner);
                self.u16(found.hops.min(u16::MAX.into()) as u16);
                self.u16(found.timeouts);
                self.contacts(&found.replicas);
                // Both lists must fit one datagram.
                let room = MAX_CONTACTS.saturating_sub(found.replicas.len());
                self.contacts(found.path.get(..room).unwrap_or(&found.path));
            }
            Message::GetNeighbours { nonce } => self.bare(4, *nonce),
            Message::Neighbours {
                nonce,
                predecessor,
                successors,
            } => {
                self.bare(5, *nonce);
                self.u8(u8::from(predecessor.is_some()));
                if let Some(predecessor) = predecessor {
                    self.contact(predecessor);
                }
                self.contacts(successors);
            }
            Message::Notify { .. } => self.u8(6),
            Message::Ping { nonce } => self.bare(7, *nonce),
            Message::Pong { nonce } => self.bare(8, *nonce),
            Message::Gone { nonce } => self.bare(9, *nonce),
            Message::Leaving { .. } => self.u8(10),
            Message::Merge { via } => {
                self.u8(11);
                self.contact(via);
            }
            Message::Changed { .. } => self.u8(12),
        }
    }

    fn bare(&mut self, kind: u8, nonce: u32) {
        self.u8(kind);
        self.u32(nonce);
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Immutable(value) => {
                self.u8(0);
                self.value(value);
            }
            Item::Mutable(m) => {
                self.u8(1);
                self.out.extend(m.key);
                self.short(&m.salt);
                self.i64(m.seq);
                self.out.extend(m.signature);
                self.value(&m.value);
            }
            Item::Certified(m) => {
                self.u8(2);
                self.out.extend(m.authority);
                self.short(&m.name);
                self.i64(m.seq);
                self.value(&m.value);
            }
        }
    }

    fn value(&mut self, value: &[u8]) {
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        self.u16(value.len() as u16);
        self.out.extend(value);
    }

    fn optional(&mut self, n: Option<i64>) {
        self.u8(u8::from(n.is_some()));
        if let Some(n) = n {
            self.i64(n);
        }
    }

    fn record(&mut self, record: &Record) {
        self.out.extend(record.publisher);
        self.id(&record.content);
        self.out.extend(record.size.to_be_bytes());
        self.u32(record.made);
        self.short(record.title.as_bytes());
        self.out.extend(record.signature);
    }

    fn ask(&mut self, ask: &Ask) {
        match ask {
            Ask::Get { target } => {
                self.u8(0);
                self.id(target);
            }
            Ask::Put { item, cas } => {
                self.u8(1);
                self.optional(*cas);
                self.item(item);
            }
            Ask::Replicate {
                item,
                left,
                publisher,
                owned,
            } => {
                self.u8(2);
                self.u8(u8::from(*owned));
                self.u32(*left);
                self.out.extend(publisher.to_be_bytes());
                self.item(item);
            }
            Ask::Announce { key, port, seed } => {
                self.u8(3);
                self.id(key);
                self.u16(*port);
                self.u8(u8::from(*seed));
            }
            Ask::Peers { key } => {
                self.u8(4);
                self.id(key);
            }
            Ask::Subscribe { target, seq } => {
                self.u8(5);
                self.id(target);
                self.optional(*seq);
            }
            Ask::Push { item } => {
                self.u8(6);
                self.item(item);
            }
            Ask::Publish { word, record } => {
                self.u8(7);
                self.short(word.as_bytes());
                self.record(record);
            }
            Ask::Find { words, most } => {
                self.u8(8);
                self.u8(*most);
                let words = words.get(..MAX_WORDS).unwrap_or(words);
                self.u8(words.len() as u8);
                for word in words {
                    self.short(word.as_bytes());
                }
            }
        }
    }

    fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Value(item) => {
                self.u8(0);
                self.u8(u8::from(item.is_some()));
                if let Some(item) = item {
                    self.item(item);
                }
            }
            Reply::Stored => self.u8(1),
            Reply::Older(seq) => {
                self.u8(2);
                self.i64(*seq);
            }
            Reply::Cas => self.u8(3),
            Reply::Refused(why) => {
                self.u8(4);
                self.u8(match why {
                    Refusal::Invalid => 0,
                    Refusal::Full => 1,
                    Refusal::Quota => 2,
                });
            }
            Reply::Peers {
                peers,
                seeds,
                leechers,
            } => {
                self.u8(5);
                self.u32(*seeds);
                self.u32(*leechers);
                let peers = peers.get(..MAX_PEERS).unwrap_or(peers);
                self.u8(peers.len() as u8);
                for peer in peers {
                    if peer.ip().is_unspecified() {
                        // The sender itself, which does not know its address.
                        self.u8(0);
                        self.u16(peer.port());
                    } else {
                        self.socket(peer);
                    }
                }
            }
            Reply::Records { count, records } => {
                self.u8(6);
                self.u32(*count);
                self.u8(records.len().min(255) as u8);
                for record in records.iter().take(255) {
                    self.record(record);
                }
            }
        }
    }
}
