//! `shoal phone`: the page of the browser's end.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::{never, select};
use shoal_node::call::{PageNet, PageServer, PageSettings};
use shoal_node::reach::NodeId;
use shoal_supernode::token::Key;

use super::by_name::{Whom, conversation, join, own};
use super::{LISTEN, LOOK, credential, our_key, tell_key};
use crate::chat::take_part;
use crate::cli::PhoneArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::name::key_of;
use crate::report::{CallReport, Report};
use crate::signals::Interrupt;
use crate::station::{Ends, Station};
use crate::ui::Ui;

/// Runs `phone`.
pub(crate) fn phone(args: &PhoneArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let by_net = args.net.names.join.login.is_some();
    let own = if by_net { own(&args.net)? } else { None };
    let ring = SocketAddr::new(args.net.udp.ip(), 0);
    let people = own
        .as_ref()
        .map(|own| take_part(own, &args.net.names, ring, ui));
    let people = people.transpose()?;
    let (mut texts, mut input) = conversation(people.as_ref(), &args.chat, ui);
    let (mut station, mut net, mut key) = (None, None, None);
    if by_net {
        let member = join(&args.net, own.as_ref(), true)?;
        key = Some(member.key.clone());
        let (server, at) = (member.trusted, member.servers());
        let ends = Ends {
            udp: args.net.udp,
            accepts: true,
            hidden: false,
        };
        let Some(started) = Station::start(member, ends, &go_on, ui)? else {
            return Ok(Exit::Interrupted);
        };
        started.tell_reachable(&go_on, ui);
        let find = move |whom: &str| find(whom, &server, at, ring);
        let tickets = started.tickets.clone();
        let by_nodes = PageNet::new(
            started.reach.clone(),
            Box::new(find),
            Box::new(move || tickets.get()),
        );
        net = Some(match &people {
            Some(people) => {
                people.reach_by(started.reach.clone());
                by_nodes.beside(Arc::new(people.arrivals()))
            }
            None => by_nodes,
        });
        station = Some(started);
    }
    let key = match key {
        Some(key) => key,
        None => our_key(args.key.as_deref())?,
    };
    tell_key(&key, ui);
    let mut relays = Vec::new();
    for server in &args.relays.relay {
        relays.push((server.clone(), credential(&args.relays)?));
    }
    let server = PageServer::start(PageSettings {
        page: args.page,
        listen: args.listen.or((!by_net).then_some(LISTEN)),
        key,
        stun: args.relays.stun.clone(),
        relays,
        allow: args.allow.clone(),
        net,
    })
    .map_err(|e| Failure::failed("cannot serve the page").because(&e))?;
    if !args.page.ip().is_loopback() {
        ui.warn(
            "browsers give no microphone to a page that comes without https from another machine",
        );
    }
    if let Some(addr) = server.listening() {
        ui.report(&Report::Listening {
            addr,
            proto: "call",
        });
        ui.status("Calls", &format!("come in at {addr}"));
    }
    ui.report(&CallReport::CallPage { url: server.url() });
    ui.result(&server.url());
    let silence = never();
    while go_on() {
        let events = people.as_ref().map_or(&silence, |p| &p.events);
        select! {
            recv(events) -> event => if let Some(texts) = &mut texts {
                texts.hear(event)?;
            },
            recv(input) -> line => match (line, &mut texts) {
                (Ok(line), Some(texts)) => if !texts.typed(&line)? {
                    break;
                },
                _ => input = never(),
            },
            recv(interrupt.woken()) -> _ => {}
            default(LOOK) => {}
        }
        if let Some(station) = &mut station {
            station.upkeep(ui);
        }
    }
    Ok(Exit::Interrupted)
}

/// The node of a name or key; else why there is none, for the page.
fn find(
    whom: &str,
    server: &Key,
    at: (SocketAddr, SocketAddr),
    ring: SocketAddr,
) -> Result<NodeId, String> {
    match Whom::read(whom) {
        Some(Whom::Node(node)) => Ok(node),
        Some(Whom::Name(name)) => {
            let key = key_of(&name, server, at, ring);
            key.map(NodeId).map_err(|failure| failure.what)
        }
        None => Err("that is neither a name nor a key".to_owned()),
    }
}
