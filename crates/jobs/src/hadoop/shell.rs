//! `hadoop fs`: the commands on files that Hadoop's shell has.

mod copy;
mod list;

use std::fs;
use std::io::{self, Write};

use super::store::{JobStore, Location, StoreError};

/// Why a command fails on one of its paths.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{0}': {1}")]
    Path(String, String),
    /// The reader of the output went away.
    #[error("output: {0}")]
    Output(io::Error),
    /// The command is written wrongly.
    #[error("{0}")]
    Usage(String),
}

impl Trouble {
    fn io(place: &Location, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "No such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "Permission denied".to_owned(),
            io::ErrorKind::AlreadyExists => "File exists".to_owned(),
            io::ErrorKind::NotADirectory => "Is not a directory".to_owned(),
            _ => error.to_string(),
        };
        Self::Path(place.shown(), why)
    }

    fn path(place: &Location, why: &str) -> Self {
        Self::Path(place.shown(), why.to_owned())
    }
}

/// Commands: name, arguments, what they do.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("ls", "[-R] [-d] [-h] [-C] PATH ...", "list"),
    ("lsr", "PATH ...", "list with all below (ls -R)"),
    ("mkdir", "[-p] PATH ...", "make folders"),
    (
        "put",
        "[-f] LOCAL ... PATH",
        "copy from this machine; LOCAL - is standard input",
    ),
    ("copyFromLocal", "[-f] LOCAL ... PATH", "the same"),
    (
        "moveFromLocal",
        "LOCAL ... PATH",
        "the same, and remove what was copied",
    ),
    (
        "appendToFile",
        "LOCAL ... PATH",
        "append files of this machine",
    ),
    ("get", "[-f] PATH ... LOCAL", "copy to this machine"),
    ("copyToLocal", "[-f] PATH ... LOCAL", "the same"),
    (
        "getmerge",
        "[-nl] PATH ... LOCAL",
        "join files into one of this machine",
    ),
    ("cat", "PATH ...", "write to standard output"),
    (
        "text",
        "PATH ...",
        "the same, unpacked (.gz .bz2 .zst .lz4)",
    ),
    ("head", "PATH", "the first KiB"),
    ("tail", "PATH", "the last KiB"),
    (
        "rm",
        "[-f] [-r|-R] [-skipTrash] PATH ...",
        "remove; there is no trash",
    ),
    (
        "rmr",
        "[-skipTrash] PATH ...",
        "remove with all below (rm -r)",
    ),
    ("rmdir", "PATH ...", "remove empty folders"),
    ("mv", "PATH ... PATH", "move within the store"),
    ("cp", "[-f] PATH ... PATH", "copy within the store"),
    ("du", "[-s] [-h] PATH ...", "bytes of files and folders"),
    ("dus", "PATH ...", "bytes in all (du -s)"),
    ("count", "[-h] PATH ...", "folders, files, bytes, path"),
    (
        "stat",
        "[FORMAT] PATH ...",
        "about a path: %b %F %n %o %r %u %g %y %Y",
    ),
    (
        "test",
        "-d|-e|-f|-s|-w|-z PATH",
        "exit code 0 if it is a folder, there, a file, …",
    ),
    ("touchz", "PATH ...", "make empty files"),
    ("touch", "PATH ...", "make files that are not there"),
    ("df", "[-h] [PATH ...]", "room in the store"),
    ("help", "[COMMAND ...]", "this"),
];

/// What a command is given, and where it speaks.
struct Call<'a> {
    store: &'a JobStore,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    name: &'a str,
    flags: Vec<String>,
    paths: Vec<String>,
    failed: bool,
}

