//! Ports that a router lets through to us: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP's Internet Gateway
//! Device.
//!
//! A router answers whoever is in its network: what it says is believed only from its own address, and with PCP
//! only with the nonce that we made. See [`client::Client`] for the first two, [`upnp`] for the third.

pub mod client;
pub mod packet;
pub mod upnp;

use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::time::Duration;

/// What carries what comes to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// Its number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }
}

/// A port of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Of what.
    pub transport: Transport,
    /// Its number on this machine, not zero.
    pub number: u16,
}

/// By which protocol a router was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The Port Control Protocol.
    Pcp,
    /// The NAT Port Mapping Protocol.
    NatPmp,
    /// UPnP's Internet Gateway Device.
    Upnp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// What a router lets through to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// To which port of ours.
    pub port: Port,
    /// What is sent to this address of the router's.
    pub external: SocketAddrV4,
    /// For how long, from now on; it is renewed before.
    pub lifetime: Duration,
    /// Who agreed to it.
    pub by: Protocol,
}

/// Why a router does not let anything through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its owner does not allow it.
    #[error("the router does not allow it")]
    NotAuthorized,
    /// It has no network, or no address of its own.
    #[error("the router has no address outside")]
    NoNetwork,
    /// It has no room, or we have had enough.
    #[error("the router has no port left for us")]
    NoResources,
    /// Another code, by which protocol.
    #[error("the router refuses, with code {1} of {0}")]
    Code(Protocol, u16),
}

/// Whether an address may be a router's towards the world. One that is not public is of use to some neighbours
/// alone: another NAT is behind it.
pub fn is_outside(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
}

/// Whether the world can reach an address: no private network's, and none of those between a provider's NAT and
/// its customers (RFC 6598).
pub fn is_public(ip: Ipv4Addr) -> bool {
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    is_outside(ip) && !ip.is_private() && !ip.is_link_local() && !shared
}
