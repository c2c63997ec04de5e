//! Attacks on running `shoal supernode node` processes, by connections of the test's own: what share of
//! honest questions is still answered, and of newcomers still let in.
//!
//! Attackers come from addresses of their own on loopback, so that limits by host hold for them. The
//! figures of docs/simulator.md: `SHOAL_ATTACK_S=10 cargo test -p shoal --test it
//! supernode_attacks -- --nocapture`.

mod raw;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shoal_supernode::wire::{Hit, Message, Purpose, Wanted};

use crate::supernode::{Node, Overlay, home};
use raw::{Forger, Identity, Link, connect, own_file};

/// Honest peers, and supernodes.
const PEERS: usize = 5;
const SUPERNODES: usize = 3;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// How long each attack goes on: short, or as `SHOAL_ATTACK_S` says.
fn span() -> Duration {
    let seconds = std::env::var("SHOAL_ATTACK_S").ok();
    Duration::from_secs(seconds.and_then(|s| s.parse().ok()).unwrap_or(3))
}

/// An attack under way; ends when dropped.
struct Attack {
    stop: Arc<AtomicBool>,
    did: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Each of so many threads does one thing after the other, with a pause between.
    fn run(
        threads: u8,
        pause: Duration,
        mut begin: impl FnMut(u8) -> Box<dyn FnMut(u64) + Send>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let did = Arc::new(AtomicU64::new(0));
        let start = |n| {
            let mut act = begin(n);
            let (stop, did) = (Arc::clone(&stop), Arc::clone(&did));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    act(did.fetch_add(1, Ordering::Relaxed));
                    // The rate of the attack.
                    std::thread::sleep(pause);
                }
            })
        };
        let threads = (0..threads).map(start).collect();
        Self { stop, did, threads }
    }

    fn none() -> Self {
        Self::run(0, Duration::ZERO, |_| Box::new(|_| {}))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("an attacker does not panic");
        }
    }
}

/// The overlay that is attacked.
struct Target {
    overlay: Overlay,
    supers: Vec<Node>,
    peers: Vec<Node>,
}

/// What came of an attack.
#[derive(Debug)]
struct Outcome {
    /// Questions of honest peers, and how many were answered.
    asked: usize,
    answered: usize,
    /// Newcomers, and how many found what they asked for.
    came: usize,
    found: usize,
}

impl Target {
    fn new() -> Self {
        let overlay = Overlay::new();
        // Limits by host hold for this machine too: honest nodes are all on one address.
        let limits = ["--limit-local", "--per-host", "40", "--keep-role"];
        let args = [&["--supernode"], &limits[..]].concat();
        let mut supers: Vec<Node> = (0..SUPERNODES)
            .map(|n| overlay.node(&format!("super{n}"), &args))
            .collect();
        for node in &mut supers {
            // Three of whom each has one hang together; two that dialled each other may have two links.
            node.run.wait_for("a neighbour", |v| {
                v["event"] == "supernode_stats" && v["neighbours"].as_u64() > Some(0)
            });
        }
        let mut peers: Vec<Node> = (0..PEERS)
            .map(|n| overlay.node(&format!("peer{n}"), &["--keep-role"]))
            .collect();
        for peer in &mut peers {
            let _ = home(peer);
        }
        Self {
            overlay,
            supers,
            peers,
        }
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        let addrs = self.supers.iter();
        addrs.map(|s| s.addr.parse().expect("an address")).collect()
    }

    fn identity(&self, name: &str, host: u8) -> Identity {
        Identity::claim(&self.overlay.at, name, host)
    }

