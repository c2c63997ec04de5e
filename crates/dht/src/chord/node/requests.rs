//! Requests under way, and who is suspected for not answering.

use super::Node;
use crate::chord::lookup::Carried;
use crate::chord::message::{Address, Contact, Message, Output};
use crate::chord::ring::RingId;
use shoal_base::Time;

/// Most queries of others carried at once; more are dropped, and their askers try again.
const MAX_CARRIED: usize = 1024;
/// Most nodes kept in mind as not answering.
const MAX_SUSPECTS: usize = 32;

/// A message that waits for its answer.
#[derive(Clone, Debug)]
pub(in crate::chord) struct Request<I, A> {
    pub(in crate::chord) nonce: u32,
    pub(in crate::chord) to: A,
    pub(in crate::chord) due: Time,
    pub(in crate::chord) sent: u8,
    pub(in crate::chord) why: Why<I, A>,
}

/// What a request is part of.
#[derive(Clone, Debug)]
pub(in crate::chord) enum Why<I, A> {
    /// Asked the first successor for its neighbours.
    Stabilise,
    /// Asked a successor's predecessor, which may be a nearer successor, for its neighbours.
    TryPredecessor(Contact<I, A>),
    /// Asked the predecessor whether it lives.
    CheckPredecessor,
    /// Asked the predecessor whether it lives, because this node would be the next.
    Rectify(Contact<I, A>),
    /// Joining: asked the predecessor-to-be for its neighbours.
    JoinAt(Contact<I, A>),
    /// Passed a recursive query on.
    Carry(Box<Carried<I, A>>),
    /// Asked a node of an iterative lookup.
    Ask(Box<crate::chord::lookup::Asked<I, A>>),
}

/// A node that did not answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::chord) struct Suspect<A> {
    pub(in crate::chord) addr: A,
    pub(in crate::chord) strikes: u8,
    pub(in crate::chord) until: Time,
}

impl<I: RingId, A: Address> Node<I, A> {
    pub(super) fn find_request(&self, matches: impl Fn(&Request<I, A>) -> bool) -> Option<usize> {
        self.busy.as_ref()?.requests.iter().position(matches)
    }

    /// Nobody answered the request at index `at`: sends it again or gives it up.
    pub(super) fn on_silence(
        &mut self,
        now: Time,
        at: usize,
        surely: bool,
        out: &mut Vec<Output<I, A>>,
    ) {
        let attempts = self.config.attempts.max(1);
        let timeout = self.config.timeout;
        let Some(busy) = &mut self.busy else { return };
        let Some(request) = busy.requests.get_mut(at) else {
            return;
        };
        let patient = match &request.why {
            Why::Carry(carried) => carried.last,
            Why::Ask(asked) => asked.patient(),
            _ => true,
        };
        if !surely && patient && request.sent < attempts {
            request.sent += 1;
            request.due = now + timeout;
            let (to, nonce) = (request.to, request.nonce);
            let message = match &request.why {
                Why::Stabilise | Why::TryPredecessor(_) | Why::JoinAt(_) => {
                    Message::GetNeighbours { nonce }
                }
                Why::CheckPredecessor | Why::Rectify(_) => Message::Ping { nonce },
                Why::Carry(carried) => Message::Query(carried.onward(nonce)),
                Why::Ask(asked) => Message::Query(asked.query(nonce)),
            };
            out.push(Output::Send { to, message });
            return;
        }
        let request = busy.requests.swap_remove(at);
        let strikes = if surely { attempts } else { request.sent };
        self.suspect(now, request.to, strikes);
        match request.why {
            Why::Carry(carried) => self.on_carried_lost(now, *carried, out),
            Why::Ask(asked) => self.on_asked_lost(now, &asked, out),
            why => self.on_neighbour_lost(now, request.to, &why, out),
        }
    }

    /// Sends `message(nonce)` and waits for its answer.
    pub(in crate::chord) fn request(
        &mut self,
        now: Time,
        to: A,
        why: Why<I, A>,
        message: impl FnOnce(u32, &Why<I, A>) -> Message<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let nonce = self.draw() as u32;
        let message = message(nonce, &why);
        out.push(Output::Send { to, message });
        let due = now + self.config.timeout;
        self.busy().requests.push(Request {
            nonce,
            to,
            due,
            sent: 1,
            why,
        });
    }

    /// Ends the request that this answers, if there is one of that kind.
    pub(in crate::chord) fn take_request(
        &mut self,
        from: A,
        nonce: u32,
        kind: impl Fn(&Why<I, A>) -> bool,
    ) -> Option<Why<I, A>> {
        let at = self.find_request(|r| r.nonce == nonce && r.to == from && kind(&r.why))?;
        Some(self.busy.as_mut()?.requests.swap_remove(at).why)
    }

    /// Whether a request of this kind is under way.
    pub(in crate::chord) fn waits_for(&self, kind: impl Fn(&Why<I, A>) -> bool) -> bool {
        self.find_request(|r| kind(&r.why)).is_some()
    }

    pub(in crate::chord) fn full(&self) -> bool {
        self.busy
            .as_ref()
            .is_some_and(|b| b.requests.len() >= MAX_CARRIED)
    }

    /// Who speaks lives.
    pub(super) fn heard(&mut self, from: A) {
        if let Some(busy) = &mut self.busy
            && !busy.suspects.is_empty()
        {
            busy.suspects.retain(|s| s.addr != from);
        }
    }

    /// Notes that `addr` left `strikes` messages unanswered.
    pub(super) fn suspect(&mut self, now: Time, addr: A, strikes: u8) {
        if self.config.suspicion.is_zero() {
            return;
        }
        let until = now + self.config.suspicion;
        let dead = self.config.attempts.max(1);
        let suspects = &mut self.busy().suspects;
        let strikes = match suspects.iter_mut().find(|s| s.addr == addr) {
            Some(suspect) => {
                suspect.strikes = suspect.strikes.saturating_add(strikes);
                suspect.until = until;
                suspect.strikes
            }
            None => {
                if suspects.len() >= MAX_SUSPECTS {
                    suspects.remove(0);
                }
                suspects.push(Suspect {
                    addr,
                    strikes,
                    until,
                });
                strikes
            }
        };
        if strikes >= dead {
            let finger = self.tables.fingers.iter().find(|f| f.addr == addr);
            if let Some(finger) = finger.copied() {
                self.tables.fingers.retain(|f| f.addr != addr);
                self.remember(now, finger);
            }
        }
    }

    /// Whether `addr` is passed over: as the owner only when it surely is dead, since any other
    /// node than the owner would be wrong; on the way already after one message was lost.
    pub(in crate::chord) fn suspected(&self, addr: A, as_owner: bool) -> bool {
        let enough = if as_owner {
            self.config.attempts.max(1)
        } else {
            1
        };
        self.busy.as_ref().is_some_and(|b| {
            b.suspects
                .iter()
                .any(|s| s.addr == addr && s.strikes >= enough)
        })
    }
}
