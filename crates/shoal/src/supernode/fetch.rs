//! `shoal supernode fetch`: a file from everybody in the overlay who shares it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_content::{TigerRoot, Urn};
use shoal_napster::client::Login;
use shoal_node::SourceSpec;
use shoal_node::gnutella::transfer::{Download, Feeder, Listener};
use shoal_node::reach::NodeId;
use shoal_node::supernode::{NodeSettings, Others, Place};
use shoal_supernode::node::Event;
use shoal_supernode::token::Key;
use shoal_supernode::wire::{Hit, QueryId};

use super::find::{Asker, Question, hear, nothing, place, settings, urn};
use super::{Member, Who, folder, overlay_files, shown};
use crate::cli::SupernodeFetchArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::gnutella::{Entrance, Target, fetch_file};
use crate::report::{OverlayReport, Report};
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::Size;

/// How often the overlay is asked who else has the file.
const SEEK: Duration = Duration::from_secs(10);
/// How long a sharer that was asked to connect has for it.
const PUSHED: Duration = Duration::from_secs(3);
/// After how long without a byte a sharer that was asked to connect is asked again.
const STALLED: Duration = Duration::from_secs(15);

/// A content that was found, and who shares it.
struct Found {
    hit: Hit<SocketAddr>,
    sharers: BTreeSet<Key>,
}

/// Runs the command.
pub(super) fn fetch(args: &SupernodeFetchArgs, ui: &Ui) -> Outcome<Exit> {
    let question = Question::read(&args.what)?;
    let interrupt = Interrupt::install()?;
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let dir = folder(args.state_dir.as_deref());
    let member = Member::join(&args.join, &Who::Asker, &dir)?;
    member.tell(ui);
    let (listener, at) = member.listen(args.listen, args.external)?;
    let (feeder, incoming) = Feeder::new(None);
    ui.report(&Report::Listening {
        addr: at,
        proto: "supernode",
    });
    let others: Others = Arc::new(move |stream, peer, first| feeder.take(stream, peer, first));
    let settings = |member: &Member| NodeSettings {
        others: Some(others),
        boxes: None,
        ..settings(member, Place::Reached(listener, at))
    };
    ui.status("Asking", &args.what.join(" "));
    let Some(mut asker) = Asker::start(member, settings, &go_on)? else {
        return Ok(Exit::Interrupted);
    };
    asker.go_on_overlay()?;
    let home = asker.driver.look().and_then(|looked| looked.home);
    ui.report(&OverlayReport::Home { addr: home });
    let wanted = match &question {
        Question::Content(urn) => *urn,
        Question::Words(_) => pick(&asker, &question, args, &go_on, ui)?,
    };
    if interrupt.asked() {
        return Ok(Exit::Interrupted);
    }
    let sha1 = wanted.sha1().unwrap_or_default();
    let target = Target {
        urn: wanted,
        name: args.called.clone(),
        len: None,
        from: Vec::new(),
        tls_hosts: Vec::new(),
        tls: true,
        sources: Vec::new(),
        hub_login: Login::default(),
        dir: args.dir.clone(),
        state_dir: args.state_dir.clone(),
        entrance: Some(Entrance::Of(Listener::of_node(at, incoming))),
        overlay: asker.overlay.clone(),
        local: Some(args.listen),
        awaits_more: true,
        max_sources: usize::from(args.max_sources),
        timeout: (args.timeout > 0).then(|| Duration::from_secs(args.timeout)),
        hint: "what is there is kept",
    };
    let mut seeker = Seeker {
        asker,
        sha1,
        tree: wanted.tiger(),
        ui,
        home: home.map(|a| a.ip()),
        query: None,
        asked: None,
        begun: Instant::now(),
        heard: false,
        wait: Duration::from_secs(args.wait),
        pushed: BTreeSet::new(),
        called: BTreeMap::new(),
        moved: (Instant::now(), 0),
        max_sources: usize::from(args.max_sources),
    };
    let mut look = |download: &Download| seeker.go_on(download);
    match fetch_file(target, &interrupt, &mut look, ui)? {
        Some(exit) => Ok(exit),
        None => Err(nothing(&args.what)),
    }
}

/// Hears answers, shows them put together, and takes one.
fn pick(
    asker: &Asker,
    question: &Question,
    args: &SupernodeFetchArgs,
    go_on: &dyn Fn() -> bool,
    ui: &Ui,
) -> Outcome<Urn> {
    let mut found: BTreeMap<[u8; 20], Found> = BTreeMap::new();
    let wait = Duration::from_secs(args.wait);
    hear(asker, question, wait, go_on, &mut |heard| {
        let hit = heard.hit;
        let key = hit.sharer.token.key;
        let found = found.entry(hit.file.sha1).or_insert_with(|| Found {
            hit,
            sharers: BTreeSet::new(),
        });
        found.sharers.insert(key);
    })?;
    let mut found: Vec<Found> = found.into_values().collect();
    found.sort_by_key(|f| (std::cmp::Reverse(f.sharers.len()), f.hit.file.path.clone()));
    for (n, found) in found.iter().enumerate() {
        let (n, file) = (n + 1, shown(&found.hit.file.path));
        let (bytes, sharers) = (found.hit.file.size, found.sharers.len());
        ui.report(&OverlayReport::SupernodeResult {
            n,
            file: &file,
            bytes,
            urn: &urn(&found.hit).to_string(),
            sharers,
        });
        let size = Size(bytes).to_string();
        ui.status(
            &n.to_string(),
            &format!("{size}  {sharers} sharing  {file}"),
        );
    }
    let picked = found.get(usize::from(args.pick) - 1);
    picked
        .map(|f| urn(&f.hit))
        .ok_or_else(|| match found.len() {
            0 => nothing(&args.what),
            n => Failure::not_found(format!("there is no result {}", args.pick))
                .reason(format!("{n} were found")),
        })
}

