//! Who has a file, as the network tells: hosts to fetch it from, and those behind firewalls, which are
//! asked to connect to us.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use shoal_content::Urn;
use shoal_gnutella::Guid;
use shoal_gnutella::http::locations::PushLocation;
use shoal_gnutella::message::query::Wanted;
use shoal_gnutella::node::{Answer, Config, FoundFile, Mode};
use shoal_node::SourceSpec;
use shoal_node::gnutella::transfer::{Door, Download, Incoming, Listener};
use shoal_node::gnutella::{Control, GnutellaServer, GnutellaSettings, SearchEvent, Shelf};
use shoal_node::reach::Overlay;

use super::fetch::named;
use super::guest::meet;
use super::{GATHER, neighbours, start, tls, v4};
use crate::cli::GnutellaFetchArgs;
use crate::failure::{Failure, Outcome};
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::count;

/// How long answers are waited for before the fetch begins without any.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long after the first answer others may come.
const MORE: Duration = Duration::from_secs(3);
/// Hosts that are remembered.
const MAX_HOSTS: usize = 256;
/// Hosts behind firewalls that are remembered.
const MAX_PUSHED: usize = 64;

/// Takes part in the network for as long as a file is fetched.
pub(super) struct Seeker {
    server: GnutellaServer,
    urn: Urn,
    searches: Vec<Receiver<SearchEvent>>,
    incoming: Option<Receiver<Incoming>>,
    hosts: Vec<SocketAddr>,
    tls_hosts: Vec<SocketAddr>,
    /// Sharers that nobody can connect to, and the file's number there.
    behind: BTreeMap<Guid, u32>,
    /// All of those that the download has not heard of.
    found: Vec<SourceSpec>,
    external: Option<SocketAddrV4>,
    /// Whether sharers on the overlay are reached there.
    on_overlay: bool,
}

impl Seeker {
    /// Joins where the arguments say, and asks; none if they say nothing.
    pub(super) fn start(
        args: &GnutellaFetchArgs,
        overlay: Option<&Overlay>,
        ui: &Ui,
        interrupt: &Interrupt,
    ) -> Outcome<Option<Self>> {
        if args.connect.is_empty() {
            return Ok(None);
        }
        let (door, incoming) = Door::new();
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut config = Config::of(Mode::Leaf);
        config.listen = args.external;
        // Sharers are called by the way of their answers: these come by no other.
        config.oob = false;
        let settings = GnutellaSettings {
            listen: v4(args.listen.unwrap_or(any))?,
            node: config,
            connect: neighbours(&args.connect, overlay.is_some())?,
            overlay: overlay.cloned(),
            caches: Vec::new(),
            hosts: None,
            incoming: Some(Box::new(door)),
            tls: tls(args.no_tls)?,
            seed: None,
        };
        let server = start(settings, Box::new(Shelf::default()))?;
        ui.status("Asking", "the network who has it");
        meet(&server, GATHER, &|| !interrupt.asked())?;
        let urn = named(args);
        let mut seeker = Self {
            searches: vec![server.control().search("", by_hash(&urn))],
            server,
            urn,
            incoming: Some(incoming),
            hosts: Vec::new(),
            tls_hosts: Vec::new(),
            behind: BTreeMap::new(),
            found: Vec::new(),
            external: args.external,
            on_overlay: overlay.is_some(),
        };
        if let Some(words) = &args.words {
            let found = seeker.control().search(words, Wanted::default());
            seeker.searches.push(found);
        }
        seeker.gather(&|| !interrupt.asked());
        let (open, behind) = (seeker.hosts.len() as u64, seeker.behind.len() as u64);
        let (open, behind) = (count(open, "host"), count(behind, "host"));
        ui.status("Found", &format!("{open}, and {behind} behind firewalls"));
        if seeker.hosts.is_empty() && seeker.behind.is_empty() && args.from.is_empty() {
            let urn = &args.urn;
            return Err(Failure::not_found(format!("nobody answers for {urn}"))
                .hint("searches by hash go only so far: add words of its name with --words"));
        }
        Ok(Some(seeker))
    }

