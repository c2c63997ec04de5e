//! Makes a torrent of files on disk: scans, hashes, encodes. For `share` and `torrent create`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shoal_content::create::{self, CreateError, CreateOptions, NewFile};
use shoal_content::{Layout, Magnet, Metainfo, PathError, SafePath};

use crate::cli::MakeArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::hashing::{Hashed, OnFault, hash_pieces};
use crate::known_pieces;
use crate::report::Report;
use crate::scan::{Oddity, Scan, ScanError, scan};
use crate::signals::Interrupt;
use crate::ui::{Step, Ui};
use crate::units::{Rate, Size, Span, count};

/// How many odd files are named one by one.
const NAMED: usize = 10;

/// What is to be made a torrent of.
pub(crate) struct Plan<'a> {
    given: PathBuf,
    scan: Scan,
    args: &'a MakeArgs,
}

/// A finished torrent.
pub(crate) struct Made {
    /// As others get it.
    pub(crate) metainfo: Metainfo,
    /// Where its files lie on this disk, below `dir`.
    pub(crate) layout: Arc<Layout>,
    /// The folder its file or folder lies in.
    pub(crate) dir: PathBuf,
    /// Its file or folder.
    pub(crate) path: PathBuf,
}

/// Scans `path`, names what is left out, and refuses what cannot be shared.
pub(crate) fn plan<'a>(path: &Path, args: &'a MakeArgs, ui: &Ui) -> Outcome<Plan<'a>> {
    if args.v2 || args.hybrid {
        let which = if args.v2 { "--v2" } else { "--hybrid" };
        return Err(Failure::usage(format!("{which} is not supported yet"))
            .reason("this version makes v1 torrents only")
            .hint("leave the flag out; every BitTorrent client reads v1"));
    }
    let scan = scan(path).map_err(|e| match &e {
        ScanError::Io(io) => Failure::io("share", path, io),
        _ => Failure::failed(format!("cannot share {}", path.display())).because(&e),
    })?;
    if !scan.unreadable.is_empty() {
        let n = scan.unreadable.len() as u64;
        let mut failure = Failure::failed(format!(
            "cannot share {}: {} cannot be read",
            path.display(),
            count(n, "file")
        ));
        for line in list(&scan.unreadable) {
            failure = failure.reason(line);
        }
        return Err(failure.hint("make them readable, or move them out of the folder"));
    }
    for line in list(&scan.skipped) {
        ui.warn(&format!("left out {line}"));
    }
    Ok(Plan {
        given: path.to_owned(),
        scan,
        args,
    })
}

fn list(oddities: &[Oddity]) -> impl Iterator<Item = String> + '_ {
    let more = oddities.len().saturating_sub(NAMED);
    oddities
        .iter()
        .take(NAMED)
        .map(|o| format!("{}: {}", o.path.display(), o.why))
        .chain((more > 0).then(|| format!("and {more} more")))
}

