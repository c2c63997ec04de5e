//! `shoal chat`: texts with somebody, who may be away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, bounded, never, select};
use shoal_base::id::to_hex;
use shoal_call::chat::{Event, Status};
use shoal_node::call::Callers;
use shoal_node::supernode::{People, PeopleError, PeopleEvent, PeopleSettings};

use crate::cli::{ChatArgs, NameFlags};
use crate::failure::{Exit, Failure, Outcome};
use crate::key;
use crate::name::{Own, log_in, tell_fork};
use crate::report::PeopleReport;
use crate::signals::Interrupt;
use crate::station::{Ends, Station};
use crate::supernode::{Member, Who, folder, lines, servers, shown};
use crate::ui::Ui;

/// How often the command looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Runs `chat`.
pub(crate) fn chat(args: &ChatArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let own = Own::of(&args.own, args.flags.state_dir.as_deref())?;
    let people = take_part(&own, &args.flags, args.listen, ui)?;
    if let Some(name) = &args.name {
        people.want(name);
    }
    let dir = folder(args.flags.state_dir.as_deref());
    let member = Member::join(&args.flags.join, &Who::Named(&own), &dir);
    let udp = SocketAddr::new(args.listen.ip(), 0);
    let (over, stop) = (AtomicBool::new(false), interrupt.flag());
    let (tell, trouble) = bounded(1);
    thread::scope(|scope| {
        let (over, people) = (&over, &people);
        scope.spawn(move || {
            let go_on = || !over.load(Ordering::Acquire) && !stop.load(Ordering::Acquire);
            let straight = member.and_then(|member| go_straight(member, udp, people, &go_on));
            if let Err(failure) = straight {
                // It may be over.
                let _ = tell.send(failure);
            }
        });
        let result = converse(args, people, &interrupt, &trouble, ui);
        over.store(true, Ordering::Release);
        result
    })
}

/// Takes a place on the overlay, by which letters go straight to who is there, until the end.
fn go_straight(
    member: Member,
    udp: SocketAddr,
    people: &People,
    go_on: &dyn Fn() -> bool,
) -> Outcome {
    let ends = Ends {
        udp,
        accepts: true,
        hidden: false,
    };
    let Some(mut station) = Station::begin(member, ends, go_on)? else {
        return Ok(());
    };
    let letters = Arc::new(people.arrivals());
    let callers = Callers::beside(station.reach.arrivals.clone(), letters);
    callers.set_busy(true);
    people.reach_by(Arc::clone(&station.reach));
    while go_on() {
        station.renew();
        // Nothing tells when the command is over or a token is due.
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Says what comes, and brings on what is written, until the end.
fn converse(
    args: &ChatArgs,
    people: &People,
    interrupt: &Interrupt,
    trouble: &Receiver<Failure>,
    ui: &Ui,
) -> Outcome<Exit> {
    let mut talk = Talk {
        people,
        to: args.name.clone(),
        ui,
        unstored: BTreeMap::new(),
    };
    let mut input: Receiver<String> = lines();
    let mut ended: Option<Instant> = None;
    while !interrupt.asked() && !ui.stdout_closed() {
        select! {
            recv(people.events) -> event => talk.hear(event)?,
            recv(input) -> line => match line {
                Ok(line) => if !talk.line(&line)? {
                    break;
                },
                Err(_) => {
                    input = never();
                    ended = Some(Instant::now());
                }
            },
            recv(interrupt.woken()) -> _ => {}
            default(LOOK) => {}
        }
        if let Ok(failure) = trouble.try_recv() {
            let why: Vec<_> = std::iter::once(failure.what)
                .chain(failure.because)
                .collect();
            ui.warn(&format!("all letters go by boxes: {}", why.join(": ")));
        }
        if let Some(since) = ended.filter(|_| !args.stay) {
            if talk.unstored.is_empty() {
                break;
            }
            if since.elapsed() >= Duration::from_secs(args.timeout) {
                return Err(
                    Failure::new(Exit::Unreachable, "no box took all texts in time")
                        .reason(format!(
                            "{} are kept here for the next time",
                            talk.unstored.len()
                        ))
                        .hint("shoal chat with --stay goes on until they are delivered"),
                );
            }
        }
    }
    people.set_status(Status::Offline);
    Ok(match interrupt.asked() {
        true => Exit::Interrupted,
        false => Exit::Ok,
    })
}

/// One end of conversations under a name of ours, whose letters come from now on.
pub(crate) fn take_part(
    own: &Own,
    flags: &NameFlags,
    listen: SocketAddr,
    ui: &Ui,
) -> Outcome<People> {
    let (certificate, server) = log_in(own, flags, ui)?;
    let (login, list) = servers(&flags.join)?;
    let mut secret = [0; 32];
    key::random(&mut secret)?;
    People::start(PeopleSettings {
        key: own.key().clone(),
        certificate,
        server,
        login,
        list,
        listen,
        dir: own.dir().to_owned(),
        secret,
    })
    .map_err(|e| not_started(&e, own.dir()))
}

fn not_started(error: &PeopleError, dir: &Path) -> Failure {
    let failure = Failure::failed(format!("cannot chat with what is in {}", dir.display()));
    match error {
        PeopleError::Io(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            failure.reason("another command uses it")
        }
        error => failure.because(error),
    }
}

/// Conversations as the user sees them.
pub(crate) struct Talk<'a> {
    people: &'a People,
    to: Option<String>,
    ui: &'a Ui,
    /// Texts that lie in no box yet.
    unstored: BTreeMap<u64, ()>,
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Offline => "offline",
        Status::Online => "online",
        Status::Away => "away",
    }
}

