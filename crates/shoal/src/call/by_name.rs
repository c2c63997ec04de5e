//! Calls by name or key, over a connection between the two nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, never, select};
use ed25519_dalek::SigningKey;
use shoal_node::call::{CallEvent, CallSettings, Callers, Relay, answer_node, call_node};
use shoal_node::reach::NodeId;
use shoal_node::supernode::People;

use super::show::Shower;
use super::{CallSound, LOOK, converse, failure, muting_of, tell_key, with_ways};
use crate::chat::{Talk, take_part};
use crate::cli::{AnswerArgs, CallArgs, CallNetFlags, TalkFlags, TextFlags};
use crate::failure::{Exit, Failure, Outcome};
use crate::name::{Own, checked, key_of};
use crate::signals::Interrupt;
use crate::station::{Ends, Station};
use crate::supernode::{Member, Who, folder, lines};
use crate::ui::Ui;

/// Whom to call.
#[derive(Debug)]
pub(super) enum Whom {
    /// Whoever has this key.
    Node(NodeId),
    /// Whoever has this name.
    Name(String),
}

impl Whom {
    /// Reads a name or a key; none: it is an address.
    pub(super) fn read(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(node) => Some(Self::Node(node)),
            Err(_) if text.contains([':', '/']) => None,
            Err(_) => Some(Self::Name(text.to_owned())),
        }
    }
}

/// What is kept of our name, if we go by one.
pub(super) fn own(net: &CallNetFlags) -> Outcome<Option<Own>> {
    let state_dir = net.names.state_dir.as_deref();
    let name = net.own.as_deref().map(checked).transpose()?;
    name.map(|name| Own::of(name, state_dir)).transpose()
}

pub(super) fn join(net: &CallNetFlags, own: Option<&Own>, stays: bool) -> Outcome<Member> {
    let who = match own {
        Some(own) => Who::Named(own),
        None if stays => Who::Node(None),
        None => Who::Asker,
    };
    let dir = folder(net.names.state_dir.as_deref());
    Member::join(&net.names.join, &who, &dir)
}

/// A call's settings, with the relays of the moment for who does not take sound over connections.
pub(super) fn settings(station: &Station, key: &SigningKey, flags: &TalkFlags) -> CallSettings {
    let mut relays = Vec::new();
    let mut stun = Vec::new();
    for ticket in station.tickets.get() {
        let Some(server) = ticket.at.first().copied() else {
            continue;
        };
        stun.push(server);
        let credential = ticket.credential;
        relays.push(Relay { server, credential });
    }
    with_ways(flags, key.clone(), stun, relays)
}

pub(super) fn ends(net: &CallNetFlags, hidden: bool, accepts: bool) -> Ends {
    Ends {
        udp: net.udp,
        accepts,
        hidden,
    }
}

/// Texts under our name, and lines of stdin that are some.
pub(super) fn conversation<'a>(
    people: Option<&'a People>,
    flags: &TextFlags,
    ui: &'a Ui,
) -> (Option<Talk<'a>>, Receiver<String>) {
    let texts = people.map(|people| Talk::listening(people, ui));
    match (&flags.chat, texts) {
        (Some(name), Some(texts)) => (Some(texts.writing_to(name)), lines()),
        (_, texts) => (texts, never()),
    }
}

/// Texts that come, or are typed, while it is talked.
pub(super) fn converse_beside(
    people: Option<&People>,
    texts: &mut Option<Talk<'_>>,
    input: &Receiver<String>,
    ui: &Ui,
) {
    let (Some(people), Some(texts)) = (people, texts) else {
        return;
    };
    for event in people.events.try_iter() {
        if let Err(failure) = texts.hear(Ok(event)) {
            ui.failure(&failure);
        }
    }
    for line in input.try_iter() {
        if let Err(failure) = texts.typed(&line) {
            ui.failure(&failure);
        }
    }
}

