//! `shoal find`: asks every overlay at once and puts together what they answer.

mod links;
mod ring;
mod sources;

pub(crate) use links::lookup;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use shoal_content::hits::{Change, Doubts, Filter, Found, Hit, Hits, Seen};
use shoal_content::keywords::Terms;
use shoal_content::{FileKind, Magnet, Urn};
use shoal_store::snapshot;

use crate::cli::{FindArgs, Overlay};
use crate::failure::{Exit, Failure, Outcome};
use crate::fetch::history::History;
use crate::report::FileReport;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::{Size, count};
use crate::{library, state};

/// Answers on their way.
const QUEUE: usize = 1024;
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of a saved search's marks at most.
const MAX_SAVED: u64 = 1 << 20;

/// What a source hears.
pub(crate) enum Heard {
    /// Somebody has a file.
    Hit(Box<Hit>),
    /// A sharer answered us after so long.
    Answered(&'static str, String, Duration),
}

/// Where heard things go, and whether more are wanted.
#[derive(Clone)]
pub(crate) struct Ear {
    out: Sender<Heard>,
    stop: Arc<AtomicBool>,
}

impl Ear {
    /// Tells; false if nobody listens any more.
    pub(crate) fn tell(&self, heard: Heard) -> bool {
        self.listens() && self.out.send(heard).is_ok()
    }

