//! Vendor messages (Framework for Vendor-specific Messages 0.1): those that are understood here.

use std::net::SocketAddrV4;

use shoal_base::Cursor;

use super::probe::{CrawlPing, CrawlPong, HeadPing, HeadPong};
use super::{Malformed, ip_and_port};
use crate::ggep::{self, Writer};
use crate::guid::Guid;

/// Items of a list of messages that are read at most.
pub const MAX_SUPPORTED: usize = 128;

/// Names a vendor's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Four letters; NULs for messages that are nobody's.
    pub vendor: [u8; 4],
    /// Which of the vendor's.
    pub selector: u16,
}

const fn name(vendor: [u8; 4], selector: u16) -> Name {
    Name { vendor, selector }
}

/// Which messages a servent understands.
pub const SUPPORTED: Name = name([0; 4], 0);
/// The most hops of queries that a neighbour wants.
pub const HOPS_FLOW: Name = name(*b"BEAR", 4);
/// Asks for a connection, to see whether the sender can be reached.
pub const CONNECT_BACK: Name = name(*b"BEAR", 7);
/// Asks a leaf how many results of a query it kept.
pub const STATUS_REQUEST: Name = name(*b"BEAR", 11);
/// A leaf's answer.
pub const STATUS: Name = name(*b"BEAR", 12);
/// Asks to be a push proxy.
pub const PROXY_REQUEST: Name = name(*b"LIME", 21);
/// Agrees to be one.
pub const PROXY_ACK: Name = name(*b"LIME", 22);

/// Asks for a datagram, to see whether those reach the sender.
pub const UDP_CONNECT_BACK: Name = name(*b"GTKG", 7);
/// The crawler asks for neighbours, by a datagram.
pub const CRAWL_PING: Name = name(*b"LIME", 5);
/// The neighbours.
pub const CRAWL_PONG: Name = name(*b"LIME", 6);
/// Takes answers out of band, by datagrams.
pub const OOB_ACK: Name = name(*b"LIME", 11);
/// Offers answers out of band.
pub const OOB_REPLIES: Name = name(*b"LIME", 12);
/// Asks whether a file is to be had.
pub const HEAD_PING: Name = name(*b"LIME", 23);
/// Whether it is.
pub const HEAD_PONG: Name = name(*b"LIME", 24);

/// Longest token of answers out of band that is taken, in bytes.
pub const MAX_TOKEN: usize = 32;

/// What we tell others that we understand, with versions.
pub const OURS: [(Name, u16); 11] = [
    (HOPS_FLOW, 1),
    (CONNECT_BACK, 1),
    (STATUS_REQUEST, 1),
    (STATUS, 1),
    (PROXY_REQUEST, 1),
    (PROXY_ACK, 2),
    (UDP_CONNECT_BACK, 2),
    (CRAWL_PING, 1),
    (OOB_ACK, 3),
    (OOB_REPLIES, 3),
    (HEAD_PING, 2),
];

/// The hits that a leaf reports when it wants no more.
pub const ENOUGH: u16 = 0xffff;

/// A vendor's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vendor {
    /// The sender understands these.
    Supported(Vec<(Name, u16)>),
    /// Queries of this many hops or more are not wanted.
    HopsFlow(u8),
    /// Connect to this port.
    ConnectBack(u16),
    /// How many results of the query named by the message's GUID were kept?
    StatusRequest,
    /// That many; [`ENOUGH`] when no more are wanted.
    Status(u16),
    /// Be a push proxy for the servent that the message's GUID names.
    ProxyRequest,
    /// Agreed; reachable here.
    ProxyAck(SocketAddrV4),
    /// Send a datagram with a ping to this port of ours. It is named as given here (version 1), or as
    /// this message is.
    UdpConnectBack(u16, Option<Guid>),
    /// There are so many results for the query that the message's GUID names.
    OobReplies {
        /// 255 for as many and more.
        count: u8,
        /// Datagrams reach the sender unasked.
        reachable: bool,
        /// It repeats the token of the answer (version 3).
        secure: bool,
    },
    /// So many of them are wanted.
    OobAck {
        /// 255 for all.
        wanted: u8,
        /// What the results must repeat; empty before version 3.
        token: Vec<u8>,
    },
    /// Is a file to be had?
    HeadPing(HeadPing),
    /// It is, or not.
    HeadPong(HeadPong),
    /// Who are the neighbours?
    CrawlPing(CrawlPing),
    /// Those.
    CrawlPong(CrawlPong),
    /// Another one.
    Other(Name, u16),
}

