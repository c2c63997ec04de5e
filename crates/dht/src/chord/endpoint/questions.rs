//! Questions to other nodes: asked again, answered, given up.

use super::{Asked, Endpoint, Purpose};
use crate::Output;
use crate::chord::links::Waiting;
use crate::chord::place::Place;
use crate::chord::wire::{Ask, Body, Reply};
use shoal_base::Time;

/// How often a question about what is stored is asked before the node counts as dead.
const ATTEMPTS: u8 = 3;

impl Endpoint {
    /// Asks a question about what is stored. With `any`, whoever is at the address.
    pub(super) fn ask(
        &mut self,
        now: Time,
        to: Place,
        any: bool,
        ask: Ask,
        purpose: Purpose,
        out: &mut Vec<Output>,
    ) {
        let mut number = self.rng.next_u32();
        // 0 is nobody's.
        while number == 0 || self.asked.contains_key(&number) {
            number = self.rng.next_u32();
        }
        let own = !any && self.own(to.id).is_some();
        let mut asked = Asked {
            to,
            any,
            body: Vec::new(),
            due: now + self.settings.timeout,
            sent: 1,
            purpose,
        };
        if own {
            self.own_questions.push_back((number, ask));
        } else {
            asked.body = self.encode(&Body::Ask { number, ask });
            self.transmit(now, to, any, asked.body.clone(), out);
        }
        self.asked.insert(number, asked);
    }

    pub(super) fn transmit(
        &mut self,
        now: Time,
        to: Place,
        any: bool,
        body: Vec<u8>,
        out: &mut Vec<Output>,
    ) {
        if any {
            let waiting = Waiting { body, token: None };
            self.links.send(now, to.socket, waiting, out);
        } else {
            self.send(now, to, body, out);
        }
    }

    pub(super) fn on_reply(
        &mut self,
        now: Time,
        asked: &Asked,
        reply: Option<Reply>,
        out: &mut Vec<Output>,
    ) {
        match asked.purpose {
            Purpose::Op(op) => self.op_reply(now, op, asked.to, reply, out),
            Purpose::Transfer(target) => {
                self.transferred(now, target, asked.to.id, reply.as_ref());
            }
            Purpose::Check => self.checked(now, asked.to.id, reply.as_ref()),
            Purpose::Renew(target) => self.renewed(now, target, reply, out),
            Purpose::Push(target) => {
                self.pushed(now, target, asked.to.socket, reply.as_ref());
            }
        }
    }

    pub(super) fn fail_questions(
        &mut self,
        now: Time,
        which: impl Fn(&Asked) -> bool,
        out: &mut Vec<Output>,
    ) {
        let lost = self.asked.iter().filter(|(_, a)| which(a));
        let lost: Vec<u32> = lost.map(|(n, _)| *n).collect();
        for number in lost {
            if let Some(asked) = self.asked.remove(&number) {
                self.on_reply(now, &asked, None, out);
            }
        }
    }

    pub(super) fn tick_questions(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = self.asked.iter().filter(|(_, a)| a.due <= now);
        let due: Vec<u32> = due.map(|(n, _)| *n).collect();
        for number in due {
            let Some(asked) = self.asked.get_mut(&number) else {
                continue;
            };
            if asked.sent < ATTEMPTS && !asked.body.is_empty() {
                asked.sent += 1;
                asked.due = now + self.settings.timeout;
                let (to, any, body) = (asked.to, asked.any, asked.body.clone());
                let purpose = asked.purpose;
                self.transmit(now, to, any, body, out);
                if let Purpose::Op(op) = purpose {
                    self.op_slow(now, op, out);
                }
            } else if let Some(asked) = self.asked.remove(&number) {
                if !asked.any {
                    for node in &mut self.nodes {
                        node.on_silent(now, asked.to);
                    }
                }
                self.on_reply(now, &asked, None, out);
            }
        }
    }
}
