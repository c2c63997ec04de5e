//! What a node counted.

/// Counts since the start, and what there is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Neighbours that are ultrapeers, or equals.
    pub ultrapeers: usize,
    /// Leaves.
    pub leaves: usize,
    /// Messages that came in.
    pub received: u64,
    /// Messages that were queued to go out.
    pub sent: u64,
    /// Messages dropped because too much waited.
    pub dropped: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Queries that came.
    pub queries: u64,
    /// Queries that had come before.
    pub duplicates: u64,
    /// Queries that came from too far to be passed on.
    pub far: u64,
    /// Queries not passed on because a table said that it would be in vain.
    pub shielded: u64,
    /// Queries beyond what a neighbour may ask.
    pub too_fast: u64,
    /// Hits that came.
    pub hits: u64,
    /// Hits whose way back is not known.
    pub unasked: u64,
    /// Hits of those who answer everything.
    pub liars: u64,
    /// Results of our own queries whose names did not match.
    pub mismatched: u64,
    /// Hits of our own files that were sent.
    pub answered: u64,
    /// Pushes passed on.
    pub pushes: u64,
    /// Dynamic queries that are under way.
    pub querying: usize,
    /// Ways back that are remembered.
    pub routes: usize,
    /// Hosts known.
    pub hosts: usize,
}
