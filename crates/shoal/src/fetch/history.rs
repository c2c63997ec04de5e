//! What sharers gave in earlier fetches: `find` ranks by it.
//!
//! A line each: seconds since 1970, `gnutella` or `napster`, bytes a second, the place in the
//! queue, fetches in a row in which they gave nothing, whether they lied, and who. A `-` is what is
//! not known. The newest [`MAX_HOSTS`] are kept, each for [`KEPT`].

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use shoal_content::FileSource;
use shoal_content::hits::Hit;
use shoal_gnutella::Guid;
use shoal_node::{SourceNews, SourceSort};
use shoal_store::snapshot;

use crate::napster;
use crate::supernode::unix;
use crate::ui::Ui;

/// Sharers that are remembered at most.
const MAX_HOSTS: usize = 1000;
/// Bytes of a sharer's name at most, and of the file.
const MAX_NAME: usize = 256;
const MAX_FILE: u64 = 512 * 1024;
/// Seconds that a sharer is remembered: addresses are given to others, and nicks too.
const KEPT: u64 = 30 * 24 * 3600;
/// Refusals that are counted at most.
const MAX_REFUSED: u32 = 9;

/// What one sharer did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Past {
    at: u64,
    rate: Option<u64>,
    queue: Option<u32>,
    refused: u32,
    lied: bool,
}

impl Past {
    /// This and what came after it.
    fn then(&self, later: &Self) -> Self {
        let gave = later.rate.is_some();
        let refused = self.refused.saturating_add(later.refused).min(MAX_REFUSED);
        Self {
            at: later.at,
            rate: later.rate.or(self.rate),
            // Who gave and made us wait no more has no queue.
            queue: later.queue.or(self.queue.filter(|_| !gave)),
            refused: if gave { 0 } else { refused },
            lied: self.lied || later.lied,
        }
    }
}

/// The kind of a source, and who it is.
type Who = (String, String);

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct History {
    path: PathBuf,
    hosts: BTreeMap<Who, Past>,
    hubs: BTreeMap<String, Option<SocketAddr>>,
}

fn read_line(line: &str, now: u64) -> Option<(Who, Past)> {
    fn known<T: FromStr>(word: &str) -> Option<Option<T>> {
        match word {
            "-" => Some(None),
            word => word.parse().ok().map(Some),
        }
    }
    let mut words = line.splitn(7, ' ');
    let mut word = || words.next();
    let at = word()?.parse().ok()?;
    let kind = word()?.to_owned();
    let past = Past {
        at,
        rate: known(word()?)?,
        queue: known(word()?)?,
        refused: word()?.parse().ok()?,
        lied: word()? == "lied",
    };
    let fresh = at <= now && now - at < KEPT;
    fresh.then_some(((kind, word()?.to_owned()), past))
}

fn line((kind, who): &Who, past: &Past) -> String {
    let known = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    let Past { at, refused, .. } = past;
    let (rate, queue) = (known(past.rate), known(past.queue.map(u64::from)));
    let lied = if past.lied { "lied" } else { "-" };
    format!("{at} {kind} {rate} {queue} {refused} {lied} {who}\n")
}

impl History {
    /// An empty one, for what a fetch shows.
    pub(crate) fn new(base: &Path) -> Self {
        Self {
            path: base.join("hosts"),
            ..Self::default()
        }
    }

    /// What earlier fetches left. What cannot be read is forgotten: nothing but ranks hangs on it.
    pub(crate) fn load(base: &Path) -> Self {
        let mut history = Self::new(base);
        let bytes = snapshot::load(&history.path, MAX_FILE);
        let bytes = bytes.ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let now = unix();
        history.hosts = text
            .lines()
            .filter_map(|line| read_line(line, now))
            .take(MAX_HOSTS)
            .collect();
        history
    }

    /// Something happened to a source.
    pub(crate) fn note(&mut self, sort: SourceSort, who: &str, news: &SourceNews) {
        let plain = who.len() <= MAX_NAME && !who.chars().any(char::is_control);
        let key = (sort.name().to_owned(), who.to_owned());
        let room = self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(&key);
        if sort == SourceSort::Web || *news == SourceNews::Known || !plain || !room {
            return;
        }
        let past = self.hosts.entry(key).or_default();
        past.at = unix();
        match news {
            SourceNews::Known => {}
            SourceNews::Queued { position, .. } => past.queue = Some(position.unwrap_or(1)),
            // However often in one fetch.
            SourceNews::Failed { .. } => past.refused = 1,
            SourceNews::Banned => past.lied = true,
            SourceNews::Gave { rate } => past.rate = Some(*rate),
        }
    }

