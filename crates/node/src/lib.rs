//! See ARCHITECTURE.md.

pub mod tracker_client;