    fn control(&self) -> &Control {
        self.server.control()
    }

    /// Those who say that they speak TLS.
    pub(super) fn tls_hosts(&self) -> Vec<SocketAddr> {
        self.tls_hosts.clone()
    }

    /// Who has it and was not told yet.
    pub(super) fn found(&mut self) -> Vec<SourceSpec> {
        std::mem::take(&mut self.found)
    }

    /// Where those come in that connect to us; once.
    pub(super) fn listener(&mut self) -> Option<Listener> {
        let addr = self.address().map_or(self.control().listen(), |addr| addr);
        let incoming = self.incoming.take()?;
        Some(Listener::of_node(addr.into(), incoming))
    }

    /// Where others reach us, as far as that is known.
    fn address(&self) -> Option<SocketAddrV4> {
        let listen = self.control().listen();
        let seen = self.control().snapshot().listen;
        self.external
            .or(Some(listen).filter(|l| !l.ip().is_unspecified()))
            .or(seen)
    }

    fn gather(&mut self, go_on: &dyn Fn() -> bool) {
        let begun = Instant::now();
        let mut first: Option<Instant> = None;
        while go_on()
            && begun.elapsed() < PATIENCE
            && first.is_none_or(|first| first.elapsed() < MORE)
        {
            if self.take_answers(Duration::from_millis(100)) {
                first.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Takes what came; whether anybody has the file.
    fn take_answers(&mut self, wait: Duration) -> bool {
        let mut any = false;
        for search in self.searches.clone() {
            let mut next = search.recv_timeout(wait);
            loop {
                match next {
                    Ok(SearchEvent::Found(answer)) => any |= self.take(&answer),
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
                next = search.recv_timeout(Duration::ZERO);
            }
        }
        any
    }

    fn take(&mut self, answer: &Answer) -> bool {
        let is_it = |f: &&FoundFile| self.urn.is_of(f.sha1, f.tiger);
        let Some(file) = answer.files.iter().find(is_it) else {
            return false;
        };
        // As its sharers know it: few are asked for by the tree's root alone.
        let urn = Urn::of(file.sha1, file.tiger)
            .unwrap_or(self.urn)
            .shortest();
        let others = file.sources.iter().map(|a| SocketAddr::V4(*a));
        let mut hosts: Vec<SocketAddr> = others.collect();
        let place = answer.overlay.filter(|_| self.on_overlay);
        hosts.extend(place.map(SocketAddr::V6));
        if answer.status.firewalled == Some(true) {
            // Whom the overlay reaches need not be called.
            let known = place.is_some() || self.behind.contains_key(&answer.servent);
            if !known && self.behind.len() < MAX_PUSHED {
                self.behind.insert(answer.servent, file.index);
                let sharer = PushLocation {
                    guid: answer.servent,
                    proxies: answer.proxies.iter().map(|p| (*p).into()).collect(),
                };
                self.found.push(SourceSpec::Pushed {
                    sharer,
                    urn,
                    len: Some(file.size),
                });
            }
        } else {
            hosts.insert(0, answer.addr.into());
            if answer.tls {
                self.tls_hosts.push(answer.addr.into());
            }
        }
        for addr in hosts {
            if !self.hosts.contains(&addr) && self.hosts.len() < MAX_HOSTS {
                self.hosts.push(addr);
                self.found.push(SourceSpec::Gnutella {
                    addr,
                    urn,
                    len: Some(file.size),
                });
            }
        }
        true
    }

    /// Tells the download of those who were found since, and asks those behind firewalls by the way that
    /// their answer came, when the download asks them by their proxies.
    pub(super) fn look(&mut self, download: &Download) {
        self.take_answers(Duration::ZERO);
        let found = self.found();
        if !found.is_empty() {
            download.add_sources(found);
        }
        for guid in download.pushes.try_iter() {
            if let (Some(index), Some(back)) = (self.behind.get(&guid), self.address()) {
                self.control().push(guid, *index, back);
            }
        }
    }
}

fn by_hash(urn: &Urn) -> Wanted {
    Wanted {
        urns: vec![urn.shortest()],
        media: 0,
    }
}
