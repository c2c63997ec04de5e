//! `shoal supernode find`, and asking the overlay for `shoal find`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_content::{TigerRoot, Urn};
use shoal_gnutella::http::locations::may_name;
use shoal_node::reach::{Identity, Overlay, OverlaySettings};
use shoal_node::supernode::{NodeDriver, NodeSettings, Place};
use shoal_supernode::node::{Config, Event, Role};
use shoal_supernode::wire::{Hit, QueryId, Why};

use super::{Member, Who, folder, shown};
use crate::cli::{JoinFlags, SupernodeFindArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::gnutella;
use crate::overlay::beside;
use crate::report::OverlayReport;
use crate::signals::Interrupt;
use crate::station::tickets;
use crate::ui::Ui;
use crate::units::Size;

/// How long a supernode is waited for.
const MEET: Duration = Duration::from_secs(20);
/// After how long refusals alone are an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether the user wants an end.
const LOOK: Duration = Duration::from_millis(100);

/// What is looked for.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Words(String),
    Content(Urn),
}

impl Question {
    /// What words or the name of a content ask for.
    pub(crate) fn read(words: &[String]) -> Outcome<Self> {
        let urn = words
            .iter()
            .find(|w| w.to_ascii_lowercase().starts_with("urn:"));
        match (urn, words) {
            (Some(urn), [_]) => {
                let read: Result<Urn, _> = urn.parse();
                let fits = read.ok().filter(|u| u.sha1().is_some());
                fits.map(Self::Content).ok_or_else(|| {
                    Failure::usage(format!("{urn} is not the name of a content"))
                        .hint("urn:sha1:… or urn:bitprint:…")
                })
            }
            (Some(urn), _) => Err(Failure::usage(format!("{urn} goes with no other words"))),
            (None, words) => Ok(Self::Words(words.join(" "))),
        }
    }
}

/// A node of this command's own, that has a supernode.
pub(crate) struct Asker {
    pub(crate) member: Member,
    pub(crate) driver: Arc<NodeDriver>,
    /// Its place on the overlay, if it has one.
    pub(crate) overlay: Option<Overlay>,
}

impl Asker {
    /// Logs in and finds a supernode, unless `go_on` says that nobody waits any more.
    pub(crate) fn start(
        member: Member,
        settings: impl FnOnce(&Member) -> NodeSettings,
        go_on: &dyn Fn() -> bool,
    ) -> Outcome<Option<Self>> {
        let driver = NodeDriver::start(settings(&member));
        let driver = driver.map_err(|e| Failure::failed("cannot start a node").because(&e))?;
        let begun = Instant::now();
        let mut refused: Option<(SocketAddr, Why)> = None;
        loop {
            match driver.events.recv_timeout(LOOK) {
                Ok(Event::Home(Some(_))) => {
                    return Ok(Some(Self {
                        member,
                        driver: Arc::new(driver),
                        overlay: None,
                    }));
                }
                Ok(Event::Refused(addr, why)) => refused = Some((addr, why)),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::failed("the node stopped by itself"));
                }
            }
            let invalid = matches!(refused, Some((_, Why::Invalid(_) | Why::Banned)));
            let patience = if invalid { PATIENCE } else { MEET };
            if begun.elapsed() >= patience {
                let exit = match invalid {
                    true => Exit::Refused,
                    false => Exit::Unreachable,
                };
                let failure = Failure::new(exit, "no supernode takes us in");
                return Err(match refused {
                    Some((addr, why)) => failure.reason(format!("{addr}: {why}")),
                    None => failure
                        .reason("none on the list can be reached")
                        .hint("shoal supernode list shows the list"),
                });
            }
            if !go_on() {
                return Ok(None);
            }
        }
    }

    /// Takes a place on the overlay.
    pub(super) fn go_on_overlay(&mut self) -> Outcome {
        let post = Arc::clone(&self.driver);
        let overlay = Overlay::start(OverlaySettings {
            identity: Identity::new(self.member.key.clone()),
            listen: beside(self.member.own),
            // Soon over, and nobody begins to reach it.
            port_mapping: false,
            write: Box::new(move |to, letter| post.write(to, letter)),
        });
        let failed = |e| Failure::failed("cannot send and receive datagrams").because(&e);
        self.overlay = Some(overlay.map_err(failed)?);
        Ok(())
    }

    /// What happened, unless it is the overlay's.
    pub(super) fn sort(&self, event: Event<SocketAddr>) -> Option<Event<SocketAddr>> {
        let Some(overlay) = &self.overlay else {
            return Some(event);
        };
        match event {
            Event::Letter(from, letter) => overlay.letter(from, letter),
            Event::Relays(relays) => overlay.offer(tickets(relays)),
            event => return Some(event),
        }
        None
    }

    /// Asks; none if the supernode has just gone.
    pub(super) fn ask(&self, question: &Question) -> Option<QueryId> {
        match question {
            Question::Words(words) => self.driver.search(words),
            Question::Content(urn) => self.driver.seek(urn.sha1().unwrap_or_default()),
        }
    }
}

/// A hit as whoever asked may use it.
pub(crate) struct Heard {
    pub(crate) hit: Hit<SocketAddr>,
    /// Where it is fetched; none if we cannot connect to its sharer.
    pub(crate) place: Option<SocketAddr>,
}

