//! A node with all that it serves, while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};
use shoal_base::Rng;
use shoal_call::mailbox::office::OfficeConfig;
use shoal_gnutella::Guid;
use shoal_gnutella::http::queue::Opening;
use shoal_gnutella::http::server::ServerConfig;
use shoal_node::gnutella::GnutellaServer;
use shoal_node::gnutella::transfer::{Feeder, FileServer, Openable, Upload};
use shoal_node::reach::{Overlay, Service};
use shoal_node::relay::RelayServer;
use shoal_node::supernode::{
    BoxServer, GnutellaBridge, HubFront, NodeDriver, NodeSettings, Others, Place,
};
use shoal_supernode::node::{Config, Event, Role};
use shoal_supernode::wire::{Hit, OVERLAY_FILES, QueryId, Standing};

use super::library::Shared;
use super::{config, line, relay, report, tell, ways};
use crate::cli::SupernodeNodeArgs;
use crate::failure::{Failure, Outcome};
use crate::gnutella;
use crate::report::{OverlayReport, RelayReport, Report};
use crate::signals::Interrupt;
use crate::station::tickets;
use crate::supernode::ring::NamePlace;
use crate::supernode::{Member, Who, children, find, folder, lines};
use crate::ui::Ui;

/// How often a node is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked how others would reach it behind its NAT.
const WAY: Duration = Duration::from_secs(2);
/// How often answers of a Gnutella network are passed on.
const ANSWERS: Duration = Duration::from_millis(100);
/// How often the supernode is told how this node stands with those who fetch.
const STAND: Duration = Duration::from_secs(5);

/// What runs is ended from the first to the last.
pub(super) struct Running<'a> {
    args: &'a SupernodeNodeArgs,
    ui: &'a Ui,
    hub: Option<HubFront>,
    bridge: Option<GnutellaBridge>,
    network: Option<GnutellaServer>,
    server: Option<FileServer>,
    services: Vec<Service>,
    overlay: Overlay,
    /// In the ring of names.
    place: Option<NamePlace>,
    boxes: Option<BoxServer>,
    driver: Arc<NodeDriver>,
    relay: Option<RelayServer>,
    member: Member,
    shared: Shared,
    uploads: Receiver<Upload>,
    /// Where others find it, and where it listens for them: nowhere if they come by the overlay alone.
    at: SocketAddr,
    bound: Option<SocketAddr>,
    /// What the user has asked, and how many answers came.
    asked: (Option<QueryId>, usize),
    stood: Instant,
    told: Instant,
    looked_way: Option<Instant>,
    rng: Rng,
}

/// How those who fetch from this node find it.
fn standing(server: &FileServer, args: &SupernodeNodeArgs) -> Standing {
    let (running, waiting) = server.figures();
    let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    Standing {
        free: Some(small((args.slots as usize).saturating_sub(running))),
        waiting: small(waiting),
        rate: args.up_limit,
    }
}

/// Serves files to who fetches them, and tells of uploads.
fn serve(
    files: Option<Arc<dyn Openable>>,
    args: &SupernodeNodeArgs,
) -> Outcome<(Option<FileServer>, Receiver<Upload>)> {
    let Some(files) = files else {
        return Ok((None, never()));
    };
    let mut config = ServerConfig::default();
    config.queue.slots = args.slots;
    let made = FileServer::new(config, files, None, gnutella::rng());
    let (server, uploads) = made.map_err(|e| Failure::failed("cannot serve files").because(&e))?;
    server.set_limit(args.up_limit);
    Ok((Some(server), uploads))
}

