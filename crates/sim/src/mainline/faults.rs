//! Mainline under random faults, then healed: what is put then must be found from everywhere, and
//! what was to be kept up through the faults must be found again.

use super::{Host, Network};
use crate::fault::{Fault, Menu, Passed, Plan};
use crate::link::{Delay, Links};
use crate::world::Step;
use shoal_dht::mainline::Snapshot;
use shoal_dht::{Answer, Id, Item, OpId, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long things go wrong.
const FAULTY_US: u64 = 300_000_000;
/// How long nodes may take after the healing until all find what is put.
const CONVERGES: Duration = Duration::from_secs(1800);
/// Between tries after the healing.
const BETWEEN: Duration = Duration::from_secs(60);

/// What may go wrong: everything.
pub fn menu() -> Menu {
    Menu {
        links: true,
        crashes: true,
        membership: true,
        splits: true,
        split_us: 120_000_000,
        clogs: true,
        clocks: true,
        moves: true,
    }
}

/// The plan that a seed stands for.
pub fn plan(seed: u64) -> Plan {
    Plan::random(seed, (10, 24), FAULTY_US, menu())
}

const WORK: u64 = 1 << 32;
const RESTART: u64 = 3 << 32;
const UNSPLIT: u64 = 4 << 32;
const HEAL: u64 = 5 << 32;
const PAUSE: u64 = 6 << 32;
const LOW: u64 = (1 << 32) - 1;

struct Run<'a> {
    net: Network,
    plan: &'a Plan,
    /// What nodes that are down had on their disks.
    disks: BTreeMap<u32, Snapshot>,
    splits: u32,
    /// Everything ever put, by its name.
    put: BTreeMap<Id, Item>,
    /// Gets under way, and what they look for.
    gets: BTreeMap<(u32, OpId), Id>,
    /// Node and name of what was got since this was last emptied.
    got: BTreeSet<(u32, Id)>,
}

/// Runs a plan; an error says which rule was violated.
pub fn run(plan: &Plan) -> Result<Passed, String> {
    let mut run = Run::begin(plan);
    run.faulty()?;
    run.healed()
}

fn good_links() -> Links {
    Links {
        delay: Delay::Uniform {
            low_us: 10_000,
            high_us: 60_000,
        },
        ..Links::default()
    }
}

impl<'a> Run<'a> {
    /// A network of the plan's size, every fourth node behind a translator.
    fn begin(plan: &'a Plan) -> Self {
        let mut net = Network::new(plan.seed, good_links());
        for i in 0..plan.nodes.max(2) {
            let nat = (i > 0 && i % 4 == 0).then(|| net.draw_nat());
            net.add(nat);
            let at = net.world.now() + Duration::from_millis(500);
            net.world.run_until(at, |_, _, _| {});
        }
        Self {
            net,
            plan,
            disks: BTreeMap::new(),
            splits: 0,
            put: BTreeMap::new(),
            gets: BTreeMap::new(),
            got: BTreeSet::new(),
        }
    }

    fn faulty(&mut self) -> Result<(), String> {
        let began = self.net.world.now();
        let at = |us: u64| began + Duration::from_micros(us);
        for (i, (us, _)) in (0..).zip(&self.plan.faults) {
            self.net.world.schedule(at(*us), i);
        }
        self.net.world.schedule(at(5_000_000), WORK);
        self.net.world.schedule(at(self.plan.faulty_us), HEAL);
        loop {
            match self.net.world.advance() {
                Step::Control(HEAL) => return Ok(()),
                Step::Control(WORK) => {
                    // A value is put somewhere and an older one got elsewhere.
                    self.put_one();
                    let names: Vec<Id> = self.put.keys().copied().collect();
                    if let Some(name) = self.net.rng.pick(&names).copied() {
                        let node = self.someone();
                        self.get(node, name);
                    }
                    let next = self.net.world.now() + Duration::from_secs(10);
                    self.net.world.schedule(next, WORK);
                }
                Step::Control(token) => self.control(token),
                Step::Told(node, (op, answer)) => self.heard(node, op, answer)?,
                Step::Quiet => return Err("nothing happens any more".to_owned()),
            }
        }
    }

    fn someone(&mut self) -> u32 {
        let live: Vec<u32> = self.net.world.live().collect();
        self.net.rng.pick(&live).copied().unwrap_or(0)
    }

    fn put_one(&mut self) -> Option<(u32, Id)> {
        let text = self.net.rng.next_u64().to_string();
        let item = Item::immutable(format!("{}:{text}", text.len()).into_bytes()).ok()?;
        let name = item.target();
        self.put.insert(name, item.clone());
        let node = self.someone();
        let request = Request::Put {
            item,
            cas: None,
            keep: false,
        };
        self.net.request(node, request);
        Some((node, name))
    }

    fn get(&mut self, node: u32, name: Id) {
        let op = self
            .net
            .request(node, Request::GetImmutable { target: name });
        self.gets.insert((node, op), name);
    }

    fn heard(&mut self, node: u32, op: OpId, answer: Answer) -> Result<(), String> {
        match answer {
            Answer::Value(item) => {
                let name = item.target();
                if self.put.get(&name) != Some(&item) {
                    return Err(format!("node {node} got {item:?}, which nobody put"));
                }
                if self.gets.get(&(node, op)) != Some(&name) {
                    return Err(format!("node {node} got {name} without asking for it"));
                }
                self.got.insert((node, name));
            }
            Answer::Done(_) => {
                self.gets.remove(&(node, op));
            }
            _ => {}
        }
        Ok(())
    }

