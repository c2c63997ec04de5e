//! The working directory of an attempt: its side files are linked there, its archives unpacked.

use crate::code::{Attempt, failed};
use shoal_mapreduce::code::CodeError;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// Makes the working directory of a process, named after what it is.
pub(super) fn make(attempt: &Attempt, name: &str) -> Result<PathBuf, CodeError> {
    let dir = attempt.dir.join(name);
    let made = match fs::create_dir(&dir) {
        // A mapper that starts anew for the next file goes on where the last one worked.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(dir),
        made => made,
    };
    made.map_err(|e| {
        failed(format!(
            "cannot make the working directory {}: {e}",
            dir.display()
        ))
    })?;
    for (file, source) in attempt.spec.side_files.iter().zip(&attempt.side_files) {
        let place = within(&dir, &file.name)?;
        let placed = if file.archive {
            unpack(source, &file.source, &place)
        } else {
            // Relative paths are the submitter's, not the process's.
            std::path::absolute(source).and_then(|source| symlink(source, &place))
        };
        placed.map_err(|e| {
            failed(format!(
                "cannot put the side file {:?} ({}) into the working directory: {e}",
                file.name, file.source
            ))
        })?;
    }
    Ok(dir)
}

/// The place of a side file; its name is one component, or several that stay below `dir`.
fn within(dir: &Path, name: &str) -> Result<PathBuf, CodeError> {
    let plain = !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if plain && !name.contains('/') {
        Ok(dir.join(name))
    } else {
        Err(failed(format!(
            "the side file's name {name:?} is not a plain file name"
        )))
    }
}

/// The program that a command names: found in the working directory first, as Hadoop does, then
/// along `PATH` by whoever starts it. A side file that lacks the permission to be executed is
/// replaced by a copy that has it.
pub(super) fn program(dir: &Path, name: &str) -> Result<PathBuf, CodeError> {
    let given = Path::new(name);
    let local = dir.join(given);
    let (true, Ok(meta)) = (given.is_relative(), fs::metadata(&local)) else {
        return Ok(given.to_owned());
    };
    if !meta.is_file() {
        return Ok(given.to_owned());
    }
    let executable = |meta: &fs::Metadata| meta.mode() & 0o111 != 0;
    if !executable(&meta) {
        let copied = || -> io::Result<()> {
            let bytes = fs::read(&local)?;
            fs::remove_file(&local)?;
            fs::write(&local, bytes)?;
            fs::set_permissions(&local, fs::Permissions::from_mode(0o755))
        };
        copied().map_err(|e| failed(format!("cannot make {name:?} executable: {e}")))?;
    }
    Ok(local)
}

/// Unpacks `.tar`, `.tar.gz`, `.tgz`, `.zip` or `.jar`, known by the name it had. Nothing is written
/// outside `place`.
fn unpack(source: &Path, name: &str, place: &Path) -> io::Result<()> {
    fs::create_dir(place)?;
    let file = BufReader::new(File::open(source)?);
    let name = name.split('#').next().unwrap_or(name).to_ascii_lowercase();
    if name.ends_with(".zip") || name.ends_with(".jar") {
        let mut archive = zip::ZipArchive::new(file).map_err(io::Error::other)?;
        archive.extract(place).map_err(io::Error::other)
    } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        untar(flate2::bufread::MultiGzDecoder::new(file), place)
    } else if name.ends_with(".tar") {
        untar(file, place)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "archives are known by .tar, .tar.gz, .tgz, .zip or .jar at the end of their name",
        ))
    }
}

fn untar(bytes: impl Read, place: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(bytes);
    archive.set_preserve_mtime(false);
    archive.unpack(place)
}
