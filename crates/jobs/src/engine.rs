//! Runs the machines of `shoal-mapreduce`: a thread for the master, a thread for each worker, and
//! one for each attempt. What joins master and workers (channels in one process, TCP between
//! several) is behind [`Line`] and [`worker::Connector`].

pub mod attempt;
pub mod fetch;
pub mod local;
pub mod master;
pub mod outputs;
pub mod publish;
pub mod scratch;
pub mod worker;

use shoal_base::{Rng, Time};
use std::time::{Duration, Instant};

/// Sends messages to the other end of a connection.
pub trait Line<M>: Send {
    /// Sends a message; whether it can arrive is found out elsewhere.
    fn send(&self, message: M);

    /// Ends the connection.
    fn close(&self);
}

/// The clock of one machine: microseconds since the process began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Time {
        let us = self.0.elapsed().as_micros();
        Time::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
    }

    /// How long until `deadline`; a day if there is none.
    pub(crate) fn until(&self, deadline: Option<Time>) -> Duration {
        const DAY: Duration = Duration::from_secs(86_400);
        deadline.map_or(DAY, |at| at.since(self.now()).min(DAY))
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut rest: &mut [u8] = &mut bytes;
    while !rest.is_empty() {
        match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => rest = rest.get_mut(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            // Without the system call nothing here needs more than being different.
            Err(_) => {
                let now = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |d| d.as_nanos());
                for (to, from) in rest.iter_mut().zip(now.to_le_bytes()) {
                    *to = from;
                }
                break;
            }
        }
    }
    bytes
}

pub(crate) fn rng() -> Rng {
    Rng::from_seed(u64::from_le_bytes(random()))
}
