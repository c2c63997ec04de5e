//! A supernode that is in a Gnutella network too: queries of the overlay are asked there, and what is
//! found is told with the hosts that have it.
//!
//! Both networks fetch by SHA-1 over the same HTTP, so that such a hit is fetched as any other. Files
//! without a SHA-1, and those of hosts that nobody can connect to, are left out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use shoal_base::Time;
use shoal_gnutella::huge::Urn;
use shoal_gnutella::message::query;
use shoal_gnutella::node::Answer;
use shoal_supernode::wire::{File, QueryId, Wanted};

use super::NodeDriver;
use crate::gnutella::{Control, SearchEvent};

/// How long answers are waited for.
const WAIT: Duration = Duration::from_secs(30);
/// Queries asked at once, and in a minute: more would be a flood.
const MAX_OPEN: usize = 32;
const PER_MINUTE: f64 = 30.0;
const BURST: f64 = 10.0;

struct Open {
    query: QueryId,
    answers: Receiver<SearchEvent>,
    since: Instant,
}

/// The bridge.
pub struct GnutellaBridge {
    control: Control,
    open: Vec<Open>,
    origin: Instant,
    left: f64,
    at: Time,
}

impl std::fmt::Debug for GnutellaBridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GnutellaBridge")
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

impl GnutellaBridge {
    /// Asks by this node of Gnutella.
    pub fn new(control: Control) -> Self {
        Self {
            control,
            open: Vec::new(),
            origin: Instant::now(),
            left: BURST,
            at: Time::ZERO,
        }
    }

    /// Asks a query of the overlay. False if a limit turns it down.
    pub fn ask(&mut self, query: QueryId, wanted: &Wanted) -> bool {
        let now = Time::ZERO + self.origin.elapsed();
        let gained = now.since(self.at).as_secs_f64() * PER_MINUTE / 60.0;
        self.left = (self.left + gained).min(BURST);
        self.at = now;
        if self.left < 1.0 || self.open.len() >= MAX_OPEN {
            return false;
        }
        self.left -= 1.0;
        let (text, urns) = match wanted {
            Wanted::Words(words) => (words.as_str(), Vec::new()),
            Wanted::Sha1(sha1) => ("", vec![Urn::Sha1(*sha1)]),
        };
        let wanted = query::Wanted { urns, media: 0 };
        self.open.push(Open {
            query,
            answers: self.control.search(text, wanted),
            since: Instant::now(),
        });
        true
    }

    /// Tells the overlay what has been answered.
    pub fn poll(&mut self, driver: &NodeDriver) {
        self.open.retain(|open| {
            let mut files = Vec::new();
            for event in open.answers.try_iter() {
                if let SearchEvent::Found(answer) = event {
                    files.extend(hits(&answer));
                }
            }
            if !files.is_empty() {
                driver.found_elsewhere(open.query, files);
            }
            open.since.elapsed() < WAIT
        });
    }
}

/// Files of an answer that can be fetched by their hash.
fn hits(answer: &Answer) -> impl Iterator<Item = (File, SocketAddr)> {
    let host = SocketAddr::from(answer.addr);
    let reached = answer.status.firewalled != Some(true) && host.port() != 0;
    let files = answer.files.iter().filter(move |_| reached);
    files.filter_map(move |file| {
        let file = File {
            path: file.name.clone(),
            size: file.size,
            sha1: file.sha1?,
            tiger: file.tiger.map(|root| root.0),
            sound: None,
        };
        Some((file, host))
    })
}
