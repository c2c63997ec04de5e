//! Events of a relay.

use serde::Serialize;
use shoal_node::relay::Stats;

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum RelayReport {
    /// What a relay did since its start.
    TurnStats {
        /// Allocations now.
        allocations: u64,
        /// Allocations since the start.
        allocated: u64,
        /// Users with allocations now.
        users: u64,
        /// Datagrams from clients to peers.
        packets_up: u64,
        /// Bytes from clients to peers.
        bytes_up: u64,
        /// Datagrams from peers to clients.
        packets_down: u64,
        /// Bytes from peers to clients.
        bytes_down: u64,
        /// Datagrams without a permission, a channel or an allocation.
        unwanted: u64,
        /// Datagrams beyond a rate.
        over_rate: u64,
        /// Binding requests answered.
        bindings: u64,
        /// Requests refused.
        refused: u64,
        /// Requests answered with a challenge.
        challenges: u64,
        /// Requests not answered because their network sent too many without credentials.
        unanswered: u64,
        /// What made no sense.
        malformed: u64,
    },
}

impl From<Stats> for RelayReport {
    fn from(s: Stats) -> Self {
        Self::TurnStats {
            allocations: s.allocations,
            allocated: s.allocated,
            users: s.users,
            packets_up: s.packets_up,
            bytes_up: s.bytes_up,
            packets_down: s.packets_down,
            bytes_down: s.bytes_down,
            unwanted: s.unwanted,
            over_rate: s.over_rate,
            bindings: s.bindings,
            refused: s.refused,
            challenges: s.challenges,
            unanswered: s.unanswered,
            malformed: s.malformed,
        }
    }
}
