//! Reading a body: every length and value is checked before it is used.

use super::super::message::{Contact, Found, Lookup, Message, Query, Route, Style, Want};
use super::super::place::{Place, position};
use super::{
    Ask, Body, Ends, MAX_CONTACTS, MAX_PEERS, MAX_WORD, MAX_WORDS, Malformed, Refusal, Reply,
};
use crate::item::{MAX_SALT, MAX_VALUE};
use crate::keywords::{MAX_TITLE, Record};
use crate::{Certified, Id, Item, Mutable};
use shoal_base::Cursor;
use std::net::{IpAddr, SocketAddr};

/// Reads a whole body.
pub(crate) fn decode(bytes: &[u8], ends: &Ends<'_>) -> Result<Body, Malformed> {
    let mut r = Reader {
        c: Cursor::new(bytes),
        ends,
    };
    let body = match r.c.u8()? {
        0 => {
            let (to, from) = (r.c.u8()?, r.c.u8()?);
            let message = r.message(from)?;
            Body::Ring { to, from, message }
        }
        1 => Body::Ask {
            number: r.c.u32()?,
            ask: r.ask()?,
        },
        2 => Body::Reply {
            number: r.c.u32()?,
            reply: r.reply()?,
        },
        _ => return Err(Malformed::Field("kind")),
    };
    if r.c.is_empty() {
        Ok(body)
    } else {
        Err(Malformed::Trailing)
    }
}

struct Reader<'a> {
    c: Cursor<'a>,
    ends: &'a Ends<'a>,
}

