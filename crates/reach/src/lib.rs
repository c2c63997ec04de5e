//! Reaching anyone: STUN and TURN, by which nodes learn their addresses and relay for each other.
//!
//! Sans-IO: bytes, events and *now* go in; bytes, events and the next deadline come out. What opens
//! sockets and reads the clock is in the node. Everything a stranger sends is hostile: no state is
//! kept for whoever has not proved who he is.
//!
//! ```text
//!  identity       who a node is: an Ed25519 key
//!  sealed         letters that only the recipient reads, and whose sender is certain
//!  agent          the ways between two nodes: found, watched, the best one kept
//!  relays         the relays that a node keeps at hand
//!  endpoint       all of it together: a node's end of its ways to others
//!  mapping        ports that a router lets through: PCP, NAT-PMP, UPnP
//!  overlay        addresses made of keys, for protocols that name peers by address
//!  stun   messages and their attributes, integrity, framing on streams, transactions, Binding
//!  reachability   whether strangers reach us, found by having one dial back
//!  turn   the relay's rules and its client's
//! ```

pub mod agent;
pub mod endpoint;
pub mod identity;
pub mod mapping;
pub mod overlay;
pub mod reachability;
pub mod relays;
pub mod sealed;
pub mod stun;
pub mod turn;