impl Plan<'_> {
    /// What the torrent is called.
    pub(crate) fn name(&self) -> &str {
        self.args.name.as_deref().unwrap_or(&self.scan.name)
    }

    /// Lays the files out, hashes and encodes. With the folder of a `library` nothing is hashed
    /// that was hashed before.
    pub(crate) fn make(
        self,
        library: Option<&Path>,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Outcome<Made> {
        let refuse = |e: CreateError| {
            let exit = match e {
                CreateError::Name(_) | CreateError::PieceLength(_) => Exit::Usage,
                _ => Exit::Failed,
            };
            Failure::new(exit, format!("cannot share {}", self.given.display())).because(&e)
        };
        let draft = self.draft().map_err(refuse)?;
        let layout = self.on_disk(draft.layout()).map_err(|e| {
            Failure::failed(format!("cannot share {}", self.given.display())).because(&e)
        })?;
        let paths: Vec<Option<PathBuf>> = layout
            .files()
            .iter()
            .map(|f| (!f.attr.pad).then(|| self.scan.parent.join(&f.path)))
            .collect();
        let looks = library.zip(known_pieces::look(&layout, &paths));
        let known = looks
            .as_ref()
            .and_then(|(library, looks)| known_pieces::find(library, looks, &layout, &paths));
        let pieces = match known {
            Some(pieces) => {
                let total = Size(layout.stored_len());
                ui.status("Known", &format!("{total} hashed before"));
                pieces
            }
            None => {
                let pieces = hash_all(&layout, &paths, interrupt, ui)?;
                self.refuse_changes()?;
                if let Some((library, looks)) = &looks {
                    known_pieces::keep(library, looks, &pieces);
                }
                pieces
            }
        };
        let mut metainfo = Metainfo::new(draft.finish(&pieces).map_err(refuse)?);
        metainfo.trackers = tiers(&self.args.trackers);
        metainfo.web_seeds = self.args.web_seeds.clone();
        metainfo.comment = self.args.comment.clone();
        metainfo.created_by = Some(concat!("shoal ", env!("CARGO_PKG_VERSION")).to_owned());
        metainfo.creation_date = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|d| d.as_secs().try_into().ok());
        Ok(Made {
            metainfo,
            layout,
            path: self.scan.parent.join(&self.scan.name),
            dir: self.scan.parent,
        })
    }

    fn draft(&self) -> Result<create::Plan, CreateError> {
        let options = CreateOptions {
            piece_len: match self.args.piece_size {
                None => None,
                Some(len) => {
                    Some(u32::try_from(len).map_err(|_| CreateError::PieceLength(u32::MAX))?)
                }
            },
            private: self.args.private,
            ..CreateOptions::default()
        };
        if !self.scan.is_folder
            && let [file] = self.scan.files.as_slice()
        {
            return create::Plan::file(self.name(), file.len, file.executable, options);
        }
        let parts = |p: &SafePath| p.components().map(str::to_owned).collect();
        let files = self.scan.files.iter().map(|f| NewFile {
            path: parts(&f.path),
            len: f.len,
            executable: f.executable,
            hidden: false,
            symlink: f.symlink.as_ref().map(parts),
        });
        create::Plan::folder(self.name(), files.collect(), options)
    }

    /// The same files where they are on this disk, whatever the torrent is called.
    fn on_disk(&self, layout: &Arc<Layout>) -> Result<Arc<Layout>, PathError> {
        if self.name() == self.scan.name {
            return Ok(Arc::clone(layout));
        }
        let rename = |path: &SafePath| {
            let parts: Vec<&str> = std::iter::once(self.scan.name.as_str())
                .chain(path.components().skip(1))
                .collect();
            SafePath::new(&parts.join("/"))
        };
        let mut files = Vec::with_capacity(layout.files().len());
        for file in layout.files() {
            let mut attr = file.attr.clone();
            attr.symlink = attr.symlink.as_ref().map(rename).transpose()?;
            files.push((rename(&file.path)?, file.len, attr));
        }
        let renamed = Layout::new(files, layout.geometry().piece_len());
        Ok(Arc::new(renamed.expect("the same lengths fit again")))
    }

    /// Stops if a file vanished or was written while it was hashed.
    fn refuse_changes(&self) -> Outcome {
        for file in self.scan.files.iter().filter(|f| f.symlink.is_none()) {
            let now = fs::metadata(&file.disk).map_err(|e| Failure::io("read", &file.disk, &e))?;
            if now.len() != file.len || now.modified().ok() != file.modified {
                return Err(Failure::failed(format!(
                    "{} changed while it was hashed",
                    file.disk.display()
                ))
                .hint("wait until nothing writes to it, then run the command again"));
            }
        }
        Ok(())
    }
}

/// Hashes every piece; a file that cannot be read stops it.
fn hash_all(
    layout: &Layout,
    paths: &[Option<PathBuf>],
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<Vec<[u8; 20]>> {
    let hashed = hash(layout, paths, OnFault::Stop, "Hashing", interrupt, ui)?;
    if let Some((file, error)) = hashed.faults.first_key_value()
        && let Some(Some(path)) = paths.get(*file)
    {
        return Err(Failure::io("read", path, error));
    }
    Ok(hashed.pieces.into_iter().flatten().collect())
}

/// Each tracker in a tier of its own (BEP 12).
pub(crate) fn tiers(trackers: &[String]) -> Vec<Vec<String>> {
    trackers.iter().map(|t| vec![t.clone()]).collect()
}

/// Hashes with a bar; ctrl-C stops it.
pub(crate) fn hash(
    layout: &Layout,
    paths: &[Option<PathBuf>],
    on_fault: OnFault,
    verb: &'static str,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<Hashed> {
    let start = Instant::now();
    let total = layout.total_len();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let rate = |done: u64| Rate((done as f64 / start.elapsed().as_secs_f64().max(0.001)) as u64);
    let hashed = hash_pieces(layout, paths, threads, on_fault, |done| {
        if ui.tick_due() {
            ui.report(&Report::Hashing {
                bytes_done: done,
                bytes_total: total,
            });
            ui.step(&Step {
                verb,
                done,
                total,
                bytes: true,
                detail: &rate(done).to_string(),
            });
            ui.ticked();
        }
        !interrupt.asked()
    });
    ui.finish_step();
    if hashed.cancelled {
        return Err(Failure::new(Exit::Interrupted, "interrupted while hashing"));
    }
    ui.status(
        if verb == "Hashing" {
            "Hashed"
        } else {
            "Verified"
        },
        &format!(
            "{} in {}, {}",
            Size(total),
            Span(start.elapsed()),
            rate(total)
        ),
    );
    Ok(hashed)
}

/// Writes `bytes` to `path` so that nobody ever sees half of them.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Outcome {
    let fail = |e: io::Error| Failure::io("write", path, &e);
    let name = path
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} names no file", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(hidden);
    let written = fs::write(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.map_err(fail)
}

/// Tells the magnet link; with `--json` as an event.
pub(crate) fn magnet_event(made: &Made, magnet: &Magnet, ui: &Ui) {
    let info = &made.metainfo.info;
    ui.report(&Report::Magnet {
        magnet: &magnet.to_string(),
        info_hash_v1: &info.info_hash().to_string(),
        name: &info.name,
        path: &made.path.to_string_lossy(),
        bytes: info.layout.stored_len(),
    });
}
