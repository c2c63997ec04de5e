//! How long a fetch waits for something to happen, and why nothing did.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shoal_node::{TorrentState, TorrentStats};

use crate::failure::{Exit, Failure};
use crate::units::{Size, Span, count};

/// After this long without a peer the user hears of it.
const LONELY: Duration = Duration::from_secs(15);
/// How many failing trackers are named.
const NAMED: usize = 5;

/// Remembers when something last moved.
pub(crate) struct Patience {
    since: Instant,
    downloaded: u64,
    done: u64,
    lonely_told: bool,
    /// Trackers whose last answer was an error, and which.
    trackers: BTreeMap<String, String>,
}

impl Patience {
    /// Starts to wait.
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            downloaded: 0,
            done: 0,
            lonely_told: false,
            trackers: BTreeMap::new(),
        }
    }

    /// Something happened.
    pub(crate) fn renew(&mut self) {
        self.since = Instant::now();
    }

    /// Looks whether bytes came.
    pub(crate) fn look(&mut self, stats: &TorrentStats) {
        if (stats.downloaded, stats.bytes_done) != (self.downloaded, self.done) {
            (self.downloaded, self.done) = (stats.downloaded, stats.bytes_done);
            self.renew();
        }
    }

    /// A tracker answered, or failed to.
    pub(crate) fn on_tracker(&mut self, url: &str, result: &Result<usize, String>) {
        match result {
            Ok(_) => drop(self.trackers.remove(url)),
            Err(error) => drop(self.trackers.insert(url.to_owned(), error.clone())),
        }
    }

    /// Whether the user should hear, once, that nobody is there.
    pub(crate) fn is_lonely(&mut self, stats: &TorrentStats) -> bool {
        let lonely = stats.peers + stats.web_seeds == 0 && self.since.elapsed() >= LONELY;
        lonely && !std::mem::replace(&mut self.lonely_told, true)
    }

    /// Whether nothing happened for `limit`.
    pub(crate) fn is_over(&self, limit: Duration) -> bool {
        self.since.elapsed() >= limit
    }

    /// Why nothing came for `limit`: which leg failed.
    pub(crate) fn failure(&self, stats: &TorrentStats, limit: Duration) -> Failure {
        let peers = count(stats.peers as u64, "peer");
        let (why, hint) = match (stats.peers + stats.web_seeds, stats.state) {
            (0, _) if stats.candidates > 0 => (
                format!(
                    "no peers reached: {} known, none answered",
                    stats.candidates
                ),
                "is one of them running, and not behind a firewall?",
            ),
            (0, _) => (
                "no peers found".to_owned(),
                "name a peer with --peer ADDRESS:PORT or a tracker with --tracker URL",
            ),
            (_, TorrentState::Metadata) => (
                format!("metadata not found: {peers} connected, none sent it"),
                "give the .torrent file instead of the magnet link",
            ),
            _ => (
                format!(
                    "stalled at {} of {}: {peers} connected, none sends what is missing",
                    Size(stats.bytes_wanted_done),
                    Size(stats.bytes_wanted)
                ),
                "run the same command again when more peers are there; it goes on from here",
            ),
        };
        let what = format!("nothing new for {}, gave up", Span(limit));
        let mut failure = Failure::new(Exit::Unreachable, what).reason(why);
        if stats.peers == 0 {
            for (url, error) in self.trackers.iter().take(NAMED) {
                failure = failure.reason(format!("tracker {url}: {error}"));
            }
        }
        failure.hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leg_that_failed_is_named() {
        let mut patience = Patience::new();
        patience.on_tracker("http://t/", &Err("refused".to_owned()));
        patience.on_tracker("udp://u/", &Err("timed out".to_owned()));
        patience.on_tracker("udp://u/", &Ok(0));
        let reasons = |stats: &TorrentStats| {
            let failure = patience.failure(stats, Duration::from_secs(5));
            assert_eq!(failure.exit, Exit::Unreachable);
            assert_eq!(failure.what, "nothing new for 5s, gave up");
            failure.because
        };
        let nobody = TorrentStats::default();
        assert_eq!(
            reasons(&nobody),
            ["no peers found", "tracker http://t/: refused"]
        );
        let unreached = TorrentStats {
            candidates: 2,
            ..nobody.clone()
        };
        assert!(reasons(&unreached)[0].contains("2 known"));
        let silent = TorrentStats {
            peers: 1,
            ..nobody.clone()
        };
        assert_eq!(
            reasons(&silent),
            ["metadata not found: 1 peer connected, none sent it"]
        );
        let stalled = TorrentStats {
            peers: 3,
            state: TorrentState::Downloading,
            bytes_wanted: 2048,
            bytes_wanted_done: 1024,
            ..nobody
        };
        assert!(reasons(&stalled)[0].starts_with("stalled at 1.0 KiB of 2.0 KiB: 3 peers"));
    }

    #[test]
    fn bytes_renew_the_patience() {
        let mut patience = Patience::new();
        patience.since -= Duration::from_secs(100);
        let mut stats = TorrentStats::default();
        patience.look(&stats);
        assert!(patience.is_over(Duration::from_secs(99)));
        assert!(patience.is_lonely(&stats));
        assert!(!patience.is_lonely(&stats), "told once");
        stats.downloaded = 1;
        patience.look(&stats);
        assert!(!patience.is_over(Duration::from_secs(99)));
    }
}
