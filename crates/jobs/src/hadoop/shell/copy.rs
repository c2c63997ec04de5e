//! Bytes that move: `put`, `get`, `cat`, `cp`, `mv` and what is like them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::super::store::Location;
use super::list::inside;
use super::{Call, Trouble};
use crate::input::Compression;

/// What `head` and `tail` show, in bytes.
const END_BYTES: u64 = 1024;

pub(super) fn cat(call: &mut Call<'_>, input: &mut dyn Read) -> Result<(), Trouble> {
    let unpack = call.name == "text";
    if call.paths.iter().all(|path| path == "-") {
        io::copy(input, call.out).map_err(Trouble::Output)?;
        return Ok(());
    }
    call.each(|call, place| {
        let mut source = open(place)?;
        if unpack {
            let packed = Compression::of(place.name());
            let file = open(place)?;
            source = packed.unpack(file).map_err(|e| Trouble::io(place, &e))?;
        }
        pour(place, &mut source, call.out)
    })
}

/// Copies, telling apart which end failed.
fn pour(place: &Location, from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Trouble> {
    let mut chunk = vec![0; 256 << 10];
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Trouble::io(place, &e)),
        };
        let bytes = chunk.get(..n).unwrap_or_default();
        to.write_all(bytes).map_err(Trouble::Output)?;
    }
}

fn open(place: &Location) -> Result<Box<dyn Read + Send>, Trouble> {
    let file = File::open(&place.real).map_err(|e| Trouble::io(place, &e))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(Trouble::path(place, "Is a directory"));
    }
    Ok(Box::new(file))
}

pub(super) fn end(call: &mut Call<'_>) -> Result<(), Trouble> {
    let first = call.name == "head";
    call.each(|call, place| {
        drop(open(place)?);
        let from = if first {
            SeekFrom::Start(0)
        } else {
            SeekFrom::End(0)
        };
        let part = || {
            let mut file = File::open(&place.real)?;
            let len = file.seek(from)?;
            file.seek(SeekFrom::Start(len.saturating_sub(END_BYTES)))?;
            Ok(file.take(END_BYTES))
        };
        let mut part = part().map_err(|e| Trouble::io(place, &e))?;
        pour(place, &mut part, call.out)
    })
}

/// The last path, which everything goes to, and the others.
fn target(call: &mut Call<'_>) -> Result<String, Trouble> {
    let last = call.paths.pop();
    last.filter(|_| !call.paths.is_empty())
        .ok_or_else(|| Trouble::Usage("Not enough arguments: from where, and where to".to_owned()))
}

/// Where something called `name` goes: into `to` if that is a folder, else to that very name.
fn place_in(to: &Location, name: &str, many: bool) -> Result<Location, Trouble> {
    if to.real.is_dir() {
        return Ok(to.child(name));
    }
    if many {
        return Err(Trouble::path(to, "Is not a directory"));
    }
    if !to.real.parent().is_some_and(Path::is_dir) {
        return Err(Trouble::path(
            to,
            "No such file or directory: its folder is missing",
        ));
    }
    Ok(to.clone())
}

/// Copies a file or a folder with all in it. A file is written beside its place and renamed, so
/// that nobody sees half of it.
fn copy(from: &Location, to: &Location, force: bool) -> Result<(), Trouble> {
    if from.real.is_dir() {
        if to.real.starts_with(&from.real) {
            return Err(Trouble::path(to, "Is within what is copied"));
        }
        match fs::create_dir(&to.real) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && to.real.is_dir() => {}
            made => made.map_err(|e| Trouble::io(to, &e))?,
        }
        return inside(from)?
            .iter()
            .try_for_each(|child| copy(child, &to.child(child.name()), force));
    }
    let mut source = open(from)?;
    write(to, force, &mut |file| pour(from, &mut source, file))
}

/// Writes a file whole or not at all.
fn write(
    to: &Location,
    force: bool,
    fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let there = to.real.symlink_metadata();
    if there.as_ref().is_ok_and(fs::Metadata::is_dir) {
        return Err(Trouble::path(to, "Is a directory"));
    }
    if there.is_ok() && !force {
        return Err(Trouble::path(to, "File exists"));
    }
    let draft = draft(&to.real);
    let made = File::create_new(&draft).map_err(|e| Trouble::io(to, &e));
    let done = made.and_then(|mut file| {
        fill(&mut file).map_err(|e| match e {
            // Not the reader of our output, but the file that is written.
            Trouble::Output(e) => Trouble::io(to, &e),
            other => other,
        })?;
        fs::rename(&draft, &to.real).map_err(|e| Trouble::io(to, &e))
    });
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done
}

