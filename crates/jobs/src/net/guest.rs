//! What strangers may say and how much: nothing that a master could not see for itself, and no more
//! than one connection can bear.

use super::identity::{Key, addr_of};
use shoal_base::id::to_hex;
use shoal_mapreduce::message::{Blame, ToMaster};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest message of a stranger, in bytes.
pub(super) const MESSAGE_MAX: usize = 1 << 20;
/// Tasks of each kind that a stranger runs at once, at most.
const SLOTS_MAX: u32 = 64;
/// A stranger's words on why an attempt failed, in bytes.
const WORDS_MAX: usize = 4 << 10;
/// Messages a second on one connection, and how many at once.
const MESSAGES_A_SECOND: u32 = 200;
/// Connections of people who have not proved that they are ours: in all, and of one address.
const GUESTS_MAX: usize = 1024;
const GUESTS_OF_ONE_MAX: usize = 64;

/// Changes what a stranger says so that it harms nobody else; nothing if it is to be passed over.
///
/// # Errors
/// When its connection is of no use: what is wrong with it.
pub(super) fn tame(message: ToMaster, key: &Key, ip: IpAddr) -> Result<Option<ToMaster>, String> {
    Ok(Some(match message {
        ToMaster::Register(mut hello) => {
            let port = hello.addr.rsplit(':').next().and_then(|p| p.parse().ok());
            let Some(port) = port.filter(|p| *p != 0) else {
                return Err(format!("{:?} is no address to fetch from", hello.addr));
            };
            // It is fetched from where it came from: nobody is made to connect elsewhere.
            hello.addr = addr_of(key, SocketAddr::new(ip, port));
            hello.host = host(key, ip);
            hello.slots = hello.slots.min(SLOTS_MAX);
            ToMaster::Register(hello)
        }
        // Told once, with the greeting.
        ToMaster::Holds(_) => return Ok(None),
        ToMaster::Finished {
            attempt,
            mut output,
            counters,
        } => {
            output.place.clear();
            ToMaster::Finished {
                attempt,
                output,
                counters,
            }
        }
        ToMaster::Failed {
            attempt,
            mut failure,
        } => {
            // A stranger's word neither fails a job nor leaves records out.
            failure.blame = Blame::Host;
            failure.records = None;
            let mut end = failure.what.len().min(WORDS_MAX);
            while !failure.what.is_char_boundary(end) {
                end -= 1;
            }
            failure.what.truncate(end);
            ToMaster::Failed { attempt, failure }
        }
        other => other,
    }))
}

/// What a stranger's machine is called. Two strangers at one address do not confirm each other,
/// except on loopback, where all have one.
fn host(key: &Key, ip: IpAddr) -> String {
    match ip.to_canonical() {
        ip if ip.is_loopback() => {
            let digits = to_hex(key);
            format!("stranger {}", digits.get(..16).unwrap_or_default())
        }
        IpAddr::V4(ip) => format!("stranger at {ip}"),
        // Whoever has one address of a /64 has them all.
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("stranger at {a:x}:{b:x}:{c:x}:{d:x}::")
        }
    }
}

/// Slows down a connection that says too much.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            left: MESSAGES_A_SECOND,
            since: Instant::now(),
        }
    }

    /// Waits until the next message may be heard.
    pub(super) fn wait(&mut self) {
        if self.left == 0 {
            let rest = Duration::from_secs(1).saturating_sub(self.since.elapsed());
            if !rest.is_zero() {
                // The thread is this guest's alone: not reading is what holds the guest back.
                std::thread::sleep(rest);
            }
            *self = Self::new();
        }
        self.left -= 1;
    }
}

/// Connections of people who have not proved that they are ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Guests(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of them, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    all: Guests,
    ip: IpAddr,
}

impl Guests {
    /// Counts one more; nothing if there are too many.
    pub(super) fn admit(&self, ip: IpAddr) -> Option<Guest> {
        let ip = ip.to_canonical();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = counts.get(&ip).copied().unwrap_or(0);
        let crowded = of_one >= GUESTS_OF_ONE_MAX && !ip.is_loopback();
        if crowded || counts.values().sum::<usize>() >= GUESTS_MAX {
            return None;
        }
        *counts.entry(ip).or_default() += 1;
        let all = self.clone();
        Some(Guest { all, ip })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind};
    use shoal_mapreduce::message::{Failure, RecordRange, Register};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn register(addr: &str) -> ToMaster {
        ToMaster::Register(Register {
            instance: 1,
            host: "node1".to_owned(),
            addr: addr.to_owned(),
            slots: u32::MAX,
            holds: vec![],
            outputs: vec![],
            running: vec![],
        })
    }

    #[test]
    fn a_stranger_is_where_it_came_from_whatever_it_says() {
        let tamed = |ip| match tame(register("10.0.0.1:22"), &[7; 32], ip) {
            Ok(Some(ToMaster::Register(hello))) => hello,
            other => panic!("{other:?}"),
        };
        let one = tamed(ip("192.0.2.1"));
        assert_eq!(one.addr, format!("{}@192.0.2.1:22", "07".repeat(32)));
        assert_eq!(
            (one.host.as_str(), one.slots),
            ("stranger at 192.0.2.1", 64)
        );
        assert_eq!(tamed(ip("2001:db8::1")).host, tamed(ip("2001:db8::2")).host);
        assert_ne!(tamed(ip("::1")).host, "node1");
        assert!(tame(register("nowhere"), &[7; 32], ip("::1")).is_err());
        assert!(tame(register("x:0"), &[7; 32], ip("::1")).is_err());
    }

    #[test]
    fn a_strangers_failure_is_its_own() {
        let task = TaskId {
            job: JobId(1),
            kind: TaskKind::Map,
            index: 0,
        };
        let attempt = AttemptId { task, number: 0 };
        let failure = Failure {
            what: "ä".repeat(WORDS_MAX),
            blame: Blame::Code,
            records: Some(RecordRange { from: 0, to: 1 }),
        };
        let said = tame(ToMaster::Failed { attempt, failure }, &[7; 32], ip("::1"));
        let Ok(Some(ToMaster::Failed { failure, .. })) = said else {
            panic!("{said:?}");
        };
        assert_eq!((failure.blame, failure.records), (Blame::Host, None));
        assert!(failure.what.len() <= WORDS_MAX);
    }

    #[test]
    fn one_address_has_only_so_many_connections() {
        let all = Guests::default();
        let mut one: Vec<_> = (0..GUESTS_OF_ONE_MAX)
            .map(|_| all.admit(ip("192.0.2.1")).expect("room"))
            .collect();
        assert!(all.admit(ip("192.0.2.1")).is_none());
        assert!(all.admit(ip("::ffff:192.0.2.1")).is_none());
        assert!(all.admit(ip("192.0.2.2")).is_some());
        one.pop();
        assert!(all.admit(ip("192.0.2.1")).is_some());
    }
}
