//! See ARCHITECTURE.md.

pub mod lsd;
pub mod tracker_client;
