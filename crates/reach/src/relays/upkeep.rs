//! Keeps the relays: asks each whether it is there, allocates at the best, replaces those that fall silent.

use super::{CONNECT, FULL, Life, Output, RETRY, Relay, Relays, cost_of};
use crate::agent::RelayId;
use crate::stun::{TransactionId, binding};
use shoal_base::Time;
use shoal_base::time::earliest;
use std::net::SocketAddr;
use std::time::Duration;

/// Allocations kept.
const KEPT: usize = 2;
/// How soon it is asked again if it does not answer, and after how many such it counts as dead.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_TCP: Duration = Duration::from_secs(1);
const MISSES: u32 = 4;
/// How long after the first connections TLS is tried.
const TLS_LATER: Duration = Duration::from_secs(1);

impl Relays {
    pub(super) fn ask(&mut self, now: Time, at: usize, out: &mut Vec<Output>) {
        let id = TransactionId::random(&mut self.rng);
        let Some(relay) = self.relays.get_mut(at) else {
            return;
        };
        if relay.asked.is_some() {
            relay.misses += 1;
        }
        relay.asked = Some((id, now));
        let again = if relay.tcp { AGAIN_TCP } else { AGAIN };
        relay.next = now
            + match relay.misses {
                n if n < 2 * MISSES => again.max(relay.rtt.unwrap_or_default() * 2),
                _ => RETRY,
            };
        let mut bytes = Vec::new();
        binding::request_load(id, &mut bytes);
        out.push(match relay.tcp {
            true => Output::Tcp(relay.id, bytes),
            false => Output::Udp(relay.at, bytes),
        });
    }

    /// The deadline has come.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut at = 0;
        while let Some(relay) = self.relays.get_mut(at) {
            let id = relay.id;
            if let Life::Opening(since) = relay.life
                && now.since(since) >= CONNECT
            {
                self.drop_client(now, at, now + RETRY, out);
                continue;
            }
            let mut turn = Vec::new();
            if let Some(client) = relay.client() {
                client.on_tick(now, &mut turn);
            }
            self.act(now, at, turn, out);
            let asks = self.relays.get(at).filter(|r| r.id == id);
            if asks.is_some_and(|r| now >= r.next && !(r.tcp && r.is_opening())) {
                self.ask(now, at, out);
            }
            if let Some(relay) = self.relays.get(at)
                && relay.misses >= MISSES
                && !matches!(relay.life, Life::Idle | Life::Opening(_))
            {
                self.drop_client(now, at, now + RETRY, out);
                continue;
            }
            at += 1;
        }
        self.keep(now, out);
    }

    /// Sees to it that enough allocations are there or asked for.
    pub(super) fn keep(&mut self, now: Time, out: &mut Vec<Output>) {
        let held = |r: &&Relay| !matches!(r.life, Life::Idle);
        // One that answers by one kind of addresses need not have the other.
        let answers = |ticket| {
            let mut of = self.relays.iter().filter(|r| r.ticket == ticket);
            of.any(|r| !r.tcp && r.rtt.is_some())
        };
        let silent = self.relays.iter().any(|r| !r.tcp && !answers(r.ticket));
        if !silent || self.settles.is_some_and(|at| now >= at) {
            self.settles = None;
        }
        let settled = self.first_answer.is_some() && self.settles.is_none();
        // Beside one that is full there is to be another.
        let full = self.relays.iter().filter(held).any(|r| r.load >= FULL);
        let kept = KEPT + usize::from(full);
        while settled && self.relays.iter().filter(held).count() < kept {
            let taken: Vec<usize> = self.relays.iter().filter(held).map(|r| r.ticket).collect();
            let free = self.relays.iter().enumerate().filter(|(_, r)| {
                let answers = r.rtt.is_some() && r.misses == 0;
                let idle = matches!(r.life, Life::Idle) && !taken.contains(&r.ticket);
                idle && !r.tcp && answers && now >= r.not_before
            });
            let cost = |r: &Relay| r.rtt.unwrap_or_default() + cost_of(r.load);
            let Some((at, _)) = free.min_by_key(|(_, r)| cost(r)) else {
                break;
            };
            self.allocate(now, at, out);
        }
        if self.first_answer.is_none() && now >= self.next_tcp {
            self.next_tcp = Time::FAR;
            let held = self.relays.iter().filter(|r| r.tcp);
            // Each ticket's addresses, those that most networks let through first.
            let port = |a: &SocketAddr| match a.port() {
                443 => 0,
                80 => 1,
                _ => 2,
            };
            let busy: Vec<usize> = held.clone().map(|r| r.ticket).collect();
            if held.filter(|r| r.is_up()).count() < KEPT {
                let mut places: Vec<(usize, SocketAddr)> = Vec::new();
                for (n, ticket) in self.tickets.iter().enumerate() {
                    if !busy.contains(&n) {
                        places.extend(ticket.at.iter().map(|a| (n, *a)));
                    }
                }
                places.sort_by_key(|(n, a)| (port(a), *n));
                if !places.is_empty() && self.next_tls == Time::FAR {
                    self.next_tls = now + TLS_LATER;
                }
                for (ticket, at) in places {
                    self.connect(now, at, ticket, false, out);
                }
                self.next_tcp = now + RETRY;
            }
        }
        if now >= self.next_tls {
            self.next_tls = Time::FAR;
            if !self.relays.iter().any(|r| r.tcp && r.is_up()) && self.first_answer.is_none() {
                let port = |a: &&SocketAddr| (a.port() != 443, a.port());
                let tickets = self.tickets.iter().enumerate();
                let places: Vec<_> = tickets
                    .filter_map(|(n, t)| Some((n, *t.at.iter().min_by_key(port)?)))
                    .collect();
                for (ticket, at) in places {
                    self.connect(now, at, ticket, true, out);
                }
            }
        }
        // Of several connections to one relay the first that serves stays.
        let up: Vec<(usize, RelayId)> = self
            .relays
            .iter()
            .filter(|r| r.tcp && r.is_up())
            .map(|r| (r.ticket, r.id))
            .collect();
        for (ticket, id) in up {
            let spare = |r: &Relay| r.tcp && r.ticket == ticket && r.id != id && !r.is_up();
            for relay in self.relays.iter().filter(|r| spare(r)) {
                out.push(Output::Close(relay.id));
            }
            self.relays.retain(|r| !spare(r));
        }
    }

    pub(super) fn connect(
        &mut self,
        now: Time,
        at: SocketAddr,
        ticket: usize,
        tls: bool,
        out: &mut Vec<Output>,
    ) {
        let mut relay = self.relay(now, at, true, ticket);
        relay.life = Life::Opening(now);
        let (id, to) = (relay.id, at);
        out.push(Output::Open { id, to, tls });
        self.relays.push(relay);
    }

    /// When [`Relays::on_tick`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        let mut next = None;
        for relay in &self.relays {
            if !relay.is_opening() {
                next = earliest(next, Some(relay.next));
            }
            match &relay.life {
                Life::Asking(client) | Life::Up { client, .. } => {
                    next = earliest(next, client.deadline());
                }
                Life::Opening(since) => next = earliest(next, Some(*since + CONNECT)),
                Life::Idle => {}
            }
        }
        if self.first_answer.is_none() && self.next_tcp != Time::FAR {
            next = earliest(next, Some(self.next_tcp));
        }
        if self.next_tls != Time::FAR {
            next = earliest(next, Some(self.next_tls));
        }
        earliest(next, self.settles)
    }
}
