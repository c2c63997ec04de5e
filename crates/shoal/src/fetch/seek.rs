//! Searching again while a fetch runs: who else has it?

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use shoal_base::words::{each_word, text_of};
use shoal_content::{Magnet, Urn};
use shoal_gnutella::Guid;
use shoal_gnutella::http::locations::PushLocation;
use shoal_node::SourceSpec;
use shoal_node::gnutella::Control;
use shoal_node::reach::Overlay;

use crate::cli::{FetchArgs, HubFlags, OverlayFlags, SeekFlags, WordFlags};
use crate::failure::Outcome;
use crate::gnutella::Guest;
use crate::napster;
use crate::ui::Ui;

/// How long answers of a Gnutella network are waited for.
const WAIT: Duration = Duration::from_secs(15);
/// How long after a search the next begins; twice as long after each further one …
const PAUSE: Duration = Duration::from_secs(60);
/// … up to this.
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// Hits of a hub that are looked at.
const MAX_HITS: u32 = 100;
/// Sharers behind firewalls whose ways are remembered.
const MAX_WAYS: usize = 64;
/// How often it is seen that nobody wants more.
const LOOK: Duration = Duration::from_millis(100);

/// Those found, or why a search failed.
type Found = Result<Vec<SourceSpec>, String>;

/// What others are to have.
#[derive(Debug, Clone)]
struct Subject {
    urn: Option<Urn>,
    len: Option<u64>,
    name: Option<String>,
}

/// The way back to sharers that answered and that nobody can connect to: through those who passed their answers on.
#[derive(Debug, Default)]
struct Ways {
    /// Our place in the network, while we have one.
    control: Option<Control>,
    /// The sharers, and the file's number there.
    sharers: BTreeMap<Guid, u32>,
}

/// A search that goes on until this is dropped.
#[derive(Debug)]
pub(super) struct Seeker {
    found: Receiver<Found>,
    ways: Arc<Mutex<Ways>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Seeker {
    /// Begins to ask whom the flags name for what the link names; none if they name nobody.
    /// `overlay`: by which hosts behind NATs are reached.
    pub(super) fn start(
        magnet: &Magnet,
        args: &FetchArgs,
        overlay: Option<Overlay>,
    ) -> Option<Self> {
        let flags = args.seek.clone();
        if flags.hub.is_none() && flags.connect.is_empty() && flags.cache.is_empty() {
            return None;
        }
        let subject = Subject {
            urn: magnet.urn(),
            len: magnet.len,
            name: magnet.name.clone(),
        };
        let (tell, found) = bounded(16);
        let stop = Arc::new(AtomicBool::new(false));
        let ways = Arc::<Mutex<Ways>>::default();
        let mut seek = Seek {
            subject,
            flags,
            listen: args.net.listen,
            who: args.who.clone(),
            tell,
            ways: Arc::clone(&ways),
            guest: None,
            overlay,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::spawn(move || seek.run());
        Some(Self {
            found,
            ways,
            stop,
            thread: Some(thread),
        })
    }
}

impl Seeker {
    /// Those found since the last call; the same ones may come again. A search that failed is told.
    pub(super) fn take(&self, ui: &Ui) -> Vec<SourceSpec> {
        let mut all = Vec::new();
        for found in self.found.try_iter() {
            match found {
                Ok(specs) => all.extend(specs),
                Err(why) => ui.news("Searched", &why),
            }
        }
        all
    }

    /// Asks a sharer that answered to connect to us at `back`, by the way that its answer came.
    pub(super) fn push(&self, sharer: Guid, back: SocketAddr) {
        let ways = lock(&self.ways);
        let (Some(control), Some(index)) = (&ways.control, ways.sharers.get(&sharer)) else {
            return;
        };
        let SocketAddr::V4(back) = back else { return };
        // Who listens everywhere is reached where the network sees it.
        let seen = match back.ip().is_unspecified() {
            true => control.snapshot().listen.map(|seen| *seen.ip()),
            false => Some(*back.ip()),
        };
        if let Some(ip) = seen.filter(|ip| !ip.is_unspecified()) {
            control.push(sharer, *index, SocketAddrV4::new(ip, back.port()));
        }
    }
}

impl Drop for Seeker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever tells something hears that nobody listens.
        self.found = crossbeam_channel::never();
        if let Some(thread) = self.thread.take()
            && thread.is_finished()
        {
            // It waits for sockets otherwise, and ends with the program.
            let _ = thread.join();
        }
    }
}

fn lock(ways: &Mutex<Ways>) -> MutexGuard<'_, Ways> {
    ways.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Seek {
    subject: Subject,
    flags: SeekFlags,
    listen: SocketAddr,
    who: crate::cli::WhoFlags,
    tell: Sender<Found>,
    ways: Arc<Mutex<Ways>>,
    /// Our place in the network: it stays, for sharers are reached along the ways of their answers.
    guest: Option<Guest>,
    overlay: Option<Overlay>,
    stop: Arc<AtomicBool>,
}