    /// Every peer asks for the file of the next, again and again; newcomers come and ask, too.
    fn survey(&mut self) -> Outcome {
        let mut outcome = Outcome {
            asked: 0,
            answered: 0,
            came: 0,
            found: 0,
        };
        let end = Instant::now() + span();
        let mut round = 1;
        while Instant::now() < end {
            // A peer may ask sixty times a minute.
            let next = Instant::now() + Duration::from_secs(1);
            for n in 0..PEERS {
                let whom = (n + 1 + round % (PEERS - 1)) % PEERS;
                let sharer = format!("peer{whom}");
                let peer = &mut self.peers[n];
                peer.run.say(&format!("song of {sharer}"));
                let until = Instant::now() + ANSWER;
                let mut answered = false;
                while let Some(event) = peer.run.next_until(until) {
                    answered = event["event"] == "supernode_hit" && event["sharer"] == *sharer;
                    if answered || event["event"] == "asked" && event["sent"] == false {
                        break;
                    }
                }
                outcome.asked += 1;
                outcome.answered += usize::from(answered);
            }
            let sharer = format!("peer{}", round % PEERS);
            let find = ["supernode", "find", "song", "of", &sharer, "--limit", "1"];
            let find = [&find[..], &["--login", &self.overlay.at, "--json"]].concat();
            let found = self.overlay.world.run(&find).json();
            outcome.came += 1;
            outcome.found += usize::from(found.iter().any(|v| v["event"] == "supernode_hit"));
            round += 1;
            while self.peers[0].run.next_until(next).is_some() {}
        }
        outcome
    }

    /// Runs an attack and says what came of it.
    #[allow(
        clippy::print_stderr,
        reason = "what gets through is read by whoever runs it"
    )]
    fn under(&mut self, what: &str, attack: Attack) -> Outcome {
        let outcome = self.survey();
        let did = attack.did.load(Ordering::Relaxed);
        drop(attack);
        let Outcome {
            asked,
            answered,
            came,
            found,
        } = outcome;
        eprintln!(
            "{what}: {did} times; {answered} of {asked} answered, {found} of {came} newcomers"
        );
        for node in &mut self.supers {
            assert!(!node.run.has_ended(), "{} ended", node.name);
        }
        outcome
    }
}

/// Silent connections to all supernodes, from so many hosts.
fn silent(addrs: &[SocketAddr], hosts: u8) -> Attack {
    Attack::run(hosts, Duration::from_millis(u64::from(hosts) * 4), |host| {
        let addrs = addrs.to_vec();
        let mut held = Vec::new();
        Box::new(move |n| {
            let to = addrs[n as usize % addrs.len()];
            held.extend(connect(to, 1, host));
            // As many as one process may have.
            if held.len() > 4000 / usize::from(hosts) {
                held.remove(0);
            }
        })
    })
}

/// Handshakes that end before the proof.
fn unproven(target: &Target, addrs: &[SocketAddr], hosts: u8) -> Attack {
    let who = target.identity("unproven", 0);
    Attack::run(
        hosts,
        Duration::from_millis(u64::from(hosts) * 10),
        |host| {
            let (addrs, who) = (addrs.to_vec(), who.clone());
            let mut held = Vec::new();
            Box::new(move |n| {
                let to = addrs[n as usize % addrs.len()];
                if let Some(stream) = connect(to, 2, host) {
                    held.extend(Link::greet(stream, &who, Purpose::Child));
                }
                if held.len() > 100 {
                    held.remove(0);
                }
            })
        },
    )
}

