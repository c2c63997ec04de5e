//! People of the overlay within a test's own process: `shoal chat` without its command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use shoal_call::chat::Event;
use shoal_call::record::Record;
use shoal_dht::Answer;
use shoal_node::supernode::{
    NamesDesk, People, PeopleEvent, PeopleSettings, get_record, name_ring, read_record, supernodes,
};
use shoal_supernode::names::Act;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::token::Key;

use crate::process::{LONG, World};

/// Any port of this machine.
pub(crate) const HERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Somebody with a name.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) key: SigningKey,
    pub(crate) certificate: Certificate,
    /// The login server's key, and where it and the list are.
    pub(crate) server: Key,
    pub(crate) at: SocketAddr,
    dir: PathBuf,
}

impl Person {
    /// Claims a name; `n` tells its key from others'.
    pub(crate) fn claim(world: &World, at: &str, name: &str, n: u8) -> Self {
        let at: SocketAddr = at.parse().expect("an address");
        let key = SigningKey::from_bytes(&[n; 32]);
        let mut desk = NamesDesk::open(at).expect("it listens");
        let claimed = desk.certify(Act::Claim, name, (&key, &key), None);
        let (certificate, server) = claimed.expect("a free name");
        let dir = world.path(format!("person-{name}"));
        std::fs::create_dir_all(&dir).expect("a folder");
        Self {
            name: name.to_owned(),
            key,
            certificate,
            server,
            at,
            dir,
        }
    }

    /// Begins to take part.
    pub(crate) fn online(&self) -> Online {
        let mut secret = self.key.to_bytes();
        // Each run has random numbers of its own.
        let clock = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let nanos = clock.expect("after 1970").as_nanos().to_le_bytes();
        secret[..16].copy_from_slice(&nanos);
        let people = People::start(PeopleSettings {
            key: self.key.clone(),
            certificate: self.certificate.clone(),
            server: self.server,
            login: self.at,
            list: self.at,
            listen: HERE,
            dir: self.dir.clone(),
            secret,
        });
        Online {
            name: self.name.clone(),
            people: people.expect("nobody else uses its folder"),
            seen: Vec::new(),
        }
    }
}

/// Somebody who takes part until dropped.
pub(crate) struct Online {
    name: String,
    pub(crate) people: People,
    pub(crate) seen: Vec<PeopleEvent>,
}

impl Online {
    /// The next event of which `wanted` makes something.
    #[track_caller]
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&PeopleEvent) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + LONG;
        loop {
            let Ok(event) = self.people.events.recv_deadline(deadline) else {
                panic!("{}: no {what}; seen: {:#?}", self.name, self.seen);
            };
            let found = wanted(&event);
            self.seen.push(event);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Waits until three boxes are open, and the ring knows of them.
    #[track_caller]
    pub(crate) fn at_home(&mut self) {
        self.wait_for("three homes", |event| match event {
            PeopleEvent::Homes(homes) if homes.len() == 3 => Some(()),
            _ => None,
        });
        self.wait_for("record in the ring", |event| match event {
            PeopleEvent::Published(_) => Some(()),
            _ => None,
        });
    }

    /// The next text, and of whom.
    #[track_caller]
    pub(crate) fn text(&mut self) -> (String, String) {
        self.wait_for("text", |event| match event {
            PeopleEvent::Chat(Event::Text { from, text, .. }) => Some((from.clone(), text.clone())),
            _ => None,
        })
    }

    /// Waits until a text of ours lies in so many boxes.
    #[track_caller]
    pub(crate) fn stored(&mut self, seq: u64, boxes: usize) {
        self.wait_for("text in boxes", |event| match event {
            PeopleEvent::Chat(Event::Stored(_, n, kept)) if *n == seq && *kept >= boxes => Some(()),
            _ => None,
        });
    }
}

/// Asks the ring as a newcomer does, for all of these names at once: what it has of each, checked, and
/// how long all took.
pub(crate) fn look_up(
    at: SocketAddr,
    server: Key,
    names: &[String],
    within: Duration,
) -> (Vec<Option<Record<SocketAddr>>>, Duration) {
    let begun = Instant::now();
    let doors: Vec<SocketAddr> = supernodes(at)
        .expect("the list")
        .iter()
        .map(|e| e.addr)
        .collect();
    let (tell, told) = crossbeam_channel::unbounded();
    let sink = Box::new(move |ticket, answer| {
        // Fails when the test is over.
        let _ = tell.send((ticket, answer));
    });
    let seed = begun.elapsed().as_nanos() as u64;
    let ring = name_ring(server, HERE, None, &doors, seed, sink).expect("a socket");
    for (n, name) in names.iter().enumerate() {
        ring.request(n as u64, get_record(server, name));
    }
    let mut found = vec![None; names.len()];
    let mut left = names.len();
    while left > 0 {
        let Ok((ticket, answer)) = told.recv_deadline(begun + within) else {
            break;
        };
        let n = ticket as usize;
        match answer {
            Answer::Value(item) => found[n] = read_record(&server, &names[n], &item),
            Answer::Done(_) => left -= 1,
            _ => {}
        }
    }
    ring.stop();
    (found, begun.elapsed())
}
