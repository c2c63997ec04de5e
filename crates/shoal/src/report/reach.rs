//! Events of reaching other nodes.

use std::net::{Ipv6Addr, SocketAddr};

use serde::Serialize;

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum ReachReport<'a> {
    /// Others can reach us by this key.
    Reachable {
        /// Our key, in hexadecimal digits.
        node: &'a str,
        /// Our address as others see it by UDP; null: no UDP gets out.
        mapped: Option<SocketAddr>,
        /// Relays with an address of ours.
        relays: &'a [SocketAddr],
    },
    /// We are on the overlay.
    Overlay {
        /// Our key, in hexadecimal digits.
        node: &'a str,
        /// The address made of it.
        addr: Ipv6Addr,
    },
    /// There is a connection to a node, or its way is another now.
    Way {
        /// The other's key.
        node: &'a str,
        /// Whether no relay is on the way.
        direct: bool,
        /// Relays on it: ours, and the other's address at theirs.
        relays: &'a [SocketAddr],
        /// Its round trip in milliseconds.
        rtt_ms: f64,
        /// Ways that work now.
        ways: usize,
        /// Milliseconds from the beginning until there was a connection.
        took_ms: Option<u64>,
    },
    /// How this machine is reached by UDP.
    Reachability {
        /// `open`, `punched`, `relayed`; `unknown`: nobody could send as a stranger.
        state: &'static str,
        /// Its NAT's address: `one` for all, `per_peer`, or `unknown`.
        mapping: &'static str,
        /// Its address as others see it; null: no UDP gets out.
        mapped: Option<SocketAddr>,
        /// The round trip to the nearest relay in milliseconds.
        rtt_ms: Option<f64>,
        /// The relay that sent as a stranger.
        stranger: Option<SocketAddr>,
        /// What the router of this network lets through, while it is asked to.
        router: RouterReport,
        /// When, in seconds since 1970.
        tested: u64,
    },
    /// A connection has ended.
    Left {
        /// The other's key.
        node: &'a str,
    },
}

/// How things stand with the router.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RouterReport {
    /// `PCP`, `NAT-PMP` or `UPnP`; null: nothing is let through.
    pub(crate) protocol: Option<String>,
    /// At which address of its own it lets others through to us.
    pub(crate) external: Option<SocketAddr>,
    /// For how many seconds each time; it is renewed before.
    pub(crate) lifetime: Option<u64>,
    /// Whether that address is public: if not, another NAT is behind the router.
    pub(crate) public: Option<bool>,
    /// Why nothing is let through, or the router was not asked.
    pub(crate) why_not: Option<String>,
}