    /// Adds what was noted to what earlier fetches left; a fault is told, and stops nothing.
    pub(crate) fn keep(&self, ui: &Ui) {
        if let Err(error) = self.save() {
            ui.warn(&format!(
                "what the sources gave is not remembered: {}: {error}",
                self.path.display()
            ));
        }
    }

    fn save(&self) -> io::Result<()> {
        let Some(base) = self.path.parent().filter(|_| !self.hosts.is_empty()) else {
            return Ok(());
        };
        let mut all = Self::load(base).hosts;
        for (who, past) in &self.hosts {
            let old = all.entry(who.clone()).or_default();
            *old = old.then(past);
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(_, past)| std::cmp::Reverse(past.at));
        let kept = all.iter().take(MAX_HOSTS);
        let text: String = kept.map(|(who, past)| line(who, past)).collect();
        snapshot::save(&self.path, text.as_bytes())
    }

    /// Adds to a hit what its sharer did before.
    pub(crate) fn apply(&mut self, hit: &mut Hit) {
        let who = match &hit.source {
            Some(FileSource::Gnutella { host, .. }) => (SourceSort::Gnutella, host.clone()),
            Some(FileSource::Pushed { servent, .. }) => {
                (SourceSort::Gnutella, Guid(*servent).to_string())
            }
            Some(FileSource::Napster { hub, nick, .. }) if !self.hosts.is_empty() => {
                let addr = self.hubs.entry(hub.clone());
                let addr = addr.or_insert_with(|| napster::resolve(hub).ok());
                let Some(addr) = addr else { return };
                (SourceSort::Napster, format!("{nick}@{addr}"))
            }
            Some(FileSource::Napster { .. }) | None => return,
        };
        let Some(past) = self.hosts.get(&(who.0.name().to_owned(), who.1)) else {
            return;
        };
        hit.rate = hit.rate.or(past.rate);
        hit.queue = hit.queue.max(past.queue);
        hit.refused = past.refused;
        hit.lied = past.lied;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit() -> Hit {
        Hit {
            source: Some(FileSource::Napster {
                hub: "127.0.0.1:8888".into(),
                nick: "a nick".into(),
                path: Vec::new(),
            }),
            ..Hit::default()
        }
    }

    #[test]
    fn what_a_sharer_did_is_found_by_the_next_search() {
        let dir = tempfile::tempdir().expect("a folder");
        let fetch = |all: &[SourceNews]| {
            let mut history = History::new(dir.path());
            for news in all {
                history.note(SourceSort::Napster, "a nick@127.0.0.1:8888", news);
            }
            history.save().expect("saved");
            let mut hit = hit();
            History::load(dir.path()).apply(&mut hit);
            (hit.rate, hit.queue, hit.refused, hit.lied)
        };
        let failed = SourceNews::Failed {
            why: "away".into(),
            for_good: false,
        };
        let queued = SourceNews::Queued {
            position: Some(7),
            retry_s: 60,
        };
        let gave = SourceNews::Gave { rate: 5000 };
        assert_eq!(fetch(&[]), (None, None, 0, false));
        assert_eq!(fetch(&[failed.clone(), failed.clone()]).2, 1);
        assert_eq!(fetch(&[queued.clone(), failed]), (None, Some(7), 2, false));
        assert_eq!(
            fetch(&[queued, gave.clone()]),
            (Some(5000), Some(7), 0, false)
        );
        assert_eq!(fetch(&[gave]), (Some(5000), None, 0, false));
        assert_eq!(fetch(&[SourceNews::Banned]), (Some(5000), None, 0, true));
    }

    #[test]
    fn the_file_is_bounded_and_what_is_damaged_in_it_is_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut history = History::new(dir.path());
        for n in 0..MAX_HOSTS + 10 {
            history.note(SourceSort::Gnutella, &n.to_string(), &SourceNews::Banned);
        }
        let forged = "x\n1 gnutella 1 1 1 - y";
        history.note(SourceSort::Gnutella, forged, &SourceNews::Banned);
        history.save().expect("saved");
        history.save().expect("saved");
        assert_eq!(History::load(dir.path()).hosts.len(), MAX_HOSTS);
        let old = format!("{} gnutella 1 - 0 - old\n", unix() - KEPT);
        let good = format!("{} gnutella 1 - 0 - good\n", unix());
        let text = format!(
            "{old}junk\n\u{0}\n9 9 9\n{good}{} gnutella x - 0 - bad",
            unix()
        );
        std::fs::write(dir.path().join("hosts"), text).expect("written");
        let hosts = History::load(dir.path()).hosts;
        let names: Vec<&str> = hosts.keys().map(|(_, who)| who.as_str()).collect();
        assert_eq!(names, ["good"]);
    }
}