/// Where a file is fetched, as a node at `teller` says: a stranger sends nobody to the machines of our own
/// network.
pub(super) fn place(teller: IpAddr, hit: &Hit<SocketAddr>) -> Option<SocketAddr> {
    hit.place().filter(|at| may_name(teller, *at))
}

/// What a command's own node is: it shares nothing and stays a peer.
pub(crate) fn settings(member: &Member, place: Place) -> NodeSettings {
    NodeSettings {
        place,
        serves: false,
        others: None,
        boxes: None,
        key: member.key.clone(),
        token: member.token.clone(),
        list: member.list,
        config: Config {
            may_change: false,
            ..Config::new(member.trusted, Role::Peer)
        },
        files: Vec::new(),
        seed: gnutella::rng().next_u64(),
    }
}

/// Hears the answers for as long as `wait` and `go_on` say; asks anew when the supernode changes.
pub(super) fn hear(
    asker: &Asker,
    question: &Question,
    wait: Duration,
    go_on: &dyn Fn() -> bool,
    each: &mut dyn FnMut(Heard),
) -> Outcome {
    let mut query = asker.ask(question);
    let mut home = asker.driver.look().and_then(|looked| looked.home);
    // Who has moved meanwhile answers a second time.
    let mut heard = BTreeSet::new();
    let until = Instant::now() + wait;
    while go_on() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let event = asker.driver.events.recv_timeout(left.min(LOOK));
        let Some(event) = event.map(|e| asker.sort(e)).transpose() else {
            continue;
        };
        match event {
            Ok(Event::Hits(id, hits)) if Some(id) == query => {
                for hit in hits {
                    let key = hit.sharer.token.key;
                    let place = home.and_then(|home| place(home.ip(), &hit));
                    // Nobody passes a push on to a host of another network.
                    let useless = hit.elsewhere.is_some() && place.is_none();
                    if !useless && heard.insert((key, hit.file.path.clone())) {
                        each(Heard { hit, place });
                    }
                }
            }
            Ok(Event::Home(Some(addr))) => {
                home = Some(addr);
                query = asker.ask(question);
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::failed("the node stopped by itself"));
            }
        }
    }
    Ok(())
}

/// Asks the overlay: `each` hears hits as they come, for as long as `wait` and `go_on` say.
pub(crate) fn ask(
    flags: &JoinFlags,
    state_dir: Option<&Path>,
    question: &Question,
    wait: Duration,
    go_on: &dyn Fn() -> bool,
    each: &mut dyn FnMut(&Heard),
) -> Outcome {
    let member = Member::join(flags, &Who::Asker, &folder(state_dir))?;
    let place = Place::Hidden(member.own);
    let Some(asker) = Asker::start(member, |m| settings(m, place), go_on)? else {
        return Ok(());
    };
    hear(&asker, question, wait, go_on, &mut |heard| each(&heard))
}

/// The name of a file's content.
pub(super) fn urn(hit: &Hit<SocketAddr>) -> Urn {
    match hit.file.tiger {
        Some(root) => Urn::Bitprint(hit.file.sha1, TigerRoot(root)),
        None => Urn::Sha1(hit.file.sha1),
    }
}

/// Runs `supernode find`.
pub(super) fn find(args: &SupernodeFindArgs, ui: &Ui) -> Outcome<Exit> {
    let question = Question::read(&args.words)?;
    let interrupt = Interrupt::install()?;
    let found = Cell::new(0);
    let go_on = || found.get() < args.limit && !interrupt.asked() && !ui.stdout_closed();
    ui.status("Asking", &args.words.join(" "));
    let wait = Duration::from_secs(args.wait);
    let state_dir = args.state_dir.as_deref();
    ask(
        &args.join,
        state_dir,
        &question,
        wait,
        &go_on,
        &mut |heard| {
            if found.get() < args.limit {
                found.set(found.get() + 1);
                tell(found.get(), &heard.hit, heard.place, ui);
            }
        },
    )?;
    if interrupt.asked() {
        return Ok(Exit::Interrupted);
    }
    if found.get() == 0 {
        return Err(nothing(&args.words));
    }
    Ok(Exit::Ok)
}

pub(super) fn nothing(words: &[String]) -> Failure {
    Failure::not_found(format!("nobody shares \"{}\"", words.join(" ")))
}

/// `place`: where it is fetched.
pub(super) fn tell(n: usize, hit: &Hit<SocketAddr>, place: Option<SocketAddr>, ui: &Ui) {
    let (file, urn) = (shown(&hit.file.path), urn(hit).to_string());
    let sharer = &hit.sharer.token.name;
    ui.report(&OverlayReport::SupernodeHit {
        n,
        file: &file,
        bytes: hit.file.size,
        urn: &urn,
        sharer,
        addr: place,
        elsewhere: hit.elsewhere.is_some(),
        free: hit.standing.and_then(|s| s.free),
        waiting: hit.standing.map(|s| s.waiting),
        rate_up: hit.standing.and_then(|s| s.rate),
        bitrate: hit.file.sound.map(|s| s.bitrate),
        duration_s: hit.file.sound.map(|s| s.seconds),
    });
    let size = Size(hit.file.size).to_string();
    ui.result(&format!("{n:>3}  {size:>9}  {sharer}  {file}"));
    ui.result(&format!("     {urn}"));
}