impl Reader<'_> {
    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.c.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Field("flag")),
        }
    }

    fn id(&mut self) -> Result<Id, Malformed> {
        Ok(Id(self.c.array()?))
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.c.array()?))
    }

    fn short(&mut self, most: usize) -> Result<&[u8], Malformed> {
        let len = usize::from(self.c.u8()?);
        if len > most {
            return Err(Malformed::Field("length"));
        }
        Ok(self.c.take(len)?)
    }

    fn text(&mut self, most: usize) -> Result<String, Malformed> {
        let bytes = self.short(most)?.to_vec();
        String::from_utf8(bytes).map_err(|_| Malformed::Field("text"))
    }

    fn own(&self, index: u8) -> Contact<Id, Place> {
        let id = position(self.ends.key, index);
        Contact::new(
            id,
            Place {
                id,
                index,
                socket: self.ends.socket,
            },
        )
    }

    fn socket(&mut self, family: u8) -> Result<SocketAddr, Malformed> {
        let ip = match family {
            4 => IpAddr::from(self.c.array::<4>()?),
            6 => IpAddr::from(self.c.array::<16>()?),
            _ => return Err(Malformed::Field("address family")),
        };
        if ip.is_unspecified() {
            // It means the sender where a sender cannot know its address, and is written otherwise.
            return Err(Malformed::Field("address"));
        }
        Ok(SocketAddr::new(ip, self.c.u16()?))
    }

    fn contact(&mut self) -> Result<Contact<Id, Place>, Malformed> {
        let family = self.c.u8()?;
        if family == 0 {
            let index = self.c.u8()?;
            return Ok(self.own(index));
        }
        let socket = self.socket(family)?;
        let (index, id) = (self.c.u8()?, self.id()?);
        Ok(Contact::new(id, Place { id, index, socket }))
    }

    fn contacts(&mut self) -> Result<Vec<Contact<Id, Place>>, Malformed> {
        let count = usize::from(self.c.u8()?);
        if count > MAX_CONTACTS {
            return Err(Malformed::Field("number of contacts"));
        }
        (0..count).map(|_| self.contact()).collect()
    }

    fn message(&mut self, from: u8) -> Result<Message<Id, Place>, Malformed> {
        let kind = self.c.u8()?;
        Ok(match kind {
            0 => {
                let (nonce, key, flags) = (self.c.u32()?, self.id()?, self.c.u8()?);
                let lookup = Lookup {
                    route: match flags & 3 {
                        0 => Route::Ring,
                        1 => Route::BothWays,
                        2 => Route::Shortcuts,
                        _ => Route::Fingers,
                    },
                    style: match flags >> 2 & 1 {
                        0 => Style::Recursive,
                        _ => Style::Iterative,
                    },
                    want: match flags >> 3 & 3 {
                        0 => Want::Named,
                        1 => Want::Owner,
                        2 => Want::Predecessor,
                        _ => return Err(Malformed::Field("want")),
                    },
                    replicas: self.c.u8()?,
                    trace: flags >> 6 & 1 == 1,
                };
                if flags >> 7 == 1 {
                    return Err(Malformed::Field("flags"));
                }
                Message::Query(Query {
                    nonce,
                    key,
                    lookup,
                    last: flags >> 5 & 1 == 1,
                    skip: self.c.u16()?,
                    hops: self.c.u16()?.into(),
                    limit: self.c.u16()?.into(),
                    timeouts: self.c.u16()?,
                    number: self.c.u32()?,
                    origin: self.contact()?.addr,
                    trace: if lookup.trace {
                        Some(Box::new(self.contacts()?))
                    } else {
                        None
                    },
                })
            }
            1 => Message::Taken {
                nonce: self.c.u32()?,
            },
            2 => {
                let (nonce, last) = (self.c.u32()?, self.flag()?);
                let hops = self.contacts()?.into();
                Message::Next { nonce, hops, last }
            }
            3 => {
                let number = self.c.u32()?;
                let found = Found {
                    key: self.id()?,
                    owner: self.contact()?,
                    by: self.own(from),
                    hops: self.c.u16()?.into(),
                    timeouts: self.c.u16()?,
                    replicas: self.contacts()?.into(),
                    path: self.contacts()?,
                };
                // Both lists share one limit.
                if found.replicas.len() + found.path.len() > MAX_CONTACTS {
                    return Err(Malformed::Field("number of contacts"));
                }
                let found = Box::new(found);
                Message::Found { number, found }
            }
            4 => Message::GetNeighbours {
                nonce: self.c.u32()?,
            },
            5 => Message::Neighbours {
                nonce: self.c.u32()?,
                predecessor: if self.flag()? {
                    Some(self.contact()?)
                } else {
                    None
                },
                successors: self.contacts()?.into(),
            },
            6 => Message::Notify {
                id: self.own(from).id,
            },
            7 => Message::Ping {
                nonce: self.c.u32()?,
            },
            8 => Message::Pong {
                nonce: self.c.u32()?,
            },
            9 => Message::Gone {
                nonce: self.c.u32()?,
            },
            10 => Message::Leaving {
                id: self.own(from).id,
            },
            11 => Message::Merge {
                via: self.contact()?,
            },
            12 => Message::Changed {
                id: self.own(from).id,
            },
            _ => return Err(Malformed::Field("message")),
        })
    }

    fn item(&mut self) -> Result<Item, Malformed> {
        Ok(match self.c.u8()? {
            0 => Item::Immutable(self.value()?),
            1 => Item::Mutable(Box::new(Mutable {
                key: self.c.array()?,
                salt: self.short(MAX_SALT)?.to_vec(),
                seq: self.i64()?,
                signature: self.c.array()?,
                value: self.value()?,
            })),
            2 => Item::Certified(Box::new(Certified {
                authority: self.c.array()?,
                name: self.short(MAX_SALT)?.to_vec(),
                seq: self.i64()?,
                value: self.value()?,
            })),
            _ => return Err(Malformed::Field("item")),
        })
    }

    fn value(&mut self) -> Result<Vec<u8>, Malformed> {
        let len = usize::from(self.c.u16()?);
        if len > MAX_VALUE {
            return Err(Malformed::Field("length"));
        }
        Ok(self.c.take(len)?.to_vec())
    }

    fn optional(&mut self) -> Result<Option<i64>, Malformed> {
        Ok(if self.flag()? {
            Some(self.i64()?)
        } else {
            None
        })
    }

    fn record(&mut self) -> Result<Record, Malformed> {
        Ok(Record {
            publisher: self.c.array()?,
            content: self.id()?,
            size: self.c.u64()?,
            made: self.c.u32()?,
            title: self.text(MAX_TITLE)?,
            signature: self.c.array()?,
        })
    }

    fn ask(&mut self) -> Result<Ask, Malformed> {
        Ok(match self.c.u8()? {
            0 => Ask::Get { target: self.id()? },
            1 => Ask::Put {
                cas: self.optional()?,
                item: self.item()?,
            },
            2 => Ask::Replicate {
                owned: self.flag()?,
                left: self.c.u32()?,
                publisher: self.c.u64()?,
                item: self.item()?,
            },
            3 => Ask::Announce {
                key: self.id()?,
                port: self.c.u16()?,
                seed: self.flag()?,
            },
            4 => Ask::Peers { key: self.id()? },
            5 => Ask::Subscribe {
                target: self.id()?,
                seq: self.optional()?,
            },
            6 => Ask::Push { item: self.item()? },
            7 => Ask::Publish {
                word: self.text(MAX_WORD)?,
                record: self.record()?,
            },
            8 => {
                let (most, count) = (self.c.u8()?, self.c.u8()?);
                if usize::from(count) > MAX_WORDS {
                    return Err(Malformed::Field("number of words"));
                }
                let words: Result<_, _> = (0..count).map(|_| self.text(MAX_WORD)).collect();
                Ask::Find {
                    words: words?,
                    most,
                }
            }
            _ => return Err(Malformed::Field("question")),
        })
    }

    fn reply(&mut self) -> Result<Reply, Malformed> {
        Ok(match self.c.u8()? {
            0 => Reply::Value(if self.flag()? {
                Some(self.item()?)
            } else {
                None
            }),
            1 => Reply::Stored,
            2 => Reply::Older(self.i64()?),
            3 => Reply::Cas,
            4 => Reply::Refused(match self.c.u8()? {
                0 => Refusal::Invalid,
                1 => Refusal::Full,
                2 => Refusal::Quota,
                _ => return Err(Malformed::Field("refusal")),
            }),
            5 => {
                let (seeds, leechers) = (self.c.u32()?, self.c.u32()?);
                let count = usize::from(self.c.u8()?);
                if count > MAX_PEERS {
                    return Err(Malformed::Field("number of peers"));
                }
                let peer = |_| {
                    let family = self.c.u8()?;
                    if family != 0 {
                        return self.socket(family);
                    }
                    let (mut peer, port) = (self.ends.socket, self.c.u16()?);
                    if port != 0 {
                        peer.set_port(port);
                    }
                    Ok(peer)
                };
                let peers: Result<_, Malformed> = (0..count).map(peer).collect();
                Reply::Peers {
                    peers: peers?,
                    seeds,
                    leechers,
                }
            }
            6 => {
                let (count, here) = (self.c.u32()?, self.c.u8()?);
                let records: Result<_, _> = (0..here).map(|_| self.record()).collect();
                Reply::Records {
                    count,
                    records: records?,
                }
            }
            _ => return Err(Malformed::Field("answer")),
        })
    }
}
