//! Calls by name and by key with real processes, on loopback.

use std::fs;

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

/// How loud a tone is in the middle one of all tenths of a second (Goertzel's sum): what begins, ends or is
/// mended sounds of everything for a moment.
fn loudness_of(wav: &[u8], step: f64) -> f64 {
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
    let mut windows: Vec<f64> = windows.collect();
    windows.sort_by(f64::total_cmp);
    *windows.get(windows.len() / 2).expect("some sound")
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

/// One end calls so many others at once; whom the caller, and each of the others, was joined by.
fn conference(others: usize) -> (Vec<Vec<Value>>, Phones) {
    let phones = Phones::new();
    let world = &phones.overlay.world;
    let (mut runs, mut keys) = (Vec::new(), Vec::new());
    for n in 0..=others {
        let tone = tone_of(12, voice(n), 4000.0);
        fs::write(world.path(format!("say{n}.wav")), tone).expect("written");
    }
    for n in 1..=others {
        let (dir, say, heard) = (
            format!("end{n}"),
            format!("say{n}.wav"),
            format!("heard{n}.wav"),
        );
        let mut args = vec![
            "answer",
            "--conference",
            "--once",
            "--login",
            &phones.overlay.at,
        ];
        args.extend(["--state-dir", &dir, "--udp", "127.0.0.1:0"]);
        args.extend(["--wav-in", &say, "--wav-out", &heard]);
        let mut run = world.start_listening(&args);
        let node = run.event("reachable")["node"].clone();
        keys.push(node.as_str().expect("a key").to_owned());
        runs.push(run);
    }
    let mut args = vec!["call", "--json", "--login", &phones.overlay.at];
    args.extend(["--state-dir", "end0", "--udp", "127.0.0.1:0"]);
    args.extend(["--wav-in", "say0.wav", "--wav-out", "heard0.wav"]);
    args.extend(keys.iter().map(String::as_str));
    let mut told = vec![world.run(&args).expect(0).json()];
    told.extend(runs.into_iter().map(|run| run.end().1));
    for told in &mut told {
        told.retain(|v| v["event"] == "call_joined");
    }
    (told, phones)
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
    let (joined, phones) = conference(5);
    let calls: Vec<_> = joined.iter().map(Vec::len).collect();
    assert_eq!(calls, [5, 1, 1, 1, 1, 1], "{joined:?}");
    assert!(joined.iter().flatten().all(|v| v["meshed"] == false));
    all_hear_all(&phones, 6);
}

#[test]
fn four_ends_have_a_call_each_with_each() {
    let (joined, phones) = conference(3);
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
