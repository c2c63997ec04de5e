//! Trackers: the codecs of both sides, the client's [`Announcer`] and the server's [`Swarms`].
//!
//! BEP 3 (HTTP), 7 (IPv6), 12 (tiers), 15 (UDP), 23 (compact), 41 (URL data), 48 (scrape).
//! Sockets, threads and DNS belong to the driver.

pub mod access;
pub mod announcer;
pub mod compact;

pub mod connection_id;
pub mod http_reply;
pub mod http_request;

pub mod limits;
mod peer_table;
pub mod siphash;
pub mod swarms;
pub mod udp;
pub mod udp_client;

pub use access::AccessList;
pub use announcer::{AnnounceOrder, Announcer, AnnouncerInput, AnnouncerOutput};

pub use connection_id::ConnectionIds;
pub use limits::{AddressCounts, RequestRates};
pub use swarms::{Swarms, SwarmsConfig};
pub use udp_client::{UdpClient, UdpClientOutput};

use shoal_base::{InfoHash, PeerId};
use std::net::{IpAddr, SocketAddr};

/// What happened to the download since the last announce (BEP 3, BEP 21).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AnnounceEvent {
    /// A regular announce.
    #[default]
    None,
    /// The download became complete.
    Completed,
    /// The first announce of a session.
    Started,
    /// The last announce of a session.
    Stopped,
    /// A partial seed: not complete, wants nothing more (BEP 21).
    Paused,
}

/// An announce, by UDP or HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceRequest {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The announcing peer's name for itself.
    pub peer_id: PeerId,
    /// The port it listens on.
    pub port: u16,
    /// Bytes uploaded since `started`.
    pub uploaded: u64,
    /// Bytes downloaded since `started`.
    pub downloaded: u64,
    /// Bytes still to download; zero makes a seeder, `u64::MAX` stands for "unknown".
    pub left: u64,
    /// What happened.
    pub event: AnnounceEvent,
    /// How many peers are wanted; none leaves it to the tracker.
    pub num_want: Option<u32>,
    /// Recognises the peer when its address changes.
    pub key: u32,
    /// The address the peer claims; servers of ours ignore it.
    pub ip: Option<IpAddr>,
    /// Where others on the overlay reach the peer, an address from `fc00::/8` (see `docs/protocols/tracker.md`).
    pub overlay: Option<SocketAddr>,
}

/// A tracker's answer to an announce.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnnounceReply {
    /// Seconds until the next regular announce.
    pub interval: u32,
    /// Seconds that must pass before any other announce.
    pub min_interval: Option<u32>,
    /// Peers that have everything.
    pub seeders: Option<u32>,
    /// Peers that do not.
    pub leechers: Option<u32>,
    /// Whom to connect to.
    pub peers: Vec<SocketAddr>,
    /// Something the user should read.
    pub warning: Option<String>,
    /// To be sent back in the next announce (HTTP).
    pub tracker_id: Option<Vec<u8>>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
}

/// What a scrape says about one torrent (BEP 48).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrapeStats {
    /// Peers that have everything.
    pub seeders: u32,
    /// How often `completed` was announced.
    pub completed: u32,
    /// Peers that do not have everything.
    pub leechers: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any announce, for the codecs' round trips.
    pub(super) fn any_announce() -> impl Strategy<Value = AnnounceRequest> {
        let event = prop_oneof![
            Just(AnnounceEvent::None),
            Just(AnnounceEvent::Completed),
            Just(AnnounceEvent::Started),
            Just(AnnounceEvent::Stopped),
            Just(AnnounceEvent::Paused),
        ];
        let numbers = any::<(u64, u64, u64)>();
        let ip = prop::option::of(any::<IpAddr>().prop_filter("given", |ip| !ip.is_unspecified()));
        let overlay = prop::option::of((any::<[u8; 15]>(), 1u16..).prop_map(|(key, port)| {
            let mut ip = [0xfc; 16];
            ip[1..].copy_from_slice(&key);
            SocketAddr::from((ip, port))
        }));
        (
            any::<([u8; 20], [u8; 20], u16, u32)>(),
            numbers,
            event,
            prop::option::of(0..=i32::MAX as u32),
            (ip, overlay),
        )
            .prop_map(
                |((info_hash, peer_id, port, key), numbers, event, num_want, (ip, overlay))| {
                    AnnounceRequest {
                        info_hash: InfoHash(info_hash),
                        peer_id: PeerId(peer_id),
                        port,
                        uploaded: numbers.0,
                        downloaded: numbers.1,
                        left: numbers.2,
                        event,
                        num_want,
                        key,
                        ip,
                        overlay,
                    }
                },
            )
    }
}
