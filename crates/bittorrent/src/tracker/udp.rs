//! UDP tracker messages (BEP 15), with the options behind an announce (BEP 41).
//!
//! ```text
//! connect   8 magic  4 action=0  4 transaction
//! announce  8 connection  4 action=1  4 transaction  20 info-hash  20 peer id  8 downloaded
//!           8 left  8 uploaded  4 event  4 ip  4 key  4 num_want  2 port  [options]
//! scrape    8 connection  4 action=2  4 transaction  20 info-hash ...
//! replies   4 action  4 transaction  ...
//! ```

use super::http_request::overlay_of;
use super::{AnnounceEvent, AnnounceRequest, ScrapeStats, compact};
use crate::peers::is_overlay;
use shoal_base::{Cursor, InfoHash, PeerId, Truncated};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a connect request carries instead of a connection id.
pub const PROTOCOL_MAGIC: u64 = 0x0417_2710_1980;
/// Bytes of an announce request without options.
pub const ANNOUNCE_LEN: usize = 98;
/// Info-hashes in one scrape (BEP 15: "up to about 74").
pub const MAX_SCRAPE: usize = 74;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// Why a datagram is no tracker message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// Shorter than its action asks.
    #[error("udp tracker message too short")]
    Truncated(#[from] Truncated),
    /// A connect request without the protocol's magic number.
    #[error("connect request with {0:#x} instead of the magic number")]
    BadMagic(u64),
    /// An action that is none of connect, announce, scrape, error.
    #[error("unknown udp tracker action {0}")]
    BadAction(u32),
    /// An event that is none of none, completed, started, stopped, paused.
    #[error("unknown announce event {0}")]
    BadEvent(u32),
    /// A scrape whose body is not a positive number of entries.
    #[error("scrape body of {0} bytes")]
    BadScrape(usize),
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UdpRequest<'a> {
    /// Asks for a connection id.
    Connect {
        /// Echoed in the reply.
        transaction: u32,
    },
    /// Announces a peer.
    Announce {
        /// From the connect reply.
        connection: u64,
        /// Echoed in the reply.
        transaction: u32,
        /// What is announced.
        announce: AnnounceRequest,
        /// The bytes behind it (BEP 41); see [`url_data`].
        options: &'a [u8],
    },
    /// Asks for statistics.
    Scrape {
        /// From the connect reply.
        connection: u64,
        /// Echoed in the reply.
        transaction: u32,
        /// The torrents asked about, at least one.
        info_hashes: &'a [[u8; 20]],
    },
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UdpReply<'a> {
    /// A connection id.
    Connect {
        /// Of the request.
        transaction: u32,
        /// Valid for a minute at the client, for two at the server.
        connection: u64,
    },
    /// Peers.
    Announce {
        /// Of the request.
        transaction: u32,
        /// Seconds to the next announce.
        interval: u32,
        /// Peers that do not have everything.
        leechers: u32,
        /// Peers that do.
        seeders: u32,
        /// Compact peers, of the family that the request came over; read them with [`reply_peers`].
        peers: &'a [u8],
    },
    /// Statistics; read them with [`scrape_stats`].
    Scrape {
        /// Of the request.
        transaction: u32,
        /// Seeders, completed, leechers for each torrent in the order asked.
        stats: &'a [[u8; 12]],
    },
    /// A refusal in words.
    Error {
        /// Of the request.
        transaction: u32,
        /// For the user.
        message: &'a [u8],
    },
}

/// Reads a client's datagram.
pub fn decode_request(datagram: &[u8]) -> Result<UdpRequest<'_>, UdpError> {
    let mut c = Cursor::new(datagram);
    let connection = c.u64()?;
    let action = c.u32()?;
    let transaction = c.u32()?;
    match action {
        CONNECT if connection == PROTOCOL_MAGIC => Ok(UdpRequest::Connect { transaction }),
        CONNECT => Err(UdpError::BadMagic(connection)),
        ANNOUNCE => {
            let mut announce = decode_announce(&mut c)?;
            let url = url_data(c.rest());
            announce.overlay = url.and_then(|url| overlay_of(&url));
            Ok(UdpRequest::Announce {
                connection,
                transaction,
                announce,
                options: c.rest(),
            })
        }
        SCRAPE => match c.rest().as_chunks() {
            (info_hashes @ [_, ..], []) => Ok(UdpRequest::Scrape {
                connection,
                transaction,
                info_hashes,
            }),
            _ => Err(UdpError::BadScrape(c.rest().len())),
        },
        other => Err(UdpError::BadAction(other)),
    }
}

