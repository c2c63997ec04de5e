//! Web seeds (BEP 19) on real connections: one thread each, with a kept-alive HTTP connection.
//!
//! Blocks are asked for with [`WebSeedHandle::request`]; those that follow one another become one
//! ranged request per file, whose body is handed on in events of up to 256 KiB while it comes.
//! The sink may block: then the thread does, and with it the server. What is asked and how
//! answers are judged is [`shoal_bittorrent::webseed`]'s. Proxies are not used. A public server
//! cannot redirect to this machine or its network.

mod worker;

use crate::outbound::Outbound;
use crate::range_source::{Again, RangeEvent, RangeSource};
use crossbeam_channel::{Sender, unbounded};
use shoal_content::{Block, Layout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes per [`WebSeedEvent::Blocks`], at most.
pub const EVENT_LEN: usize = crate::assembly::BUFFER_LEN;

/// What a web seed brought.
#[derive(Debug)]
pub enum WebSeedEvent {
    /// Data.
    Blocks {
        /// The data; at most [`EVENT_LEN`] bytes.
        buf: Vec<u8>,
        /// Which blocks, and where each begins in the buffer.
        blocks: Vec<(Block, usize)>,
    },
    /// A failure that trying again did not mend: nothing more comes of what was asked for.
    Failed {
        /// What went wrong.
        why: String,
        /// How long the server is to be left alone.
        retry_after: Option<Duration>,
    },
}

impl From<WebSeedEvent> for RangeEvent {
    fn from(event: WebSeedEvent) -> Self {
        match event {
            WebSeedEvent::Blocks { buf, blocks } => Self::Blocks { buf, blocks },
            WebSeedEvent::Failed { why, retry_after } => Self::Failed {
                why,
                again: retry_after.map_or(Again::Soon, Again::After),
            },
        }
    }
}

/// Why a web seed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebSeedError {
    /// Not a URL that can be fetched by HTTP.
    #[error("{0:?} is no http or https URL")]
    Url(String),
    /// A query to a server on this machine or its network: a stranger's torrent could make us press
    /// buttons there.
    #[error("{0:?} is a query to a local address")]
    LocalQuery(String),
    /// No thread could be started for it.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// A running web seed; stops when dropped, at the latest when a read times out.
#[derive(Debug)]
pub struct WebSeedHandle {
    queue: Sender<Vec<Block>>,
    stop: Arc<AtomicBool>,
}

impl WebSeedHandle {
    /// Starts to use the web seed at `url` for the content laid out as `layout`, by connections
    /// that leave as `outbound` says. Events go to `sink`, called from the web seed's own thread.
    pub fn spawn(
        url: &str,
        layout: Arc<Layout>,
        outbound: Outbound,
        sink: Box<dyn Fn(WebSeedEvent) + Send>,
    ) -> Result<Self, WebSeedError> {
        let shown = || url.chars().take(200).collect();
        let lower = url.to_ascii_lowercase();
        let http = lower.starts_with("http://") || lower.starts_with("https://");
        let Ok(uri) = url.parse::<ureq::http::Uri>() else {
            return Err(WebSeedError::Url(shown()));
        };
        if !http {
            return Err(WebSeedError::Url(shown()));
        }
        if uri.query().is_some() && uri.host().is_some_and(is_local_host) {
            return Err(WebSeedError::LocalQuery(shown()));
        }
        // Holds no more than the download has requests open with this source.
        let (queue, requests) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let agent = worker::agent(outbound);
        let worker = worker::Worker::new(url, layout, requests, Arc::clone(&stop), sink, agent);
        thread::Builder::new()
            .name("web-seed".into())
            .stack_size(512 * 1024)
            .spawn(move || worker.run())
            .map_err(WebSeedError::Thread)?;
        Ok(Self { queue, stop })
    }

    /// Asks for blocks; those that follow one another are fetched in one range.
    pub fn request(&self, blocks: Vec<Block>) {
        // The thread ends only after this handle.
        let _ = self.queue.send(blocks);
    }
}

impl RangeSource for WebSeedHandle {
    fn request(&self, blocks: Vec<Block>) {
        Self::request(self, blocks);
    }
}

/// Whether `host` names this machine or its network, as far as can be told without asking.
fn is_local_host(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || literal.parse().is_ok_and(shoal_bittorrent::peers::is_local)
}

impl Drop for WebSeedHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
