//! Calls with several people at once.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, bounded, never, select};
use shoal_base::id::to_hex;
use shoal_node::call::{Callers, Conference, Happened, MayCall, Member};
use shoal_node::reach::NodeId;

use super::by_name::{Whom, callers, conversation, converse_beside, ends, join, own, settings};
use super::{CallSound, LOOK, muting_of, tell_key};
use crate::chat::take_part;
use crate::cli::{AnswerArgs, CallArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::name::key_of;
use crate::report::CallReport;
use crate::signals::Interrupt;
use crate::station::Station;
use crate::ui::Ui;

/// Runs `call` for several.
pub(super) fn place(args: &CallArgs, several: &[String], ui: &Ui) -> Outcome<Exit> {
    if args.expect.is_some() {
        return Err(Failure::usage("--expect is for one").hint("call them by their keys"));
    }
    let interrupt = Interrupt::install()?;
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let mut sound = CallSound::of_caller(&args.talk, ui)?;
    if !args.add {
        sound = sound.mutable(ui);
    }
    let own = own(&args.net)?;
    let member = join(&args.net, own.as_ref(), false)?;
    let (key, server) = (member.key.clone(), member.trusted);
    let (at, listen) = (member.servers(), SocketAddr::new(args.net.udp.ip(), 0));
    let look_up = move |whom| match whom {
        Whom::Node(NodeId(key)) => Ok(key),
        Whom::Name(name) => key_of(&name, &server, at, listen),
    };
    let mut finding = Vec::new();
    for name in several {
        let whom = by_name_or_key(name)?;
        finding.push((name, thread::spawn(move || look_up(whom))));
    }
    let Some(station) =
        Station::start(member, ends(&args.net, args.talk.hidden, true), &go_on, ui)?
    else {
        return Ok(Exit::Interrupted);
    };
    tell_key(&key, ui);
    let (mut keys, mut names) = (Vec::new(), Names::new());
    for (name, found) in finding {
        let found = found.join();
        let found = found.map_err(|_| Failure::failed("the search for a name broke"))??;
        if names.insert(found, name.clone()).is_none() {
            keys.push(found);
        }
    }
    let ours = key.verifying_key().to_bytes();
    let settings = settings(&station, &key, &args.talk);
    // Members of a large group come back to us when who mixes for them has gone.
    let callers = Callers::new(station.reach.arrivals.clone());
    let may_call: MayCall = Arc::new(|_| false);
    let mixes = !args.talk.no_mix;
    let conference = Conference::new(settings, Arc::clone(&station.reach), mixes);
    conference.invite(&keys);
    let more = if args.add { added(look_up) } else { never() };
    let mut shows = Shows {
        conference: &conference,
        ours,
        names,
        ui,
    };
    let mut joined = 0;
    let watch = sound.watch();
    let hang_up = args.talk.wav_in.is_some() && !args.talk.stay;
    sound.limit_to(&args.talk);
    conference.run(
        &mut sound,
        hang_up || args.talk.limit.is_some(),
        &mut || {
            joined += shows.all();
            for caller in callers.calls.try_iter() {
                conference.take(caller, &may_call);
            }
            for (name, found) in more.try_iter() {
                shows.add(name, found);
            }
            watch.borrow_mut().tell(ui);
            go_on()
        },
    );
    conference.end();
    joined += shows.all();
    sound.finish()?;
    match joined {
        _ if interrupt.asked() => Ok(Exit::Interrupted),
        0 => Err(Failure::new(Exit::Unreachable, "nobody came")),
        _ => Ok(Exit::Ok),
    }
}

fn by_name_or_key(name: &str) -> Outcome<Whom> {
    Whom::read(name).ok_or_else(|| {
        Failure::usage(format!(
            "{name} is an address: several are called by name or key"
        ))
    })
}

/// Whom to call as well: names from standard input, and their keys as `look_up` finds them.
fn added(
    look_up: impl Fn(Whom) -> Outcome<[u8; 32]> + Send + 'static,
) -> Receiver<(String, Outcome<[u8; 32]>)> {
    let (tell, told) = bounded(1);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            let name = line.trim().to_owned();
            if name.is_empty() {
                continue;
            }
            let found = by_name_or_key(&name).and_then(&look_up);
            if tell.send((name, found)).is_err() {
                return;
            }
        }
    });
    told
}