/// Runs `call`.
pub(super) fn place(args: &CallArgs, whom: &Whom, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let mut shower = Shower::new(ui);
    let mut sound = CallSound::of_caller(&args.talk, ui)?.mutable(ui);
    let own = own(&args.net)?;
    let member = join(&args.net, own.as_ref(), false)?;
    let (key, server) = (member.key.clone(), member.trusted);
    let (at, listen) = (member.servers(), SocketAddr::new(args.net.udp.ip(), 0));
    // The ring is asked while a supernode is looked for.
    let finding = match whom {
        Whom::Node(node) => Ok(*node),
        Whom::Name(name) => {
            let name = name.clone();
            Err(thread::spawn(move || key_of(&name, &server, at, listen)))
        }
    };
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let Some(station) =
        Station::start(member, ends(&args.net, args.talk.hidden, false), &go_on, ui)?
    else {
        return Ok(Exit::Interrupted);
    };
    tell_key(&key, ui);
    let node = match finding {
        Ok(node) => node,
        Err(finding) => {
            let found = finding.join();
            NodeId(found.map_err(|_| Failure::failed("the search for the name broke"))??)
        }
    };
    if args.expect.is_some_and(|expected| expected != node.0) {
        return Err(Failure::new(
            Exit::Refused,
            format!("that name has another key: {node}"),
        ));
    }
    ui.status("Calling", &node.short());
    let Some(connection) = station.connect(node, &interrupt)? else {
        return Ok(Exit::Interrupted);
    };
    let connection = connection.map_err(|e| {
        Failure::new(Exit::Unreachable, format!("cannot reach {}", node.short()))
            .because(&e)
            .hint("is shoal answer or shoal phone running there, with the same login server?")
    })?;
    shower.reached();
    let stop = interrupt.flag();
    let settings = settings(&station, &key, &args.talk);
    let mut tell = |event: &CallEvent| shower.show(event);
    let made = call_node(&settings, connection, &stop, &mut tell).map_err(|e| failure(&e))?;
    converse(made, &mut sound, &args.talk, &stop, &mut shower)
}

/// Who calls; letters to and from `people` go the same way.
pub(super) fn callers(station: &Station, people: Option<&People>) -> Callers {
    let arrivals = station.reach.arrivals.clone();
    match people {
        Some(people) => {
            people.reach_by(Arc::clone(&station.reach));
            Callers::beside(arrivals, Arc::new(people.arrivals()))
        }
        None => Callers::new(arrivals),
    }
}

/// Runs `answer`.
pub(super) fn wait(args: &AnswerArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let stop = interrupt.flag();
    let own = own(&args.net)?;
    let listen = SocketAddr::new(args.net.udp.ip(), 0);
    let people = own
        .as_ref()
        .map(|own| take_part(own, &args.net.names, listen, ui));
    let people = people.transpose()?;
    let (mut texts, mut input) = conversation(people.as_ref(), &args.chat, ui);
    let member = join(&args.net, own.as_ref(), true)?;
    let key = member.key.clone();
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let Some(mut station) =
        Station::start(member, ends(&args.net, args.talk.hidden, true), &go_on, ui)?
    else {
        return Ok(Exit::Interrupted);
    };
    tell_key(&key, ui);
    station.tell_reachable(&go_on, ui);
    ui.result(&own.as_ref().map_or_else(
        || NodeId(key.verifying_key().to_bytes()).to_string(),
        |own| own.name().to_owned(),
    ));
    let callers = callers(&station, people.as_ref());
    let may_call = |key: &[u8; 32]| args.allow.is_empty() || args.allow.contains(key);
    let silence = never();
    let typed = muting_of(args, ui);
    while go_on() {
        let events = people.as_ref().map_or(&silence, |p| &p.events);
        select! {
            recv(callers.calls) -> caller => {
                let Ok(caller) = caller else {
                    return Err(Failure::failed("the node stopped by itself"));
                };
                callers.set_busy(true);
                let mut shower = Shower::new(ui);
                shower.beside(|| converse_beside(people.as_ref(), &mut texts, &input, ui));
                let settings = settings(&station, &key, &args.talk);
                let mut tell = |event: &CallEvent| shower.show(event);
                let made = answer_node(&settings, caller, &may_call, &stop, &mut tell);
                let result = made.map_err(|e| failure(&e)).and_then(|made| {
                    let mut sound = CallSound::of_callee(&args.talk, &typed, ui)?;
                    converse(made, &mut sound, &args.talk, &stop, &mut shower)
                });
                callers.set_busy(false);
                match result {
                    _ if args.once => return result,
                    // A caller's trouble is not the next one's.
                    Err(failure) => ui.failure(&failure),
                    Ok(_) => {}
                }
            }
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
        station.upkeep(ui);
    }
    Ok(Exit::Interrupted)
}