/// Links in a text that `shoal fetch` takes.
fn links(text: &str) -> Vec<&str> {
    let words = text.split_whitespace();
    words.filter(|w| w.starts_with("magnet:?")).collect()
}

impl<'a> Talk<'a> {
    /// Conversations in which nothing is written.
    pub(crate) fn listening(people: &'a People, ui: &'a Ui) -> Self {
        Self {
            people,
            to: None,
            ui,
            unstored: BTreeMap::new(),
        }
    }

    /// Lines of stdin are texts, as in `chat`: to this name first, if there is one.
    pub(crate) fn writing_to(self, name: &str) -> Self {
        let to = (!name.is_empty()).then(|| name.to_owned());
        if let Some(name) = &to {
            self.people.want(name);
        }
        Self { to, ..self }
    }

    /// As [`Talk::line`] where it is no mistake to write before it is said to whom.
    pub(crate) fn typed(&mut self, line: &str) -> Outcome<bool> {
        let text = line.trim_end();
        if self.to.is_none() && !text.is_empty() && !text.starts_with('/') {
            self.ui.warn("to whom? /to NAME says it");
            return Ok(true);
        }
        self.line(text)
    }

    /// A line of stdin; false: it says that it is over.
    fn line(&mut self, line: &str) -> Outcome<bool> {
        let line = line.trim_end();
        if let Some(command) = line.strip_prefix('/') {
            return Ok(self.command(command));
        }
        if line.is_empty() {
            return Ok(true);
        }
        let to = self.to.as_deref().ok_or_else(|| {
            Failure::usage("to whom?").hint("shoal chat NAME; without a name it only listens")
        })?;
        match self.people.write(to, line) {
            Some(Ok(seq)) => {
                self.unstored.insert(seq, ());
                self.ui.report(&PeopleReport::Written { to, seq });
            }
            Some(Err(why)) => self.ui.warn(&format!("not sent: {why}")),
            None => return Err(Failure::failed("the chat stopped by itself")),
        }
        Ok(true)
    }

    fn command(&mut self, command: &str) -> bool {
        let (what, name) = command.split_once(' ').unwrap_or((command, ""));
        match (what, name.trim()) {
            ("to", name) if !name.is_empty() => {
                self.people.want(name);
                self.to = Some(name.to_owned());
            }
            ("buddy", name) if !name.is_empty() => self.people.set_buddy(name, true),
            ("unbuddy", name) if !name.is_empty() => self.people.set_buddy(name, false),
            ("away", _) => self.people.set_status(Status::Away),
            ("back", _) => self.people.set_status(Status::Online),
            ("who", _) => {
                for (name, status) in self.people.buddies() {
                    self.presence(&name, status);
                }
            }
            ("quit", _) => return false,
            _ => self.ui.warn(&format!(
                "/{what} is no command: to, buddy, unbuddy, who, away, back, quit"
            )),
        }
        true
    }