    fn control(&mut self, token: u64) {
        let low = (token & LOW) as u32;
        match token & !LOW {
            RESTART => self.restart(low),
            UNSPLIT => {
                self.splits -= 1;
                if self.splits == 0 {
                    self.net.world.heal();
                }
            }
            _ => {
                if let Some((_, fault)) = self.plan.faults.get(token as usize) {
                    self.apply(fault);
                }
            }
        }
    }

    fn restart(&mut self, node: u32) {
        if !self.net.world.is_up(node) {
            let kept = self.disks.remove(&node);
            let core = self.net.core(kept);
            self.net.world.replace(node, Host { core });
            self.net.world.start(node);
        }
    }

    /// A node dies. Node 0, from which others start, does not: a network whose only known door is
    /// gone is not expected to be found.
    fn kill(&mut self, node: u32, disk: bool) -> bool {
        if node == 0 || !self.net.world.is_up(node) {
            return false;
        }
        if disk {
            let kept = self.net.world.node(node).core.snapshot();
            self.disks.insert(node, kept);
        }
        self.net.world.crash(node);
        self.gets.retain(|(asker, _), _| *asker != node);
        true
    }

    fn apply(&mut self, fault: &Fault) {
        let now = self.net.world.now();
        let world = &mut self.net.world;
        match fault {
            Fault::Links(links) => *world.links() = *links,
            Fault::Crash {
                node,
                back_us,
                disk,
            } => {
                if self.kill(*node, *disk)
                    && let Some(back) = back_us
                {
                    let at = now + Duration::from_micros(*back);
                    self.net.world.schedule(at, RESTART | u64::from(*node));
                }
            }
            Fault::Join => {
                let nat = self.net.rng.chance(0.25).then(|| self.net.draw_nat());
                self.net.add(nat);
            }
            Fault::Leave { node } => {
                self.kill(*node, false);
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
            Fault::Move { node } => {
                // Others start from node 0's address.
                if *node != 0 {
                    self.net.relocate(*node);
                }
            }
        }
    }

    fn let_run(&mut self, span: Duration) -> Result<(), String> {
        self.net.world.schedule(self.net.world.now() + span, PAUSE);
        loop {
            match self.net.world.advance() {
                Step::Control(PAUSE) => return Ok(()),
                Step::Control(WORK) => {}
                Step::Control(UNSPLIT) => self.splits = self.splits.saturating_sub(1),
                Step::Control(token) => self.control(token),
                Step::Told(node, (op, answer)) => self.heard(node, op, answer)?,
                Step::Quiet => return Err("nothing happens any more".to_owned()),
            }
        }
    }

    fn healed(mut self) -> Result<Passed, String> {
        *self.net.world.links() = good_links();
        self.net.world.heal();
        for node in 0..self.net.world.len() as u32 {
            self.net
                .world
                .adjust_clock(node, |now, clock| clock.set_drift(now, 0));
        }
        let began = self.net.world.now();
        let mut missing = String::new();
        while self.net.world.now().since(began) < CONVERGES {
            self.let_run(BETWEEN)?;
            missing = self.missing()?;
            if missing.is_empty() {
                break;
            }
        }
        let healed = self.net.world.now().since(began);
        if !missing.is_empty() {
            return Err(format!("{} s after healing: {missing}", healed.as_secs()));
        }
        Ok(Passed {
            digest: self.net.world.digest().value(),
            events: self.net.world.counts().events,
            healed_us: healed.as_micros() as u64,
        })
    }

    /// Puts three values at different nodes and gets them at every node; says who found what not.
    fn missing(&mut self) -> Result<String, String> {
        let put: Vec<_> = (0..3).filter_map(|_| self.put_one()).collect();
        self.let_run(Duration::from_secs(30))?;
        self.got.clear();
        let live: Vec<u32> = self.net.world.live().collect();
        for node in &live {
            for (_, name) in &put {
                self.get(*node, *name);
            }
        }
        self.let_run(Duration::from_secs(30))?;
        for node in &live {
            for (by, name) in &put {
                if !self.got.contains(&(*node, *name)) {
                    let known = self.net.world.node(*node).core.status().contacts[0];
                    return Ok(format!(
                        "node {node}, with {known} contacts, does not find {name}, put at {by}"
                    ));
                }
            }
        }
        if let Some(((node, op), _)) = self.gets.first_key_value() {
            return Err(format!("operation {op:?} at node {node} never ended"));
        }
        Ok(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_faults_heal_and_everybody_finds_what_is_put() {
        for seed in 0..3 {
            let plan = plan(seed);
            let passed = run(&plan).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(passed.events > 0);
            if seed == 0 {
                assert_eq!(Ok(passed), run(&plan), "seed {seed} replays");
            }
        }
    }

    #[test]
    fn a_network_that_stays_cut_is_caught() {
        let plan = Plan {
            seed: 3,
            nodes: 12,
            faulty_us: 10_000_000,
            faults: Vec::new(),
        };
        assert!(run(&plan).is_ok());
        // One node hears nobody, for as long as the checker looks.
        let mut run = Run::begin(&plan);
        run.faulty().expect("nothing goes wrong");
        run.net.world.clog(5, shoal_base::Time::FAR);
        let missing = run.missing().expect("operations end");
        let blamed = missing.starts_with("node 5,") || missing.ends_with("put at 5");
        assert!(blamed, "{missing}");
    }
}
