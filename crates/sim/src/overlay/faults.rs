//! Chord under random faults, then healed: it must become one ideal ring, and answer rightly.
//!
//! Faults stay within what Chord can bear (Zave's assumption): nobody dies if a live member would
//! be left without a live successor. Partitions last from moments to longer than anybody waits, so
//! that each side goes on as a ring of its own; healed, they must become one.

use super::{Key, Ring, Said};
use crate::fault::{Fault, Menu, Passed, Plan};
use crate::link::Links;
use crate::world::Step;
use shoal_base::Time;
use shoal_dht::chord::{Config, Lookup, RingId, Route, Standing, Style, Want};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long things go wrong.
const FAULTY_US: u64 = 60_000_000;
/// How long the ring may take to become ideal once all is well.
const CONVERGES: Duration = Duration::from_secs(600);
/// Each side of a split counts the other as dead after some seconds.
const LONGEST_SPLIT: u64 = 45_000_000;
/// r.
const SUCCESSORS: usize = 5;

/// What may go wrong.
pub fn menu() -> Menu {
    Menu {
        links: true,
        crashes: true,
        membership: true,
        splits: true,
        split_us: LONGEST_SPLIT,
        clogs: true,
        clocks: true,
        // Chord knows a node by its place; one that moves is one that died and another that came.
        moves: false,
    }
}

/// The plan that a seed stands for.
pub fn plan(seed: u64) -> Plan {
    Plan::random(seed, (SUCCESSORS as u32 + 2, 24), FAULTY_US, menu())
}

const LOOKUP: u64 = 1 << 32;
const RETRY: u64 = 2 << 32;
const RESTART: u64 = 3 << 32;
const UNSPLIT: u64 = 4 << 32;
const HEAL: u64 = 5 << 32;
const LOW: u64 = (1 << 32) - 1;

struct Run<'a> {
    ring: Ring,
    plan: &'a Plan,
    /// Each node's place, from its number; nodes keep theirs when they come back.
    places: Vec<Key>,
    /// Splits under way; the last to end heals.
    splits: u32,
    lookups: u64,
    /// Nothing but membership changes and nothing is lost or late, so that who is taken for dead is
    /// dead: then Zave's invariants hold at every moment.
    clean: bool,
}

/// Nodes that keep their ring fifteen times as busily as they do by default, so that runs are
/// short.
fn config() -> Config {
    Config {
        successors: SUCCESSORS,
        stabilise: Some(Duration::from_secs(2)),
        fix_fingers: Some(Duration::from_secs(2)),
        check_predecessor: Some(Duration::from_secs(2)),
        merge: Some(Duration::from_secs(2)),
        ..Config::default()
    }
}

/// Runs a plan; an error says which rule was violated.
pub fn run(plan: &Plan) -> Result<Passed, String> {
    run_with(plan, config())
}

fn run_with(plan: &Plan, config: Config) -> Result<Passed, String> {
    // Enough for Zave's base of r + 1 whatever dies.
    let nodes = plan.nodes.max(SUCCESSORS as u32 + 2);
    let ring = Ring::perfect(plan.seed, nodes, true, config, Links::default(), |_, _| {});
    let places = ring.world.nodes().iter().map(|p| p.node.me().id).collect();
    let mut run = Run {
        ring,
        plan,
        places,
        splits: 0,
        lookups: 0,
        clean: plan.faults.iter().all(|(_, fault)| {
            matches!(
                fault,
                Fault::Crash { .. } | Fault::Join | Fault::Leave { .. }
            )
        }),
    };
    run.faulty()?;
    run.healed()
}

