//! `shoal napster browse`, `whois` and `rooms`: what a hub knows of its users.

use std::time::{Duration, Instant};

use shoal_napster::client::{Event, Hit, Room, Whois};
use shoal_node::napster::{DownloadError, Offers, Session, browse};

use super::client::{connect, login, lost, open_port, rng, shown, tell};
use crate::cli::{NapsterBrowseArgs, NapsterRoomsArgs, NapsterWhoisArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::HubReport;
use crate::ui::Ui;
use crate::units::{Span, count};

/// How long a hub may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Waits for the answer among what a hub says: `take` tells of each event whether it is it.
pub(super) fn answer<T>(
    session: &mut Session,
    hub: &str,
    mut take: impl FnMut(Event) -> Option<Outcome<T>>,
) -> Outcome<T> {
    let until = Instant::now() + ANSWER;
    while let Some(event) = session.next(until).map_err(|e| lost(hub, &e))? {
        if let Some(answer) = take(event) {
            return answer;
        }
    }
    let late = format!("the hub {hub} does not answer");
    Err(Failure::new(Exit::Unreachable, late))
}

/// Runs `napster browse`.
pub(crate) fn browse_user(args: &NapsterBrowseArgs, ui: &Ui) -> Outcome<Exit> {
    let port = open_port(args.listen, "", Offers::new(), 0)?;
    let login = login(&args.hub, port.port(), &mut rng())?;
    let mut session = connect(&args.hub, &login)?;
    let list = if args.direct {
        match browse(&mut session, &port, &args.user) {
            Ok(list) => list,
            Err(e) => return Err(not_browsed(&mut session, args, &e)),
        }
    } else {
        by_hub(&mut session, &args.hub.hub, &args.user)?
    };
    if list.is_empty() {
        return Err(Failure::not_found(format!("{} shares nothing", args.user)));
    }
    let list: Vec<(Hit, Option<Duration>)> = list.into_iter().map(|hit| (hit, None)).collect();
    tell(&list, ui);
    let files = count(list.len() as u64, "file");
    ui.status("Browsed", &format!("{files} of {}", args.user));
    Ok(Exit::Ok)
}

/// Why not: hubs say in words of their own that somebody is not there, so that it is asked.
fn not_browsed(session: &mut Session, args: &NapsterBrowseArgs, error: &DownloadError) -> Failure {
    let nick = &args.user;
    if error.is_the_sharers() && matches!(is_here(session, &args.hub.hub, nick), Ok(false)) {
        return Failure::not_found(format!("{nick} is not here")).because(error);
    }
    let failure = Failure::new(Exit::Unreachable, format!("cannot browse {nick} directly"));
    failure
        .because(error)
        .hint("without --direct the hub tells what it knows")
}

/// Whether the hub knows the user to be there.
fn is_here(session: &mut Session, hub: &str, nick: &str) -> Outcome<bool> {
    session.core().whois(nick);
    answer(session, hub, |event| match event {
        Event::Whois(who) if who.nick.eq_ignore_ascii_case(nick) => Some(Ok(true)),
        Event::Whowas(..) | Event::Error(_) => Some(Ok(false)),
        _ => None,
    })
}

fn by_hub(session: &mut Session, hub: &str, nick: &str) -> Outcome<Vec<Hit>> {
    session.core().browse(nick);
    let mut list = Vec::new();
    answer(session, hub, |event| match event {
        Event::Browsed(hit) => {
            list.push(hit);
            None
        }
        Event::BrowseEnd(_) => Some(Ok(())),
        Event::Error(why) => {
            let failure = Failure::not_found(format!("the hub does not list what {nick} shares"));
            Some(Err(failure.reason(why)))
        }
        _ => None,
    })?;
    Ok(list)
}

/// Runs `napster whois`.
pub(crate) fn whois(args: &NapsterWhoisArgs, ui: &Ui) -> Outcome<Exit> {
    let mut session = connect(&args.hub, &login(&args.hub, 0, &mut rng())?)?;
    let nick = &args.user;
    session.core().whois(nick);
    answer(&mut session, &args.hub.hub, |event| match event {
        Event::Whois(who) => {
            tell_user(&who, ui);
            Some(Ok(Exit::Ok))
        }
        Event::Whowas(nick, level, seen) => {
            ui.report(&HubReport::NapsterWhowas {
                nick: &nick,
                level: &level,
                last_seen: seen,
            });
            ui.result(&format!("{nick} ({level}) is not here"));
            Some(Ok(Exit::NotFound))
        }
        Event::Error(why) => {
            let failure = Failure::not_found(format!("the hub knows no {nick}"));
            Some(Err(failure.reason(why)))
        }
        _ => None,
    })
}

fn tell_user(who: &Whois, ui: &Ui) {
    ui.report(&HubReport::NapsterWhois {
        nick: &who.nick,
        level: &who.level,
        online_s: who.online_s,
        rooms: &who.rooms,
        status: &who.status,
        shared: who.shared,
        downloads: who.downloads,
        uploads: who.uploads,
        link: who.link,
        client: &who.client,
    });
    let rooms = match who.rooms.as_slice() {
        [] => "none".to_owned(),
        rooms => rooms.join(" "),
    };
    for (what, value) in [
        ("nick", who.nick.clone()),
        ("level", who.level.clone()),
        ("status", who.status.clone()),
        ("here for", Span::secs(who.online_s).to_string()),
        ("rooms", rooms),
        ("shares", count(who.shared, "file")),
        ("uploads", who.uploads.to_string()),
        ("downloads", who.downloads.to_string()),
        ("link", who.link.to_string()),
        ("program", who.client.clone()),
    ] {
        ui.result(&format!("{what:<10} {value}"));
    }
}

/// Runs `napster rooms`.
pub(crate) fn rooms(args: &NapsterRoomsArgs, ui: &Ui) -> Outcome<Exit> {
    let mut session = connect(&args.hub, &login(&args.hub, 0, &mut rng())?)?;
    session.core().list_rooms();
    answer(&mut session, &args.hub.hub, |event| match event {
        Event::Room(name, Room::Listed(members, topic)) => {
            ui.report(&HubReport::NapsterRoom {
                room: &name,
                members,
                topic: &topic,
            });
            ui.result(&format!(
                "{members:>5}  {name}  {}",
                shown(topic.as_bytes())
            ));
            None
        }
        Event::RoomsEnd => Some(Ok(Exit::Ok)),
        _ => None,
    })
}
