//! `shoal library`: the folders that are shared, and every hash of what is in them.

mod check;
mod follow;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shoal_base::id::{from_hex, to_hex};
use shoal_content::FileKind;
use shoal_content::keywords::{Search, Terms};
use shoal_store::library::{
    Audience, Library, LibraryError, ScanOptions, ScanProgress, ScanReport, SharedFolder, Target,
    View, Watch,
};

pub(crate) use follow::Follower;

use crate::cli::{
    LibraryAddArgs, LibraryCommand, LibraryPlace, LibraryRescanArgs, LibrarySearchArgs,
    LibraryShowArgs, ScanFlags,
};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::FileReport;
use crate::signals::Interrupt;
use crate::state;
use crate::ui::{Step, Ui};
use crate::units::{Rate, Size, Span, count, eta_s};

/// How long to wait for another process to be done with the library.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at whether the user wants a watch to end.
const LOOK: Duration = Duration::from_millis(500);
/// Things that are not shared and are named one by one.
const NAMED: usize = 10;

/// Runs the command.
pub(crate) fn library(command: &LibraryCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        LibraryCommand::Add(args) => add(args, ui),
        LibraryCommand::Remove(args) => remove(&args.folders, &args.place, ui),
        LibraryCommand::List(args) => {
            let library = open(&args.place, ui)?;
            library.folders().iter().for_each(|f| tell_folder(f, ui));
            if library.folders().is_empty() {
                ui.hint("shoal library add FOLDER");
            }
            Ok(Exit::Ok)
        }
        LibraryCommand::Rescan(args) => rescan(args, ui),
        LibraryCommand::Search(args) => search(args, ui),
        LibraryCommand::Show(args) => show(args, ui),
        LibraryCommand::Check(args) => check::check(args, ui),
    }
}

/// The folder of the library below the state of shoal.
pub(crate) fn dir(state_dir: Option<&Path>) -> PathBuf {
    state::base(state_dir, Path::new("/")).join("library")
}

fn failed(error: &LibraryError) -> Failure {
    let failure = Failure::failed("cannot use the library").because(error);
    match error {
        LibraryError::Busy { .. } => failure.hint("it is free when the other command is done"),
        LibraryError::NotAFolder(_) => failure.hint("shoal share FILE shares a single file"),
        _ => failure,
    }
}

/// Whether anything was ever added to the library.
pub(crate) fn exists(state_dir: Option<&Path>) -> bool {
    dir(state_dir).is_dir()
}

/// Opens the library, waiting a little for others that use it.
pub(crate) fn open(place: &LibraryPlace, ui: &Ui) -> Outcome<Library> {
    let library = open_quietly(place)?;
    library.notes().iter().for_each(|note| ui.warn(note));
    Ok(library)
}

/// The same without a word of what was odd about it.
pub(crate) fn open_quietly(place: &LibraryPlace) -> Outcome<Library> {
    let dir = dir(place.state_dir.as_deref());
    Library::open_within(&dir, PATIENCE).map_err(|e| failed(&e))
}

fn audience(whom: &[String]) -> Outcome<Audience> {
    let mut keys = BTreeSet::new();
    for one in whom {
        match one.as_str() {
            "everyone" | "nobody" if whom.len() > 1 => {
                return Err(Failure::usage(format!("--with {one} goes with no other")));
            }
            "everyone" => return Ok(Audience::Everyone),
            "nobody" => return Ok(Audience::Nobody),
            key => {
                let key = from_hex(key).map_err(|e| {
                    Failure::usage(format!("--with {one}"))
                        .because(&e)
                        .hint("everyone, nobody, or a public key")
                })?;
                keys.insert(key);
            }
        }
    }
    Ok(Audience::Keys(keys))
}

fn add(args: &LibraryAddArgs, ui: &Ui) -> Outcome<Exit> {
    let audience = audience(&args.whom)?;
    let mut library = open(&args.place, ui)?;
    let mut targets = Vec::new();
    for path in &args.folders {
        let folder = library
            .add(path, audience.clone(), args.hidden)
            .map_err(|e| match &e {
                LibraryError::Io { source, .. } => Failure::io("share", path, source),
                _ => failed(&e),
            })?;
        let below = String::new();
        targets.push(Target { folder, below });
    }
    if args.no_scan {
        return Ok(Exit::Ok);
    }
    scan(
        &mut library,
        &targets,
        &args.scan,
        &Interrupt::install()?,
        ui,
    )
}

fn remove(folders: &[PathBuf], place: &LibraryPlace, ui: &Ui) -> Outcome<Exit> {
    let mut library = open(place, ui)?;
    for path in folders {
        if !library.remove(path).map_err(|e| failed(&e))? {
            return Err(
                Failure::not_found(format!("{} is not in the library", path.display()))
                    .hint("shoal library list names its folders"),
            );
        }
        ui.status("Removed", &path.display().to_string());
    }
    Ok(Exit::Ok)
}