fn decode_announce(c: &mut Cursor<'_>) -> Result<AnnounceRequest, UdpError> {
    let info_hash = InfoHash(c.array()?);
    let peer_id = PeerId(c.array()?);
    let downloaded = c.u64()?;
    let left = c.u64()?;
    let uploaded = c.u64()?;
    let event = match c.u32()? {
        0 => AnnounceEvent::None,
        1 => AnnounceEvent::Completed,
        2 => AnnounceEvent::Started,
        3 => AnnounceEvent::Stopped,
        4 => AnnounceEvent::Paused,
        other => return Err(UdpError::BadEvent(other)),
    };
    let ip = Ipv4Addr::from_bits(c.u32()?);
    let key = c.u32()?;
    let num_want = c.u32()?;
    let port = c.u16()?;
    Ok(AnnounceRequest {
        info_hash,
        peer_id,
        port,
        uploaded,
        downloaded,
        left,
        event,
        // BEP 15: -1 is the default.
        num_want: (num_want <= i32::MAX as u32).then_some(num_want),
        key,
        ip: (!ip.is_unspecified()).then_some(IpAddr::V4(ip)),
        overlay: None,
    })
}

/// Appends a client's datagram.
pub fn encode_request(request: &UdpRequest<'_>, out: &mut Vec<u8>) {
    match *request {
        UdpRequest::Connect { transaction } => {
            out.extend_from_slice(&PROTOCOL_MAGIC.to_be_bytes());
            put(out, &[CONNECT, transaction]);
        }
        UdpRequest::Announce {
            connection,
            transaction,
            ref announce,
            options,
        } => {
            out.extend_from_slice(&connection.to_be_bytes());
            put(out, &[ANNOUNCE, transaction]);
            out.extend_from_slice(announce.info_hash.as_bytes());
            out.extend_from_slice(&announce.peer_id.0);
            for number in [announce.downloaded, announce.left, announce.uploaded] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            let event = match announce.event {
                AnnounceEvent::None => 0,
                AnnounceEvent::Completed => 1,
                AnnounceEvent::Started => 2,
                AnnounceEvent::Stopped => 3,
                AnnounceEvent::Paused => 4,
            };
            let ip = match announce.ip {
                Some(IpAddr::V4(ip)) => ip.to_bits(),
                _ => 0,
            };
            let num_want = announce.num_want.unwrap_or(u32::MAX);
            put(out, &[event, ip, announce.key, num_want]);
            out.extend_from_slice(&announce.port.to_be_bytes());
            out.extend_from_slice(options);
        }
        UdpRequest::Scrape {
            connection,
            transaction,
            info_hashes,
        } => {
            out.extend_from_slice(&connection.to_be_bytes());
            put(out, &[SCRAPE, transaction]);
            out.extend_from_slice(info_hashes.as_flattened());
        }
    }
}

/// Reads a server's datagram.
pub fn decode_reply(datagram: &[u8]) -> Result<UdpReply<'_>, UdpError> {
    let mut c = Cursor::new(datagram);
    let action = c.u32()?;
    let transaction = c.u32()?;
    match action {
        CONNECT => Ok(UdpReply::Connect {
            transaction,
            connection: c.u64()?,
        }),
        ANNOUNCE => Ok(UdpReply::Announce {
            transaction,
            interval: c.u32()?,
            leechers: c.u32()?,
            seeders: c.u32()?,
            peers: c.rest(),
        }),
        SCRAPE => match c.rest().as_chunks() {
            (stats, []) => Ok(UdpReply::Scrape { transaction, stats }),
            _ => Err(UdpError::BadScrape(c.rest().len())),
        },
        ERROR => Ok(UdpReply::Error {
            transaction,
            message: c.rest(),
        }),
        other => Err(UdpError::BadAction(other)),
    }
}

