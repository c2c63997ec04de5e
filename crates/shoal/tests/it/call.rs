//! Calls by name and by key with real processes, on loopback.

use std::fs;

use crate::process::Running;
use crate::supernode::Overlay;

/// A second of a tone as a WAV file, so many times.
fn tone(seconds: u32) -> Vec<u8> {
    let samples = (0..48_000 * seconds).map(|n| ((f64::from(n) * 0.05).sin() * 9000.0) as i16);
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
