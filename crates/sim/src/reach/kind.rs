//! What stands between a node and the world, named as in the laboratory of NATs.

use crate::nat::{Filtering, Mapping, NatKind};
use std::str::FromStr;
use std::time::Duration;

/// What stands between a node and the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: a public address.
    Open,
    /// A firewall: a public address, by which only who was sent to gets in.
    Wall,
    /// A full cone.
    Full,
    /// A cone that lets in addresses that were sent to.
    Addr,
    /// A cone that lets in addresses and ports that were sent to.
    Port,
    /// Another outer port for each address and port (symmetric).
    Sym,
    /// Only TCP gets out.
    NoUdp,
    /// Only TCP to ports 80 and 443 gets out.
    Web,
}

/// No kind is called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not one of {}", Kind::ALL.map(Kind::name).join(", "))]
pub struct NoKind;

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::Wall,
        Self::Full,
        Self::Addr,
        Self::Port,
        Self::Sym,
        Self::NoUdp,
        Self::Web,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Wall => "wall",
            Self::Full => "full",
            Self::Addr => "addr",
            Self::Port => "port",
            Self::Sym => "sym",
            Self::NoUdp => "noudp",
            Self::Web => "web",
        }
    }

    /// Whether UDP gets out.
    pub fn has_udp(self) -> bool {
        !matches!(self, Self::NoUdp | Self::Web)
    }

    /// Whether something is kept that can be forgotten.
    pub fn has_state(self) -> bool {
        self.has_udp() && self != Self::Open
    }

    /// Whether holes can be punched between the two: what theory says.
    pub fn meets(self, other: Self) -> bool {
        let hard = |kind| matches!(kind, Self::Port | Self::Wall | Self::Sym);
        let sym = |a, b| a == Self::Sym && hard(b);
        self.has_udp() && other.has_udp() && !sym(self, other) && !sym(other, self)
    }

    /// The translator it is, if UDP gets through; a mapping ends after `timeout`.
    pub(super) fn nat(self, timeout: Duration) -> Option<NatKind> {
        let filtering = match self {
            Self::Open | Self::NoUdp | Self::Web => return None,
            Self::Full => Filtering::EndpointIndependent,
            Self::Addr => Filtering::AddressDependent,
            Self::Wall | Self::Port | Self::Sym => Filtering::AddressAndPortDependent,
        };
        Some(NatKind {
            mapping: match self {
                Self::Sym => Mapping::AddressAndPortDependent,
                _ => Mapping::EndpointIndependent,
            },
            filtering,
            timeout,
            keeps_port: self == Self::Wall,
        })
    }
}

impl FromStr for Kind {
    type Err = NoKind;

    fn from_str(name: &str) -> Result<Self, NoKind> {
        let named = Self::ALL.into_iter().find(|kind| kind.name() == name);
        named.ok_or(NoKind)
    }
}
