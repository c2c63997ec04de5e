//! Jobs on strangers' machines: real workers of different keys, one of them a liar.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use shoal_jobs::engine::outputs::Outputs;
use shoal_jobs::engine::worker::{WorkerNews, WorkerSetup, WorkerThread};
use shoal_jobs::input::{ContentSource, InputError, InputFile, Inputs};
use shoal_jobs::net::auth::{self, Door, Pass, Role};
use shoal_jobs::net::control::{Listener, TcpConnector};
use shoal_jobs::net::data::{DataClient, FromMaster, serve_worker};
use shoal_jobs::net::identity::Identity;
use shoal_jobs::side::SideFiles;
use shoal_mapreduce::worker::WorkerConfig;

use crate::content_job::output;
use crate::process::{Running, World};

/// Each line as a key, counted once.
const EACH_LINE: &str = r#"(module
    (import "shoal" "emit" (func $emit (param i32 i32)))
    (memory (export "memory") 16)
    (func (export "shoal_abi") (result i32) (i32.const 1))
    (func (export "shoal_input") (param i32) (result i32) (i32.const 1024))
    (func (export "shoal_map") (param $at i32) (param $len i32) (param $offset i64)
        (local $end i32) (local $p i32)
        (local.set $p (local.get $at))
        (local.set $end (i32.add (local.get $at) (local.get $len)))
        (block $done (loop $next
            (br_if $done (i32.ge_u (local.get $p) (local.get $end)))
            (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 10)) (then
                (i32.store8 (local.get $p) (i32.const 49))
                (i32.store (i32.sub (local.get $at) (i32.const 8))
                    (i32.sub (local.get $p) (local.get $at)))
                (i32.store (i32.sub (local.get $at) (i32.const 4)) (i32.const 1))
                (call $emit (i32.sub (local.get $at) (i32.const 8))
                    (i32.add (i32.sub (local.get $p) (local.get $at)) (i32.const 9)))
                (local.set $at (i32.add (local.get $p) (i32.const 1)))))
            (local.set $p (i32.add (local.get $p) (i32.const 1)))
            (br $next)))))"#;

/// A world with a module, a job of it, and a text of one word a line in about so many splits.
fn world(splits: usize) -> (World, String) {
    let world = World::new();
    let module = wat::parse_str(EACH_LINE).expect("a module");
    fs::write(world.path("lines.wasm"), module).expect("a file");
    let mut text = String::new();
    let mut counts = BTreeMap::new();
    for n in 0..splits * 1024 / 8 {
        let word = format!("w{:06}", n * n % 997);
        text += &word;
        text.push('\n');
        *counts.entry(word).or_insert(0_u64) += 1;
    }
    fs::write(world.path("text"), text).expect("a file");
    let job = "inputs = [\"text\"]\noutput = \"out\"\nmapper = { wasm = \"lines.wasm\" }\n\
               reducer = { builtin = \"wordcount\" }\nreduces = 1\n";
    fs::write(world.path("job.toml"), job).expect("a file");
    let lines = counts.iter().map(|(word, n)| format!("{word}\t{n}\n"));
    let expected = lines.collect();
    (world, expected)
}

/// A master that takes strangers: it, where ours reach it, where strangers do.
fn master(world: &World) -> (Running, String, String) {
    let args = ["serve", "master", "--strangers", "--dir", "jobs"];
    let mut master = world.start(&[&args[..], &["--listen", "127.0.0.1:0"]].concat());
    let addr = master.addr();
    let told = master.event("takes_strangers")["master"].clone();
    (master, addr, told.as_str().expect("an address").to_owned())
}

fn stranger(world: &World, master: &str, name: &str) -> Running {
    let key = format!("{name}.key");
    let args = ["worker", "--stranger", "--master", master, "--key", &key];
    let mut worker = world.start(&[&args[..], &["--slots", "1"]].concat());
    worker.event("worker_connected");
    worker
}

/// A worker process that lies, killed when dropped.
struct Liar(Child);

impl Liar {
    /// Starts this very program again as a liar, and waits until the master knows it.
    fn start(world: &World, master: &str) -> Self {
        let this = std::env::current_exe().expect("a path");
        let mut child = Command::new(this)
            .args(["--ignored", "--exact", "--nocapture", "strangers::liar"])
            .env("SHOAL_TEST_MASTER", master)
            .env("SHOAL_TEST_DIR", world.path("liar"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = out.lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "the liar is known"), "it ended");
        Self(child)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// For who started this process, or reads how a test went.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("somebody listens");
}

/// Input with each 1 read as 2.
struct Lying(FromMaster);

impl ContentSource for Lying {
    fn takes(&self, what: &str) -> bool {
        self.0.takes(what)
    }

    fn expand(&self, what: &str) -> Result<Vec<InputFile>, InputError> {
        self.0.expand(what)
    }

    fn open(&self, name: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError> {
        Ok(Box::new(Changed(self.0.open(name, from, bytes)?)))
    }
}

struct Changed(Box<dyn Read + Send>);

impl Read for Changed {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buf)?;
        let ones = buf[..n].iter_mut().filter(|b| **b == b'1');
        ones.for_each(|b| *b = b'2');
        Ok(n)
    }
}