/// Appends a server's datagram.
pub fn encode_reply(reply: &UdpReply<'_>, out: &mut Vec<u8>) {
    match *reply {
        UdpReply::Connect {
            transaction,
            connection,
        } => {
            put(out, &[CONNECT, transaction]);
            out.extend_from_slice(&connection.to_be_bytes());
        }
        UdpReply::Announce {
            transaction,
            interval,
            leechers,
            seeders,
            peers,
        } => {
            put(out, &[ANNOUNCE, transaction, interval, leechers, seeders]);
            out.extend_from_slice(peers);
        }
        UdpReply::Scrape { transaction, stats } => {
            put(out, &[SCRAPE, transaction]);
            out.extend_from_slice(stats.as_flattened());
        }
        UdpReply::Error {
            transaction,
            message,
        } => {
            put(out, &[ERROR, transaction]);
            out.extend_from_slice(message);
        }
    }
}

/// Bytes before the peers in an announce reply.
pub const ANNOUNCE_REPLY_HEADER: usize = 20;

/// The head of an announce reply whose peers are written behind it.
pub fn announce_reply_header(
    transaction: u32,
    interval: u32,
    leechers: u32,
    seeders: u32,
) -> [u8; ANNOUNCE_REPLY_HEADER] {
    let mut out = [0; ANNOUNCE_REPLY_HEADER];
    let fields = [ANNOUNCE, transaction, interval, leechers, seeders];
    for (slot, field) in out.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *slot = field.to_be_bytes();
    }
    out
}

/// One torrent's numbers as a scrape reply carries them.
pub fn encode_stats(stats: ScrapeStats) -> [u8; 12] {
    let mut out = [0; 12];
    let fields = [stats.seeders, stats.completed, stats.leechers];
    for (slot, field) in out.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *slot = field.to_be_bytes();
    }
    out
}

/// The numbers in a scrape reply.
pub fn scrape_stats(stats: &[[u8; 12]]) -> impl Iterator<Item = ScrapeStats> + '_ {
    stats
        .iter()
        .map(|&[a, b, c, d, e, f, g, h, i, j, k, l]| ScrapeStats {
            seeders: u32::from_be_bytes([a, b, c, d]),
            completed: u32::from_be_bytes([e, f, g, h]),
            leechers: u32::from_be_bytes([i, j, k, l]),
        })
}

/// The peers of an announce reply that came from `tracker`: 6 bytes each over IPv4, 18 over IPv6. Behind those of
/// IPv4 come, for who announced one, overlay addresses of 18 bytes: their first byte, 252 as one of an IPv4
/// address, is in no address of a host (RFC 1112, section 4).
pub fn reply_peers(tracker: SocketAddr, peers: &[u8]) -> Vec<SocketAddr> {
    if tracker.ip().to_canonical().is_ipv6() {
        return compact::decode_v6(peers).collect();
    }
    let (entries, _) = peers.as_chunks::<{ compact::V4_LEN }>();
    let plain = entries.iter().take_while(|[first, ..]| *first != 0xfc);
    let (v4, overlay) = peers.split_at(plain.count() * compact::V4_LEN);
    let overlay = compact::decode_v6(overlay).filter(|a| is_overlay(a.ip()));
    compact::decode_v4(v4).chain(overlay).collect()
}

/// The path and query that the options of an announce carry (BEP 41), joined; none if there are
/// none. Unknown options are skipped, a truncated one ends the list.
pub fn url_data(options: &[u8]) -> Option<Vec<u8>> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const URL_DATA: u8 = 2;
    let mut c = Cursor::new(options);
    let mut url = None;
    while let Ok(kind) = c.u8() {
        match kind {
            END => break,
            NOP => {}
            _ => {
                let Ok(data) = c.u8().and_then(|len| c.take(usize::from(len))) else {
                    break;
                };
                if kind == URL_DATA {
                    url.get_or_insert_with(Vec::new).extend_from_slice(data);
                }
            }
        }
    }
    url
}

/// Appends `path` (path and query of the tracker's URL) as URL data options (BEP 41).
pub fn encode_url_data(path: &str, out: &mut Vec<u8>) {
    for part in path.as_bytes().chunks(255) {
        out.push(2);
        out.push(part.len() as u8);
        out.extend_from_slice(part);
    }
}

fn put(out: &mut Vec<u8>, fields: &[u32]) {
    for field in fields {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