impl Call<'_> {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Says that something failed, as Hadoop's shell does: `ls: …`.
    fn fail(&mut self, trouble: &Trouble) {
        self.failed = true;
        // Nobody can be told where this fails.
        let _ = writeln!(self.err, "{}: {trouble}", self.name);
    }

    /// Prints a line.
    fn say(&mut self, line: &str) -> Result<(), Trouble> {
        writeln!(self.out, "{line}").map_err(Trouble::Output)
    }

    /// Does something for everything that each path or pattern means.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut Self, &Location) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        for path in self.paths.clone() {
            let done = match self.store.find(&path) {
                Ok(found) => found.iter().try_for_each(|place| act(self, place)),
                Err(e) => Err(e.into()),
            };
            match done {
                Err(e @ (Trouble::Output(_) | Trouble::Usage(_))) => return Err(e),
                Err(e) => self.fail(&e),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Runs one command, `words` being its name with the minus sign and what follows. Returns the exit
/// code: 0, 1 when something failed, 255 when it is no command.
pub fn run(
    store: &JobStore,
    words: &[String],
    input: &mut dyn io::Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let Some((first, rest)) = words.split_first() else {
        let _ = out.write_all(usage(&[]).as_bytes());
        return 255;
    };
    let name = first.strip_prefix('-').unwrap_or(first);
    let known = COMMANDS.iter().any(|(known, ..)| *known == name);
    if !known || !first.starts_with('-') {
        let why = if known {
            format!("{first}: Did you mean -{first}?  This command begins with a dash.")
        } else {
            format!("{first}: Unknown command; `-help' lists those that there are")
        };
        let _ = writeln!(err, "{why}");
        return 255;
    }
    // `-` alone is standard input; a number as in `-tail` is no flag either.
    let is_flag = |word: &&String| word.len() > 1 && word.starts_with('-');
    let flags: Vec<String> = rest.iter().take_while(is_flag).cloned().collect();
    let paths = rest.get(flags.len()..).unwrap_or_default().to_vec();
    let mut call = Call {
        store,
        out,
        err,
        name,
        flags,
        paths,
        failed: false,
    };
    let done = dispatch(&mut call, input).and_then(|()| call.out.flush().map_err(Trouble::Output));
    match done {
        Ok(()) if call.failed => 1,
        Ok(()) => 0,
        // Whoever read the output has what they wanted.
        Err(Trouble::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(e @ Trouble::Usage(_)) => {
            call.fail(&e);
            let text = usage(&[name.to_owned()]);
            let _ = call.err.write_all(text.as_bytes());
            255
        }
        Err(e) => {
            call.fail(&e);
            1
        }
    }
}

fn dispatch(call: &mut Call<'_>, input: &mut dyn io::Read) -> Result<(), Trouble> {
    let allowed: &[&str] = match call.name {
        "ls" => &["-R", "-d", "-h", "-C"],
        "mkdir" => &["-p"],
        "put" | "copyFromLocal" | "cp" | "get" | "copyToLocal" => {
            // How it is stored is not ours to choose; these change no byte.
            &["-f", "-p", "-l", "-d", "-ignoreCrc", "-crc"]
        }
        "getmerge" => &["-nl"],
        "cat" | "text" => &["-ignoreCrc"],
        "rm" => &["-f", "-r", "-R", "-skipTrash", "-safely"],
        "rmr" => &["-skipTrash"],
        "rmdir" => &["--ignore-fail-on-non-empty"],
        "du" => &["-s", "-h", "-v", "-x"],
        "count" => &["-h", "-q", "-v"],
        "test" => &["-d", "-e", "-f", "-s", "-w", "-r", "-z"],
        "df" => &["-h"],
        _ => &[],
    };
    if let Some(flag) = call.flags.iter().find(|f| !allowed.contains(&f.as_str())) {
        return Err(Trouble::Usage(format!("Illegal option {flag}")));
    }
    if call.paths.is_empty() && !matches!(call.name, "ls" | "lsr" | "help" | "df" | "du") {
        return Err(Trouble::Usage("Not enough arguments".to_owned()));
    }
    match call.name {
        "ls" | "lsr" => list::ls(call),
        "du" | "dus" => list::du(call),
        "count" => list::count(call),
        "stat" => list::stat(call),
        "df" => list::df(call),
        "test" => test(call),
        "mkdir" => mkdir(call),
        "touchz" | "touch" => touch(call),
        "rm" | "rmr" => rm(call),
        "rmdir" => {
            call.each(|_, place| fs::remove_dir(&place.real).map_err(|e| Trouble::io(place, &e)))
        }
        "cat" | "text" => copy::cat(call, input),
        "head" | "tail" => copy::end(call),
        "put" | "copyFromLocal" | "moveFromLocal" => copy::put(call, input),
        "appendToFile" => copy::append(call, input),
        "get" | "copyToLocal" => copy::get(call),
        "getmerge" => copy::merge(call),
        "mv" => copy::mv(call),
        "cp" => copy::cp(call),
        _ => {
            let text = usage(&call.paths);
            call.out.write_all(text.as_bytes()).map_err(Trouble::Output)
        }
    }
}

fn usage(names: &[String]) -> String {
    let wanted =
        |name: &str| names.is_empty() || names.iter().any(|n| n.trim_start_matches('-') == name);
    let mut text = "Usage: hadoop fs [generic options]\n".to_owned();
    for (name, arguments, does) in COMMANDS.iter().filter(|(name, ..)| wanted(name)) {
        text.push_str(&format!(
            "  -{:<54} {does}\n",
            format!("{name} {arguments}")
        ));
    }
    text
}

fn mkdir(call: &mut Call<'_>) -> Result<(), Trouble> {
    let parents = call.has("-p");
    for path in call.paths.clone() {
        let made = call
            .store
            .locate(&path)
            .map_err(Trouble::from)
            .and_then(|place| {
                let made = if parents {
                    fs::create_dir_all(&place.real)
                } else {
                    fs::create_dir(&place.real)
                };
                made.map_err(|e| Trouble::io(&place, &e))
            });
        if let Err(e) = made {
            call.fail(&e);
        }
    }
    Ok(())
}

fn touch(call: &mut Call<'_>) -> Result<(), Trouble> {
    let zero = call.name == "touchz";
    for path in call.paths.clone() {
        let made = call
            .store
            .locate(&path)
            .map_err(Trouble::from)
            .and_then(|place| {
                match place.real.metadata() {
                    Ok(meta) if meta.is_dir() => {
                        return Err(Trouble::path(&place, "Is a directory"));
                    }
                    Ok(meta) if zero && meta.len() > 0 => {
                        return Err(Trouble::path(&place, "Not a zero-length file"));
                    }
                    _ => {}
                }
                let open = fs::File::options()
                    .create(true)
                    .append(true)
                    .open(&place.real);
                open.map(drop).map_err(|e| Trouble::io(&place, &e))
            });
        if let Err(e) = made {
            call.fail(&e);
        }
    }
    Ok(())
}

fn rm(call: &mut Call<'_>) -> Result<(), Trouble> {
    let deep = call.name == "rmr" || call.has("-r") || call.has("-R");
    let force = call.has("-f");
    for path in call.paths.clone() {
        let found = match call.store.find(&path) {
            Ok(found) => found,
            Err(StoreError::Missing(_)) if force => continue,
            Err(e) => {
                call.fail(&e.into());
                continue;
            }
        };
        for place in found {
            let folder = place.real.symlink_metadata().is_ok_and(|m| m.is_dir());
            let removed = if place.is_root() {
                Err(Trouble::path(&place, "the root stays"))
            } else if folder && !deep {
                Err(Trouble::path(&place, "Is a directory"))
            } else if folder {
                fs::remove_dir_all(&place.real).map_err(|e| Trouble::io(&place, &e))
            } else {
                fs::remove_file(&place.real).map_err(|e| Trouble::io(&place, &e))
            };
            match removed {
                Ok(()) => call.say(&format!("Deleted {}", place.shown()))?,
                Err(e) => call.fail(&e),
            }
        }
    }
    Ok(())
}

fn test(call: &mut Call<'_>) -> Result<(), Trouble> {
    let (flags, paths) = (call.flags.clone(), call.paths.clone());
    let ([flag], [path]) = (flags.as_slice(), paths.as_slice()) else {
        return Err(Trouble::Usage(
            "one flag and one path are needed".to_owned(),
        ));
    };
    let found = call.store.find(path).ok().and_then(|found| {
        let place = found.into_iter().next()?;
        place.real.metadata().ok()
    });
    let holds = found.is_some_and(|meta| match flag.as_str() {
        "-d" => meta.is_dir(),
        "-f" => meta.is_file(),
        "-s" => meta.is_dir() || meta.len() > 0,
        "-z" => meta.is_file() && meta.len() == 0,
        "-w" => !meta.permissions().readonly(),
        _ => true,
    });
    call.failed = !holds;
    Ok(())
}

#[cfg(test)]
mod tests;
