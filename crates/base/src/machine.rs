//! The shape of a protocol core.

use crate::Time;

/// A protocol core without input or output: events and *now* go in, effects and the next deadline
/// come out. The same machine runs under the daemon's sockets and in the simulator.
///
/// Contract: `handle` appends its effects to `out`, which the caller owns, drains and reuses.
/// When the clock reaches [`Machine::deadline`] the caller feeds the machine's own tick input.
pub trait Machine {
    /// What happened.
    type Input<'a>;
    /// What is to be done about it, in this order.
    type Output;

    /// Reacts to one input at time `now`.
    fn handle(&mut self, now: Time, input: Self::Input<'_>, out: &mut Vec<Self::Output>);

    /// When the machine next wants its tick, if ever.
    fn deadline(&self) -> Option<Time>;
}
