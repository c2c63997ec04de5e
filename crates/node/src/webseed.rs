//! Web seeds (BEP 19): not in use yet.

use shoal_content::{Block, Layout};
use std::sync::Arc;
use std::time::Duration;

/// What a web seed brought.
#[derive(Debug)]
pub enum WebSeedEvent {
    /// Data.
    Blocks {
        /// The data.
        buf: Vec<u8>,
        /// Which blocks, and where each begins in the buffer.
        blocks: Vec<(Block, usize)>,
    },
    /// A failure; what was asked for does not come.
    Failed {
        /// What went wrong.
        why: String,
        /// How long the server wants to be left alone, if it said.
        retry_after: Option<Duration>,
    },
}

/// Why a web seed cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("web seeds are not in use yet")]
pub struct WebSeedError;

/// A running web seed.
#[derive(Debug)]
pub struct WebSeedHandle;

impl WebSeedHandle {
    /// Starts to use `url`.
    pub fn spawn(
        _url: &str,
        _layout: Arc<Layout>,
        _sink: Box<dyn Fn(WebSeedEvent) + Send>,
    ) -> Result<Self, WebSeedError> {
        Err(WebSeedError)
    }

    /// Asks for blocks, contiguous ones in one range.
    pub fn request(&self, _blocks: Vec<Block>) {}
}
