//! `shoal supernode node`: an ordinary peer or a supernode.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};
use ed25519_dalek::SigningKey;
use shoal_call::mailbox::office::OfficeConfig;
use shoal_gnutella::Guid;
use shoal_gnutella::http::locations::may_name;
use shoal_gnutella::http::queue::Opening;
use shoal_gnutella::http::server::ServerConfig;
use shoal_gnutella::huge::Urn;
use shoal_gnutella::node::{Config as GnutellaConfig, Mode};
use shoal_node::gnutella::transfer::{
    Feeder, FileServer, HandOver, LibraryFiles, Openable, Upload,
};
use shoal_node::gnutella::{GnutellaServer, Incoming};
use shoal_node::reach::{Identity, Overlay, OverlaySettings, Service, address_of};
use shoal_node::relay::{
    Config as TurnConfig, Credentials, Policy, RelayAddress, RelayServer, RelaySettings, Stats,
};
use shoal_node::supernode::{
    BoxServer, ChildrenShelf, GnutellaBridge, HubFront, Looked, NodeDriver, NodeSettings, Others,
    Place, this_machine,
};
use shoal_supernode::node::{Config, Event, RelayOffer, Role};
use shoal_supernode::wire::{File, MAX_PATH, OVERLAY_FILES, OVERLAY_LINKS, Sound, Standing};

use super::ring::NamePlace;
use super::{Member, Who, children, find, folder, lines};
use crate::cli::{LibraryPlace, RoleFlags, SupernodeNodeArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::library::Follower;
use crate::overlay::beside;
use crate::report::{OverlayReport, RelayReport, Report};
use crate::signals::Interrupt;
use crate::station::tickets;
use crate::ui::Ui;
use crate::units::{Rate, Size, count};
use crate::{gnutella, mp3};

/// How often a node is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked how others would reach it behind its NAT.
const WAY: Duration = Duration::from_secs(2);
/// How often answers of a Gnutella network are passed on.
const ANSWERS: Duration = Duration::from_millis(100);
/// How often the supernode is told how this node stands with those who fetch.
const STAND: Duration = Duration::from_secs(5);
/// Links that one host may begin in a minute.
const KNOCKS: u32 = 60;

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Peer => "peer",
        Role::Supernode => "supernode",
    }
}

fn config(member: &Member, args: &SupernodeNodeArgs) -> Config {
    let flags: &RoleFlags = &args.role;
    let role = match args.supernode {
        true => Role::Supernode,
        false => Role::Peer,
    };
    let secs = Duration::from_secs;
    Config {
        may_change: !args.keep_role,
        max_children: usize::from(flags.max_children),
        neighbours: usize::from(flags.neighbours),
        links_per_host: flags.per_host,
        knocks_per_minute: KNOCKS,
        unlimited: match flags.limit_local {
            true => Vec::new(),
            false => this_machine(),
        },
        promote_at: flags.promote_at,
        min_bandwidth: flags.min_bandwidth,
        min_uptime: secs(flags.min_uptime),
        probe_bytes: u32::try_from(flags.probe).unwrap_or(u32::MAX),
        idle: secs(flags.idle),
        check_every: secs(flags.check_every.max(1)),
        bridge: args.gnutella.is_some() || args.napster.is_some(),
        up_limit: args.up_limit,
        ..Config::new(member.trusted, role)
    }
}

