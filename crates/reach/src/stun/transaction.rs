//! A request on its way: sent again until it is answered or given up (RFC 8489 §6.2).

use super::message::TransactionId;
use shoal_base::Time;
use std::time::Duration;

/// How often and how long a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The first wait; each next one is twice as long.
    pub rto: Duration,
    /// How often it is sent at most.
    pub sends: u32,
    /// The last wait, in first waits.
    pub last_wait: u32,
}

impl Timing {
    /// Over UDP (RFC 8489 §6.2.1): sent seven times, given up after 39.5 s.
    pub const DATAGRAM: Self = Self {
        rto: Duration::from_millis(500),
        sends: 7,
        last_wait: 16,
    };
    /// Over a stream (§6.2.2): sent once, given up after the same time.
    pub const STREAM: Self = Self {
        rto: Duration::from_millis(39_500),
        sends: 1,
        last_wait: 1,
    };
}

/// What a transaction wants at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its bytes are to be sent, then looked at again at its deadline.
    Send,
    /// Nothing yet.
    Wait,
    /// Nobody answered.
    GivenUp,
}

/// A request and when it is sent again.
#[derive(Debug, Clone)]
pub struct Transaction {
    id: TransactionId,
    bytes: Vec<u8>,
    timing: Timing,
    sent: u32,
    wait: Duration,
    next: Time,
    started: Time,
}

impl Transaction {
    /// A request that is to be sent at `now`: its first [`Transaction::poll`] says so.
    pub fn new(id: TransactionId, bytes: Vec<u8>, timing: Timing, now: Time) -> Self {
        Self {
            id,
            bytes,
            timing,
            sent: 0,
            wait: timing.rto,
            next: now,
            started: now,
        }
    }

    /// By which its response is known.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// What is sent, the same each time.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// When [`Transaction::poll`] has something to say.
    pub fn deadline(&self) -> Time {
        self.next
    }

    /// When it was sent first.
    pub fn started(&self) -> Time {
        self.started
    }

    /// The round trip that a response at `now` tells, if the request was sent only once: of several
    /// nobody knows which was answered (Karn's rule).
    pub fn round_trip(&self, now: Time) -> Option<Duration> {
        (self.sent == 1).then(|| now.since(self.started))
    }

    /// What is to be done at `now`.
    pub fn poll(&mut self, now: Time) -> Step {
        if now < self.next {
            return Step::Wait;
        }
        if self.sent >= self.timing.sends {
            return Step::GivenUp;
        }
        self.sent += 1;
        if self.sent == self.timing.sends {
            self.next = now + self.timing.rto * self.timing.last_wait;
        } else {
            self.next = now + self.wait;
            self.wait *= 2;
        }
        Step::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(timing: Timing) -> (Vec<u64>, u64) {
        let mut t = Transaction::new(TransactionId([0; 12]), vec![1], timing, Time::ZERO);
        let mut sent = Vec::new();
        let mut now = Time::ZERO;
        loop {
            match t.poll(now) {
                Step::Send => sent.push(now.as_micros() / 1000),
                Step::Wait => now = t.deadline(),
                Step::GivenUp => return (sent, now.as_micros() / 1000),
            }
        }
    }

    #[test]
    fn a_request_is_sent_as_the_rfc_says() {
        let datagram = vec![0, 500, 1500, 3500, 7500, 15_500, 31_500];
        assert_eq!(run(Timing::DATAGRAM), (datagram, 39_500));
        assert_eq!(run(Timing::STREAM), (vec![0], 39_500));
    }

    #[test]
    fn only_a_request_sent_once_tells_the_round_trip() {
        let id = TransactionId([0; 12]);
        let mut t = Transaction::new(id, Vec::new(), Timing::DATAGRAM, Time::ZERO);
        t.poll(Time::ZERO);
        let later = Time::from_micros(30_000);
        assert_eq!(t.round_trip(later), Some(Duration::from_millis(30)));
        t.poll(Time::from_secs(1));
        assert_eq!(t.round_trip(Time::from_secs(2)), None);
    }
}