/// Looks for sharers while the file is fetched.
struct Seeker<'a> {
    asker: Asker,
    sha1: [u8; 20],
    tree: Option<TigerRoot>,
    ui: &'a Ui,
    /// Where our supernode is: who tells of hosts.
    home: Option<IpAddr>,
    query: Option<QueryId>,
    asked: Option<Instant>,
    begun: Instant,
    /// Whether anybody was heard of.
    heard: bool,
    wait: Duration,
    /// Sharers that were asked to connect.
    pushed: BTreeSet<Key>,
    /// Sharers that were connected to or asked to connect, since when, and how long the file is there:
    /// they are connected to by the overlay if nothing comes of that.
    called: BTreeMap<Key, (Instant, u64)>,
    /// When bytes last came, and how many there were.
    moved: (Instant, u64),
    max_sources: usize,
}

impl Seeker<'_> {
    /// Whether to give up: nobody has it.
    fn go_on(&mut self, download: &Download) -> bool {
        while let Ok(event) = self.asker.driver.events.try_recv() {
            if let Some(event) = self.asker.sort(event) {
                self.on_event(event, download);
            }
        }
        self.by_overlay(download);
        if let Some(token) = self.asker.member.renew(self.ui) {
            self.asker.driver.renew(token);
        }
        if self.asked.is_none_or(|at| at.elapsed() >= SEEK) {
            self.query = self.asker.driver.seek(self.sha1);
            // Without a supernode there is nobody to ask: the next look tries again.
            self.asked = self.query.map(|_| Instant::now());
        }
        let known = download.stats();
        if known.downloaded != self.moved.1 {
            self.moved = (Instant::now(), known.downloaded);
        } else if self.moved.0.elapsed() >= STALLED {
            self.moved.0 = Instant::now();
            self.pushed.clear();
        }
        let nobody = !self.heard && known.downloaded == 0 && known.known == 0;
        nobody && self.begun.elapsed() >= self.wait
    }

    /// Connects by the overlay to sharers of whom nothing came otherwise.
    fn by_overlay(&mut self, download: &Download) {
        let (Some(overlay), 0) = (&self.asker.overlay, download.stats().sources) else {
            return;
        };
        self.called.retain(|key, (since, len)| {
            if since.elapsed() < PUSHED {
                return true;
            }
            let node = NodeId(*key);
            overlay.learn(node);
            let (addr, urn) = (overlay_files(key), Urn::Sha1(self.sha1));
            let len = Some(*len);
            download.add_sources(vec![SourceSpec::Gnutella { addr, urn, len }]);
            self.ui
                .news("Reaching", &format!("{} through NATs", node.short()));
            false
        });
    }

    fn on_event(&mut self, event: Event<SocketAddr>, download: &Download) {
        match event {
            Event::Home(addr) => {
                self.ui.report(&OverlayReport::Home { addr });
                match addr {
                    Some(addr) => {
                        self.home = Some(addr.ip());
                        self.asked = None;
                    }
                    None => self.ui.news("Home", "lost; looking for another supernode"),
                }
            }
            Event::Hits(id, hits) if Some(id) == self.query => {
                for hit in hits {
                    self.on_hit(id, &hit, download);
                }
            }
            _ => {}
        }
    }

    fn on_hit(&mut self, query: QueryId, hit: &Hit<SocketAddr>, download: &Download) {
        if let (Some(tree), Some(theirs)) = (self.tree, hit.file.tiger)
            && tree.0 != theirs
        {
            // Another tree for the same SHA-1: one of the two is made up.
            return;
        }
        self.heard = true;
        let place = self.home.and_then(|home| place(home, hit));
        let key = hit.sharer.token.key;
        let since = (Instant::now(), hit.file.size);
        if let Some(addr) = place {
            let (urn, len) = (Urn::Sha1(self.sha1), Some(hit.file.size));
            download.add_sources(vec![SourceSpec::Gnutella { addr, urn, len }]);
            // A router may stand before it without its knowing.
            if hit.elsewhere.is_none() {
                self.called.entry(key).or_insert(since);
            }
        }
        if place.is_some() || hit.elsewhere.is_some() {
            return;
        }
        if download.stats().sources < self.max_sources && self.pushed.insert(key) {
            self.asker.driver.push(query, key, self.sha1);
            self.called.entry(key).or_insert(since);
            let name = &hit.sharer.token.name;
            self.ui
                .news("Asking", &format!("{name}, behind a firewall, to connect"));
        }
    }
}
