//! `shoal napster chat`: rooms and private messages, typed line by line.

use std::io::{self, BufRead};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use shoal_napster::client::{Client, Event, Room};
use shoal_node::napster::Session;

use super::client::{connect, login, lost, rng};
use crate::cli::NapsterChatArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::report::HubReport;
use crate::signals::Interrupt;
use crate::ui::Ui;

/// Between looks at what was typed.
const LOOK: Duration = Duration::from_millis(50);
/// How long the hub is still heard, and may take to hear us, once nothing more will be typed.
const LAST: Duration = Duration::from_millis(500);
/// Lines typed ahead at most.
const AHEAD: usize = 64;
/// What can be typed.
const HELP: &str = "a line is said in the room; /me DOES, /msg NICK TEXT, /join ROOM, /leave, \
                    /topic TEXT, /watch NICK, /quit";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Say(&'a str),
    Do(&'a str),
    Private(&'a str, &'a str),
    Join(&'a str),
    Leave,
    Topic(&'a str),
    Watch(&'a str),
    Quit,
    Nothing,
    Unknown,
}

fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return match line {
            "" => Line::Nothing,
            text => Line::Say(text),
        };
    };
    let (verb, rest) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    let rest = rest.trim();
    match (verb, rest) {
        ("quit", "") => Line::Quit,
        ("leave", "") => Line::Leave,
        (_, "") => Line::Unknown,
        ("me", text) => Line::Do(text),
        ("join", room) => Line::Join(room),
        ("topic", text) => Line::Topic(text),
        ("watch", nick) => Line::Watch(nick),
        ("msg", rest) => match rest.split_once(char::is_whitespace) {
            Some((nick, text)) => Line::Private(nick, text.trim()),
            None => Line::Unknown,
        },
        _ => Line::Unknown,
    }
}

/// Lines of standard input, which cannot be waited for together with a socket.
fn typed() -> Outcome<Receiver<String>> {
    let (send, lines) = bounded(AHEAD);
    let builder = thread::Builder::new().name("typed".into());
    builder
        .spawn(move || {
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if send.send(line).is_err() {
                    break;
                }
            }
        })
        .map_err(|e| Failure::failed("cannot read what is typed").because(&e))?;
    Ok(lines)
}

/// Runs `napster chat`.
pub(crate) fn chat(args: &NapsterChatArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let login = login(&args.hub, 0, &mut rng())?;
    let mut session = connect(&args.hub, &login)?;
    ui.status(
        "Chatting",
        &format!("as {} on {}", login.nick, args.hub.hub),
    );
    ui.hint(HELP);
    let mut chat = Chat {
        me: &login.nick,
        joining: args.room.clone(),
        room: None,
        ui,
    };
    if let Some(room) = &args.room {
        session.core().join(room);
    }
    let lines = typed()?;
    let mut end: Option<Instant> = None;
    while !interrupt.asked() && !ui.stdout_closed() {
        // A line typed before the room let us in would be refused.
        if end.is_none() && chat.joining.is_none() {
            match lines.try_recv() {
                Ok(line) => match parse(&line) {
                    // A hub that finds a connection closed may not read what came before.
                    Line::Quit => end = Some(Instant::now() + LAST),
                    line => chat.act(session.core(), &line),
                },
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => end = Some(Instant::now() + LAST),
            }
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let heard = heard(&mut session, &args.hub.hub)?;
        if let Some(event) = heard {
            chat.hear(event);
        }
    }
    session.flush().map_err(|e| lost(&args.hub.hub, &e))?;
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

fn heard(session: &mut Session, hub: &str) -> Outcome<Option<Event>> {
    session
        .next(Instant::now() + LOOK)
        .map_err(|e| lost(hub, &e))
}

struct Chat<'a> {
    me: &'a str,
    /// The room that was asked for and did not let us in yet.
    joining: Option<String>,
    /// Where lines go.
    room: Option<String>,
    ui: &'a Ui,
}

impl Chat<'_> {
    fn act(&mut self, hub: &mut Client, line: &Line<'_>) {
        match (line, self.room.as_deref()) {
            (Line::Say(text), Some(room)) => hub.speak(room, text, false),
            (Line::Do(text), Some(room)) => hub.speak(room, text, true),
            (Line::Topic(text), Some(room)) => hub.topic(room, text),
            (Line::Leave, Some(room)) => {
                hub.part(room);
                self.room = None;
            }
            (Line::Say(_) | Line::Do(_) | Line::Topic(_) | Line::Leave, None) => {
                self.ui.warn("you are in no room");
                self.ui.hint("/join ROOM");
            }
            (Line::Join(room), old) => {
                if let Some(old) = old {
                    hub.part(old);
                    self.room = None;
                }
                hub.join(room);
                self.joining = Some((*room).to_owned());
            }
            (Line::Private(nick, text), _) => hub.private(nick, text),
            (Line::Watch(nick), _) => hub.watch(nick),
            (Line::Unknown, _) => self.ui.hint(HELP),
            (Line::Quit | Line::Nothing, _) => {}
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Room(room, what) => self.hear_room(&room, what),
            Event::Private(nick, text) => self.tell("private", None, &nick, &text),
            Event::Presence(nick, here) => {
                self.tell(if here { "came" } else { "left" }, None, &nick, "");
            }
            Event::Motd(line) if !line.is_empty() => self.ui.status("Hub", &line),
            Event::Error(why) => {
                // What was refused is not told; a room that is full or closed is.
                self.joining = None;
                self.ui.warn(&format!("the hub says: {why}"));
            }
            _ => {}
        }
    }

    fn hear_room(&mut self, room: &str, what: Room) {
        let at = Some(room);
        match what {
            Room::Joined => {
                self.joining = None;
                self.room = Some(room.to_owned());
                self.tell("joined", at, self.me, "");
            }
            Room::Topic(text) => self.tell("topic", at, "", &text),
            Room::Member(nick) => self.tell("member", at, &nick, ""),
            Room::Came(nick) => self.tell("came", at, &nick, ""),
            Room::Left(nick) => self.tell("left", at, &nick, ""),
            Room::Said(nick, text) => self.tell("said", at, &nick, &text),
            Room::Did(nick, text) => self.tell("did", at, &nick, &text),
            Room::MembersEnd | Room::Listed(..) => {}
        }
    }

    fn tell(&self, what: &str, room: Option<&str>, nick: &str, text: &str) {
        self.ui.report(&HubReport::NapsterChat {
            what,
            room,
            nick,
            text,
        });
        let at = room.map_or(String::new(), |room| format!("[{room}] "));
        self.ui.result(&match what {
            "said" => format!("{at}<{nick}> {text}"),
            "did" => format!("{at}* {nick} {text}"),
            "private" => format!("*{nick}* {text}"),
            "topic" => format!("{at}about: {text}"),
            "member" => format!("{at}{nick} is here"),
            what => format!("{at}{nick} {what}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_said_or_done() {
        for (line, meant) in [
            ("ahoy there", Line::Say("ahoy there")),
            ("  ", Line::Nothing),
            ("/me waves", Line::Do("waves")),
            ("/msg bob  a b", Line::Private("bob", "a b")),
            ("/msg bob", Line::Unknown),
            ("/join #x", Line::Join("#x")),
            ("/join", Line::Unknown),
            ("/leave", Line::Leave),
            ("/quit", Line::Quit),
            ("/dance", Line::Unknown),
        ] {
            assert_eq!(parse(line), meant, "{line}");
        }
    }
}