/// A worker that does all that a worker does, but with other input than it was given. The other
/// tests start it as a process of its own.
// No test of its own, and right to be left out of a run: this binary is the one place where a worker that
// lies can be built without putting lies into the program.
#[test]
#[ignore = "is started by other tests"]
fn liar() {
    let master = std::env::var("SHOAL_TEST_MASTER").expect("where the master is");
    let dir = std::path::PathBuf::from(std::env::var_os("SHOAL_TEST_DIR").expect("a folder"));
    fs::create_dir_all(&dir).expect("a folder");
    let identity = Identity::fresh();
    let pass = Pass::stranger(identity.clone());
    let outputs = Outputs::default();
    let served = outputs.clone();
    let door = Door::strangers(identity);
    let any = "127.0.0.1:0".parse().expect("an address");
    let listener = Listener::start(any, door, move |stream, _, role, owner| {
        if role == Role::Data {
            serve_worker(stream, owner, &served);
        }
    })
    .expect("it listens");
    let client = DataClient::new(pass.clone());
    let from_master = FromMaster {
        client: client.clone(),
        master: master.clone(),
        all: true,
    };
    let (sender, news) = crossbeam_channel::unbounded();
    let mut config = WorkerConfig::new(1, "honest", listener.addr().to_string());
    config.sandbox_only = true;
    let side: Box<FromMaster> = Box::new(from_master.clone());
    let _worker = WorkerThread::start(WorkerSetup {
        config,
        inputs: Inputs::default().with(Arc::new(Lying(from_master))),
        connector: Box::new(TcpConnector { master, pass }),
        fetcher: Arc::new(client),
        side: Arc::new(SideFiles::new(dir.join("side"), Some(side))),
        logs: dir.join("logs"),
        dir,
        outputs,
        news: Some(sender),
    })
    .expect("it starts");
    for event in news {
        if let WorkerNews::Welcome(_) = event {
            say("\nthe liar is known");
        }
    }
}

fn run(world: &World, master: &str, out: &str) {
    let args = ["run", "job.toml", "--master", master, "--output", out];
    world
        .run(&[&args[..], &["--split-size", "1KiB"]].concat())
        .expect(0);
}

#[test]
fn a_liar_is_found_and_checking_those_who_are_trusted_costs_little() {
    let (world, expected) = world(150);
    let (mut master, ours, theirs) = master(&world);
    let liar = Liar::start(&world, &theirs);
    let names = ["one", "two", "three"];
    let mut workers: Vec<_> = names.map(|n| stranger(&world, &theirs, n)).into();
    run(&world, &ours, "out");
    assert!(output(&world.path("out")) == expected);
    master.wait_for("a verdict", |event| {
        let text = event["text"].as_str().unwrap_or_default();
        text.starts_with("stranger ") && text.contains(" lied")
    });
    drop(liar);
    // What the others did right counts for them from now on.
    for again in 0..2 {
        let out = format!("out-{again}");
        run(&world, &ours, &out);
        assert!(output(&world.path(&out)) == expected);
    }
    let (mut attempts, tasks) = (0, 2 * 151);
    for worker in workers.drain(..) {
        worker.signal(rustix::process::Signal::INT);
        let (_, events, _) = worker.end();
        let later = events.iter().filter_map(|e| match e["event"].as_str() {
            Some("attempt_started") => e["attempt"].as_str(),
            _ => None,
        });
        attempts += later.filter(|a| !a.starts_with("attempt_0001")).count();
    }
    say(&format!("{attempts} attempts for {tasks} tasks"));
    assert!(
        attempts >= tasks && attempts * 10 <= tasks * 11,
        "{attempts}"
    );
}

#[test]
fn strangers_get_no_commands_and_nonsense_harms_only_who_says_it() {
    let (world, expected) = world(4);
    let (mut master, ours, theirs) = master(&world);
    let _workers = ["one", "two"].map(|n| stranger(&world, &theirs, n));
    let args = ["run", "--mapper", "cut -f1", "--input", "text"];
    let ran = world.run(&[&args[..], &["--output", "no", "--master", &ours]].concat());
    ran.expect(5)
        .says("cut -f1")
        .says("WebAssembly modules and built-in jobs only");
    assert!(!world.path("no").exists());
    // Neither may a stranger submit jobs, nor see files that no job of its kind names.
    let pass = Pass::stranger(Identity::fresh());
    assert!(auth::connect(&theirs, Role::Client, &pass).is_err());
    for nonsense in [&[0xff; 64][..], &[5, 0, 0, 0, 1, 1, 1, 1, 1], &[0; 16]] {
        for role in [Role::Control, Role::Data] {
            let mut line = auth::connect(&theirs, role, &pass).expect("let in");
            line.write_all(nonsense).expect("sent");
            let mut answer = Vec::new();
            // An end or a reset, but no answer.
            let _ = line.read_to_end(&mut answer);
            assert!(answer.is_empty(), "{answer:?}");
        }
    }
    run(&world, &ours, "out");
    assert!(output(&world.path("out")) == expected);
    // The master goes on with the same key and what it knows.
    master.kill();
    drop(master);
    let port = ours.as_str();
    let args = [
        "serve",
        "master",
        "--strangers",
        "--dir",
        "jobs",
        "--listen",
        port,
    ];
    let mut again = world.start(&args);
    assert_eq!(again.event("takes_strangers")["master"], theirs.as_str());
}