#[test]
fn honest_questions_are_answered_while_strangers_attack() {
    let mut target = Target::new();
    let addrs = target.addrs();
    let first = addrs[0];
    let most = |outcome: &Outcome, of_newcomers: bool| {
        // A busy machine may be late once.
        assert!(
            outcome.answered + 1 >= outcome.asked * 9 / 10,
            "{outcome:?}"
        );
        assert!(!of_newcomers || outcome.found > 0, "{outcome:?}");
    };
    let quiet = target.under("nobody attacks", Attack::none());
    most(&quiet, true);

    let attack = silent(&addrs, 1);
    most(&target.under("silent connections of 1 host", attack), true);
    let attack = silent(&addrs, 40);
    // That is the door closed for others, while it lasts: SECURITY.md.
    most(
        &target.under("silent connections of 40 hosts", attack),
        false,
    );
    let attack = unproven(&target, &addrs, 20);
    most(
        &target.under("handshakes without proof of 20 hosts", attack),
        false,
    );

    // Children who ask as fast as they can.
    let askers: Vec<Identity> = (0..6)
        .map(|n| target.identity(&format!("asker{n}"), n))
        .collect();
    let attack = Attack::run(6, Duration::from_millis(5), |n| {
        let to = addrs[usize::from(n) % addrs.len()];
        let mut link = Link::open(to, &askers[usize::from(n)], Purpose::Child);
        Box::new(move |_| {
            let wanted = Wanted::Words("song".to_owned());
            if let Some(link) = &mut link {
                link.ask(wanted, 9);
            }
        })
    });
    most(
        &target.under("6 children that ask 200 times a second", attack),
        true,
    );

    // A supernode that passes on as many questions as it can.
    let liar = target.identity("flooder", 9);
    let attack = Attack::run(1, Duration::from_millis(2), |_| {
        let mut link = Link::open(addrs[0], &liar, Purpose::Neighbour);
        Box::new(move |_| {
            if let Some(link) = &mut link {
                link.ask(Wanted::Words("song".to_owned()), 9);
            }
        })
    });
    most(
        &target.under("a neighbour that floods 500 a second", attack),
        true,
    );

    // Neighbours that answer everything: with files of their own, with those of people they made up,
    // and what nobody asked.
    for (what, forger) in [
        (
            "a neighbour that answers everything as its own",
            Forger::Own,
        ),
        (
            "a neighbour that answers for people it makes up",
            Forger::Invented,
        ),
        (
            "a neighbour that answers what nobody asked",
            Forger::Unasked,
        ),
    ] {
        let who = target.identity(&format!("liar{}", forger as u8), 10 + forger as u8);
        let attack = Attack::run(1, Duration::ZERO, |_| {
            let mut link = Link::open(first, &who, Purpose::Neighbour);
            let who = who.clone();
            Box::new(move |_| {
                let lied = link.as_mut().is_some_and(|l| l.lie(&who, forger));
                if !lied {
                    // Cut off: it comes back, if it is let in.
                    link = Link::open(first, &who, Purpose::Neighbour);
                }
            })
        });
        most(&target.under(what, attack), true);
        let lies = target.peers.iter().flat_map(|p| &p.run.seen);
        let made_up = lies.filter(|v| v["sharer"] == "somebody").count();
        assert_eq!(made_up, 0, "nobody hears of people who do not exist");
    }
    most(&target.under("afterwards", Attack::none()), true);
}

#[test]
fn supernodes_of_few_hosts_get_few_places_on_the_list() {
    let target = Target::new();
    // Two hundred names of four hosts, each of which registers a supernode.
    let mut taken = 0;
    for n in 0..200u32 {
        let host = (n % 4) as u8;
        let who = target.identity(&format!("sybil{n}"), 100 + host);
        taken += usize::from(who.register(&target.overlay.at, 40_000 + n as u16));
    }
    let list = ["supernode", "list", "--list", &target.overlay.at, "--json"];
    let entries = target.overlay.world.run(&list).json();
    let addrs: BTreeSet<&str> = entries.iter().filter_map(|v| v["addr"].as_str()).collect();
    let honest = target
        .supers
        .iter()
        .filter(|s| addrs.contains(s.addr.as_str()));
    assert_eq!(honest.count(), SUPERNODES, "{addrs:?}");
    assert_eq!(
        (taken, addrs.len() - SUPERNODES),
        (8, 8),
        "two of each host"
    );
}

/// Says a hit of the attacker's own, for who needs one.
fn hit(who: &Identity, words: &str, n: usize) -> Hit<SocketAddr> {
    Hit {
        file: own_file(&format!("{words} {n}.mp3"), n),
        sharer: who.presence.clone(),
        elsewhere: None,
        standing: None,
    }
}

/// A message as it goes over a link.
fn bytes_of(message: &Message<SocketAddr>) -> Vec<u8> {
    let mut bytes = Vec::new();
    shoal_supernode::wire::encode(message, &mut bytes);
    bytes
}