impl Run<'_> {
    fn faulty(&mut self) -> Result<(), String> {
        for (i, (at, _)) in (0..).zip(&self.plan.faults) {
            self.ring.world.schedule(Time::from_micros(*at), i);
        }
        self.ring.world.schedule(Time::from_micros(500_000), LOOKUP);
        let end = Time::from_micros(self.plan.faulty_us);
        self.ring.world.schedule(end, HEAL);
        loop {
            match self.ring.world.advance() {
                Step::Control(HEAL) => return Ok(()),
                Step::Control(LOOKUP) => {
                    self.look_up(Lookup::default());
                    self.check_tables()?;
                    let next = self.ring.world.now() + Duration::from_millis(500);
                    self.ring.world.schedule(next, LOOKUP);
                }
                Step::Control(token) => self.control(token),
                Step::Told(node, said) => self.heard(node, said)?,
                Step::Quiet => return Err("nothing happens any more".to_owned()),
            }
        }
    }

    fn control(&mut self, token: u64) {
        let low = (token & LOW) as u32;
        match token & !LOW {
            RETRY => self.join(low),
            RESTART => {
                if !self.ring.world.is_up(low) {
                    let core = self.ring.fresh(self.places[low as usize], low);
                    let peer = self.ring.peer(core);
                    self.ring.world.replace(low, peer);
                    self.ring.world.start(low);
                    self.join(low);
                }
            }
            UNSPLIT => {
                self.splits -= 1;
                if self.splits == 0 {
                    self.ring.world.heal();
                }
            }
            _ => {
                if let Some((_, fault)) = self.plan.faults.get(token as usize) {
                    self.apply(fault);
                }
            }
        }
    }

    fn apply(&mut self, fault: &Fault) {
        let now = self.ring.world.now();
        let world = &mut self.ring.world;
        match fault {
            Fault::Links(links) => *world.links() = *links,
            Fault::Crash { node, back_us, .. } => {
                if self.may_die(*node) {
                    self.ring.kill(*node);
                    if let Some(back) = back_us {
                        let at = now + Duration::from_micros(*back);
                        self.ring.world.schedule(at, RESTART | u64::from(*node));
                    }
                }
            }
            Fault::Join => {
                let key = self.ring.random_key();
                self.places.push(key);
                let node = self.ring.newcomer(key);
                self.join(node);
            }
            Fault::Leave { node } => {
                if self.may_die(*node) {
                    self.ring.world.call(*node, |peer, ctx| {
                        peer.act(ctx, |core, _, out| core.leave(out));
                    });
                    self.ring.kill(*node);
                }
            }
            Fault::Split { side, cuts, us } => {
                world.partition(side.clone(), cuts);
                self.splits += 1;
                world.schedule(now + Duration::from_micros(*us), UNSPLIT);
            }
            Fault::Clog { node, us } => world.clog(*node, now + Duration::from_micros(*us)),
            Fault::Slow { node, us } => world.set_slow(*node, Duration::from_micros(*us)),
            Fault::ClockJump { node, us } => world.adjust_clock(*node, |_, clock| clock.jump(*us)),
            Fault::ClockDrift { node, ppm } => {
                world.adjust_clock(*node, |now, clock| clock.set_drift(now, *ppm));
            }
            Fault::Move { .. } => {}
        }
    }

    /// Zave's assumption: every live member, newcomers included, keeps a live successor.
    fn may_die(&self, victim: u32) -> bool {
        let world = &self.ring.world;
        if !self.ring.truth.values().any(|n| *n == victim)
            || self.ring.truth.len() <= SUCCESSORS + 1
        {
            return false;
        }
        world.live().filter(|n| *n != victim).all(|n| {
            let node = &world.node(n).node;
            let lives = |s: &super::Member| s.addr != victim && world.is_up(s.addr);
            node.standing() != Standing::Member || node.successors().iter().any(lives)
        })
    }

    /// Has a node join at some member, as its driver would.
    fn join(&mut self, node: u32) {
        if !self.ring.world.is_up(node) {
            return;
        }
        let members: Vec<u32> = self.ring.truth.values().copied().collect();
        let via = self.ring.rng.pick(&members).copied();
        if let Some(via) = via.filter(|via| *via != node) {
            self.ring.world.call(node, |peer, ctx| {
                peer.act(ctx, |core, now, out| core.join(now, via, out));
            });
        } else {
            self.retry(node);
        }
    }

    fn retry(&mut self, node: u32) {
        let at = self.ring.world.now() + Duration::from_secs(2);
        self.ring.world.schedule(at, RETRY | u64::from(node));
    }

    fn look_up(&mut self, lookup: Lookup) {
        let members: Vec<u32> = self.ring.truth.values().copied().collect();
        let key = self.ring.random_key();
        if let Some(asker) = self.ring.rng.pick(&members).copied() {
            self.lookups += 1;
            self.ring.world.call(asker, |peer, ctx| {
                peer.act(ctx, |core, now, out| core.lookup(now, key, lookup, out))
            });
        }
    }

    fn heard(&mut self, node: u32, said: Said) -> Result<(), String> {
        match said {
            Said::Joined(Ok(())) => {
                self.ring.truth.insert(self.places[node as usize], node);
            }
            Said::Joined(Err(_)) => {
                self.ring.truth.remove(&self.places[node as usize]);
                self.retry(node);
            }
            // It lost everybody, and is a ring of its own until it finds them again.
            Said::Alone => {}
            Said::Lookup(_, Ok(found)) => {
                let place = self.places.get(found.owner.addr as usize);
                if place != Some(&found.owner.id) {
                    return Err(format!("a lookup found {:?}, who never was", found.owner));
                }
            }
            Said::Lookup(_, Err(_)) => {}
        }
        Ok(())
    }

    /// What holds at any time, whatever goes wrong.
    fn check_tables(&self) -> Result<(), String> {
        if self.clean {
            self.ring.check_one_ring()?;
        }
        for number in self.ring.world.live() {
            let node = &self.ring.world.node(number).node;
            let me = node.me();
            let list = node.successors();
            let far: Vec<_> = list.iter().map(|s| me.id.distance(s.id)).collect();
            if list.len() > SUCCESSORS || !far.is_sorted_by(|a, b| a < b) {
                return Err(format!(
                    "{me:?} has a successor list out of order: {list:?}"
                ));
            }
            let known = list.iter().chain(node.fingers());
            for contact in known.chain(&node.predecessor()) {
                if contact.id == me.id {
                    return Err(format!("{me:?} is its own neighbour"));
                }
                if self.places.get(contact.addr as usize) != Some(&contact.id) {
                    return Err(format!("{me:?} knows {contact:?}, who never was"));
                }
            }
        }
        Ok(())
    }

    fn healed(mut self) -> Result<Passed, String> {
        *self.ring.world.links() = Links::default();
        self.ring.world.heal();
        let drifting = self.ring.world.len() as u32;
        for node in 0..drifting {
            self.ring
                .world
                .adjust_clock(node, |now, clock| clock.set_drift(now, 0));
        }
        let began = self.ring.world.now();
        let mut wrong = Err("never looked".to_owned());
        while self.ring.world.now().since(began) < CONVERGES {
            self.let_run(Duration::from_secs(5))?;
            wrong = self.whole();
            if wrong.is_ok() {
                break;
            }
        }
        let healed = self.ring.world.now().since(began);
        wrong.map_err(|what| format!("{} s after healing: {what}", healed.as_secs()))?;
        self.check_lookups()?;
        Ok(Passed {
            digest: self.ring.world.digest().value(),
            events: self.ring.world.counts().events,
            healed_us: healed.as_micros() as u64,
        })
    }

    /// Every live node is a member of the one ideal ring, its fingers exact.
    fn whole(&self) -> Result<(), String> {
        let outside = self.ring.world.live().find(|n| {
            let key = self.places[*n as usize];
            self.ring.truth.get(&key) != Some(n)
        });
        if let Some(node) = outside {
            let standing = self.ring.world.node(node).node.standing();
            return Err(format!("node {node} is up but {standing:?}"));
        }
        self.ring.check_ideal()?;
        let share = self.ring.finger_accuracy();
        if share < 1.0 {
            return Err(format!("{:.1} % of the fingers are exact", share * 100.0));
        }
        Ok(())
    }

    fn let_run(&mut self, span: Duration) -> Result<(), String> {
        const PAUSE: u64 = 6 << 32;
        let until = self.ring.world.now() + span;
        self.ring.world.schedule(until, PAUSE);
        loop {
            match self.ring.world.advance() {
                Step::Control(PAUSE) => return Ok(()),
                // The faults are over.
                Step::Control(LOOKUP) => {}
                Step::Control(UNSPLIT) => self.splits = self.splits.saturating_sub(1),
                Step::Control(token) => self.control(token),
                Step::Told(node, said) => self.heard(node, said)?,
                Step::Quiet => return Err("nothing happens any more".to_owned()),
            }
        }
    }

    /// In the ideal ring every lookup, however it is done, finds the owner.
    fn check_lookups(&mut self) -> Result<(), String> {
        let mut asked = BTreeMap::new();
        let members: Vec<u32> = self.ring.truth.values().copied().collect();
        for asker in members {
            for (i, route) in [Route::Ring, Route::BothWays, Route::Fingers]
                .into_iter()
                .enumerate()
            {
                let lookup = Lookup {
                    route,
                    style: if i % 2 == 0 {
                        Style::Recursive
                    } else {
                        Style::Iterative
                    },
                    want: Want::Owner,
                    ..Lookup::default()
                };
                let key = self.ring.random_key();
                let number = self.ring.world.call(asker, |peer, ctx| {
                    peer.act(ctx, |core, now, out| core.lookup(now, key, lookup, out))
                });
                asked.insert((asker, number), key);
            }
        }
        let mut said = Vec::new();
        let until = self.ring.world.now() + Duration::from_secs(60);
        self.ring
            .world
            .run_until(until, |_, node, event| said.push((node, event)));
        for (node, event) in said {
            if let Said::Lookup(number, result) = event
                && let Some(key) = asked.remove(&(node, number))
            {
                let found = result.map_err(|e| format!("in the ideal ring: {key:?}: {e}"))?;
                if self.ring.owner(key) != Some(found.owner.addr) {
                    return Err(format!("in the ideal ring {key:?} is at {:?}", found.owner));
                }
            }
        }
        match asked.len() {
            0 => Ok(()),
            left => Err(format!("{left} lookups never ended")),
        }
    }
}

#[cfg(test)]
mod tests;