impl Seek {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn run(&mut self) {
        let mut pause = PAUSE;
        while self.goes_on() {
            let asked = [("gnutella", self.network()), ("napster", self.hub())];
            for (via, asked) in asked {
                if let Err(failure) = asked {
                    // The fetch may have ended.
                    let _ = self.tell.send(Err(format!("{via}: {}", failure.what)));
                }
            }
            let until = Instant::now() + pause;
            pause = (pause * 2).min(MAX_PAUSE);
            while self.goes_on() && Instant::now() < until {
                // Between two searches; it only has to be seen that nobody wants more.
                std::thread::sleep(LOOK);
            }
        }
        lock(&self.ways).control = None;
        if let Some(guest) = self.guest.take() {
            guest.leave();
        }
    }

    fn say(&self, found: Vec<SourceSpec>) {
        if !found.is_empty() {
            // The fetch may have ended.
            let _ = self.tell.send(Ok(found));
        }
    }

    /// Joins the network if it is not there, or not any more.
    fn join(&mut self) -> Outcome {
        if self.guest.as_ref().is_some_and(Guest::is_linked) {
            return Ok(());
        }
        let SeekFlags { connect, cache, .. } = &self.flags;
        let overlay = OverlayFlags {
            connect: connect.clone(),
            cache: cache.clone(),
            listen: SocketAddr::new(self.listen.ip(), 0),
            gwebcache: Vec::new(),
            external: None,
            firewalled: false,
            no_tls: false,
        };
        if let Some(old) = self.guest.take() {
            old.leave();
        }
        // Sharers are called by the way of their answers: these come by no other.
        self.guest = Guest::join(&overlay, self.overlay.clone(), false, &|| self.goes_on())?;
        *lock(&self.ways) = Ways {
            control: self.guest.as_ref().map(Guest::control),
            sharers: BTreeMap::new(),
        };
        Ok(())
    }

    fn network(&mut self) -> Outcome {
        let Some(own) = self.subject.urn else {
            return Ok(());
        };
        if self.flags.connect.is_empty() && self.flags.cache.is_empty() {
            return Ok(());
        }
        self.join()?;
        let Some(guest) = &self.guest else {
            return Ok(());
        };
        let words = [own.shortest().to_string()];
        let len = self.subject.len;
        guest.ask(&words, WAIT, &|| self.goes_on(), &mut |answer| {
            let mut files = answer.files.iter();
            let Some(file) = files.find(|f| own.is_of(f.sha1, f.tiger)) else {
                return;
            };
            let urn = Urn::of(file.sha1, file.tiger).unwrap_or(own).shortest();
            let addr = answer.addr.into();
            if let Some(place) = answer.overlay.filter(|_| self.overlay.is_some()) {
                let addr = place.into();
                self.say(vec![SourceSpec::Gnutella { addr, urn, len }]);
                if answer.status.firewalled == Some(true) {
                    return;
                }
            }
            if answer.status.firewalled != Some(true) {
                return self.say(vec![SourceSpec::Gnutella { addr, urn, len }]);
            }
            let mut ways = lock(&self.ways);
            if ways.sharers.len() < MAX_WAYS {
                ways.sharers.insert(answer.servent, file.index);
            }
            drop(ways);
            let proxies = answer.proxies.iter().map(|proxy| (*proxy).into());
            let sharer = PushLocation {
                guid: answer.servent,
                proxies: proxies.collect(),
            };
            self.say(vec![SourceSpec::Pushed { sharer, urn, len }]);
        })
    }

    fn hub(&self) -> Outcome {
        let (Some(hub), Some(name), Some(len)) =
            (&self.flags.hub, &self.subject.name, self.subject.len)
        else {
            return Ok(());
        };
        let flags = HubFlags {
            hub: hub.clone(),
            who: crate::cli::WhoFlags {
                // Not the nick of the downloads: who logs in twice is thrown out once.
                nick: None,
                ..self.who.clone()
            },
        };
        let words = WordFlags {
            words: words_of(name),
            without: Vec::new(),
            kind: None,
            min_bitrate: None,
            limit: MAX_HITS,
            no_ping: true,
        };
        let addr = napster::resolve(hub)?;
        let hits = napster::client::ask(&flags, &words, |_| {})?;
        let same = hits.into_iter().filter(|(hit, _)| {
            let (_, file) = shoal_napster::file::split_path(&hit.path);
            hit.facts.size == len && words_of(&text_of(file)) == words.words
        });
        self.say(
            same.map(|(hit, _)| SourceSpec::Napster {
                hub: addr,
                nick: hit.nick,
                path: hit.path,
                len: Some(len),
            })
            .collect(),
        );
        Ok(())
    }
}

fn words_of(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    each_word(name, &mut String::new(), |word| words.push(word.to_owned()));
    words
}
