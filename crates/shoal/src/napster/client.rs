//! `shoal find` and `shoal napster fetch`: search hubs, fetch from their users.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use shoal_base::Rng;
use shoal_content::FileKind;
use shoal_napster::client::{Event, Hit, Login, rank};
use shoal_napster::file::Facts;
use shoal_napster::query::{Bound, Compare, Query};
use shoal_node::napster::{DataPort, DownloadError, Offers, Session, SessionError, download};
use shoal_node::reach::Overlay;

use super::{first_line, resolve};
use crate::cli::{FetchArgs, HubFlags, NapsterFetchArgs, WhoFlags, WordFlags};
use crate::failure::{Exit, Failure, Outcome};
use crate::overlay::OnOverlay;
use crate::report::HubReport;
use crate::signals::Interrupt;
use crate::ui::{Step, Ui};
use crate::units::Size;

/// How long a search may take.
const SEARCH: Duration = Duration::from_secs(20);
/// How long users may take to answer a ping, and how many are asked.
const PINGS: Duration = Duration::from_secs(2);
const MAX_PINGS: usize = 20;

pub(super) fn login(flags: &HubFlags, data_port: u16, seed: &mut Rng) -> Outcome<Login> {
    login_as(&flags.who, data_port, seed)
}

/// Who logs in as these flags say.
pub(crate) fn login_as(who: &WhoFlags, data_port: u16, seed: &mut Rng) -> Outcome<Login> {
    let password = match &who.password_file {
        Some(path) => String::from_utf8_lossy(&first_line(path)?).into_owned(),
        None => format!("{:016x}", seed.next_u64()),
    };
    let nick = who.nick.clone();
    Ok(Login {
        nick: nick.unwrap_or_else(|| format!("shoal{}", seed.below(1_000_000))),
        password,
        data_port,
        link: who.link,
        overlay: None,
    })
}

/// Randomness of the system, for passwords, nicks and waits.
pub(crate) fn rng() -> Rng {
    let mut seed = [0; 8];
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    Rng::from_seed(u64::from_le_bytes(seed))
}

pub(super) fn connect(flags: &HubFlags, login: &Login) -> Outcome<Session> {
    let hub = resolve(&flags.hub)?;
    Session::connect(hub, login).map_err(|e| lost(&flags.hub, &e))
}

pub(super) fn lost(hub: &str, error: &SessionError) -> Failure {
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

pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

pub(super) fn tell(hits: &[(Hit, Option<Duration>)], ui: &Ui) {
    for (n, (hit, ping)) in hits.iter().enumerate() {
        let file = shown(&hit.path);
        let ping_ms = ping.map(|p| p.as_secs_f64() * 1000.0);
        ui.report(&HubReport::Hit {
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
    let interrupt = Interrupt::install()?;
    let own = args.listen.map_or(Ipv4Addr::UNSPECIFIED.into(), |l| l.ip());
    let base = args.state_dir.as_deref();
    let station = OnOverlay::hoped(&args.join, own, base, &interrupt, ui);
    let port = open_port(args.listen, "", Offers::new(), 0)?;
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
    let ways = (&port, station.as_ref().map(|s| &s.overlay));
    fetch_hits(&mut session, ways, &login.nick, &hits, &args.dir, ui)
}

/// Fetches what these users of a hub share, which is said to be one file, from whomever delivers it
/// first. Nothing but its length says that it is the file that was meant.
pub(crate) fn fetch_unproven(
    hub: &str,
    (from, len): (&[(String, Vec<u8>)], u64),
    dir: &std::path::Path,
    args: &FetchArgs,
    overlay: Option<&Overlay>,
    ui: &Ui,
) -> Outcome<Exit> {
    let port = open_port(Some(args.net.listen), "", Offers::new(), 0)?;
    let login = login_as(&args.who, port.port(), &mut rng())?;
    let hits: Vec<Hit> = from
        .iter()
        .map(|(nick, path)| Hit {
            path: path.clone(),
            facts: Facts {
                size: len,
                ..Facts::default()
            },
            nick: nick.clone(),
            ip: Ipv4Addr::UNSPECIFIED,
            link: 0,
        })
        .collect();
    let addr = resolve(hub)?;
    let mut session = Session::connect(addr, &login).map_err(|e| lost(hub, &e))?;
    fetch_hits(&mut session, (&port, overlay), &login.nick, &hits, dir, ui)
}

fn fetch_hits(
    session: &mut Session,
    ways: (&DataPort, Option<&Overlay>),
    nick: &str,
    hits: &[Hit],
    dir: &std::path::Path,
    ui: &Ui,
) -> Outcome<Exit> {
    let mut last = None;
    for hit in hits {
        let file = shown(&hit.path);
        ui.status("Fetching", &format!("{file} from {}", hit.nick));
        let mut progress = |done: u64| {
            if ui.tick_due() {
                ui.ticked();
                ui.report(&HubReport::HubProgress {
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
        let result = download(session, ways, nick, hit, dir, &mut progress);
        ui.finish_step();
        match result {
            Ok(path) => {
                let path = path.display().to_string();
                ui.report(&HubReport::Fetched {
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

pub(super) fn reasons(error: &DownloadError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(e) = next {
        text.push_str(&format!(": {e}"));
        next = e.source();
    }
    text
}

pub(super) fn open_port(
    listen: Option<std::net::SocketAddr>,
    nick: &str,
    files: Offers,
    slots: usize,
) -> Outcome<DataPort> {
    DataPort::open(listen, nick, files, slots).map_err(|e| {
        let failure = Failure::failed("cannot listen for other users").because(&e);
        crate::transfer::bind_hint(failure, &e)
    })
}
