//! TURN (RFC 8656): a server through which those who cannot be reached are reached, and its client.
//!
//! ```text
//!  client ── ChannelData / Send ──> server's port ─ relayed address ── UDP ──> peer
//!         <─ ChannelData / Data ──                                     <─ UDP ──
//! ```

pub mod client;
pub mod credential;
pub mod policy;
pub mod server;

/// Channel numbers that a client takes (RFC 8656 §12).
pub const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x4fff;
/// Channel numbers that a server takes: clients of RFC 5766, coturn's among them, use all of these.
pub const ACCEPTED_CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7fff;
/// How long a permission lasts (§9), in seconds.
pub const PERMISSION_SECS: u64 = 300;
/// How long a channel lasts (§12), in seconds.
pub const CHANNEL_SECS: u64 = 600;
/// The number of UDP in REQUESTED-TRANSPORT.
pub const TRANSPORT_UDP: u8 = 17;
/// Numbers of address families.
pub const FAMILY_IPV4: u8 = 1;
/// See [`FAMILY_IPV4`].
pub const FAMILY_IPV6: u8 = 2;
