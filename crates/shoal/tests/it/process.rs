//! Runs `shoal` and reads what it says.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes this long, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// A folder of a test's own, with a home for state in it.
pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("home")).expect("a home");
        Self { dir }
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        // Canonical, as the program prints it.
        let root = self.dir.path().canonicalize().expect("it exists");
        root.join(below)
    }

    /// A command that runs in this folder and sees nothing of the user's settings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("the program starts");
        Ran::of(args, &output)
    }

    /// Runs to the end with `input` on stdin.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        // It may well stop reading before the end.
        let _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        Ran::of(args, &output)
    }

    /// Starts with `--json` and reads events as they come.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut args: Vec<&str> = args.to_vec();
        args.push("--json");
        Running::of(self.command(&args))
    }

    /// The same, with a stdin that [`Running::say`] writes to.
    pub(crate) fn start_listening(&self, args: &[&str]) -> Running {
        let mut args: Vec<&str> = args.to_vec();
        args.push("--json");
        let mut command = self.command(&args);
        command.stdin(Stdio::piped());
        Running::of(command)
    }

    /// The same, in a mount namespace of its own in which `small` is a disk of `bytes`. Nothing
    /// where such a thing is not allowed.
    pub(crate) fn start_on_small_disk(
        &self,
        args: &[&str],
        small: &Path,
        bytes: u64,
    ) -> Option<Running> {
        let namespace = ["--user", "--map-root-user", "--mount"];
        let mount = format!("mount -t tmpfs -o size={bytes} shoal {}", small.display());
        let tried = Command::new("unshare")
            .args(namespace)
            .args(["sh", "-c", &mount])
            .output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            return None;
        }
        let shoal = self.command(args);
        let mut command = Command::new("unshare");
        command
            .args(namespace)
            .args(["sh", "-c", &format!("{mount} && exec \"$@\""), "sh"])
            .arg(shoal.get_program())
            .args(args)
            .arg("--json")
            .current_dir(self.dir.path())
            .env("HOME", self.path("home"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        Some(Running::of(command))
    }

    /// Writes a file of `len` bytes that `seed` decides.
    pub(crate) fn file(&self, path: &str, len: usize, seed: u64) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("below the world")).expect("a folder");
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut data = Vec::with_capacity(len + 8);
        while data.len() < len {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            data.extend_from_slice(&x.to_le_bytes());
        }
        data.truncate(len);
        std::fs::write(&path, data).expect("a file");
        path
    }
}

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) raw: Vec<u8>,
}

impl Ran {
    fn of(args: &[&str], output: &Output) -> Self {
        let code = output.status.code();
        Self {
            code: code.unwrap_or_else(|| panic!("{args:?} was killed: {output:?}")),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            raw: output.stdout.clone(),
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Asserts that stderr has `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// Every line of stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(parse).collect()
    }
}

#[track_caller]
fn parse(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
    assert!(value["event"].is_string(), "no event in {line}");
    value
}

/// A program that runs; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    pub(crate) seen: Vec<Value>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("piped");
        let mut stderr = child.stderr.take().expect("piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
            errors: Some(errors),
        }
    }

    /// The next event for which `wanted` holds.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let value = parse(&line);
                    self.seen.push(value.clone());
                    if wanted(&value) {
                        return value;
                    }
                }
                Err(e) => {
                    let _ = self.child.kill();
                    let errors = self.errors.take().map(|e| e.join());
                    panic!(
                        "no {what} ({e}); seen: {:#?}; stderr: {errors:?}",
                        self.seen
                    );
                }
            }
        }
    }

    /// The next event of this name.
    #[track_caller]
    pub(crate) fn event(&mut self, name: &str) -> Value {
        self.wait_for(name, |v| v["event"] == name)
    }

    /// Where it listens.
    #[track_caller]
    pub(crate) fn addr(&mut self) -> String {
        let event = self.event("listening");
        event["addr"].as_str().expect("an address").to_owned()
    }

    /// Writes a line to its stdin.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// The next event, if one comes until then.
    pub(crate) fn next_until(&mut self, deadline: Instant) -> Option<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        let value = parse(&self.lines.recv_timeout(left).ok()?);
        self.seen.push(value.clone());
        Some(value)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it still runs");
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end; the exit status and all further events.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<Value>, String) {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(parse(&line)),
                // Its stdout is closed: it has ended or is about to.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(e) => panic!("it does not end ({e}); seen: {:#?}", self.seen),
            }
        }
        let status = self.child.wait().expect("it ends");
        let errors = self.errors.take().and_then(|e| e.join().ok());
        let seen = std::mem::take(&mut self.seen);
        (status, seen, errors.unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
