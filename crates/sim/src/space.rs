//! Where messages go: addresses, and what lies between an address and a node.

use shoal_base::Time;

/// A space of addresses. Nodes are numbers inside the world; what they call each other is up to
/// the space.
pub trait Space {
    /// What a node sends to and hears from.
    type Addr: Copy;

    /// A message leaves `node` for `to`: the address it will seem to come from and the node that
    /// `to` leads to, or none if it leads nowhere.
    fn depart(&mut self, now: Time, node: u32, to: Self::Addr) -> Option<(Self::Addr, u32)>;

    /// Whether a message from `from` to `to` is let through to its node now.
    fn arrive(&mut self, now: Time, from: Self::Addr, to: Self::Addr) -> bool;
}

/// Nodes call each other by their number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Space for Direct {
    type Addr = u32;

    fn depart(&mut self, _now: Time, node: u32, to: u32) -> Option<(u32, u32)> {
        Some((node, to))
    }

    fn arrive(&mut self, _now: Time, _from: u32, _to: u32) -> bool {
        true
    }
}