impl<'a> Running<'a> {
    pub(super) fn start(args: &'a SupernodeNodeArgs, ui: &'a Ui) -> Outcome<Self> {
        if args.relay.is_empty() && args.relay_tls.files().is_some() {
            return Err(Failure::usage("--tls-cert is for a relay: --relay"));
        }
        let dir = folder(args.state_dir.as_deref());
        let member = Member::join(&args.join, &Who::Node(args.name.as_deref()), &dir)?;
        member.tell(ui);
        let shared = Shared::open(args, ui)?;
        let hidden = args.firewalled || ways::is_behind(&member, args);
        let (place, at, bound) = match hidden {
            true => {
                let at = SocketAddr::new(member.own, 0);
                (Place::Overlay(ways::links_of(&member.key)), at, None)
            }
            false => {
                let (listener, at) = member.listen(args.listen, args.external)?;
                let bound = listener.local_addr().ok();
                (Place::Reached(listener, at), at, bound)
            }
        };
        let config = config(&member, args);
        let boxes = bound.map(|_| {
            let (office, key) = (OfficeConfig::new(member.trusted), member.key.clone());
            let seed = gnutella::rng().next_u64();
            BoxServer::new(&office, key, seed, config.unlimited.clone())
        });
        let files = shared.files().map(|files| -> Arc<dyn Openable> { files });
        let hub = args.napster.map(|listen| {
            let own = (files.clone(), shared.told());
            children::start(listen, at, args, &member, own, &dir)
        });
        let hub = hub.transpose()?;
        let (server, uploads) = serve(hub.as_ref().map(HubFront::files).or(files), args)?;
        let (feeder, _) = Feeder::new(server.clone());
        let others: Others = Arc::new(move |stream, peer, first| feeder.take(stream, peer, first));
        let relay = match args.relay.is_empty() {
            true => None,
            false => Some(relay::start(&member, args, ui)?),
        };
        let (relay, offer) = relay.unzip();
        let driver = NodeDriver::start(NodeSettings {
            place,
            serves: server.is_some(),
            others: Some(others),
            boxes: boxes.clone(),
            key: member.key.clone(),
            token: member.token.clone(),
            list: member.list,
            config: Config {
                relay: offer,
                ..config
            },
            files: shared.told(),
            seed: gnutella::rng().next_u64(),
        });
        let driver = driver.map_err(|e| Failure::failed("cannot start the node").because(&e))?;
        let driver = Arc::new(driver);
        // Whether others reach the address that is told, a peer does not know for sure; and others may be reached
        // by theirs alone.
        let (overlay, services) = ways::on_overlay(&member, &driver, server.as_ref())?;
        let network = args.gnutella.map(|at| {
            let shelf = driver.shelf(shared.shelf());
            ways::ultrapeer(at, args, shelf, server.clone(), ui)
        });
        let network = network.transpose()?;
        let bridge = network.as_ref();
        let bridge = bridge.map(|n| GnutellaBridge::new(n.control().clone()));
        let now = Instant::now();
        let mut running = Self {
            args,
            ui,
            hub,
            bridge,
            network,
            server,
            services,
            overlay,
            place: None,
            boxes,
            driver,
            relay,
            member,
            shared,
            uploads,
            at,
            bound,
            asked: (None, 0),
            stood: now,
            told: now,
            looked_way: None,
            rng: gnutella::rng(),
        };
        if args.supernode {
            running.take_place();
        }
        Ok(running)
    }

    /// Tells where it is.
    pub(super) fn greet(&self) {
        let listening = |addr, proto| self.ui.report(&Report::Listening { addr, proto });
        listening(self.at, "supernode");
        if self.server.is_some() {
            listening(self.overlay.at(OVERLAY_FILES), "overlay");
        }
        if let Some(hub) = &self.hub {
            listening(hub.addr(), "napster");
        }
        self.ui.result(&self.at.to_string());
        let name = &self.member.token.name;
        self.ui
            .status("Running", &format!("as {name} until ctrl-C"));
    }

    /// Only who can be reached stands in the ring of names.
    fn take_place(&mut self) {
        if let Some(bound) = self.bound {
            let boxes = self.boxes.as_ref();
            self.place =
                NamePlace::take(&self.member, &self.driver, boxes, bound, self.at, self.ui);
        }
    }

    /// Runs until the user has had enough.
    pub(super) fn run(&mut self, interrupt: &Interrupt) -> Outcome {
        let mut questions = match self.args.ask {
            true => lines(),
            false => never(),
        };
        let waits = self.network.is_some() || self.hub.is_some();
        let look = if waits { ANSWERS } else { LOOK };
        self.stand();
        let driver = Arc::clone(&self.driver);
        let uploads = self.uploads.clone();
        while !interrupt.asked() && !self.ui.stdout_closed() {
            select! {
                recv(driver.events) -> event => match event {
                    Ok(event) => self.hear(event),
                    Err(_) => return Err(Failure::failed("the node stopped by itself")),
                },
                recv(uploads) -> upload => if let Ok(upload) = upload {
                    gnutella::tell_upload(&upload, self.ui);
                },
                recv(questions) -> line => match line {
                    Ok(line) => self.ask(&line),
                    Err(_) => questions = never(),
                },
                recv(interrupt.woken()) -> _ => {}
                default(look) => {}
            }
            self.upkeep()?;
        }
        Ok(())
    }

    fn ask(&mut self, words: &str) {
        self.asked = (self.driver.search(words), 0);
        let sent = self.asked.0.is_some();
        self.ui.report(&OverlayReport::Asked { words, sent });
    }

