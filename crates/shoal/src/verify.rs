//! `shoal torrent verify`: does what is on disk match a .torrent file?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use shoal_content::{FileEntry, Info, Layout, Naming, SafePath};

use crate::cli::VerifyArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::hashing::{Hashed, OnFault};
use crate::report::Report;
use crate::selection::shown_files;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::{Size, count};
use crate::{make, source};

/// What is wrong with one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Problem {
    Missing,
    Unreadable,
    Size { found: u64 },
    Content,
    Link,
}

impl Problem {
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Size { .. } => "size",
            Self::Content => "content",
            Self::Link => "link",
        }
    }

    fn describe(self, file: &FileEntry, bad: u64) -> String {
        match self {
            Self::Missing => "missing".to_owned(),
            Self::Unreadable => "cannot be read".to_owned(),
            Self::Size { found } => format!("{found} bytes instead of {}", file.len),
            Self::Content => format!("differs within {}", Size(bad)),
            Self::Link => "is not the symbolic link it should be".to_owned(),
        }
    }
}

/// Runs the command.
pub(crate) fn verify(args: &VerifyArgs, ui: &Ui) -> Outcome<Exit> {
    let info = source::metainfo(&args.file)?.info;
    let Some(info_hash) = info.info_hash_v1() else {
        return Err(Failure::failed(format!("cannot verify {}", info.name))
            .reason("v2-only torrents are not supported yet"));
    };
    if !args.dir.is_dir() {
        return Err(
            Failure::not_found(format!("no folder {}", args.dir.display()))
                .hint("give the folder that holds the torrent's own folder or file"),
        );
    }
    let interrupt = Interrupt::install()?;
    let info = on_disk(info, &args.dir);
    let files = info.layout.files();
    let paths: Vec<Option<PathBuf>> = files
        .iter()
        .map(|f| (!f.attr.pad).then(|| args.dir.join(&f.path)))
        .collect();
    let hashed = make::hash(
        &info.layout,
        &paths,
        OnFault::Note,
        "Verifying",
        &interrupt,
        ui,
    )?;
    report(&info, &args.dir, &hashed, &info_hash.to_string(), ui)
}

/// The names as a download writes them, or, if those are not there, as they were on the disk of
/// who made the torrent.
fn on_disk(info: Info, dir: &Path) -> Info {
    let there = |info: &Info| {
        let stored = shown_files(&info.layout).filter_map(|n| info.layout.files().get(n));
        stored
            .filter(|f| fs::symlink_metadata(dir.join(&f.path)).is_ok())
            .count()
    };
    match info.renamed(Naming::Local) {
        Ok(local) if there(&local) > there(&info) => local,
        _ => info,
    }
}

fn report(info: &Info, dir: &Path, hashed: &Hashed, info_hash: &str, ui: &Ui) -> Outcome<Exit> {
    let layout = &info.layout;
    let ok: Vec<bool> = hashed
        .pieces
        .iter()
        .zip(info.hashes.v1_all())
        .map(|(got, want)| got.as_ref() == Some(want))
        .collect();
    let pieces_ok = ok.iter().filter(|ok| **ok).count() as u32;
    let bad_files = problems(info, dir, &ok, hashed);
    for (n, problem) in &bad_files {
        let Some(file) = layout.files().get(*n) else {
            continue;
        };
        let bad = bad_bytes(layout, *n, &ok);
        ui.report(&Report::BadFile {
            path: file.path.as_str(),
            problem: problem.name(),
            bytes_bad: bad,
        });
        ui.result(&format!("{}: {}", file.path, problem.describe(file, bad)));
    }
    let bad_files = bad_files.len();
    let pieces = layout.geometry().pieces();
    let all = bad_files == 0 && pieces_ok == pieces;
    ui.report(&Report::Verified {
        info_hash_v1: info_hash,
        ok: all,
        pieces_ok,
        pieces,
        files_bad: bad_files,
    });
    if all {
        ui.result(&format!(
            "{}: ok, {}",
            crate::show::harmless(&info.name),
            Size(layout.stored_len())
        ));
        return Ok(Exit::Ok);
    }
    Err(Failure::failed(format!("{} does not match", info.name))
        .reason(format!(
            "{} of {} pieces match; {} bad",
            pieces_ok,
            pieces,
            count(bad_files as u64, "file")
        ))
        .hint("`shoal fetch` with the same .torrent and --dir repairs it"))
}

/// The files with a problem, in order.
///
/// A piece that fails says nothing about which of its files is wrong: where one of them is
/// missing or has the wrong size, that is enough to explain it, and the others are not blamed.
fn problems(info: &Info, dir: &Path, ok: &[bool], hashed: &Hashed) -> BTreeMap<usize, Problem> {
    let layout = &info.layout;
    let mut found = BTreeMap::new();
    let mut explained = BTreeSet::new();
    for n in shown_files(layout) {
        let unread = hashed.faults.contains_key(&n);
        let problem = layout
            .files()
            .get(n)
            .and_then(|file| plain_problem(file, &dir.join(&file.path), unread));
        if let Some(problem) = problem {
            found.insert(n, problem);
            explained.extend(layout.pieces_of(n));
        }
    }
    let failed = |p: &u32| !ok.get(*p as usize).copied().unwrap_or(false);
    for n in shown_files(layout) {
        let blamed = layout
            .pieces_of(n)
            .any(|p| failed(&p) && !explained.contains(&p));
        if blamed {
            found.entry(n).or_insert(Problem::Content);
        }
    }
    found
}

/// Bytes of file number `n` in pieces that failed.
fn bad_bytes(layout: &Layout, n: usize, ok: &[bool]) -> u64 {
    layout
        .pieces_of(n)
        .filter(|p| !ok.get(*p as usize).copied().unwrap_or(false))
        .flat_map(|p| layout.piece_spans(p))
        .filter(|s| s.file == n)
        .map(|s| s.len)
        .sum()
}

/// What is wrong with `file` without looking at its bytes.
fn plain_problem(file: &FileEntry, path: &Path, unread: bool) -> Option<Problem> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Some(Problem::Missing);
    };
    if let Some(target) = &file.attr.symlink {
        let link = fs::read_link(path).ok();
        let same = link.is_some_and(|l| l == Path::new(&file.path.link_to(target)))
            || leads_to(path, &file.path, target);
        return (!same).then_some(Problem::Link);
    }
    // A link where a file should be is as good as what it leads to.
    let meta = fs::metadata(path).unwrap_or(meta);
    if !meta.is_file() {
        Some(Problem::Unreadable)
    } else if meta.len() != file.len {
        Some(Problem::Size { found: meta.len() })
    } else {
        unread.then_some(Problem::Unreadable)
    }
}

/// Whether the link at `disk` ends where one to `target` would, though written otherwise.
fn leads_to(disk: &Path, from: &SafePath, target: &SafePath) -> bool {
    let depth = from.components().count();
    let root = disk.ancestors().nth(depth);
    let expected = root.map(|root| fs::canonicalize(root.join(target)));
    matches!((fs::canonicalize(disk), expected), (Ok(a), Some(Ok(b))) if a == b)
}
