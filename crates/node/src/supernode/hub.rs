//! A supernode's hub for OpenNap clients: they are its children, by their own protocol.
//!
//! ```text
//!  link      the supernode as a linked hub of its own hub          lender   overlay's files for the hub's users
//!  gatherer  the hub's users' files, fetched and hashed once       mirrors  those, as the overlay fetches them
//! ```
//!
//! What the hub's users search for is asked in the overlay, and told as files of one user, the guest;
//! who wants one is sent it as it comes, verified. What the overlay searches for is asked at the hub.
//! OpenNap names no file by a hash of all of it: a file that fits is fetched from its sharer once, so
//! that it has a SHA-1 and a tree, and is the supernode's own from then on, until its sharer leaves.

mod gatherer;
mod lender;
mod link;
mod mirrors;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_base::Rng;
use shoal_content::keywords::Terms;
use shoal_gnutella::http::locations::may_name;
use shoal_gnutella::huge::Urn;
use shoal_napster::client::Hit as Shared;
use shoal_napster::file::Facts;
use shoal_napster::gateway::{Event, Guest};
use shoal_napster::hub::{Config, Stats};
use shoal_napster::query::Query;
use shoal_supernode::wire::{File, Hit, MAX_PATH, QueryId, Wanted};

use super::NodeDriver;
use crate::gnutella::transfer::Openable;
use crate::napster::{HubError, HubServer, HubSettings};
use gatherer::{Gatherer, Job};
use lender::{Lender, Offer};
use link::Link;
use mirrors::Mirrors;

/// The nick of the overlay.
const GUEST: &str = "overlay";
/// How long a user's search waits for the overlay; the hub ends it after ten seconds.
const ASKED: Duration = Duration::from_secs(4);
/// Users' searches that are open in the overlay at once.
const MAX_ASKED: usize = 256;
/// Searches of the overlay that wait for the hub, and hits that each takes.
const MAX_SEARCHES: usize = 64;
const MAX_HITS: u32 = 20;
/// How long the hub may take to answer one.
const ANSWER: Duration = Duration::from_secs(5);

/// How a hub for children is run.
pub struct HubFrontSettings {
    /// Where OpenNap clients connect to.
    pub listen: SocketAddr,
    /// The address at which they fetch the overlay's files, as they are told it, and the one that
    /// is listened at.
    pub ip: Ipv4Addr,
    /// See `ip`.
    pub bind: IpAddr,
    /// What the hub allows, and is called.
    pub hub: Config,
    /// Where the overlay fetches from this node.
    pub at: SocketAddr,
    /// What it shares besides.
    pub own: Arc<dyn Openable>,
    /// The same, as the overlay is told.
    pub files: Vec<File>,
    /// Where files are kept meanwhile; emptied at the beginning.
    pub dir: PathBuf,
    /// Bytes of the users' files that are kept, and of one of them, at most.
    pub most: u64,
    /// Randomness.
    pub rng: Rng,
}

impl std::fmt::Debug for HubFrontSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubFrontSettings")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why there is no hub.
#[derive(Debug, thiserror::Error)]
pub enum HubFrontError {
    /// The hub itself.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A folder, a socket or a thread.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubNews {
    /// The overlay can fetch a user's file from now on.
    Mirrored {
        /// Whose.
        nick: String,
        /// What.
        file: File,
    },
    /// A user's file that the overlay asked for is left out, and why.
    LeftOut {
        /// Whose.
        nick: String,
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// A user fetches a file of the overlay.
    Lent {
        /// Who.
        nick: String,
        /// Its path as the hub's users are told.
        path: String,
    },
    /// The hub and the supernode are apart: it is a hub of its own now.
    Lost(String),
}

/// A search of a user of the hub, in the overlay.
struct Asked {
    nick: String,
    query: Query,
    since: Instant,
}

/// A search of the overlay, at the hub.
struct Search {
    query: QueryId,
    terms: Terms,
    /// The words that the hub looks for.
    words: String,
}

/// The hub of a supernode; ends when dropped.
pub struct HubFront {
    // In the order in which they are to end.
    link: Link,
    gatherer: Gatherer,
    lender: Lender,
    hub: HubServer,
    mirrors: Arc<Mirrors>,
    at: SocketAddr,
    own: Vec<File>,
    most: u64,
    asked: BTreeMap<QueryId, Asked>,
    /// Searches of the overlay that the hub has not answered; the first is asked.
    searches: VecDeque<Search>,
    asking: Option<Instant>,
    news: Vec<HubNews>,
}

impl std::fmt::Debug for HubFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubFront")
            .field("hub", &self.hub.addr())
            .finish_non_exhaustive()
    }
}

