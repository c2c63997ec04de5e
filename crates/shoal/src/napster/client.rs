//! `shoal find` and `shoal napster`: search hubs, fetch from their users, share with them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shoal_base::Rng;
use shoal_content::FileKind;
use shoal_napster::client::{Backoff, Event, Hit, Login, rank};
use shoal_napster::file::Facts;
use shoal_napster::mp3;
use shoal_napster::query::{Bound, Compare, Query};
use shoal_node::napster::{DataPort, DownloadError, Session, SessionError, Upload, download};
use shoal_store::Served;
use shoal_store::library::View;

use super::{first_line, resolve};
use crate::cli::{HubFlags, NapsterFetchArgs, NapsterShareArgs, WordFlags};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::{Step, Ui};
use crate::units::{Size, count};
use crate::{library, scan};

/// How long a search may take.
const SEARCH: Duration = Duration::from_secs(20);
/// How long users may take to answer a ping, and how many are asked.
const PINGS: Duration = Duration::from_secs(2);
const MAX_PINGS: usize = 20;
/// Bytes looked at for the facts of an MP3.
const HEAD: usize = 16 << 10;

fn login(flags: &HubFlags, data_port: u16, seed: &mut Rng) -> Outcome<Login> {
    let password = match &flags.who.password_file {
        Some(path) => String::from_utf8_lossy(&first_line(path)?).into_owned(),
        None => format!("{:016x}", seed.next_u64()),
    };
    let nick = flags.who.nick.clone();
    Ok(Login {
        nick: nick.unwrap_or_else(|| format!("shoal{}", seed.below(1_000_000))),
        password,
        data_port,
        link: flags.who.link,
    })
}

/// Randomness of the system, for passwords, nicks and waits.
fn rng() -> Rng {
    let mut seed = [0; 8];
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    Rng::from_seed(u64::from_le_bytes(seed))
}

fn connect(flags: &HubFlags, login: &Login) -> Outcome<Session> {
    let hub = resolve(&flags.hub)?;
    Session::connect(hub, login).map_err(|e| lost(&flags.hub, &e))
}

fn lost(hub: &str, error: &SessionError) -> Failure {
    let exit = match error {
        SessionError::Refused(_) => Exit::Refused,
        _ => Exit::Unreachable,
    };
    Failure::new(exit, format!("no service from the hub {hub}")).because(error)
}

fn query(words: &WordFlags) -> Query {
    let bound = |n: Option<u32>| {
        let bound = |value: u32| Bound {
            compare: Compare::AtLeast,
            value: value.into(),
        };
        n.map(bound).into_iter().collect()
    };
    Query {
        contains: vec![words.words.join(" ").into_bytes()],
        excludes: words
            .without
            .iter()
            .map(|w| w.clone().into_bytes())
            .collect(),
        max_results: Some(words.limit),
        bitrate: bound(words.min_bitrate),
        content: words
            .kind
            .as_ref()
            .and_then(|k| FileKind::parse(k.as_bytes())),
        ..Query::default()
    }
}

/// Searches, then pings who has something, and puts the hits in order.
fn search(
    session: &mut Session,
    hub: &str,
    words: &WordFlags,
    mut heard: impl FnMut(&Hit),
) -> Outcome<Vec<(Hit, Option<Duration>)>> {
    let mut data = Vec::new();
    query(words).put(&mut data);
    session
        .core()
        .say(shoal_napster::kind::SEARCH, |o| o.extend_from_slice(&data));
    let fail = |e: SessionError| lost(hub, &e);
    let until = Instant::now() + SEARCH;
    let mut hits = Vec::new();
    loop {
        match session.next(until).map_err(fail)? {
            Some(Event::Hit(hit)) if hits.len() < words.limit as usize => {
                heard(&hit);
                hits.push((hit, None));
            }
            Some(Event::Hit(_)) => {}
            Some(Event::Error(why)) if hits.is_empty() => {
                return Err(
                    Failure::new(Exit::Refused, format!("the hub {hub} does not search"))
                        .reason(why),
                );
            }
            Some(Event::SearchEnd) => break,
            Some(_) => {}
            None => {
                return Err(Failure::new(
                    Exit::Unreachable,
                    format!("the hub {hub} does not answer"),
                ));
            }
        }
    }
    let nicks: BTreeSet<String> = hits
        .iter()
        .map(|(h, _): &(Hit, _)| h.nick.clone())
        .collect();
    if !words.no_ping {
        let mut waiting: BTreeSet<String> = nicks.into_iter().take(MAX_PINGS).collect();
        let asked = Instant::now();
        waiting.iter().for_each(|nick| session.core().ping(nick));
        while !waiting.is_empty()
            && let Some(event) = session.next(asked + PINGS).map_err(fail)?
        {
            if let Event::Pong(nick) = event
                && waiting.remove(&nick)
            {
                let took = asked.elapsed();
                for (_, ping) in hits.iter_mut().filter(|(h, _)| h.nick == nick) {
                    *ping = Some(took);
                }
            }
        }
    }
    rank(&mut hits);
    Ok(hits)
}

fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

fn tell(hits: &[(Hit, Option<Duration>)], ui: &Ui) {
    for (n, (hit, ping)) in hits.iter().enumerate() {
        let file = shown(&hit.path);
        let ping_ms = ping.map(|p| p.as_secs_f64() * 1000.0);
        ui.report(&Report::Hit {
            n: n + 1,
            file: &file,
            bytes: hit.facts.size,
            bitrate: hit.facts.bitrate,
            frequency: hit.facts.frequency,
            seconds: hit.facts.seconds,
            nick: &hit.nick,
            link: hit.link,
            ping_ms,
        });
        let ping = ping_ms.map_or_else(|| "silent".to_owned(), |ms| format!("{ms:.0} ms"));
        let size = Size(hit.facts.size).to_string();
        let sound = match hit.facts.bitrate {
            0 => String::new(),
            rate => format!("{rate} kbit/s"),
        };
        let nick = &hit.nick;
        ui.result(&format!(
            "{:>3}  {size:>9}  {sound:>10}  {ping:>7}  {nick}  {file}",
            n + 1
        ));
    }
}

fn nothing(words: &WordFlags) -> Failure {
    Failure::not_found(format!("nobody shares \"{}\"", words.words.join(" ")))
}

/// Asks a hub: `heard` hears hits as they come, those returned have their pings.
pub(crate) fn ask(
    flags: &HubFlags,
    words: &WordFlags,
    heard: impl FnMut(&Hit),
) -> Outcome<Vec<(Hit, Option<Duration>)>> {
    let login = login(flags, 0, &mut rng())?;
    let mut session = connect(flags, &login)?;
    search(&mut session, &flags.hub, words, heard)
}

/// Runs `napster fetch`.
pub(crate) fn fetch(args: &NapsterFetchArgs, ui: &Ui) -> Outcome<Exit> {
    let mut rng = rng();
    let port = open_port(args.listen, "", BTreeMap::new(), 0)?;
    let login = login(&args.hub, port.port(), &mut rng)?;
    let mut session = connect(&args.hub, &login)?;
    let hits = search(&mut session, &args.hub.hub, &args.words, |_| {})?;
    tell(&hits, ui);
    let mut hits: Vec<Hit> = hits.into_iter().map(|(h, _)| h).collect();
    hits.retain(|h| {
        args.from
            .as_ref()
            .is_none_or(|from| h.nick.eq_ignore_ascii_case(from))
    });
    let pick = usize::from(args.pick) - 1;
    let Some(chosen) = hits.get(pick).cloned() else {
        return Err(nothing(&args.words));
    };
    // Others that say they have the same: of that name and size.
    let name = |h: &Hit| {
        shoal_napster::file::split_path(&h.path)
            .1
            .to_ascii_lowercase()
    };
    hits.retain(|h| *h != chosen && h.facts.size == chosen.facts.size && name(h) == name(&chosen));
    hits.insert(0, chosen);
    let mut last = None;
    for hit in &hits {
        let file = shown(&hit.path);
        ui.status("Fetching", &format!("{file} from {}", hit.nick));
        let mut progress = |done: u64| {
            if ui.tick_due() {
                ui.ticked();
                ui.report(&Report::HubProgress {
                    nick: &hit.nick,
                    bytes_done: done,
                    bytes_total: hit.facts.size,
                });
                ui.step(&Step {
                    verb: "Fetching",
                    done,
                    total: hit.facts.size,
                    bytes: true,
                    detail: &hit.nick,
                });
            }
        };
        let result = download(
            &mut session,
            &port,
            &login.nick,
            hit,
            &args.dir,
            &mut progress,
        );
        ui.finish_step();
        match result {
            Ok(path) => {
                let path = path.display().to_string();
                ui.report(&Report::Fetched {
                    path: &path,
                    bytes: hit.facts.size,
                    nick: &hit.nick,
                });
                ui.result(&path);
                return Ok(Exit::Ok);
            }
            Err(error) if error.is_the_sharers() => {
                ui.warn(&format!(
                    "{} does not deliver: {}",
                    hit.nick,
                    reasons(&error)
                ));
                last = Some(error);
            }
            Err(error) => {
                return Err(Failure::failed(format!("cannot fetch {file}")).because(&error));
            }
        }
    }
    let failure = Failure::new(Exit::Unreachable, "nobody who has the file delivers it");
    Err(match &last {
        Some(error) => failure
            .because(error)
            .hint("the same command goes on where it was"),
        None => failure,
    })
}

