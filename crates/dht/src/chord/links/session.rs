//! A session with a peer: numbers that come once, and what is sealed.

use super::{DATA, OVERHEAD, TAG, Waiting, datagram, head, mac};
use crate::chord::wire::MAX_DATAGRAM;
use shoal_base::Time;

pub(super) struct Session {
    pub(super) id: [u8; 4],
    pub(super) key: [u8; 32],
    pub(super) send: [u8; 32],
    pub(super) receive: [u8; 32],
    pub(super) sent: u64,
    pub(super) window: Window,
    /// The other end has shown that it has the keys.
    pub(super) confirmed: bool,
    pub(super) nonce: [u8; 16],
    pub(super) accept: Vec<u8>,
}

/// Which numbers have come already (as IPsec does it, RFC 4303 section 3.4.3).
#[derive(Default)]
pub(super) struct Window {
    pub(super) highest: u64,
    pub(super) seen: u128,
}

impl Window {
    /// Whether a number, counted from 1, is new; remembers it.
    pub(super) fn fresh(&mut self, n: u64) -> bool {
        if n > self.highest {
            let ahead = u32::try_from(n - self.highest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = n;
            return true;
        }
        let behind = self.highest - n;
        if n == 0 || behind >= 128 || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[derive(Default)]
pub(super) struct Peer {
    /// The newest last. At most one confirmed by each end's handshake and one not yet confirmed.
    pub(super) sessions: Vec<Session>,
    pub(super) hello: Option<Hello>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) heard: Time,
}

pub(super) struct Hello {
    pub(super) nonce: [u8; 16],
    pub(super) sent: u32,
    pub(super) due: Time,
}

impl Peer {
    /// Takes a confirmed session; the newest is used to send, the one before still to receive.
    pub(super) fn add(&mut self, session: Session) {
        self.sessions.push(session);
        let extra = self.sessions.len().saturating_sub(3);
        self.sessions.drain(..extra);
    }
}

impl Session {
    pub(super) fn new(
        pair: &[u8; 32],
        key: [u8; 32],
        first: &[u8; 16],
        second: &[u8; 16],
        initiator: bool,
    ) -> Self {
        let session = mac(pair, &[b"session", first, second]);
        let (a, b) = (mac(&session, &[b"first"]), mac(&session, &[b"second"]));
        let (send, receive) = if initiator { (a, b) } else { (b, a) };
        Self {
            id: head(&mac(&session, &[b"name"])),
            key,
            send,
            receive,
            sent: 0,
            window: Window::default(),
            confirmed: initiator,
            nonce: *first,
            accept: Vec::new(),
        }
    }

    pub(super) fn seal(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        if body.len() + OVERHEAD > MAX_DATAGRAM {
            return None;
        }
        self.sent += 1;
        let mut bytes = datagram(DATA);
        bytes.extend(self.id);
        bytes.extend(self.sent.to_be_bytes());
        bytes.extend(body);
        let tag = head::<TAG>(&mac(&self.send, &[&bytes]));
        bytes.extend(tag);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_each_number_once_in_any_order() {
        let mut window = Window::default();
        assert!([3, 1, 2, 200, 100].into_iter().all(|n| window.fresh(n)));
        assert!(
            [3, 1, 0, 200, 100, 72]
                .into_iter()
                .all(|n| !window.fresh(n))
        );
        assert!(window.fresh(73) && window.fresh(u64::MAX) && !window.fresh(200));
    }
}