    fn hear(&mut self, event: Event<SocketAddr>) {
        tell(&event, self.ui);
        match event {
            Event::Push(_, to) => self.push(to),
            Event::Letter(from, letter) => self.overlay.letter(from, letter),
            Event::Relays(relays) => self.overlay.offer(tickets(relays)),
            Event::Hits(query, hits) => self.found(query, &hits),
            Event::Asked(query, wanted) => {
                if let Some(hub) = &mut self.hub
                    && !hub.asked(query, &wanted)
                {
                    let what = "a query is not asked at the hub: too many";
                    self.ui.news("Limited", what);
                }
                if let Some(bridge) = &mut self.bridge
                    && !bridge.ask(query, &wanted)
                {
                    let what = "a query is not asked on Gnutella: too many";
                    self.ui.news("Limited", what);
                }
            }
            Event::Role(Role::Supernode) if self.place.is_none() => self.take_place(),
            Event::Role(Role::Peer) => {
                if let Some(place) = self.place.take() {
                    place.leave();
                }
            }
            Event::Role(Role::Supernode)
            | Event::Home(_)
            | Event::Refused(..)
            | Event::Measured(..) => {}
        }
    }

    /// Somebody who cannot connect to us wants a file.
    fn push(&mut self, to: SocketAddr) {
        if let Some(server) = &self.server
            && ways::may_push(self.at, to)
        {
            let guid = Guid::random(&mut self.rng);
            let (index, name) = (0, String::new());
            server.give(to, Opening::Giv { index, guid, name });
        }
    }

    fn found(&mut self, query: QueryId, hits: &[Hit<SocketAddr>]) {
        if let Some(hub) = &mut self.hub {
            hub.hits(query, hits);
        }
        for hit in hits.iter().filter(|_| self.asked.0 == Some(query)) {
            self.asked.1 += 1;
            let place = find::place(self.at.ip(), hit);
            find::tell(self.asked.1, hit, place, self.ui);
        }
    }

    /// Tells the supernode how this node stands with those who fetch.
    fn stand(&mut self) {
        self.stood = Instant::now();
        if let Some(server) = &self.server {
            self.driver.stand(standing(server, self.args));
        }
    }

    /// What is to be looked after each time something has happened, or nothing for a while.
    fn upkeep(&mut self) -> Outcome {
        let hub = self.hub.as_mut();
        self.shared.follow(&self.driver, hub, self.ui);
        if let Some(bridge) = &mut self.bridge {
            bridge.poll(&self.driver);
        }
        if let Some(hub) = &mut self.hub {
            let news = hub.poll(&self.driver);
            news.iter().for_each(|n| children::tell(n, self.ui));
        }
        if let Some(token) = self.member.renew(self.ui) {
            self.driver.renew(token);
        }
        if let Some(place) = &mut self.place {
            place.poll();
        }
        // Behind a NAT that has another address for each whom we send to, those behind others do not reach us.
        let due = |at: Instant| at.elapsed() >= WAY;
        if self.bound.is_none() && self.looked_way.is_none_or(due) {
            self.looked_way = Some(Instant::now());
            let one = self.overlay.look().and_then(|looked| looked.one);
            self.driver.set_may_rise(one == Some(true));
        }
        if self.stood.elapsed() >= STAND {
            self.stand();
        }
        let Some(looked) = self.driver.look() else {
            return Err(Failure::failed("the node stopped by itself"));
        };
        let relayed = self.relay.as_ref().map(RelayServer::stats);
        self.ui.line("Running", &line(&looked, relayed));
        let every = Duration::from_secs(self.args.stats_interval.max(1));
        if self.told.elapsed() >= every {
            self.told = Instant::now();
            let (boxes, place) = (self.boxes.as_ref(), self.place.as_ref());
            report(&looked, boxes, place, self.ui);
            if let Some(relayed) = relayed {
                self.ui.report(&RelayReport::from(relayed));
            }
        }
        Ok(())
    }

    /// Tells the last figures, and ends one thing after the other.
    pub(super) fn end(self) {
        self.ui.finish_step();
        if let Some(looked) = self.driver.look() {
            let (boxes, place) = (self.boxes.as_ref(), self.place.as_ref());
            report(&looked, boxes, place, self.ui);
        }
        if let Some(place) = self.place {
            place.leave();
        }
        drop(self.hub);
        if let Some(network) = self.network {
            network.stop();
        }
        if let Some(server) = self.server {
            server.stop();
        }
        self.overlay.give_ports_back();
        drop((self.services, self.overlay));
        drop(self.driver);
    }
}
