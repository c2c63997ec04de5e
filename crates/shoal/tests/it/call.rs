//! Calls by name and by key with real processes, on loopback.

use std::fs;
use std::io::{Write, stderr};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Running, World};
use crate::supernode::Overlay;

/// A tone as a WAV file: radians each sample, and how loud.
fn tone_of(seconds: u32, step: f64, loud: f64) -> Vec<u8> {
    let samples = (0..48_000 * seconds).map(|n| ((f64::from(n) * step).sin() * loud) as i16);
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let len = u32::try_from(data.len()).expect("a short file");
    let mut wav = b"RIFF".to_vec();
    wav.extend((len + 36).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(48_000u32.to_le_bytes());
    wav.extend(96_000u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(len.to_le_bytes());
    wav.extend(data);
    wav
}

fn tone(seconds: u32) -> Vec<u8> {
    tone_of(seconds, 0.05, 9000.0)
}

/// How loud a tone is in each tenth of a second (Goertzel's sum).
fn loudness(wav: &[u8], step: f64) -> Vec<f64> {
    let (samples, _) = wav.get(44..).expect("a header").as_chunks::<2>();
    let samples: Vec<f64> = samples
        .iter()
        .map(|b| f64::from(i16::from_le_bytes(*b)))
        .collect();
    let windows = samples.chunks_exact(4800).map(|window| {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in window.iter().enumerate() {
            let at = n as f64 * step;
            re += sample * at.cos();
            im += sample * at.sin();
        }
        2.0 * f64::hypot(re, im) / window.len() as f64
    });
    windows.collect()
}

/// The middle one of all: what begins, ends or is mended sounds of everything for a moment.
fn loudness_of(wav: &[u8], step: f64) -> f64 {
    let mut windows = loudness(wav, step);
    windows.sort_by(f64::total_cmp);
    *windows.get(windows.len() / 2).expect("some sound")
}

/// For how many tenths of a second a tone was heard, and how long it was not in between, the longest first.
fn gaps(wav: &[u8], step: f64) -> (usize, Vec<usize>) {
    let heard: Vec<bool> = loudness(wav, step).iter().map(|l| *l > 1000.0).collect();
    let mut gaps: Vec<_> = heard.split(|heard| *heard).map(<[bool]>::len).collect();
    // Before the first sound and after the last.
    gaps.pop();
    gaps.drain(..1.min(gaps.len()));
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    (heard.iter().filter(|heard| **heard).count(), gaps)
}

/// How loud the loudest sample of a WAV file is.
fn loudest(wav: &[u8]) -> i16 {
    let (samples, _) = wav.get(44..).expect("a header").as_chunks::<2>();
    let loud = samples
        .iter()
        .map(|b| i16::from_le_bytes(*b).saturating_abs());
    loud.max().expect("some sound")
}

struct Phones {
    overlay: Overlay,
    _supernodes: Vec<Running>,
}

impl Phones {
    /// Supernodes with relays, and a voice.
    fn new() -> Self {
        let overlay = Overlay::new();
        let relay = ["--supernode", "--keep-role", "--relay", "127.0.0.1:0"];
        let supernodes = (0..3).map(|n| overlay.node(&format!("super{n}"), &relay).run);
        let supernodes = supernodes.collect();
        fs::write(overlay.world.path("voice.wav"), tone(3)).expect("written");
        Self {
            overlay,
            _supernodes: supernodes,
        }
    }

    fn args<'a>(&'a self, what: &[&'a str], state: &'a str) -> Vec<&'a str> {
        let mut args = what.to_vec();
        args.extend(["--login", &self.overlay.at, "--state-dir", state]);
        args.extend(["--udp", "127.0.0.1:0", "--wav-in", "voice.wav"]);
        args
    }

    /// Waits for calls under a name, until the ring knows of it.
    fn answers(&self, name: &str) -> Running {
        let mut args = self.args(&["answer", "--as", name, "--stay"], name);
        args.extend(["--wav-out", "heard-there.wav"]);
        let mut run = self.overlay.world.start_listening(&args);
        run.event("reachable");
        run.event("published");
        run
    }
}

#[test]
fn people_call_each_other_by_name_and_by_key() {
    let phones = Phones::new();
    let world = &phones.overlay.world;
    let mut bob = phones.answers("bob");
    let mut args = phones.args(&["call", "BOB"], "caller");
    args.extend(["--wav-out", "heard-here.wav", "--json"]);
    let call = world.run(&args).expect(0).json();
    let one = |name: &str| {
        let found = call.iter().find(|v| v["event"] == name);
        found
            .cloned()
            .unwrap_or_else(|| panic!("no {name}: {call:?}"))
    };
    let (described, set_up) = (one("call_described"), one("call_set_up"));
    assert_eq!(bob.event("call_described")["digits"], described["digits"]);
    assert_eq!(one("call_way")["direct"], true);
    let ms = |name: &str| set_up[name].as_u64().expect("a number");
    assert!(ms("reached_ms") <= ms("ringing_ms") && ms("ringing_ms") <= ms("sound_ms"));
    bob.event("call_ended");
    for heard in ["heard-here.wav", "heard-there.wav"] {
        let wav = fs::read(world.path(heard)).expect("it was written");
        assert!(loudest(&wav) > 3000, "{heard}");
    }

    // By key, and only the key that is expected.
    let key = described["key"].as_str().expect("a key");
    world.run(&phones.args(&["call", key], "caller")).expect(0);
    let other = "58".repeat(32);
    let wrong = phones.args(&["call", "bob", "--expect", &other], "caller");
    world.run(&wrong).expect(5).says("another key");
    let nobody = phones.args(&["call", "nobody"], "caller");
    world.run(&nobody).expect(3).says("nobody told");
}

#[test]
fn texts_are_shown_while_it_is_talked() {
    let phones = Phones::new();
    let world = &phones.overlay.world;
    let mut bob = phones.answers("bob");
    let mut call = phones.args(&["call", "bob", "--stay"], "caller");
    call.extend(["--limit", "60"]);
    let mut caller = world.start(&call);
    bob.wait_for("sound", |v| v["event"] == "call_set_up");
    let mut args = vec!["chat", "bob", "--as", "carol", "--state-dir", "carol"];
    args.extend(["--login", &phones.overlay.at, "--listen", "127.0.0.1:0"]);
    let mut carol = world.start_listening(&args);
    carol.say("are you there?");
    assert_eq!(bob.event("text")["text"], "are you there?");
    assert!(!bob.seen.iter().any(|v| v["event"] == "call_ended"));
    caller.kill();
}

#[test]
fn who_may_not_call_is_refused() {
    let phones = Phones::new();
    let other = "58".repeat(32);
    let mut args = phones.args(&["answer", "--allow", &other], "callee");
    args.push("--once");
    let mut callee = phones.overlay.world.start_listening(&args);
    let key = callee.event("reachable")["node"].clone();
    let key = key.as_str().expect("a key");
    let call = phones.args(&["call", key], "caller");
    let ran = phones.overlay.world.run(&call).expect(5);
    ran.says("not a key that may call here");
    callee.wait_for("its end", |v| v["event"] == "error" && v["code"] == 5);
}

/// Radians a sample of the tone that the end with this number says: 400 Hz, 300 more for each.
fn voice(n: usize) -> f64 {
    std::f64::consts::TAU * (400.0 + 300.0 * n as f64) / 48_000.0
}

/// The ends of a group, the caller first.
struct Party {
    phones: Phones,
    runs: Vec<Running>,
    keys: Vec<String>,
}

impl Party {
    /// One end calls so many others at once, each with a tone of so many seconds; with these options for the
    /// caller and the others.
    fn new(others: usize, seconds: u32, caller: &[&str], callee: &[&str]) -> Self {
        let mut party = Self {
            phones: Phones::new(),
            runs: Vec::new(),
            keys: Vec::new(),
        };
        for _ in 0..others {
            party.waits(party.runs.len() + 1, seconds, callee);
        }
        let mut what = vec!["call"];
        what.extend(party.keys.iter().map(String::as_str));
        what.extend(caller);
        let mut run = party.start(0, seconds, &what);
        let ours = run.event("call_key")["key"].clone();
        party.runs.insert(0, run);
        let ours = ours.as_str().expect("a key").to_owned();
        party.keys.insert(0, ours);
        party
    }

    fn start(&self, n: usize, seconds: u32, what: &[&str]) -> Running {
        let world = &self.phones.overlay.world;
        let (dir, say, heard) = (
            format!("end{n}"),
            format!("say{n}.wav"),
            format!("heard{n}.wav"),
        );
        fs::write(world.path(&say), tone_of(seconds, voice(n), 4000.0)).expect("written");
        let mut args = what.to_vec();
        args.extend(["--login", &self.phones.overlay.at]);
        args.extend(["--state-dir", &dir, "--udp", "127.0.0.1:0"]);
        args.extend(["--wav-in", &say, "--wav-out", &heard]);
        world.start_listening(&args)
    }

    /// One more end, with this number, that waits to be called.
    fn waits(&mut self, n: usize, seconds: u32, options: &[&str]) {
        let mut what = vec!["answer", "--conference", "--once"];
        what.extend(options);
        let mut run = self.start(n, seconds, &what);
        let node = run.event("reachable")["node"].clone();
        self.keys.push(node.as_str().expect("a key").to_owned());
        self.runs.push(run);
    }

    /// Waits until all ends that are there are told of the same one who mixes, who is none of these; its number.
    fn mixed_by(&mut self, but: &[usize]) -> usize {
        let not: Vec<_> = but.iter().map(|n| self.keys[*n].clone()).collect();
        let mut by = Vec::new();
        for (n, run) in self.runs.iter_mut().enumerate() {
            if but.contains(&n) && n != 0 {
                continue;
            }
            let other = |v: &Value| not.iter().all(|not| v["key"] != not.as_str());
            let told = run.wait_for("who mixes", |v| v["event"] == "call_mixed" && other(v));
            assert_eq!(told["ours"], told["key"] == self.keys[n].as_str());
            by.push(told["key"].as_str().expect("a key").to_owned());
        }
        by.dedup();
        assert_eq!(by.len(), 1, "{by:?}");
        let number = self.keys.iter().position(|key| *key == by[0]);
        number.expect("one of the ends")
    }

    /// What this end has heard.
    fn heard(&self, n: usize) -> Vec<u8> {
        let heard = fs::read(self.phones.overlay.world.path(format!("heard{n}.wav")));
        heard.expect("it was written")
    }
}

/// One end calls so many others at once; whom the caller, and each of the others, was joined by.
fn conference(others: usize, callee: &[&str]) -> (Vec<Vec<Value>>, Phones) {
    let Party { phones, runs, .. } = Party::new(others, 12, &[], callee);
    let ends = runs.into_iter().map(Running::end);
    let told = ends.map(|(status, mut told, errors)| {
        assert!(status.success(), "{errors}");
        told.retain(|v| v["event"] == "call_joined");
        told
    });
    (told.collect(), phones)
}

/// Everybody has heard all others, about as loud as they spoke, and no echo of himself.
fn all_hear_all(phones: &Phones, ends: usize) {
    for here in 0..ends {
        let heard = fs::read(phones.overlay.world.path(format!("heard{here}.wav")));
        let heard = heard.expect("it was written");
        for there in 0..ends {
            let loud = loudness_of(&heard, voice(there));
            match here == there {
                true => assert!(loud < 200.0, "{here} hears itself: {loud}"),
                false => assert!(
                    (1500.0..6500.0).contains(&loud),
                    "{here} of {there}: {loud}"
                ),
            }
        }
    }
}

#[test]
fn six_ends_hear_each_other_through_the_one_who_called() {
    let (joined, phones) = conference(5, &["--no-mix"]);
    let calls: Vec<_> = joined.iter().map(Vec::len).collect();
    assert_eq!(calls, [5, 1, 1, 1, 1, 1], "{joined:?}");
    assert!(joined.iter().flatten().all(|v| v["meshed"] == false));
    all_hear_all(&phones, 6);
}

#[test]
fn four_ends_have_a_call_each_with_each() {
    let (joined, phones) = conference(3, &[]);
    let calls: Vec<_> = joined.iter().map(Vec::len).collect();
    assert_eq!(calls, [3, 3, 3, 3], "{joined:?}");
    assert!(joined.iter().flatten().all(|v| v["meshed"] == true));
    all_hear_all(&phones, 4);
}

#[test]
fn sound_cards_have_options_in_every_build() {
    let world = World::new();
    let both = ["call", "[::1]:9", "--microphone", "--wav-in", "voice.wav"];
    world.run(&both).expect(2).says("cannot be used with");
    let neither = ["answer", "--no-sound", "--loudspeaker=x"];
    world.run(&neither).expect(2).says("cannot be used with");
    if cfg!(feature = "sound") {
        let call = ["call", "[::1]:9", "--microphone=no such device"];
        world.run(&call).expect(3).says("no such device");
    } else {
        for args in [
            &["sound"][..],
            &["call", "[::1]:9", "--microphone"],
            &["answer", "--listen", "127.0.0.1:0", "--loudspeaker=x"],
        ] {
            world.run(args).expect(1).says("--features sound");
        }
    }
}

#[test]
fn the_strongest_end_mixes_hands_over_and_is_replaced_when_it_is_killed() {
    // The caller does not mix for others.
    let mut party = Party::new(5, 32, &["--no-mix"], &[]);
    let first = party.mixed_by(&[0]);
    // Some sound by the first host is to be in the files.
    sleep(Duration::from_secs(4));
    party.runs[first].signal(Signal::INT);
    let second = party.mixed_by(&[0, first]);
    // And some by the second, before it is killed.
    sleep(Duration::from_secs(4));
    party.runs[second].kill();
    let third = party.mixed_by(&[0, first, second]);
    let left: Vec<_> = (0..6).filter(|n| *n != first && *n != second).collect();
    assert!(left.contains(&third));
    let runs = std::mem::take(&mut party.runs);
    for (n, run) in runs
        .into_iter()
        .enumerate()
        .filter(|(n, _)| left.contains(n))
    {
        let (status, told, errors) = run.end();
        assert!(status.success(), "{n}: {errors} {told:#?}");
    }
    let mut longest = 0;
    for here in &left {
        let wav = party.heard(*here);
        for there in left.iter().filter(|there| *there != here) {
            let (heard, gaps) = gaps(&wav, voice(*there));
            assert!(heard > 180, "{here} of {there}: {heard} tenths of a second");
            // One host was killed; that the other one went is not to be heard, but that the machine is busy may be.
            let (killed, other) = (gaps.first().unwrap_or(&0), gaps.get(1).unwrap_or(&0));
            let few = gaps.get(..4).unwrap_or(&gaps);
            assert!(*killed <= 60 && *other <= 10, "{here} of {there}: {few:?}");
            longest = longest.max(*killed);
        }
        assert!(
            loudness_of(&wav, voice(*here)) < 200.0,
            "{here} hears itself"
        );
    }
    // Shown by `cargo test -- --nocapture`.
    let _ = writeln!(
        stderr(),
        "tenths of a second without a voice: {longest} at most"
    );
}

#[test]
fn who_is_called_later_hears_all_through_the_one_who_mixes() {
    let mut party = Party::new(4, 22, &["--no-mix", "--add"], &[]);
    let by = party.mixed_by(&[0]);
    party.waits(5, 12, &[]);
    let key = party.keys[5].clone();
    party.runs[0].say(&key);
    let mixes = party.keys[by].clone();
    let told = |v: &Value| v["event"] == "call_mixed" && v["key"] == mixes.as_str();
    party.runs[5].wait_for("who mixes", told);
    for run in std::mem::take(&mut party.runs) {
        let (status, told, errors) = run.end();
        assert!(status.success(), "{errors} {told:#?}");
    }
    let late = party.heard(5);
    for n in 0..5 {
        let loud = loudness_of(&late, voice(n));
        assert!(loud > 1500.0, "the late one hears {n}: {loud}");
        let (heard, _) = gaps(&party.heard(n), voice(5));
        assert!(
            heard > 70,
            "{n} hears the late one for {heard} tenths of a second"
        );
    }
    assert!(loudness_of(&late, voice(5)) < 200.0, "it hears itself");
}