impl Vendor {
    /// Reads a payload.
    ///
    /// # Errors
    /// It ends early.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut c = Cursor::new(payload);
        let (which, version) = read_name(&mut c)?;
        Ok(match which {
            SUPPORTED => {
                let count = usize::from(c.u16_le()?);
                let mut list = Vec::new();
                for _ in 0..count.min(MAX_SUPPORTED) {
                    list.push(read_name(&mut c)?);
                }
                Self::Supported(list)
            }
            HOPS_FLOW => Self::HopsFlow(c.u8()?),
            CONNECT_BACK => Self::ConnectBack(c.u16_le()?),
            STATUS_REQUEST => Self::StatusRequest,
            STATUS => Self::Status(c.u16_le()?),
            PROXY_REQUEST => Self::ProxyRequest,
            PROXY_ACK => Self::ProxyAck(ip_and_port(&mut c)?),
            UDP_CONNECT_BACK => {
                let port = c.u16_le()?;
                let guid = if version < 2 {
                    Some(Guid(c.array()?))
                } else {
                    None
                };
                Self::UdpConnectBack(port, guid)
            }
            OOB_REPLIES => Self::OobReplies {
                count: c.u8()?,
                reachable: version > 1 && c.u8()? & 1 != 0,
                secure: version > 2,
            },
            OOB_ACK => Self::OobAck {
                wanted: c.u8()?,
                token: if version > 2 {
                    token(c.rest())?
                } else {
                    Vec::new()
                },
            },
            HEAD_PING => Self::HeadPing(HeadPing::read(version, &mut c)?),
            HEAD_PONG => Self::HeadPong(HeadPong::read(version, &mut c)?),
            CRAWL_PING => Self::CrawlPing(CrawlPing::read(&mut c)?),
            CRAWL_PONG => Self::CrawlPong(CrawlPong::read(&mut c)?),
            other => Self::Other(other, version),
        })
    }

    /// The payload. [`Vendor::Other`] has no body.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Supported(list) => {
                write_name(SUPPORTED, 0, &mut out);
                let list = list.get(..MAX_SUPPORTED).unwrap_or(list);
                out.extend_from_slice(&(list.len() as u16).to_le_bytes());
                for (which, version) in list {
                    write_name(*which, *version, &mut out);
                }
            }
            Self::HopsFlow(hops) => {
                write_name(HOPS_FLOW, 1, &mut out);
                out.push(*hops);
            }
            Self::ConnectBack(port) => {
                write_name(CONNECT_BACK, 1, &mut out);
                out.extend_from_slice(&port.to_le_bytes());
            }
            Self::StatusRequest => write_name(STATUS_REQUEST, 1, &mut out),
            Self::Status(hits) => {
                write_name(STATUS, 1, &mut out);
                out.extend_from_slice(&hits.to_le_bytes());
            }
            Self::ProxyRequest => write_name(PROXY_REQUEST, 1, &mut out),
            Self::ProxyAck(addr) => {
                write_name(PROXY_ACK, 2, &mut out);
                super::write_address(*addr, &mut out);
            }
            Self::UdpConnectBack(port, guid) => {
                let version = if guid.is_some() { 1 } else { 2 };
                write_name(UDP_CONNECT_BACK, version, &mut out);
                out.extend_from_slice(&port.to_le_bytes());
                guid.iter().for_each(|guid| out.extend_from_slice(&guid.0));
            }
            Self::OobReplies {
                count,
                reachable,
                secure,
            } => {
                write_name(OOB_REPLIES, if *secure { 3 } else { 2 }, &mut out);
                out.extend([*count, u8::from(*reachable)]);
            }
            Self::OobAck { wanted, token } => {
                write_name(OOB_ACK, if token.is_empty() { 2 } else { 3 }, &mut out);
                out.push(*wanted);
                if !token.is_empty() {
                    Writer::new(&mut out, false).item(b"SO", token).finish();
                }
            }
            Self::HeadPing(ping) => {
                write_name(HEAD_PING, if ping.second { 2 } else { 1 }, &mut out);
                ping.write(&mut out);
            }
            Self::HeadPong(pong) => {
                write_name(HEAD_PONG, if pong.second { 2 } else { 1 }, &mut out);
                pong.write(&mut out);
            }
            Self::CrawlPing(ping) => {
                write_name(CRAWL_PING, 1, &mut out);
                ping.write(&mut out);
            }
            Self::CrawlPong(pong) => {
                write_name(CRAWL_PONG, 1, &mut out);
                pong.write(&mut out);
            }
            Self::Other(which, version) => write_name(*which, *version, &mut out),
        }
        out
    }
}

/// The token in the block behind the number of answers wanted.
fn token(rest: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (items, _) = ggep::read(rest)?;
    let token = ggep::find(&items, b"SO").unwrap_or_default();
    Ok(token.get(..MAX_TOKEN).unwrap_or(token).to_vec())
}

