//! `shoal napster share`: files and folders, told to a hub and served to its users.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shoal_napster::client::{Backoff, Event, Login};
use shoal_napster::file::Facts;
use shoal_node::napster::{DataPort, Offer, Offers, Session, SessionError, Upload};
use shoal_node::reach::{Service, overlay_of};
use shoal_store::library::View;

use super::client::{login, lost, open_port, rng, shown};
use super::resolve;
use crate::cli::NapsterShareArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::library::Follower;
use crate::overlay::OnOverlay;
use crate::report::{HubReport, Report};
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::{Size, count};
use crate::{library, mp3, scan};

/// The data port that clients of the day had.
const USUAL: u16 = 6699;

/// What is told of a file: its size, and of an MP3 what its first frame says.
fn offer(disk: PathBuf, len: u64) -> Offer {
    let mut facts = Facts {
        size: len,
        ..Facts::default()
    };
    if let Some(sound) = mp3::read(&disk, len) {
        facts.bitrate = sound.bitrate;
        facts.frequency = sound.frequency;
        facts.seconds = sound.seconds;
    }
    Offer { disk, facts }
}

/// Runs `napster share`.
pub(crate) fn share(args: &NapsterShareArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let mut rng = rng();
    let offers = offers(args, ui)?;
    let NapsterShareArgs { library: all, .. } = args;
    let follower = all.then(|| Follower::start(&args.place));
    // The nick is chosen once: it must be the same after the hub was away.
    let mut who = login(&args.hub, 0, &mut rng)?;
    let listen = args.listen.filter(|_| !args.firewalled);
    let port = open_port(listen, &who.nick, offers, usize::from(args.slots))?;
    who.data_port = port.port();
    let (own, base) = (args.listen.map(|l| l.ip()), args.place.state_dir.as_deref());
    let own = own.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let station = OnOverlay::hoped(&args.join, own, base, &interrupt, ui);
    let _served = match &station {
        Some(station) => Some(by_overlay(station, &port, &mut who, ui)?),
        None => None,
    };
    if let Some(addr) = port.addr() {
        ui.report(&Report::Listening {
            addr,
            proto: "napster",
        });
    }
    let mut backoff = Backoff::new();
    while !interrupt.asked() && !ui.stdout_closed() {
        let end = online(
            args,
            &who,
            (&port, follower.as_ref()),
            &interrupt,
            &mut backoff,
            ui,
        );
        let Err(error) = end else {
            break;
        };
        if let SessionError::Refused(_) = error {
            return Err(lost(&args.hub.hub, &error));
        }
        let why = lost(&args.hub.hub, &error).because.join(": ");
        ui.report(&HubReport::Hub {
            connected: false,
            why: Some(&why),
        });
        let wait = backoff.wait(&mut rng);
        ui.warn(&format!(
            "{why}; trying again in {:.0} s",
            wait.as_secs_f64()
        ));
        let _ = interrupt.woken().recv_timeout(wait);
    }
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

/// Serves at the overlay address too, and has the hub tell it.
fn by_overlay(station: &OnOverlay, port: &DataPort, who: &mut Login, ui: &Ui) -> Outcome<Service> {
    let number = match port.port() {
        0 => USUAL,
        number => number,
    };
    let entrance = port.entrance();
    let service = station
        .overlay
        .listen(number, move |stream, _| entrance.take(stream));
    let service =
        service.map_err(|e| Failure::failed("cannot listen at the overlay address").because(&e))?;
    let addr = station.overlay.at(number);
    who.overlay = overlay_of(addr);
    ui.report(&Report::Listening {
        addr,
        proto: "overlay",
    });
    Ok(service)
}

/// What is shared now, by the paths that the hub is told.
fn offers(args: &NapsterShareArgs, ui: &Ui) -> Outcome<Offers> {
    let mut offers = Offers::new();
    for path in &args.paths {
        let found = scan::scan(path).map_err(|e| {
            Failure::not_found(format!("cannot share {}", path.display())).because(&e)
        })?;
        for odd in &found.skipped {
            ui.warn(&format!("{} is left out: {}", odd.path.display(), odd.why));
        }
        for file in found.files.iter().filter(|f| f.symlink.is_none()) {
            let mut name = found.name.clone();
            if found.is_folder {
                for step in file.path.components() {
                    name.push('\\');
                    name.push_str(step);
                }
            }
            let name = name.replace('"', "'").into_bytes();
            offers
                .entry(name)
                .or_insert_with(|| offer(file.disk.clone(), file.len));
        }
    }
    if let NapsterShareArgs { library: true, .. } = args {
        share_library(args, &mut offers, ui)?;
    }
    Ok(offers)
}

/// Adds what the library shares with everyone. The library is closed again: others may use it.
fn share_library(args: &NapsterShareArgs, offers: &mut Offers, ui: &Ui) -> Outcome {
    let library = library::open(&args.place, ui)?;
    let each = library.each(|file| {
        if !View::Anyone.sees(&file.folder.audience) {
            return true;
        }
        let folder = file.folder.path.file_name().unwrap_or_default();
        let path = format!("{}/{}", folder.to_string_lossy(), file.path);
        let name = path.replace('/', "\\").replace('"', "'").into_bytes();
        let disk = file.folder.path.join(file.path);
        offers
            .entry(name)
            .or_insert_with(|| offer(disk, file.record.stamp.len));
        true
    });
    each.map_err(|e| Failure::failed("cannot read the library").because(&e))?;
    if offers.is_empty() {
        ui.warn("the library shares nothing with everyone");
        ui.hint("shoal library add FOLDER");
    }
    Ok(())
}

/// One connection of a sharer to its hub, until the user ends it.
fn online(
    args: &NapsterShareArgs,
    who: &Login,
    (port, follower): (&DataPort, Option<&Follower>),
    interrupt: &Interrupt,
    backoff: &mut Backoff,
    ui: &Ui,
) -> Result<(), SessionError> {
    let hub = resolve(&args.hub.hub).map_err(|_| SessionError::Late)?;
    let mut session = Session::connect(hub, who)?;
    backoff.reset();
    for (path, offer) in port.offers().iter() {
        session.core().share(path, &offer.facts);
    }
    session.flush()?;
    ui.report(&HubReport::Hub {
        connected: true,
        why: None,
    });
    let files = count(port.offers().len() as u64, "file");
    ui.status("Sharing", &format!("{files} as {} until ctrl-C", who.nick));
    while !interrupt.asked() && !ui.stdout_closed() {
        match session.next(Instant::now() + Duration::from_millis(250))? {
            Some(Event::Asked(nick, path)) => {
                if port.accept(&nick, &path) {
                    session.core().accept(&nick, &path);
                } else {
                    session.core().queue(&nick, &path, port.slots());
                }
            }
            Some(Event::Push(place)) if session.may_dial(place.ip) => {
                port.bring(&place);
            }
            Some(Event::BrowseAsked(nick, to)) if port.accept_browse() => {
                session.core().accept_browse(&nick);
                if let Some(to) = to.filter(|to| session.may_dial(to.ip)) {
                    port.bring_list(&to);
                }
            }
            Some(Event::Private(nick, text)) => ui.news("Message", &format!("{nick}: {text}")),
            _ => {}
        }
        while let Ok(news) = port.news.try_recv() {
            let kind = match &news {
                Upload::Began { .. } => shoal_napster::kind::UPLOAD_START,
                Upload::Ended {
                    nick,
                    path,
                    bytes,
                    whole,
                } => {
                    let file = shown(path);
                    ui.report(&HubReport::Uploaded {
                        file: &file,
                        nick,
                        bytes: *bytes,
                        whole: *whole,
                    });
                    ui.news("Uploaded", &format!("{} of {file} to {nick}", Size(*bytes)));
                    shoal_napster::kind::UPLOAD_DONE
                }
            };
            session.core().say(kind, |_| {});
        }
        if follower.is_some_and(|follower| follower.has_changed(ui)) {
            share_anew(args, port, &mut session, ui)?;
        }
    }
    Ok(())
}

/// The library is another: the hub is told what came and what went.
fn share_anew(
    args: &NapsterShareArgs,
    port: &DataPort,
    session: &mut Session,
    ui: &Ui,
) -> Result<(), SessionError> {
    let now = match offers(args, ui) {
        Ok(now) => now,
        Err(failure) => {
            ui.warn(&format!("what is shared stays as it was: {}", failure.what));
            return Ok(());
        }
    };
    let before = port.offers();
    let (mut gone, mut new) = (0, 0);
    for (path, offer) in before.iter() {
        if now.get(path).is_none_or(|n| n.facts != offer.facts) {
            session.core().unshare(path);
            gone += 1;
        }
    }
    for (path, offer) in &now {
        if before.get(path).is_none_or(|b| b.facts != offer.facts) {
            session.core().share(path, &offer.facts);
            new += 1;
        }
    }
    port.set_offers(now);
    session.flush()?;
    if gone + new > 0 {
        let files = port.offers().len();
        ui.report(&Report::Sharing { files });
        ui.news(
            "Shared",
            &format!(
                "{new} new, {gone} no more; {} in all",
                count(files as u64, "file")
            ),
        );
    }
    Ok(())
}
