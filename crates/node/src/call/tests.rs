//! Calls over loopback, in real time.

use super::*;
use crate::reach::{Identity, Reach, ReachSettings, Ticket};
use shoal_call::media::say::Say;
use shoal_reach::turn::credential::Credentials;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

/// A tone for so many frames; remembers how loud it got.
struct Tone {
    left: usize,
    loudest: i16,
}

impl Sound for Tone {
    fn record(&mut self, frame: &mut [i16]) -> bool {
        for (i, sample) in frame.iter_mut().enumerate() {
            *sample = ((i as f64 * 0.05).sin() * 8000.0) as i16;
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    fn play(&mut self, frame: &[i16]) {
        let loud = frame.iter().map(|s| s.saturating_abs()).max();
        self.loudest = self.loudest.max(loud.unwrap_or(0));
    }
}

pub(super) fn settings(n: u8) -> CallSettings {
    CallSettings {
        key: SigningKey::from_bytes(&[n; 32]),
        ways: WaySettings {
            bind: Some("127.0.0.1:0".parse().expect("an address")),
            ..WaySettings::default()
        },
        session: SessionConfig::default(),
    }
}

fn lines() -> (Box<dyn Line + Send>, Box<dyn Line + Send>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let a = TcpStream::connect(address).expect("connected");
    let (b, _) = listener.accept().expect("taken");
    (
        Box::new(TcpLine::new(a).expect("a line")),
        Box::new(TcpLine::new(b).expect("a line")),
    )
}

type Ending = Result<(Ended, CallStats, i16, Vec<CallEvent>), CallError>;

/// Both ends in threads; the caller hangs up after a second.
fn talk_over(
    caller: &CallSettings,
    callee: CallSettings,
    to: Option<[u8; 32]>,
    allowed: bool,
) -> (Ending, Ending) {
    let (ours, theirs) = lines();
    let there = thread::spawn(move || -> Ending {
        let (stop, mut events) = (AtomicBool::new(false), Vec::new());
        let mut tell = |e: &CallEvent| events.push(e.clone());
        let made = answer(&callee, theirs, &|_| allowed, &stop, &mut tell)?;
        let mut sound = Tone {
            left: 500,
            loudest: 0,
        };
        let (ended, stats) = talk(made, &mut sound, false, &stop, &mut tell);
        Ok((ended, stats, sound.loudest, events))
    });
    let here = || -> Ending {
        let (stop, mut events) = (AtomicBool::new(false), Vec::new());
        let mut tell = |e: &CallEvent| events.push(e.clone());
        let made = call(caller, ours, to, &stop, &mut tell)?;
        let mut sound = Tone {
            left: 50,
            loudest: 0,
        };
        let (ended, stats) = talk(made, &mut sound, true, &stop, &mut tell);
        Ok((ended, stats, sound.loudest, events))
    };
    (here(), there.join().expect("no panic"))
}

fn digits(events: &[CallEvent]) -> Option<String> {
    events.iter().find_map(|e| match e {
        CallEvent::Described { digits, .. } => Some(digits.clone()),
        _ => None,
    })
}

#[test]
fn two_nodes_talk_and_hang_up() {
    let to = settings(2).key.verifying_key().to_bytes();
    let (a, b) = talk_over(&settings(1), settings(2), Some(to), true);
    let (a, b) = (a.expect("a call"), b.expect("a call"));
    assert_eq!((a.0, b.0), (Ended::Local, Ended::Remote));
    assert!(a.2 > 3000 && b.2 > 3000, "{} {}", a.2, b.2);
    assert!(!a.1.is_relayed());
    assert!(digits(&a.3).is_some());
    assert_eq!(digits(&a.3), digits(&b.3));
    assert!(a.3.contains(&CallEvent::Ringing));
}

#[test]
fn whoever_is_not_expected_or_not_allowed_is_refused() {
    let (a, b) = talk_over(&settings(1), settings(2), Some([9; 32]), true);
    assert!(matches!(a, Err(CallError::Refused(_))), "{a:?}");
    assert!(matches!(b, Err(CallError::Binding(_))), "{b:?}");
    let (a, b) = talk_over(&settings(1), settings(2), None, false);
    assert!(matches!(a, Err(CallError::Refused(_))), "{a:?}");
    assert!(matches!(b, Err(CallError::Refused(_))), "{b:?}");
}

#[test]
fn a_call_goes_through_a_relay() {
    let credential = Credential {
        name: "u".to_owned(),
        password: "p".to_owned(),
    };
    let mut credentials = Credentials::default();
    credentials.users.insert(b"u".to_vec(), b"p".to_vec());
    let server = crate::relay::RelayServer::start(crate::relay::RelaySettings {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        turn: crate::relay::Config {
            credentials,
            relay_v4: Some(crate::relay::RelayAddress {
                bind: "127.0.0.1".parse().expect("an address"),
                public: "127.0.0.1".parse().expect("an address"),
            }),
            policy: crate::relay::Policy {
                allow: vec!["127.0.0.0/8".parse().expect("a prefix")],
                ..crate::relay::Policy::default()
            },
            ..crate::relay::Config::default()
        },
        certificate: None,
        max_connections: 16,
        seed: Some(3),
    })
    .expect("a relay");
    let mut caller = settings(1);
    caller.ways.relays = vec![Relay {
        server: server.addresses()[0],
        credential,
    }];
    caller.ways.relay_only = true;
    let (a, b) = talk_over(&caller, settings(2), None, true);
    let (a, b) = (a.expect("a call"), b.expect("a call"));
    assert!(a.2 > 3000 && b.2 > 3000, "{} {}", a.2, b.2);
    assert!(a.1.our_relay && b.1.their_relay, "{:?} {:?}", a.1, b.1);
}

#[test]
fn files_carry_offer_and_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let (offer, reply) = (dir.path().join("offer"), dir.path().join("answer"));
    let mut a = FileLine::new(offer.clone(), reply.clone());
    let mut b = FileLine::new(reply, offer);
    assert_eq!(b.poll().expect("nothing yet"), None);
    a.send(&Say::Ringing { strength: None }.to_line())
        .expect("not written");
    assert_eq!(b.poll().expect("nothing yet"), None);
    let sdp = format!("v=0\r\na=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    let key = SigningKey::from_bytes(&[1; 32]);
    let signed = shoal_call::media::binding::sign_offer(&key, [0; 16], None, sdp);
    let description = signed.expect("signed").0;
    let said = Say::Describe { description }.to_line();
    a.send(&said).expect("written");
    assert_eq!(b.poll().expect("there"), Some(said));
    assert_eq!(b.poll().expect("once"), None);
}

/// Two nodes on loopback whose letters the test carries, by way of `carrier`.
pub(super) fn nodes(carrier: fn(Vec<u8>) -> Vec<u8>) -> (Arc<Reach>, Arc<Reach>) {
    let node = |n: u8| {
        let reach = Reach::start(ReachSettings {
            identity: Identity::from_secret(&[n; 32]),
            listen: "127.0.0.1:0".parse().expect("an address"),
            accepts: true,
            hidden: false,
            port_mapping: false,
        });
        let reach = reach.expect("a node");
        // Without relays others are told of it when it was told that there are none.
        reach.offer(vec![nowhere()]);
        Arc::new(reach)
    };
    let (one, two) = (node(1), node(2));
    for (from, to) in [(&one, &two), (&two, &one)] {
        let (letters, to) = (from.letters.clone(), Arc::downgrade(to));
        thread::spawn(move || {
            while let Ok((_, letter)) = letters.recv() {
                let Some(to) = to.upgrade() else {
                    return;
                };
                to.letter(carrier(letter));
            }
        });
    }
    (one, two)
}

/// A relay that is not there.
fn nowhere() -> Ticket {
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    Ticket {
        at: vec![unused.local_addr().expect("an address")],
        credential: Credential {
            name: "u".to_owned(),
            password: "p".to_owned(),
        },
    }
}

#[test]
fn nodes_call_each_other_over_their_connection() {
    let (one, two) = nodes(|letter| letter);
    let callers = Callers::new(two.arrivals.clone());
    let there = thread::spawn(move || -> Ending {
        let (stop, mut events) = (AtomicBool::new(false), Vec::new());
        let mut tell = |e: &CallEvent| events.push(e.clone());
        let caller = callers.calls.recv().expect("a call");
        callers.set_busy(true);
        let made = answer_node(&settings(2), caller, &|_| true, &stop, &mut tell)?;
        let mut sound = Tone {
            left: 500,
            loudest: 0,
        };
        let (ended, stats) = talk(made, &mut sound, false, &stop, &mut tell);
        Ok((ended, stats, sound.loudest, events))
    });
    let (stop, mut events) = (AtomicBool::new(false), Vec::new());
    let mut tell = |e: &CallEvent| events.push(e.clone());
    let connection = one.connect(two.id()).expect("connected");
    let made = call_node(&settings(1), connection, &stop, &mut tell).expect("a call");
    // A second call finds the callee busy.
    let connection = one.connect(two.id()).expect("connected");
    let second = call_node(&settings(1), connection, &stop, &mut |_| {});
    assert!(
        matches!(&second, Err(CallError::Refused(why)) if why == "busy"),
        "{second:?}"
    );
    let mut sound = Tone {
        left: 50,
        loudest: 0,
    };
    let (ended, stats) = talk(made, &mut sound, true, &stop, &mut tell);
    let other = there.join().expect("no panic").expect("a call");
    assert_eq!((ended, other.0), (Ended::Local, Ended::Remote));
    assert!(sound.loudest > 3000 && other.2 > 3000);
    assert_eq!(digits(&events), digits(&other.3));
    let direct = |e: &CallEvent| matches!(e, CallEvent::Way { relays, .. } if relays.is_empty());
    assert!(events.iter().any(direct), "{events:?}");
    assert!(!stats.is_relayed());
    assert_eq!(stats.receiver.bad, 0);
}

/// Whoever carries lines, and puts a certificate of its own into each description, signed by its own
/// key if it `signs`.
struct Liar {
    line: Box<dyn Line + Send>,
    signs: bool,
}

impl Line for Liar {
    fn send(&mut self, line: &str) -> io::Result<()> {
        self.line.send(line)
    }

    fn poll(&mut self) -> io::Result<Option<String>> {
        let Some(line) = self.line.poll()? else {
            return Ok(None);
        };
        let mut said: serde_json::Value = serde_json::from_str(&line)?;
        let Some(sdp) = said["description"]["sdp"].as_str().map(str::to_owned) else {
            return Ok(Some(line));
        };
        let print = sdp.lines().find(|l| l.starts_with("a=fingerprint:"));
        let swapped = format!("a=fingerprint:sha-256 {}", ["AB"; 32].join(":"));
        let sdp = sdp.replace(print.expect("a fingerprint"), &swapped);
        if self.signs {
            let key = SigningKey::from_bytes(&[9; 32]);
            let signed = shoal_call::media::binding::sign_offer(&key, [7; 16], None, sdp);
            let description = signed.expect("signed").0;
            return Ok(Some(Say::Describe { description }.to_line()));
        }
        said["description"]["sdp"] = sdp.into();
        Ok(Some(said.to_string()))
    }
}

#[test]
fn a_carrier_that_swaps_fingerprints_is_found_out() {
    for signs in [false, true] {
        let (ours, theirs) = lines();
        let theirs = Liar {
            line: theirs,
            signs,
        };
        let caller = settings(1).key.verifying_key().to_bytes();
        let there = thread::spawn(move || {
            let stop = AtomicBool::new(false);
            let from = |key: &[u8; 32]| *key == caller;
            answer(&settings(2), Box::new(theirs), &from, &stop, &mut |_| {}).map(drop)
        });
        let stop = AtomicBool::new(false);
        let to = Some(settings(2).key.verifying_key().to_bytes());
        let here = call(&settings(1), ours, to, &stop, &mut |_| {}).map(drop);
        let there = there.join().expect("no panic");
        assert!(matches!(here, Err(CallError::Refused(_))), "{here:?}");
        match signs {
            // The voice is bound to the key, which is not the one that may call.
            true => assert!(matches!(there, Err(CallError::Refused(_))), "{there:?}"),
            false => assert!(
                matches!(there, Err(CallError::Binding(BindingError::Forged))),
                "{there:?}"
            ),
        }
    }
}