fn read_name(c: &mut Cursor<'_>) -> Result<(Name, u16), Malformed> {
    let vendor = c.array()?;
    let selector = c.u16_le()?;
    Ok((name(vendor, selector), c.u16_le()?))
}

fn write_name(which: Name, version: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&which.vendor);
    out.extend_from_slice(&which.selector.to_le_bytes());
    out.extend_from_slice(&version.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_out_of_band_are_offered_and_taken_as_version_3_says() {
        let offer = Vendor::OobReplies {
            count: 7,
            reachable: true,
            secure: true,
        };
        assert_eq!(offer.write(), b"LIME\x0c\x00\x03\x00\x07\x01");
        // The first version had no second byte.
        let first = Vendor::read(b"LIME\x0c\x00\x01\x00\x07").expect("read");
        assert!(matches!(
            first,
            Vendor::OobReplies {
                count: 7,
                reachable: false,
                secure: false
            }
        ));
        let take = Vendor::OobAck {
            wanted: 5,
            token: b"tk".to_vec(),
        };
        assert_eq!(take.write(), b"LIME\x0b\x00\x03\x00\x05\xc3\x82SO\x42tk");
    }

    #[test]
    fn hops_flow_is_laid_out_as_the_framework_says() {
        let bytes = Vendor::HopsFlow(3).write();
        assert_eq!(bytes, b"BEAR\x04\x00\x01\x00\x03");
    }

    fn hosts(most: usize) -> impl Strategy<Value = Vec<SocketAddrV4>> {
        let addrs =
            any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port));
        prop::collection::vec(addrs, 0..most)
    }

    fn any_vendor() -> impl Strategy<Value = Vendor> {
        let names = prop::collection::vec((any::<[u8; 4]>(), any::<u16>(), any::<u16>()), 0..9);
        prop_oneof![
            names.prop_map(|list| {
                let list = list.into_iter().map(|(v, s, n)| (name(v, s), n));
                Vendor::Supported(list.collect())
            }),
            any::<u8>().prop_map(Vendor::HopsFlow),
            any::<u16>().prop_map(Vendor::ConnectBack),
            Just(Vendor::StatusRequest),
            any::<u16>().prop_map(Vendor::Status),
            Just(Vendor::ProxyRequest),
            any::<([u8; 4], u16)>()
                .prop_map(|(ip, port)| Vendor::ProxyAck(SocketAddrV4::new(ip.into(), port))),
            any::<(u16, u16)>().prop_map(|(s, v)| Vendor::Other(name(*b"GTKH", s), v)),
            any::<(u16, Option<[u8; 16]>)>()
                .prop_map(|(port, guid)| Vendor::UdpConnectBack(port, guid.map(Guid))),
            any::<(u8, bool, bool)>().prop_map(|(count, reachable, secure)| Vendor::OobReplies {
                count,
                reachable,
                secure
            }),
            (
                any::<u8>(),
                prop::collection::vec(any::<u8>(), 0..MAX_TOKEN)
            )
                .prop_map(|(wanted, token)| Vendor::OobAck { wanted, token }),
            any::<([u8; 20], bool, Option<[u8; 16]>, bool)>().prop_map(
                |(sha1, alternates, servent, second)| Vendor::HeadPing(HeadPing {
                    sha1,
                    alternates,
                    servent: servent.map(Guid),
                    second
                })
            ),
            (any::<(bool, [u8; 4], i8, bool)>(), hosts(15)).prop_map(
                |((firewalled, vendor, queue, second), alternates)| Vendor::HeadPong(HeadPong {
                    complete: queue % 2 == 0,
                    partial: queue % 2 != 0,
                    firewalled,
                    vendor,
                    queue,
                    alternates,
                    second
                })
            ),
            any::<(u8, u8, bool)>().prop_map(|(ultrapeers, leaves, minutes)| {
                Vendor::CrawlPing(CrawlPing {
                    ultrapeers,
                    leaves,
                    minutes,
                })
            }),
            (hosts(9), hosts(9), any::<bool>()).prop_map(|(ultrapeers, leaves, minutes)| {
                let since = |list: Vec<SocketAddrV4>| {
                    let minute = |a: SocketAddrV4| (a, if minutes { a.port() } else { 0 });
                    list.into_iter().map(minute).collect()
                };
                Vendor::CrawlPong(CrawlPong {
                    ultrapeers: since(ultrapeers),
                    leaves: since(leaves),
                    minutes,
                })
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(vendor in any_vendor()) {
            prop_assert_eq!(Vendor::read(&vendor.write()), Ok(vendor));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, which in 0_usize..OURS.len()) {
            let mut message = Vec::new();
            write_name(OURS[which].0, 1, &mut message);
            message.extend_from_slice(&bytes);
            let _ = Vendor::read(&message);
            let _ = Vendor::read(&bytes);
        }
    }
}