fn tell_folder(folder: &SharedFolder, ui: &Ui) {
    let path = folder.path.display().to_string();
    let whom: Vec<String> = match &folder.audience {
        Audience::Everyone => vec!["everyone".to_owned()],
        Audience::Nobody => vec!["nobody".to_owned()],
        Audience::Keys(keys) => keys.iter().map(|k| to_hex(k)).collect(),
    };
    ui.report(&FileReport::LibraryFolder {
        path: &path,
        with: &whom,
        hidden: folder.hidden,
        files: folder.files,
        bytes: folder.bytes,
        scanned: folder.scanned,
        away: folder.away,
    });
    let state = match (folder.away, folder.scanned) {
        (true, _) => ", not there now",
        (false, None) => ", not scanned yet",
        (false, Some(_)) => "",
    };
    let whom = match &folder.audience {
        Audience::Keys(keys) => count(keys.len() as u64, "key"),
        _ => whom.concat(),
    };
    ui.result(&format!(
        "{path}  ({}, {}, with {whom}{state})",
        count(folder.files, "file"),
        Size(folder.bytes),
    ));
}

/// What a path means: a folder of the library, or one in it.
fn target(library: &Library, path: &Path) -> Outcome<Target> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let within = library.folders().iter().filter_map(|f| {
        let below = real.strip_prefix(&f.path).ok()?.to_str()?;
        Some((f.path.as_os_str().len(), f.id, below.to_owned()))
    });
    match within.max() {
        Some((_, folder, below)) => Ok(Target { folder, below }),
        None => Err(Failure::not_found(format!(
            "{} is in no folder of the library",
            path.display()
        ))
        .hint(format!("shoal library add {}", path.display()))),
    }
}

fn rescan(args: &LibraryRescanArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let mut library = open(&args.place, ui)?;
    let targets = args.folders.iter().map(|path| target(&library, path));
    let targets = targets.collect::<Outcome<Vec<_>>>()?;
    // Watches come before the scan: what changes during it is heard of.
    let mut watch = None;
    if args.watch {
        let started = Watch::start(library.folders());
        watch = Some(started.map_err(|e| Failure::failed("cannot watch").because(&e))?);
    }
    let exit = scan(&mut library, &targets, &args.scan, &interrupt, ui)?;
    let Some(mut watch) = watch else {
        return Ok(exit);
    };
    if watch.is_incomplete() {
        ui.warn("the system gives no more watches: everything is scanned now and then");
        ui.hint("raise fs.inotify.max_user_watches");
    }
    // Others may use the library meanwhile.
    drop(library);
    ui.status("Watching", "until ctrl-C");
    let every = Duration::from_secs(args.every.max(1));
    let mut last = Instant::now();
    while !interrupt.asked() && !ui.stdout_closed() {
        let changed = watch.wait(LOOK);
        let mut changed = changed.map_err(|e| Failure::failed("cannot watch").because(&e))?;
        let all = watch.is_incomplete() && last.elapsed() >= every;
        if all {
            last = Instant::now();
            changed.clear();
        }
        if all || !changed.is_empty() {
            scan(
                &mut open(&args.place, ui)?,
                &changed,
                &args.scan,
                &interrupt,
                ui,
            )?;
        }
    }
    Ok(Exit::Interrupted)
}