/// What an MP3 is like, as the overlay is told.
fn sound(disk: &Path, len: u64) -> Option<Sound> {
    let sound = mp3::read(disk, len)?;
    Some(Sound {
        bitrate: u16::try_from(sound.bitrate).ok()?,
        frequency: sound.frequency,
        seconds: sound.seconds,
    })
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

/// What others are told of the files.
fn told(files: &LibraryFiles, ui: &Ui) -> Vec<File> {
    let mut told = Vec::new();
    let mut long = 0;
    files.records(|disk, path, record| {
        if path.len() > MAX_PATH {
            long += 1;
            return;
        }
        told.push(File {
            path: path.to_owned(),
            size: record.stamp.len,
            sha1: record.sha1,
            tiger: Some(record.tiger.0),
            sound: sound(disk, record.stamp.len),
        });
    });
    if long > 0 {
        let what = count(long, "path");
        ui.warn(&format!("{what} of more than {MAX_PATH} bytes left out"));
    }
    told
}

/// Tells the overlay what came and what went.
fn share_anew(driver: &NodeDriver, before: &[File], now: &[File]) {
    let by_path = |files: &[File]| -> BTreeMap<String, File> {
        let files = files.iter().cloned();
        files.map(|file| (file.path.clone(), file)).collect()
    };
    let (before, now) = (by_path(before), by_path(now));
    for path in before
        .keys()
        .filter(|path| before.get(*path) != now.get(*path))
    {
        driver.unshare(path.clone());
    }
    for (path, file) in &now {
        if before.get(path) != Some(file) {
            driver.share(file.clone());
        }
    }
}

/// Runs the command.
pub(super) fn node(args: &SupernodeNodeArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let dir = folder(args.state_dir.as_deref());
    let who = Who::Node(args.name.as_deref());
    let mut member = Member::join(&args.join, &who, &dir)?;
    member.tell(ui);
    let (shelf, files) = match args.library {
        true => gnutella::shared_library(args.state_dir.as_deref(), ui)?,
        false => gnutella::shelf(&args.share, &dir, ui)?,
    };
    let shared = files.as_ref().map_or_else(Vec::new, |f| told(f, ui));
    let hidden = args.firewalled || is_behind(&member, args);
    let (place, at, bound) = match hidden {
        true => (
            Place::Overlay(links_of(&member.key)),
            SocketAddr::new(member.own, 0),
            None,
        ),
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
    let library = files.clone();
    let place_of_library = LibraryPlace {
        state_dir: args.state_dir.clone(),
    };
    let SupernodeNodeArgs { library: all, .. } = args;
    let follower = all.then(|| Follower::start(&place_of_library));
    let mut known = shared.clone();
    let files = files.map(|files| -> Arc<dyn Openable> { files });
    let mut hub = match args.napster {
        Some(listen) => {
            let own = (files.clone(), shared.clone());
            Some(children::start(listen, at, args, &member, own, &dir)?)
        }
        None => None,
    };
    let files = hub.as_ref().map(HubFront::files).or(files);
    let mut server = None;
    let mut uploads: Receiver<Upload> = never();
    if let Some(files) = files {
        let mut config = ServerConfig::default();
        config.queue.slots = args.slots;
        let made = FileServer::new(config, files, None, gnutella::rng());
        let (made, told) = made.map_err(|e| Failure::failed("cannot serve files").because(&e))?;
        made.set_limit(args.up_limit);
        server = Some(made);
        uploads = told;
    }
    let (feeder, _) = Feeder::new(server.clone());
    let others: Others = Arc::new(move |stream, peer, first| feeder.take(stream, peer, first));
    if args.relay.is_empty() && args.relay_tls.files().is_some() {
        return Err(Failure::usage("--tls-cert is for a relay: --relay"));
    }
    let (relay, offer) = match args.relay.is_empty() {
        true => (None, None),
        false => {
            let (relay, offer) = relay(&member, args, ui)?;
            (Some(relay), Some(offer))
        }
    };
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
        files: shared,
        seed: gnutella::rng().next_u64(),
    });
    let driver = driver.map_err(|e| Failure::failed("cannot start the node").because(&e))?;
    let driver = Arc::new(driver);
    // Whether others reach the address that is told, a peer does not know for sure; and others may be reached
    // by theirs alone.
    let (overlay, services) = on_overlay(&member, &driver, server.as_ref())?;
    let network = match args.gnutella {
        Some(at) => {
            let shelf = driver.shelf(shelf.clone());
            Some(ultrapeer(at, args, shelf, server.clone(), ui)?)
        }
        None => None,
    };
    let mut bridge = network
        .as_ref()
        .map(|n| GnutellaBridge::new(n.control().clone()));
    // Only who can be reached stands in the ring of names.
    let take_place = |member: &Member| {
        let bound = bound.filter(|_| !hidden)?;
        NamePlace::take(member, &driver, boxes.as_ref(), bound, at, ui)
    };
    let mut place = args.supernode.then(|| take_place(&member)).flatten();
    ui.report(&Report::Listening {
        addr: at,
        proto: "supernode",
    });
    if server.is_some() {
        ui.report(&Report::Listening {
            addr: overlay.at(OVERLAY_FILES),
            proto: "overlay",
        });
    }
    if let Some(hub) = &hub {
        ui.report(&Report::Listening {
            addr: hub.addr(),
            proto: "napster",
        });
    }
    ui.result(&at.to_string());
    ui.status("Running", &format!("as {} until ctrl-C", member.token.name));
    let mut lines = match args.ask {
        true => lines(),
        false => never(),
    };
    let mut no_more = false;
    let waits = network.is_some() || hub.is_some();
    let look = if waits { ANSWERS } else { LOOK };
    let mut asked = (None, 0);
    let every = Duration::from_secs(args.stats_interval.max(1));
    let mut last = Instant::now();
    let mut stood = last;
    let mut asked_way = None;
    if let Some(server) = &server {
        driver.stand(standing(server, args));
    }
    let mut rng = gnutella::rng();
    while !interrupt.asked() && !ui.stdout_closed() {
        select! {
            recv(driver.events) -> event => match event {
                Ok(Event::Push(sha1, to)) => {
                    tell(&Event::Push(sha1, to), ui);
                    if let Some(server) = &server && may_push(at, to) {
                        let guid = Guid::random(&mut rng);
                        let (index, name) = (0, String::new());
                        server.give(to, Opening::Giv { index, guid, name });
                    }
                }
                Ok(Event::Letter(from, letter)) => overlay.letter(from, letter),
                Ok(Event::Relays(relays)) => overlay.offer(tickets(relays)),
                Ok(Event::Hits(query, hits)) => {
                    if let Some(hub) = &mut hub {
                        hub.hits(query, &hits);
                    }
                    for hit in hits.iter().filter(|_| asked.0 == Some(query)) {
                        asked.1 += 1;
                        find::tell(asked.1, hit, find::place(at.ip(), hit), ui);
                    }
                }
                Ok(Event::Asked(query, wanted)) => {
                    if let Some(hub) = &mut hub && !hub.asked(query, &wanted) {
                        ui.news("Limited", "a query is not asked at the hub: too many");
                    }
                    if let Some(bridge) = &mut bridge && !bridge.ask(query, &wanted) {
                        ui.news("Limited", "a query is not asked on Gnutella: too many");
                    }
                }
                Ok(event) => {
                    tell(&event, ui);
                    match event {
                        Event::Role(Role::Supernode) if place.is_none() => {
                            place = take_place(&member);
                        }
                        Event::Role(Role::Peer) => {
                            if let Some(place) = place.take() {
                                place.leave();
                            }
                        }
                        _ => {}
                    }
                }
                Err(_) => return Err(Failure::failed("the node stopped by itself")),
            },
            recv(uploads) -> upload => if let Ok(upload) = upload {
                gnutella::tell_upload(&upload, ui);
            },
            recv(lines) -> line => match line {
                Ok(line) => {
                    asked = (driver.search(&line), 0);
                    ui.report(&OverlayReport::Asked {
                        words: &line,
                        sent: asked.0.is_some(),
                    });
                }
                Err(_) => no_more = true,
            },
            recv(interrupt.woken()) -> _ => {}
            default(look) => {}
        }
        if let (Some(follower), Some(files)) = (&follower, &library)
            && follower.has_changed(ui)
            && gnutella::share_again(&place_of_library, &shelf, files, ui)
        {
            let now = told(files, ui);
            share_anew(&driver, &known, &now);
            if let Some(hub) = &mut hub {
                hub.set_own(now.clone());
            }
            known = now;
        }
        if let Some(bridge) = &mut bridge {
            bridge.poll(&driver);
        }
        if let Some(hub) = &mut hub {
            hub.poll(&driver).iter().for_each(|n| children::tell(n, ui));
        }
        if no_more {
            lines = never();
        }
        if let Some(token) = member.renew(ui) {
            driver.renew(token);
        }
        if let Some(place) = &mut place {
            place.poll();
        }
        // Behind a NAT that has another address for each whom we send to, those behind others do not reach us.
        if hidden && asked_way.is_none_or(|at: Instant| at.elapsed() >= WAY) {
            asked_way = Some(Instant::now());
            let one = overlay.look().and_then(|looked| looked.one);
            driver.set_may_rise(one == Some(true));
        }
        let Some(looked) = driver.look() else {
            return Err(Failure::failed("the node stopped by itself"));
        };
        let relayed = relay.as_ref().map(RelayServer::stats);
        ui.line("Running", &line(&looked, relayed));
        if let Some(server) = &server
            && stood.elapsed() >= STAND
        {
            stood = Instant::now();
            driver.stand(standing(server, args));
        }
        if last.elapsed() >= every {
            last = Instant::now();
            report(&looked, boxes.as_ref(), place.as_ref(), ui);
            if let Some(relayed) = relayed {
                ui.report(&RelayReport::from(relayed));
            }
        }
    }
    ui.finish_step();
    if let Some(looked) = driver.look() {
        report(&looked, boxes.as_ref(), place.as_ref(), ui);
    }
    if let Some(place) = place {
        place.leave();
    }
    drop(hub);
    if let Some(network) = network {
        network.stop();
    }
    if let Some(server) = server {
        server.stop();
    }
    overlay.give_ports_back();
    drop((services, overlay));
    drop(driver);
    drop(relay);
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

/// Whether a router stands between this machine and the others: its address reaches less far than that
/// of the list of supernodes.
fn is_behind(member: &Member, args: &SupernodeNodeArgs) -> bool {
    let given = args.supernode || args.external.is_some();
    // Any port will do: it is the address that counts.
    !given && !may_name(member.list.ip(), SocketAddr::new(member.own, 1))
}

/// Where links go to a node that others reach by the overlay alone.
fn links_of(key: &SigningKey) -> SocketAddr {
    let node = Identity::new(key.clone()).id();
    (address_of(&node), OVERLAY_LINKS).into()
}

/// A place on the overlay, at which links are taken, and files served to those who cannot connect otherwise.
fn on_overlay(
    member: &Member,
    driver: &Arc<NodeDriver>,
    server: Option<&FileServer>,
) -> Outcome<(Overlay, Vec<Service>)> {
    let post = Arc::clone(driver);
    let failed = |e| Failure::failed("cannot be reached by the overlay").because(&e);
    let overlay = Overlay::start(OverlaySettings {
        identity: Identity::new(member.key.clone()),
        listen: beside(member.own),
        port_mapping: member.port_mapping,
        write: Box::new(move |to, letter| post.write(to, letter)),
    });
    let overlay = overlay.map_err(failed)?;
    let mut services = vec![driver.reach_by(&overlay).map_err(failed)?];
    if let Some(server) = server {
        let (feeder, _) = Feeder::new(Some(server.clone()));
        let take = move |stream, from| feeder.take(stream, from, Vec::new());
        services.push(overlay.listen(OVERLAY_FILES, take).map_err(failed)?);
    }
    Ok((overlay, services))
}

/// The relay of a supernode, and what is told of it.
fn relay(member: &Member, args: &SupernodeNodeArgs, ui: &Ui) -> Outcome<(RelayServer, RelayOffer)> {
    let mut secret = vec![0; 32];
    crate::key::random(&mut secret)?;
    let external = args.external.map(|a| a.ip());
    let bound = args
        .relay
        .iter()
        .map(SocketAddr::ip)
        .find(|ip| !ip.is_unspecified());
    let bind = bound.unwrap_or(member.own);
    let public = external.unwrap_or(bind);
    let at = RelayAddress { bind, public };
    let (relay_v4, relay_v6) = match bind.is_ipv4() {
        true => (Some(at), None),
        false => (None, Some(at)),
    };
    let started = RelayServer::start(RelaySettings {
        listen: args.relay.clone(),
        turn: TurnConfig {
            credentials: Credentials {
                secrets: vec![secret.clone()],
                ..Credentials::default()
            },
            relay_v4,
            relay_v6,
            // A neighbour's children share its credential.
            max_allocations_per_user: 1024,
            max_rate: args.relay_limit,
            // A relay of a private network serves that network; one on loopback this machine.
            policy: Policy {
                allow_private: matches!(public, IpAddr::V4(ip) if ip.is_private()),
                allow: match public.is_loopback() {
                    true => "127.0.0.0/8".parse().into_iter().collect(),
                    false => Vec::new(),
                },
                deny: Vec::new(),
            },
            ..TurnConfig::default()
        },
        certificate: args.relay_tls.files(),
        max_connections: 4096,
        seed: None,
    });
    let server = started.map_err(|e| crate::relay::not_started(&e))?;
    let told = server
        .addresses()
        .iter()
        .map(|a| match a.ip().is_unspecified() {
            true => SocketAddr::new(public, a.port()),
            false => SocketAddr::new(external.unwrap_or(a.ip()), a.port()),
        });
    let at: Vec<SocketAddr> = told.collect();
    for addr in &at {
        ui.report(&Report::Listening {
            addr: *addr,
            proto: "turn",
        });
    }
    Ok((server, RelayOffer { secret, at }))
}

/// A node of a Gnutella network beside this one.
fn ultrapeer(
    at: SocketAddr,
    args: &SupernodeNodeArgs,
    shelf: ChildrenShelf,
    server: Option<FileServer>,
    ui: &Ui,
) -> Outcome<GnutellaServer> {
    let config = GnutellaConfig::of(Mode::Ultrapeer);
    let mut settings = gnutella::settings_of(at, &args.gnutella_connect, config, None)?;
    settings.incoming =
        server.map(|server| -> Box<dyn Incoming> { Box::new(HandOver::new(server, at.ip())) });
    let started = gnutella::start(settings, Box::new(shelf))?;
    ui.report(&Report::Listening {
        addr: started.control().listen().into(),
        proto: "gnutella",
    });
    Ok(started)
}

/// Nobody on another machine makes this one connect to itself.
fn may_push(own: SocketAddr, to: SocketAddr) -> bool {
    let local = own.ip().is_loopback();
    let fit = !to.ip().is_unspecified() && !to.ip().is_multicast() && to.port() != 0;
    fit && (local || !to.ip().is_loopback())
}

fn tell(event: &Event<SocketAddr>, ui: &Ui) {
    match event {
        Event::Home(addr) => {
            ui.report(&OverlayReport::Home { addr: *addr });
            match addr {
                Some(addr) => ui.news("Home", &format!("at {addr}")),
                None => ui.news("Home", "lost; looking for another"),
            }
        }
        Event::Role(role) => {
            let role = role_name(*role);
            ui.report(&OverlayReport::Role { role });
            ui.status("Role", &format!("{role} from now on"));
        }
        Event::Refused(addr, why) => {
            let (addr, why) = (*addr, why.to_string());
            ui.report(&OverlayReport::LinkRefused { addr, why: &why });
            ui.news("Refused", &format!("by {addr}: {why}"));
        }
        Event::Measured(addr, rate) => {
            ui.report(&OverlayReport::Measured {
                addr: *addr,
                rate: *rate,
            });
            ui.news("Measured", &format!("{addr}: {}", Rate(*rate)));
        }
        Event::Push(sha1, to) => {
            let urn = Urn::Sha1(*sha1).to_string();
            ui.report(&OverlayReport::Pushing { urn: &urn, to: *to });
            ui.news("Pushing", &format!("{urn} to {to}"));
        }
        Event::Hits(..) | Event::Asked(..) | Event::Letter(..) | Event::Relays(_) => {}
    }
}

fn line(looked: &Looked, relayed: Option<Stats>) -> String {
    let stats = &looked.stats;
    let mut line = match (looked.role, looked.home) {
        (Role::Supernode, _) => format!(
            "a supernode of {}, {}, {}, {} queries",
            count(stats.children, "child").replace("childs", "children"),
            count(stats.neighbours, "neighbour"),
            count(stats.files, "file"),
            stats.queries
        ),
        (Role::Peer, Some(home)) => format!("a peer, its supernode is {home}"),
        (Role::Peer, None) => "a peer that looks for a supernode".to_owned(),
    };
    if let Some(stats) = relayed {
        let bytes = Size(stats.bytes_up + stats.bytes_down);
        line += &format!(
            ", relayed {bytes} for {}, {} packets over the limit",
            count(stats.allocations, "allocation"),
            stats.over_rate
        );
    }
    line
}

fn report(looked: &Looked, boxes: Option<&BoxServer>, place: Option<&NamePlace>, ui: &Ui) {
    let s = &looked.stats;
    let kept = boxes.map(BoxServer::stats).unwrap_or_default();
    ui.report(&OverlayReport::SupernodeStats {
        role: role_name(looked.role),
        home: looked.home,
        children: s.children,
        neighbours: s.neighbours,
        files: s.files,
        known: s.known,
        queries: s.queries,
        duplicates: s.duplicates,
        limited: s.limited,
        hits: s.hits,
        forged: s.forged,
        refused: s.refused,
        boxes: kept.boxes,
        letters: kept.letters,
        carried: s.letters,
        flooded: s.floods,
        records: place.map_or(0, |p| p.records() as u64),
    });
}