/// A name beside `path` that no input takes for a file.
fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}._COPYING_", std::process::id()))
}

pub(super) fn put(call: &mut Call<'_>, input: &mut dyn Read) -> Result<(), Trouble> {
    let force = call.has("-f");
    let to = target(call)?;
    let to = call.store.locate(&to)?;
    let many = call.paths.len() > 1;
    for path in call.paths.clone() {
        let done = if path == "-" {
            write(&to, force, &mut |file| pour(&to, input, file))
        } else {
            Location::local(&path)
                .map_err(Trouble::from)
                .and_then(|from| {
                    from.real.metadata().map_err(|e| Trouble::io(&from, &e))?;
                    let place = place_in(&to, from.name(), many)?;
                    copy(&from, &place, force)?;
                    if call.name == "moveFromLocal" {
                        remove(&from)?;
                    }
                    Ok(())
                })
        };
        if let Err(e) = done {
            call.fail(&e);
        }
    }
    Ok(())
}

pub(super) fn append(call: &mut Call<'_>, input: &mut dyn Read) -> Result<(), Trouble> {
    let to = target(call)?;
    let to = call.store.locate(&to)?;
    let opened = File::options().create(true).append(true).open(&to.real);
    let mut file = opened.map_err(|e| Trouble::io(&to, &e))?;
    for path in call.paths.clone() {
        if path == "-" {
            pour(&to, input, &mut file)?;
        } else {
            let from = Location::local(&path)?;
            pour(&from, &mut open(&from)?, &mut file)?;
        }
    }
    Ok(())
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), Trouble> {
    let force = call.has("-f");
    let to = Location::local(&target(call)?)?;
    let many = call.paths.len() > 1;
    call.each(|_, from| {
        let place = place_in(&to, from.name(), many)?;
        copy(from, &place, force)
    })
}

pub(super) fn merge(call: &mut Call<'_>) -> Result<(), Trouble> {
    let newline = call.has("-nl");
    let to = Location::local(&target(call)?)?;
    let opened = File::create(&to.real);
    let mut file = opened.map_err(|e| Trouble::io(&to, &e))?;
    call.each(|_, place| {
        let of = if place.real.is_dir() {
            inside(place)?
        } else {
            vec![place.clone()]
        };
        let files = of.iter().filter(|p| p.real.is_file());
        for from in files.filter(|p| !p.name().starts_with(['_', '.'])) {
            pour(from, &mut open(from)?, &mut file)?;
            if newline {
                file.write_all(b"\n").map_err(|e| Trouble::io(&to, &e))?;
            }
        }
        Ok(())
    })
}

pub(super) fn cp(call: &mut Call<'_>) -> Result<(), Trouble> {
    let force = call.has("-f");
    let to = target(call)?;
    let to = call.store.locate(&to)?;
    let many = call.paths.len() > 1;
    call.each(|_, from| {
        let place = place_in(&to, from.name(), many)?;
        copy(from, &place, force)
    })
}

pub(super) fn mv(call: &mut Call<'_>) -> Result<(), Trouble> {
    let to = target(call)?;
    let to = call.store.locate(&to)?;
    let many = call.paths.len() > 1;
    call.each(|_, from| {
        let place = place_in(&to, from.name(), many)?;
        if from.is_root() || place.real.starts_with(&from.real) {
            return Err(Trouble::path(from, "cannot be moved into itself"));
        }
        if place.real.symlink_metadata().is_ok() {
            return Err(Trouble::path(&place, "File exists"));
        }
        match fs::rename(&from.real, &place.real) {
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                copy(from, &place, false)?;
                remove(from)
            }
            moved => moved.map_err(|e| Trouble::io(from, &e)),
        }
    })
}

fn remove(place: &Location) -> Result<(), Trouble> {
    let folder = place.real.symlink_metadata().is_ok_and(|m| m.is_dir());
    let removed = if folder {
        fs::remove_dir_all(&place.real)
    } else {
        fs::remove_file(&place.real)
    };
    removed.map_err(|e| Trouble::io(place, &e))
}