/// Words that the overlay takes for nothing but words.
fn plain(texts: &[Vec<u8>]) -> String {
    let text = texts.iter().map(|t| String::from_utf8_lossy(t));
    let text = text.collect::<Vec<_>>().join(" ");
    text.chars()
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect()
}

/// What the overlay is told a user's file is called; none if that is too long.
fn told(hit: &Shared) -> Option<String> {
    let path = String::from_utf8_lossy(&hit.path).replace('\\', "/");
    let parts = path.split('/').filter(|p| !matches!(*p, "" | "." | ".."));
    // A letter of a drive says nothing.
    let parts: Vec<&str> = parts.filter(|p| !p.ends_with(':')).collect();
    let told = format!("{}/{}", hit.nick, parts.join("/"));
    (told.len() <= MAX_PATH && !parts.is_empty()).then_some(told)
}

/// What a hub's users are told of a file of the overlay; zero is what they take for unknown.
fn facts(file: &File) -> Facts {
    let sound = file.sound;
    Facts {
        size: file.size,
        bitrate: sound.map_or(0, |s| s.bitrate.into()),
        frequency: sound.map_or(0, |s| s.frequency),
        seconds: sound.map_or(0, |s| s.seconds),
        md5: None,
    }
}

/// What a hub's users are told a file of the overlay is called: its SHA-1 tells files of one name apart.
fn lent(file: &File) -> Vec<u8> {
    let urn = Urn::Sha1(file.sha1).to_string();
    let hash = urn.rsplit(':').next().unwrap_or_default();
    let name = file.path.rsplit('/').next().unwrap_or_default();
    format!("{GUEST}\\{hash}\\{name}").into_bytes()
}

impl HubFront {
    /// Listens, and links the hub with the overlay.
    ///
    /// # Errors
    /// Why not.
    pub fn start(settings: HubFrontSettings) -> Result<Self, HubFrontError> {
        let mut rng = settings.rng;
        let (gathered, lent) = (settings.dir.join("users"), settings.dir.join("overlay"));
        for dir in [&gathered, &lent] {
            // What an earlier run left nobody asks for any more.
            match std::fs::remove_dir_all(dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => std::fs::create_dir_all(dir)?,
            }
        }
        let secret = format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()).into_bytes();
        let hub = HubServer::start(HubSettings {
            listen: settings.listen,
            dir: None,
            admin: None,
            links: Vec::new(),
            hub: Config {
                link_secret: Some(secret.clone()),
                ..settings.hub
            },
            seed: Some(rng.next_u64()),
        })?;
        let mut inside = hub.addr();
        if inside.ip().is_unspecified() {
            inside.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let lender = Lender::open(settings.bind, lent, rng.fork())?;
        let guest = Guest {
            nick: GUEST.to_owned(),
            ip: settings.ip,
            port: lender.port(),
            client: concat!("shoal ", env!("CARGO_PKG_VERSION"), ", the overlay").to_owned(),
        };
        let link = Link::open(inside, GUEST, &secret, guest, &mut rng)?;
        let mirrors = Arc::new(Mirrors::new(settings.own));
        // As a user whom sharers behind firewalls can connect to.
        let mut outside = hub.addr();
        if outside.ip().is_unspecified() {
            outside.set_ip(settings.ip.into());
        }
        let place = gatherer::Place {
            hub: outside,
            ip: outside.ip(),
            dir: gathered,
            most: settings.most,
        };
        let gatherer = Gatherer::spawn(place, Arc::clone(&mirrors), rng.fork())?;
        Ok(Self {
            link,
            gatherer,
            lender,
            hub,
            mirrors,
            at: settings.at,
            own: settings.files,
            most: settings.most,
            asked: BTreeMap::new(),
            searches: VecDeque::new(),
            asking: None,
            news: Vec::new(),
        })
    }