fn reasons(error: &DownloadError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(e) = next {
        text.push_str(&format!(": {e}"));
        next = e.source();
    }
    text
}

fn open_port(
    listen: Option<std::net::SocketAddr>,
    nick: &str,
    files: BTreeMap<Vec<u8>, PathBuf>,
    slots: usize,
) -> Outcome<DataPort> {
    DataPort::open(listen, nick, files, slots).map_err(|e| {
        let failure = Failure::failed("cannot listen for other users").because(&e);
        crate::transfer::bind_hint(failure, &e)
    })
}

/// What is told of a file: its size, and of an MP3 what its first frame says.
fn facts(disk: &std::path::Path, len: u64) -> Facts {
    let mut facts = Facts {
        size: len,
        ..Facts::default()
    };
    let sound = || {
        let file = Served::open(disk).ok()?;
        let mut head = vec![0; HEAD];
        let n = file.read_at(0, &mut head).ok()?;
        let tag = mp3::tag_len(head.get(..n)?);
        let n = file.read_at(tag, &mut head).ok()?;
        mp3::parse(head.get(..n)?, len.saturating_sub(tag))
    };
    let is_mp3 = disk
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("mp3"));
    if let Some(sound) = is_mp3.then(sound).flatten() {
        facts.bitrate = sound.bitrate;
        facts.frequency = sound.frequency;
        facts.seconds = sound.seconds;
    }
    facts
}

/// Runs `napster share`.
pub(crate) fn share(args: &NapsterShareArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let mut rng = rng();
    let (mut files, mut list) = (BTreeMap::new(), Vec::new());
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
            if let Entry::Vacant(place) = files.entry(name) {
                list.push((place.key().clone(), facts(&file.disk, file.len)));
                place.insert(file.disk.clone());
            }
        }
    }
    if args.library {
        share_library(args, &mut files, &mut list, ui)?;
    }
    // The nick is chosen once: it must be the same after the hub was away.
    let mut who = login(&args.hub, 0, &mut rng)?;
    let listen = args.listen.filter(|_| !args.firewalled);
    let port = open_port(listen, &who.nick, files, usize::from(args.slots))?;
    who.data_port = port.port();
    if let Some(addr) = port.addr() {
        ui.report(&Report::Listening {
            addr,
            proto: "napster",
        });
    }
    let mut backoff = Backoff::new();
    while !interrupt.asked() && !ui.stdout_closed() {
        let end = online(args, &who, &list, &port, &interrupt, &mut backoff, ui);
        let Err(error) = end else {
            break;
        };
        if let SessionError::Refused(_) = error {
            return Err(lost(&args.hub.hub, &error));
        }
        let why = lost(&args.hub.hub, &error).because.join(": ");
        ui.report(&Report::Hub {
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

/// Adds what the library shares with everyone. The library is closed again: the list is told as it
/// is now.
fn share_library(
    args: &NapsterShareArgs,
    files: &mut BTreeMap<Vec<u8>, PathBuf>,
    list: &mut Vec<(Vec<u8>, Facts)>,
    ui: &Ui,
) -> Outcome {
    let library = library::open(&args.place, ui)?;
    let each = library.each(|file| {
        if !View::Anyone.sees(&file.folder.audience) {
            return true;
        }
        let folder = file.folder.path.file_name().unwrap_or_default();
        let path = format!("{}/{}", folder.to_string_lossy(), file.path);
        let name = path.replace('/', "\\").replace('"', "'").into_bytes();
        if let Entry::Vacant(place) = files.entry(name) {
            let disk = file.folder.path.join(file.path);
            list.push((place.key().clone(), facts(&disk, file.record.stamp.len)));
            place.insert(disk);
        }
        true
    });
    each.map_err(|e| Failure::failed("cannot read the library").because(&e))?;
    if list.is_empty() {
        ui.warn("the library shares nothing with everyone");
        ui.hint("shoal library add FOLDER");
    }
    Ok(())
}

/// One connection of a sharer to its hub, until the user ends it.
fn online(
    args: &NapsterShareArgs,
    who: &Login,
    list: &[(Vec<u8>, Facts)],
    port: &DataPort,
    interrupt: &Interrupt,
    backoff: &mut Backoff,
    ui: &Ui,
) -> Result<(), SessionError> {
    let hub = resolve(&args.hub.hub).map_err(|_| SessionError::Late)?;
    let mut session = Session::connect(hub, who)?;
    backoff.reset();
    for (path, facts) in list {
        session.core().share(path, facts);
    }
    session.flush()?;
    ui.report(&Report::Hub {
        connected: true,
        why: None,
    });
    let files = count(list.len() as u64, "file");
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
                    ui.report(&Report::Uploaded {
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
    }
    Ok(())
}
