//! `shoal hadoop`: Hadoop's command line, also when shoal is called by a name of Hadoop's programs.

mod jar;
mod setup;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use shoal_jobs::engine::attempt::chain;
use shoal_jobs::hadoop::shell;
use shoal_jobs::hadoop::store::{JobStore, StoreError};

/// The version whose command line this is: programs look whether it is at least 2.
const VERSION: &str = "3.3.6";
/// Names under which shoal is all this.
const NAMES: &[&str] = &["hadoop", "hdfs", "mapred", "yarn"];

/// Whether the program was called by a name of Hadoop's.
pub(crate) fn is_name(program: Option<&OsString>) -> bool {
    let name = program.map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// Runs a command line of Hadoop's, without the program's name; returns the exit code.
pub(crate) fn run(words: Vec<OsString>) -> u8 {
    let mut err = io::stderr().lock();
    let mut texts = Vec::with_capacity(words.len());
    for word in words {
        match word.into_string() {
            Ok(text) => texts.push(text),
            Err(word) => {
                let _ = writeln!(err, "hadoop: the argument {word:?} is not text (UTF-8)");
                return 255;
            }
        }
    }
    drop(err);
    let Some((command, rest)) = texts.split_first() else {
        say(&usage());
        return 1;
    };
    match command.as_str() {
        "version" | "-version" | "--version" => {
            say(&format!(
                "Hadoop {VERSION}\nThe command line of Hadoop, run by shoal {}\n",
                env!("CARGO_PKG_VERSION")
            ));
            0
        }
        "fs" | "dfs" => fs(rest),
        "jar" => jar::jar(rest),
        "streaming" => jar::streaming(rest),
        "setup" => setup::setup(rest),
        // There are no classes; programs that ask get a path on which nothing is.
        "classpath" => {
            say("\n");
            0
        }
        "help" | "-help" | "--help" | "-h" => {
            say(&usage());
            0
        }
        other => {
            complain(&format!(
                "hadoop: there is no command {other:?} here\n\
                 hint: version, fs, jar and streaming work; `hadoop help` says more\n"
            ));
            1
        }
    }
}

fn usage() -> String {
    format!(
        "Usage: hadoop COMMAND

Hadoop {VERSION}'s command line, run by shoal on this machine.

  version                  print the version
  fs -COMMAND …            files of the job store (fs -help lists them); also: hdfs dfs
  jar hadoop-streaming.jar …   run a Streaming job (-help lists the options); also: mapred streaming
  setup DIR                make DIR a HADOOP_HOME in which the programs are links to shoal
"
    )
}

/// Prints a result. A reader that has gone is no error.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The user's folder for what programs keep: `$SHOAL_HADOOP_DIR` if given, else by the XDG rules.
fn store_dir() -> PathBuf {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = var("SHOAL_HADOOP_DIR") {
        return dir;
    }
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    match (
        var("XDG_DATA_HOME").and_then(absolute),
        var("HOME").and_then(absolute),
    ) {
        (Some(data), _) => data.join("shoal/hadoop"),
        (None, Some(home)) => home.join(".local/share/shoal/hadoop"),
        (None, None) => PathBuf::from(".shoal/hadoop"),
    }
}

/// Whose relative paths are meant.
fn user() -> String {
    for name in ["HADOOP_USER_NAME", "LOGNAME", "USER"] {
        if let Ok(user) = std::env::var(name)
            && !user.is_empty()
        {
            return user;
        }
    }
    // A service, most likely.
    let uid = geteuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}

fn store() -> Result<JobStore, StoreError> {
    JobStore::open(&store_dir(), &user())
}

/// `fs`, with generic options before the command.
fn fs(words: &[String]) -> u8 {
    let mut store = match store() {
        Ok(store) => store,
        Err(e) => {
            complain(&format!("fs: {}\n", chain(&e)));
            return 1;
        }
    };
    let mut words = words;
    loop {
        match words {
            [option, value, rest @ ..] if option == "-fs" => {
                if let Err(e) = store.set_default(value) {
                    complain(&format!("fs: {e}\n"));
                    return 1;
                }
                words = rest;
            }
            [option, value, rest @ ..] if option == "-D" || option == "-conf" => {
                if let Some(fs) = value.strip_prefix("fs.defaultFS=")
                    && let Err(e) = store.set_default(fs)
                {
                    complain(&format!("fs: {e}\n"));
                    return 1;
                }
                words = rest;
            }
            _ => break,
        }
    }
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    shell::run(
        &store,
        words,
        &mut io::stdin().lock(),
        &mut out,
        &mut io::stderr().lock(),
    )
}