    /// Where OpenNap clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.hub.addr()
    }

    /// The node itself shares these now.
    pub fn set_own(&mut self, files: Vec<File>) {
        self.own = files;
    }

    /// What the hub holds and did.
    pub fn stats(&self) -> Stats {
        self.hub.stats()
    }

    /// What the overlay fetches from this node: its own files, and the hub's users'.
    pub fn files(&self) -> Arc<dyn Openable> {
        Arc::clone(&self.mirrors) as Arc<dyn Openable>
    }

    /// The overlay asks for something. False if too much is asked.
    pub fn asked(&mut self, query: QueryId, wanted: &Wanted) -> bool {
        // A hash is known only of what is mirrored, which is the node's own to answer.
        let Wanted::Words(words) = wanted else {
            return true;
        };
        let terms = Terms::parse(words);
        // The hub knows whole words only; the rest is looked at when it has answered.
        let parts = words.split_whitespace();
        let whole = parts.filter(|w| !w.starts_with('-') && !w.ends_with('*'));
        let words = plain(&whole.map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>());
        if self.asked.contains_key(&query) || words.trim().is_empty() {
            return true;
        }
        if self.searches.len() >= MAX_SEARCHES {
            return false;
        }
        self.searches.push_back(Search {
            query,
            terms,
            words,
        });
        self.ask_hub();
        true
    }

    /// Asks the next search of the overlay at the hub, if none is open.
    fn ask_hub(&mut self) {
        if self.asking.is_none()
            && let Some(search) = self.searches.front()
        {
            let words = &search.words;
            self.link.say(|gateway| gateway.search(words, MAX_HITS));
            self.asking = Some(Instant::now());
        }
    }

    fn answered(&mut self) {
        self.searches.pop_front();
        self.asking = None;
        self.ask_hub();
    }

    /// The overlay answers a search of this node; whether it was one of the hub's users.
    pub fn hits(&mut self, query: QueryId, hits: &[Hit<SocketAddr>]) -> bool {
        let Some(asked) = self.asked.get(&query) else {
            return false;
        };
        let nick = asked.nick.clone();
        for hit in hits {
            let fits = asked.query.admits(&hit.file.path, &facts(&hit.file));
            // Whom nobody can connect to a Napster user would wait for in vain.
            let from = hit.place().filter(|addr| may_name(self.at.ip(), *addr));
            if let Some(from) = from.filter(|_| fits) {
                self.tell(&nick, &hit.file, from);
            }
        }
        true
    }

    fn tell(&self, nick: &str, file: &File, from: SocketAddr) {
        if self.mirrors.is_mirror(&file.sha1) {
            // The hub has told of it itself.
            return;
        }
        let path = lent(file);
        let offer = Offer {
            sha1: file.sha1,
            tiger: file.tiger,
            len: file.size,
            hosts: vec![from],
        };
        self.lender.offer(&path, offer);
        let facts = facts(file);
        self.link.say(|gateway| gateway.found(nick, &path, &facts));
    }

    /// Does what there is to do; what happened since.
    pub fn poll(&mut self, driver: &NodeDriver) -> Vec<HubNews> {
        while let Ok(event) = self.link.events.try_recv() {
            self.on_event(event, driver);
        }
        while let Ok(gathered) = self.gatherer.done.try_recv() {
            self.gatherer.over(&gathered);
            let nick = gathered.job.hit.nick.clone();
            match gathered.result {
                Ok((file, gone)) => {
                    gone.into_iter().for_each(|path| driver.unshare(path));
                    driver.share(file.clone());
                    let hit = vec![(file.clone(), self.at)];
                    driver.found_elsewhere(gathered.job.query, hit);
                    self.news.push(HubNews::Mirrored { nick, file });
                }
                Err(why) => self.left_out(&gathered.job.hit, why),
            }
        }
        let over = |a: &Asked| a.since.elapsed() >= ASKED;
        let ended = self.asked.extract_if(.., |_, asked| over(asked));
        for (_, asked) in ended {
            self.link.say(|gateway| gateway.end(&asked.nick));
        }
        if self.asking.is_some_and(|at| at.elapsed() >= ANSWER) {
            self.answered();
        }
        std::mem::take(&mut self.news)
    }

    fn left_out(&mut self, hit: &Shared, why: String) {
        let path = String::from_utf8_lossy(&hit.path).into_owned();
        let nick = hit.nick.clone();
        self.news.push(HubNews::LeftOut { nick, path, why });
    }

    fn on_event(&mut self, event: Event, driver: &NodeDriver) {
        match event {
            Event::Linked => {}
            Event::Refused(why) => self.news.push(HubNews::Lost(why)),
            Event::Search(nick, query) => self.search(nick, query, driver),
            Event::Wanted(nick, path) => {
                if self.lender.promise(&nick, &path) {
                    self.link.say(|gateway| gateway.ready(&nick, &path));
                    let path = String::from_utf8_lossy(&path).into_owned();
                    self.news.push(HubNews::Lent { nick, path });
                } else {
                    self.link.say(|gateway| gateway.refuse(&nick, &path));
                }
            }
            Event::Hit(hit) => self.on_hit(hit),
            Event::SearchEnd => self.answered(),
            Event::Gone(nick) => {
                for path in self.mirrors.withdraw(&nick) {
                    driver.unshare(path);
                }
            }
        }
    }

    fn search(&mut self, nick: String, query: Query, driver: &NodeDriver) {
        // What this node shares the overlay does not tell it.
        for file in self.own.iter().filter(|f| query.admits(&f.path, &facts(f))) {
            self.tell(&nick, file, self.at);
        }
        let room = self.asked.len() < MAX_ASKED && !query.local_only;
        let id = room.then(|| driver.search(&plain(&query.contains)));
        match id.flatten() {
            Some(id) => {
                let since = Instant::now();
                self.asked.insert(id, Asked { nick, query, since });
            }
            None => self.link.say(|gateway| gateway.end(&nick)),
        }
    }

    /// The hub found a file that the overlay asks for.
    fn on_hit(&mut self, hit: Shared) {
        let Some(search) = self.searches.front() else {
            return;
        };
        let query = search.query;
        let Some(told) = told(&hit) else {
            return self.left_out(&hit, "its path is too long".to_owned());
        };
        if !search.terms.fit(&told) {
            return;
        }
        if hit.facts.size > self.most {
            let why = format!("it has more than {} bytes", self.most);
            return self.left_out(&hit, why);
        }
        if !self.mirrors.has(&told, hit.facts.size) {
            self.gatherer.want(Job { hit, told, query });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_one_network_become_those_of_the_other() {
        let hit = |path: &[u8]| Shared {
            path: path.to_vec(),
            facts: Facts::default(),
            nick: "ann".into(),
            ip: Ipv4Addr::LOCALHOST,
            link: 0,
        };
        let told = |path: &[u8]| told(&hit(path));
        assert_eq!(
            told(b"C:\\Music\\a b.mp3").as_deref(),
            Some("ann/Music/a b.mp3")
        );
        assert_eq!(told(b"/../x/./y.mp3").as_deref(), Some("ann/x/y.mp3"));
        assert_eq!(told(b"C:\\"), None);
        assert_eq!(told(&[b'a'; 600]), None);
        let file = File {
            path: "some where/a b.mp3".into(),
            size: 1,
            sha1: [0; 20],
            tiger: None,
            sound: None,
        };
        let path = String::from_utf8(lent(&file)).expect("text");
        assert_eq!(path, format!("overlay\\{}\\a b.mp3", "A".repeat(32)));
        let texts = [b"a-song".to_vec(), b"\"by\" me*".to_vec()];
        assert_eq!(plain(&texts), "a song  by  me ");
    }
}