    fn presence(&self, name: &str, status: Status) {
        let (name, status) = (shown(name), word(status));
        self.ui.report(&PeopleReport::Presence {
            name: &name,
            status,
        });
        self.ui.result(&format!("* {name} is {status}"));
    }

    /// Shows what happened; fails when texts can go on no more.
    pub(crate) fn hear(&mut self, event: Result<PeopleEvent, RecvError>) -> Outcome<()> {
        let ui = self.ui;
        let stopped = |_| Failure::failed("the chat stopped by itself");
        match event.map_err(stopped)? {
            PeopleEvent::Chat(event) => self.event(event),
            PeopleEvent::Homes(homes) => {
                ui.report(&PeopleReport::Homes { homes: &homes });
                let homes: Vec<String> = homes.iter().map(ToString::to_string).collect();
                ui.status("Homes", &homes.join(", "));
            }
            PeopleEvent::HomeLeft(addr) => {
                ui.report(&PeopleReport::HomeLeft { addr });
                ui.warn(&format!(
                    "{addr} did not bring letters that others brought; another keeps them from now on"
                ));
            }
            PeopleEvent::Straight(key, up) => {
                let key = &to_hex(&key);
                ui.report(&PeopleReport::Straight { key, up });
                let short = key.get(..8).unwrap_or(key);
                let words = ["by boxes", "straight"];
                ui.news(
                    "Letters",
                    &format!("to and from {short} go {}", words[usize::from(up)]),
                );
            }
            PeopleEvent::Published(nodes) => {
                ui.report(&PeopleReport::Published { nodes });
                ui.news("Published", &format!("at {nodes} supernodes"));
            }
            PeopleEvent::Failed(error) => {
                return Err(Failure::failed("texts cannot be kept").because(&error));
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        let ui = self.ui;
        match event {
            Event::Text {
                from,
                seq,
                unix,
                text,
                late,
            } => {
                let (from, text) = (shown(&from), shown(&text));
                let links = links(&text);
                ui.report(&PeopleReport::Text {
                    from: &from,
                    seq,
                    unix,
                    text: &text,
                    late,
                    links: &links,
                });
                let late = if late { " (late)" } else { "" };
                ui.result(&format!("{from}{late}: {text}"));
                for link in links {
                    ui.hint(&format!("shoal fetch '{link}'"));
                }
            }
            Event::Stored(to, seq, boxes) => {
                self.unstored.remove(&seq);
                let to = &shown(&to);
                ui.report(&PeopleReport::Stored { to, seq, boxes });
            }
            Event::Delivered(to, seq) => {
                self.unstored.retain(|n, ()| *n > seq);
                let to = &shown(&to);
                ui.report(&PeopleReport::Delivered { to, seq });
                ui.news("Delivered", &format!("to {to}, up to number {seq}"));
            }
            Event::Missing(from, count) => {
                let from = &shown(&from);
                ui.report(&PeopleReport::Missing { from, count });
                ui.warn(&format!("{count} texts of {from} are lost, or late"));
            }
            Event::Waiting(to, why) => {
                let to = &shown(&to);
                ui.report(&PeopleReport::Waiting { to, why });
                ui.news("Waiting", &format!("texts to {to}: {why}"));
            }
            Event::Presence(name, status) => self.presence(&name, status),
            Event::Asks(name) => {
                let name = &shown(&name);
                ui.report(&PeopleReport::Asks { name });
                ui.status("Buddy", &format!("{name} asks how you are: /buddy {name}"));
            }
            Event::KeyChanged(name, key) => {
                let (name, key) = (&shown(&name), &to_hex(&key));
                ui.report(&PeopleReport::KeyChanged { name, key });
                ui.warn(&format!("{name} has another key now: {key}"));
            }
            Event::Forked(fork) => {
                tell_fork(&fork, ui);
                ui.hint("shoal name log reads all of the log that it shows to you, and tells this again");
            }
            Event::Unreadable(why) => {
                ui.report(&PeopleReport::Unreadable { why });
                ui.warn(&format!("a letter was dropped: {why}"));
            }
        }
    }
}