    /// Whether anybody still listens.
    pub(crate) fn listens(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// An overlay, or whatever else can be asked for files by words.
pub(crate) trait SearchSource: Send {
    /// What it is called.
    fn via(&self) -> &'static str;
    /// Asks, and tells what it hears as it comes, until there is no more or nobody listens.
    fn run(self: Box<Self>, ear: &Ear) -> Outcome;
}

fn sources(args: &FindArgs) -> Outcome<Vec<Box<dyn SearchSource>>> {
    let hub = args.hub.is_some();
    let gnutella = !args.gnutella.connect.is_empty() || !args.gnutella.cache.is_empty();
    let mut via: BTreeSet<Overlay> = args.via.iter().copied().collect();
    if via.is_empty() {
        via.extend(hub.then_some(Overlay::Napster));
        via.extend(gnutella.then_some(Overlay::Gnutella));
        via.extend((!args.ring.is_empty()).then_some(Overlay::Dht));
        via.extend(args.join.login.is_some().then_some(Overlay::Supernode));
        via.extend(library::exists(args.place.state_dir.as_deref()).then_some(Overlay::Library));
    }
    if via.is_empty() {
        return Err(Failure::usage("nobody to ask").hint(
            "--hub HOST:PORT asks a Napster hub, --connect HOST:PORT a Gnutella network, \
             --login HOST:PORT the supernodes, --ring HOST:PORT a Chord ring, \
             shoal library add FOLDER makes one's own files searchable",
        ));
    }
    let source = |overlay: Overlay| -> Outcome<Box<dyn SearchSource>> {
        match overlay {
            Overlay::Napster if !hub => Err(Failure::usage("no hub to ask")
                .hint("name one with --hub HOST:PORT, or in $SHOAL_HUB")),
            Overlay::Gnutella if !gnutella => Err(Failure::usage("no host to begin with")
                .hint("--connect HOST:PORT, or a host cache with --cache HOST:PORT")),
            Overlay::Supernode if args.join.login.is_none() => {
                Err(Failure::usage("no login server")
                    .hint("name one with --login HOST:PORT, or in $SHOAL_LOGIN"))
            }
            Overlay::Dht if args.ring.is_empty() => Err(Failure::usage("no ring to ask")
                .hint("name one of its nodes with --ring HOST:PORT")),
            Overlay::Dht => ring::source(args),
            Overlay::Napster => sources::napster(args),
            Overlay::Gnutella => sources::gnutella(args),
            Overlay::Supernode => sources::supernodes(args),
            Overlay::Library => sources::library(args),
        }
    };
    via.into_iter().map(source).collect()
}

fn filter(args: &FindArgs) -> Filter {
    let words = &args.words;
    let mut terms = Terms::default();
    words.without.iter().for_each(|word| terms.ban(word));
    Filter {
        terms,
        kind: words
            .kind
            .as_ref()
            .and_then(|k| FileKind::parse(k.as_bytes())),
        size: args.min_size.unwrap_or(0)..=args.max_size.unwrap_or(u64::MAX),
        min_bitrate: words.min_bitrate.unwrap_or(0),
    }
}

/// Runs the command.
pub(crate) fn find(args: &FindArgs, ui: &Ui) -> Outcome<Exit> {
    let filter = filter(args);
    if Terms::parse(&args.words.words.join(" ")).is_empty() {
        return Err(Failure::usage("nothing to search for"));
    }
    let saved = args
        .new
        .as_deref()
        .map(|name| Saved::load(name, args))
        .transpose()?;
    let sources = sources(args)?;
    let interrupt = Interrupt::install()?;
    let (out, heard) = bounded(QUEUE);
    let stop = Arc::new(AtomicBool::new(false));
    let ear = Ear { out, stop };
    let names: Vec<&str> = sources.iter().map(|s| s.via()).collect();
    ui.status("Asking", &names.join(", "));
    let threads = sources.into_iter().map(|source| {
        let ear = ear.clone();
        std::thread::spawn(move || (source.via(), source.run(&ear)))
    });
    let threads: Vec<_> = threads.collect();
    let stop = Arc::clone(&ear.stop);
    drop(ear);
    let base = state::base(args.place.state_dir.as_deref(), std::path::Path::new("."));
    let mut history = History::load(&base);
    let hits = listen(&heard, (&filter, &mut history), args, &stop, &interrupt, ui);
    ui.finish_step();
    // Whoever waits to tell something hears that nobody listens.
    drop(heard);
    let mut failures = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok((_, Ok(()))) => {}
            Ok((via, Err(failure))) => failures.push((via, failure)),
            Err(_) => failures.push(("a source", Failure::failed("it stopped by itself"))),
        }
    }
    if interrupt.asked() && hits.is_empty() {
        return Ok(Exit::Interrupted);
    }
    // That nobody has it can be said only if everybody was asked.
    if hits.is_empty()
        && let Some((_, failure)) = failures.pop()
    {
        return Err(failure);
    }
    for (via, failure) in &failures {
        ui.warn(&format!(
            "{via} did not answer: {}",
            failure.because.join(": ")
        ));
    }
    tell(&hits, args, saved, ui)
}

/// Takes what is heard until all sources are done, or enough was found.
fn listen(
    heard: &Receiver<Heard>,
    (filter, history): (&Filter, &mut History),
    args: &FindArgs,
    stop: &AtomicBool,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Hits {
    let mut hits = Hits::default();
    loop {
        match heard.recv_timeout(LOOK) {
            Ok(Heard::Hit(mut hit)) if filter.admits(&hit) => {
                history.apply(&mut hit);
                let (via, name, bytes) = (hit.via, shown(&hit.name), hit.size);
                let (sharer, urn) = (hit.sharer.clone(), urn(&hit.hashes));
                let change = hits.add(*hit);
                let (Change::New(result) | Change::Grew(result)) = change else {
                    continue;
                };
                ui.report(&FileReport::Heard {
                    result,
                    via,
                    file: &name,
                    bytes,
                    sharer: &sharer,
                    urn: urn.as_deref(),
                });
            }
            Ok(Heard::Hit(_)) => {}
            Ok(Heard::Answered(via, sharer, took)) => hits.answered(via, &sharer, took),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return hits,
        }
        if ui.tick_due() {
            ui.line("Asking", &count(hits.len() as u64, "result"));
            ui.ticked();
        }
        let full = hits.len() >= args.words.limit as usize;
        if full || interrupt.asked() || ui.stdout_closed() {
            stop.store(true, Ordering::Relaxed);
            return hits;
        }
    }
}

/// A name from a stranger as it can be shown.
fn shown(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

fn urn(hashes: &shoal_content::hits::Hashes) -> Option<String> {
    Urn::of(hashes.sha1, hashes.tiger).map(|urn| urn.to_string())
}

fn doubtful(doubts: &Doubts) -> Vec<String> {
    let several = [
        (doubts.sizes, "another size"),
        (doubts.names, "quite another name"),
        (doubts.hashes, "another hash"),
    ];
    let told = several.into_iter().filter(|(n, _)| *n > 0);
    told.map(|(n, what)| format!("{n} of its hits tell {what}"))
        .collect()
}

fn tell(hits: &Hits, args: &FindArgs, mut saved: Option<Saved>, ui: &Ui) -> Outcome<Exit> {
    let (mut n, mut told) = (0, Vec::new());
    for at in hits.ranked() {
        let Some(found) = hits.get(at) else {
            continue;
        };
        if saved
            .as_mut()
            .is_some_and(|saved| !saved.seen.is_new(found))
        {
            continue;
        }
        n += 1;
        let link = links::link(found, hits);
        tell_one(n, at, found, &link, ui);
        told.push(link);
    }
    if n > 0 {
        let base = state::base(args.place.state_dir.as_deref(), std::path::Path::new("."));
        links::save(&told, &base)?;
    }
    if let Some(saved) = saved {
        snapshot::save(&saved.path, &saved.seen.to_bytes())
            .map_err(|e| Failure::io("write", &saved.path, &e))?;
        if n == 0 {
            return Err(Failure::not_found(format!(
                "nothing new for \"{}\"",
                args.words.words.join(" ")
            )));
        }
    }
    if n == 0 {
        let what = args.words.words.join(" ");
        return Err(Failure::not_found(format!("nobody shares \"{what}\"")));
    }
    Ok(Exit::Ok)
}

fn tell_one(n: usize, result: usize, found: &Found, link: &Magnet, ui: &Ui) {
    let name = shown(found.name());
    let urn = urn(&found.hashes);
    let via: BTreeSet<&str> = found.hits.iter().map(|h| h.via).collect();
    let via: Vec<&str> = via.into_iter().collect();
    let ping = found.hits.iter().filter_map(|h| h.answered).min();
    let ping_ms = ping.map(|p| p.as_secs_f64() * 1000.0);
    let best = found
        .hits
        .iter()
        .min_by_key(|h| h.answered.unwrap_or(Duration::MAX));
    let doubts = doubtful(&found.doubts());
    let bitrate = found.hits.iter().map(|h| h.bitrate).max().unwrap_or(0);
    let sharer = best.map(|h| shown(&h.sharer)).unwrap_or_default();
    let file = best.map(|h| shown(&h.name)).unwrap_or_default();
    ui.report(&FileReport::Found {
        n,
        result,
        name: &name,
        file: &file,
        bytes: found.size(),
        bitrate,
        via: &via,
        sharers: found.sharers(),
        sharer: &sharer,
        urn: urn.as_deref(),
        ping_ms,
        score: found.score(),
        doubts: &doubts,
        link: &link.to_string(),
    });
    let size = Size(found.size()).to_string();
    let sound = match bitrate {
        0 => String::new(),
        rate => format!("{rate} kbit/s"),
    };
    let ping = ping_ms.map_or_else(String::new, |ms| format!("{ms:.0} ms"));
    let from = match found.sharers() {
        1 => sharer,
        n => format!("{n} sharers"),
    };
    let via = via.join("+");
    ui.result(&format!(
        "{n:>3}  {size:>9}  {sound:>10}  {ping:>7}  {via}  {from}  {file}"
    ));
    if let Some(urn) = urn {
        ui.result(&format!("     {urn}"));
    }
    for doubt in doubts {
        ui.result(&format!("     beware: {doubt}"));
    }
}

/// A search that tells only what it has not told before.
struct Saved {
    path: PathBuf,
    seen: Seen,
}

impl Saved {
    fn load(name: &str, args: &FindArgs) -> Outcome<Self> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(Failure::usage(format!("--new {name:?}"))
                .reason("a name has 1 to 64 letters, digits, - and _"));
        }
        let base = state::base(args.place.state_dir.as_deref(), std::path::Path::new("."));
        let path = base.join("searches").join(name);
        let loaded = snapshot::load(&path, MAX_SAVED);
        let seen = match loaded.map_err(|e| Failure::io("read", &path, &e))? {
            None => Seen::default(),
            Some(bytes) => Seen::from_bytes(&bytes).ok_or_else(|| {
                Failure::failed(format!("{} is damaged", path.display()))
                    .hint("remove it: everything will count as new once more")
            })?,
        };
        Ok(Self { path, seen })
    }
}