/// Runs `answer --conference`.
pub(super) fn wait(args: &AnswerArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let own = own(&args.net)?;
    let listen = SocketAddr::new(args.net.udp.ip(), 0);
    let people = own
        .as_ref()
        .map(|own| take_part(own, &args.net.names, listen, ui));
    let people = people.transpose()?;
    let (mut texts, mut input) = conversation(people.as_ref(), &args.chat, ui);
    let member = join(&args.net, own.as_ref(), true)?;
    let key = member.key.clone();
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
    let allow = args.allow.clone();
    let may_call: MayCall = Arc::new(move |key: &[u8; 32]| allow.is_empty() || allow.contains(key));
    let silence = never();
    let typed = muting_of(args, ui);
    while go_on() {
        let events = people.as_ref().map_or(&silence, |p| &p.events);
        select! {
            recv(callers.calls) -> caller => {
                let Ok(caller) = caller else {
                    return Err(Failure::failed("the node stopped by itself"));
                };
                let mut sound = CallSound::of_callee(&args.talk, &typed, ui)?;
                sound.limit_to(&args.talk);
                let settings = settings(&station, &key, &args.talk);
                let mixes = !args.talk.no_mix;
                let conference = Conference::new(settings, Arc::clone(&station.reach), mixes);
                conference.take(caller, &may_call);
                let shows = Shows {
                    conference: &conference,
                    ours: key.verifying_key().to_bytes(),
                    names: Names::new(),
                    ui,
                };
                let hang_up = args.talk.limit.is_some() || (args.talk.wav_in.is_some() && !args.talk.stay);
                let mut joined = 0;
                let watch = sound.watch();
                conference.run(&mut sound, hang_up, &mut || {
                    joined += shows.all();
                    watch.borrow_mut().tell(ui);
                    converse_beside(people.as_ref(), &mut texts, &input, ui);
                    for caller in callers.calls.try_iter() {
                        conference.take(caller, &may_call);
                    }
                    go_on()
                });
                conference.end();
                joined += shows.all();
                sound.finish()?;
                if args.once && joined > 0 {
                    return Ok(Exit::Ok);
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

/// As whom people were called, by their keys.
type Names = HashMap<[u8; 32], String>;

/// What the user sees of a conference.
struct Shows<'a> {
    conference: &'a Conference,
    ours: [u8; 32],
    names: Names,
    ui: &'a Ui,
}

impl Shows<'_> {
    /// Calls one more.
    fn add(&mut self, name: String, found: Outcome<[u8; 32]>) {
        let key = match found {
            Ok(key) => key,
            Err(failure) => return self.ui.failure(&failure),
        };
        match self.conference.add(key) {
            Ok(()) => {
                self.names.insert(key, name);
            }
            Err(why) => self.ui.warn(&format!("{name} {why}")),
        }
    }

    /// Shows what happened; how many joined.
    fn all(&self) -> usize {
        let news = self.conference.told.try_iter();
        news.filter(|member| self.show(member)).count()
    }

    /// Shows what happened to a call; whether somebody joined.
    fn show(&self, member: &Member) -> bool {
        let (ui, key) = (self.ui, to_hex(&member.key));
        let called = self.names.get(&member.key);
        let named = called.filter(|name| name.parse::<NodeId>().is_err());
        let who = named.cloned();
        let who = who.unwrap_or_else(|| NodeId(member.key).short());
        match &member.what {
            Happened::Ringing => ui.status("Ringing", &who),
            Happened::Joined { digits, meshed } => {
                let words = format!("{who} ({digits}: the other end must read the same)");
                ui.status("Joined", &words);
                ui.report(&CallReport::CallJoined {
                    key,
                    digits: digits.clone(),
                    meshed: *meshed,
                });
                return true;
            }
            Happened::Mixes => {
                let ours = member.key == self.ours;
                let by = if ours { "us" } else { &who };
                ui.status("Talking", &format!("mixed by {by}"));
                ui.report(&CallReport::CallMixed { key, ours });
            }
            Happened::Left { why, stats } => {
                ui.status("Left", &format!("{who}: {why}"));
                ui.report(&CallReport::CallLeft {
                    key,
                    reason: why.clone(),
                    stats: stats.as_deref().map(|stats| Box::new((*stats).into())),
                });
            }
        }
        false
    }
}