/// Scans with a bar; ctrl-C stops it, and what was hashed is kept.
fn scan(
    library: &mut Library,
    targets: &[Target],
    flags: &ScanFlags,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<Exit> {
    let begun = Instant::now();
    let options = ScanOptions {
        threads: flags.threads.map(usize::from),
        rate: flags.read_limit,
    };
    let report = library.scan(targets, &options, |progress| {
        if ui.tick_due() {
            tell_progress(progress, begun.elapsed(), ui);
            ui.ticked();
        }
        !interrupt.asked()
    });
    ui.finish_step();
    let report = report.map_err(|e| failed(&e))?;
    tell_scan(&report, begun.elapsed(), ui);
    Ok(match report.cancelled {
        true => Exit::Interrupted,
        false => Exit::Ok,
    })
}

fn tell_progress(p: &ScanProgress, took: Duration, ui: &Ui) {
    let rate = (p.bytes_hashed as f64 / took.as_secs_f64().max(0.001)) as u64;
    let eta_s = eta_s(p.bytes_to_hash.saturating_sub(p.bytes_hashed), rate).filter(|_| p.walked);
    ui.report(&FileReport::Scanning {
        walked: p.walked,
        files: p.files,
        files_to_hash: p.to_hash,
        files_hashed: p.hashed,
        bytes_to_hash: p.bytes_to_hash,
        bytes_hashed: p.bytes_hashed,
        rate,
        eta_s,
    });
    let left = eta_s.map_or_else(String::new, |s| format!(", {} left", Span::secs(s)));
    let files = count(p.files, "file");
    let found = if p.walked {
        files
    } else {
        format!("{files} so far")
    };
    ui.step(&Step {
        verb: "Hashing",
        done: p.bytes_hashed,
        total: p.bytes_to_hash.max(p.bytes_hashed),
        bytes: true,
        detail: &format!("{}{left}, {found}", Rate(rate)),
    });
}

fn tell_scan(report: &ScanReport, took: Duration, ui: &Ui) {
    for path in &report.away {
        ui.warn(&format!(
            "{} is not there; its files are remembered",
            path.display()
        ));
    }
    let left = report.odd.saturating_sub(NAMED as u64);
    for (n, odd) in report.oddities.iter().enumerate() {
        let path = odd.path.display().to_string();
        ui.report(&FileReport::NotShared {
            path: &path,
            why: &odd.why,
        });
        if n < NAMED {
            ui.warn(&format!("{path} is not shared: {}", odd.why));
        }
    }
    if left > 0 {
        ui.warn(&format!("and {left} more are not shared"));
    }
    let p = &report.done;
    ui.report(&FileReport::Scanned {
        files: p.files,
        bytes: p.bytes,
        unchanged: p.unchanged,
        moved: p.moved,
        hashed: p.hashed,
        bytes_hashed: p.bytes_hashed,
        removed: p.removed,
        not_shared: report.odd,
        seconds: took.as_secs_f64(),
        complete: !report.cancelled,
    });
    ui.status(
        "Scanned",
        &format!(
            "{} in {}: {} hashed ({}), {} unchanged, {} moved, {} gone",
            count(p.files, "file"),
            Span(took),
            p.hashed,
            Size(p.bytes_hashed),
            p.unchanged,
            p.moved,
            p.removed
        ),
    );
}

fn search(args: &LibrarySearchArgs, ui: &Ui) -> Outcome<Exit> {
    let library = open(&args.place, ui)?;
    let files = library.local_files(&View::Owner).map_err(|e| failed(&e))?;
    let wanted = Search {
        terms: Terms::parse(&args.words.join(" ")),
        kind: args
            .kind
            .as_ref()
            .and_then(|k| FileKind::parse(k.as_bytes())),
        size: args.min_size.unwrap_or(0)..=args.max_size.unwrap_or(u64::MAX),
    };
    if wanted.terms.is_empty() {
        return Err(Failure::usage("nothing to search for")
            .reason("no word is left of it without punctuation and what is left out"));
    }
    let mut hits = Vec::new();
    files.search(&wanted, 0, |found| {
        hits.push(found);
        hits.len() < args.limit
    });
    hits.sort_by(|a, b| (a.folder, &a.path).cmp(&(b.folder, &b.path)));
    for hit in &hits {
        let folder = library.folders().iter().find(|f| f.id == hit.folder);
        let path = folder
            .map_or_else(PathBuf::new, |f| f.path.clone())
            .join(&hit.path);
        let path = path.display().to_string();
        let urn = hit.urn().to_string();
        ui.report(&FileReport::LibraryFile {
            path: &path,
            bytes: hit.file.size,
            urn: &urn,
            pieces_root: None,
        });
        ui.result(&format!("{:>9}  {path}", Size(hit.file.size).to_string()));
    }
    if hits.is_empty() {
        return Err(Failure::not_found("no file of the library has these words"));
    }
    Ok(Exit::Ok)
}

fn show(args: &LibraryShowArgs, ui: &Ui) -> Outcome<Exit> {
    let library = open(&args.place, ui)?;
    for given in &args.files {
        let path = std::fs::canonicalize(given).map_err(|e| Failure::io("look at", given, &e))?;
        let record = library.file(&path).map_err(|e| failed(&e))?;
        let Some(record) = record else {
            return Err(Failure::not_found(format!(
                "{} is not in the library, or has changed",
                given.display()
            ))
            .hint("shoal library rescan"));
        };
        let shown = path.display().to_string();
        let urn = shoal_content::Urn::Bitprint(record.sha1, record.tiger).to_string();
        let root = record.root.map(|root| to_hex(&root));
        ui.report(&FileReport::LibraryFile {
            path: &shown,
            bytes: record.stamp.len,
            urn: &urn,
            pieces_root: root.as_deref(),
        });
        let parts = library.parts(&record).map_err(|e| failed(&e))?;
        let pieces = parts.map_or_else(String::new, |p| {
            format!(
                "\n  pieces       {} of {}\n  tree         {} of {}",
                p.pieces.len(),
                Size(p.piece_len.into()),
                count(p.tree.spans().len() as u64, "span"),
                Size(p.tree.span_len())
            )
        });
        ui.result(&format!(
            "{shown}\n  bytes        {}\n  sha1         {}\n  tiger        {}\n  pieces root  {}{pieces}",
            record.stamp.len,
            shoal_content::Urn::Sha1(record.sha1),
            shoal_content::Urn::Tiger(record.tiger),
            root.as_deref().unwrap_or("none: it is empty"),
        ));
    }
    Ok(Exit::Ok)
}
