//! Metadata from peers (BEP 9).

/// Largest metadata accepted, in bytes: 1.6 million v1 pieces.
pub const MAX_METADATA_LEN: u32 = 32 * 1024 * 1024;
