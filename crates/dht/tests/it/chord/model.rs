//! Zave's invariants, checked in every state that any order of events reaches: the real core at
//! small scale, after her Alloy model ("Reasoning about Identifier Spaces: How to Make Chord
//! Correct", IEEE TSE 2017).
//!
//! **Events**: a node joins, joins again after it failed, or fails; a member begins to stabilise; a
//! question is answered, or found to have no living receiver; a notification arrives. As in her
//! model a question and its answer are one event, failures are detected without error, and what a
//! member sets off by stabilising is over before it stabilises again. Looking one's place up is
//! one event: it only says whom to ask.
//!
//! **Assumption**: a failure leaves each member a living successor in its list, and leaves r + 1
//! principals (members that no member's list skips).
//!
//! States that differ only by turning the circle are one.

use rustc_hash::FxHashSet;
use shoal_base::Time;
use shoal_dht::chord::{Config, Contact, Message, Node, Output, Point, RingId, Standing};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

type P = Point<3>;
type Member = Node<P, u32>;

/// r.
const R: usize = 2;
const NOW: Time = Time::ZERO;

/// A message on its way.
#[derive(Clone)]
struct Letter {
    from: u32,
    to: u32,
    message: Message<P, u32>,
    /// What the sender will do with the answer, where the message does not tell.
    tag: u32,
}

/// The nodes, by position: address and identifier are one. None: never joined, or failed.
#[derive(Clone)]
struct State {
    nodes: Vec<Option<Rc<Member>>>,
    mail: Vec<Letter>,
    /// Joins and failures so far.
    changes: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Event {
    Join(u32),
    Fail(u32),
    Leave(u32),
    Stabilise(u32),
    CheckPredecessor(u32),
    Deliver(usize),
}

/// What may happen.
#[derive(Clone, Copy)]
struct Rules {
    /// Positions on the circle.
    positions: u32,
    /// Members tell when they leave.
    leaves: bool,
    /// How many joins and failures there may be in all.
    changes: u32,
    /// Failures may leave this many principals.
    principals: usize,
}

fn contact(n: u32) -> Contact<P, u32> {
    Contact::new(P::new(n.into()), n)
}

fn config() -> Arc<Config> {
    Arc::new(Config {
        successors: R,
        attempts: 1,
        suspicion: std::time::Duration::ZERO,
        ..Config::still()
    })
}

impl State {
    /// An ideal ring.
    fn ideal(rules: Rules, members: &[u32]) -> Self {
        let n = members.len();
        let mut nodes = vec![None; rules.positions as usize];
        for (at, me) in members.iter().enumerate() {
            let successors: Vec<_> = (1..=R).map(|i| contact(members[(at + i) % n])).collect();
            let before = Some(contact(members[(at + n - 1) % n]));
            let seed = u64::from(*me);
            let node =
                Node::with_tables(NOW, contact(*me), config(), seed, before, &successors, &[]);
            nodes[*me as usize] = Some(Rc::new(node));
        }
        Self {
            nodes,
            mail: Vec::new(),
            changes: 0,
        }
    }

    fn node(&self, n: u32) -> Option<&Member> {
        self.nodes.get(n as usize)?.as_deref()
    }

    fn member(&self, n: u32) -> Option<&Member> {
        self.node(n).filter(|m| m.standing() == Standing::Member)
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        let nodes = self.nodes.iter().flatten().map(Rc::as_ref);
        nodes.filter(|m| m.standing() == Standing::Member)
    }

    fn act(&mut self, n: u32, act: impl FnOnce(&mut Member, &mut Vec<Output<P, u32>>)) {
        let mut out = Vec::new();
        let Some(node) = self.nodes[n as usize].as_mut() else {
            return;
        };
        let node = Rc::make_mut(node);
        act(node, &mut out);
        let head = node.successors().first().map(|s| s.addr);
        let gone = node.standing() == Standing::Outside;
        for output in out {
            if let Output::Send { to, message } = output {
                let tag = u32::from(head == Some(to));
                // The same news twice is the same news.
                let news = |l: &Letter| {
                    (l.from, l.to) == (n, to)
                        && l.message == message
                        && matches!(message, Message::Notify { .. } | Message::Leaving { .. })
                };
                if !self.mail.iter().any(news) {
                    self.mail.push(Letter {
                        from: n,
                        to,
                        message,
                        tag,
                    });
                }
            }
        }
        if gone {
            self.nodes[n as usize] = None;
        }
        self.route();
    }

    /// Carries lookups to their end: they only say whom to ask.
    fn route(&mut self) {
        let lookup = |letter: &Letter| {
            matches!(
                letter.message,
                Message::Query(_) | Message::Taken { .. } | Message::Found { .. }
            )
        };
        while let Some(at) = self.mail.iter().position(lookup) {
            let letter = self.mail.remove(at);
            self.hand_over(letter);
        }
    }

    /// Delivers; the answer to a question is part of the same event.
    fn hand_over(&mut self, letter: Letter) {
        let Letter {
            from, to, message, ..
        } = letter;
        let question = matches!(
            message,
            Message::GetNeighbours { .. } | Message::Ping { .. } | Message::Query(_)
        );
        let notified = matches!(message, Message::Notify { .. });
        if self.member(to).is_none()
            && !matches!(message, Message::Found { .. } | Message::Taken { .. })
        {
            if question {
                self.act(from, |n, out| n.on_unreachable(NOW, to, out));
            }
            return;
        }
        let before = self.mail.len();
        self.act(to, |n, out| n.on_message(NOW, from, message, out));
        let new = before.min(self.mail.len());
        if notified {
            // A ping it sent on that account is for this notifier.
            for letter in &mut self.mail[new..] {
                letter.tag = from + 10;
            }
        }
        if question {
            let answer = self.mail[new..].iter().position(|l| {
                l.to == from
                    && matches!(l.message, Message::Neighbours { .. } | Message::Pong { .. })
            });
            if let Some(at) = answer {
                let answer = self.mail.remove(new + at);
                self.act(from, |n, out| n.on_message(NOW, to, answer.message, out));
            }
        }
    }

    fn events(&self, rules: Rules) -> Vec<Event> {
        let mut events: Vec<_> = (0..self.mail.len()).map(Event::Deliver).collect();
        let may_change = self.changes < rules.changes;
        for n in 0..rules.positions {
            let Some(node) = self.node(n) else {
                if may_change {
                    events.push(Event::Join(n));
                }
                continue;
            };
            if may_change && self.may_fail(n, rules) {
                events.push(Event::Fail(n));
                if rules.leaves && node.standing() == Standing::Member {
                    events.push(Event::Leave(n));
                }
            }
            if node.standing() != Standing::Member {
                continue;
            }
            if !self.mail.iter().any(|l| l.from == n) {
                events.push(Event::Stabilise(n));
                if node
                    .predecessor()
                    .is_some_and(|p| self.member(p.addr).is_none())
                {
                    events.push(Event::CheckPredecessor(n));
                }
            }
        }
        events
    }

    fn may_fail(&self, n: u32, rules: Rules) -> bool {
        let mut after = self.clone();
        after.nodes[n as usize] = None;
        after.members().next().is_some()
            && after.members().all(|m| after.best_successor(m).is_some())
            && after.principals() >= rules.principals
    }

    fn apply(&self, event: Event, rules: Rules) -> Self {
        let mut next = self.clone();
        if matches!(event, Event::Join(_) | Event::Fail(_) | Event::Leave(_)) {
            next.changes += 1;
        }
        match event {
            Event::Join(n) => {
                let via = (0..rules.positions).find(|m| self.member(*m).is_some());
                let joiner = Node::new(contact(n), config(), u64::from(n));
                next.nodes[n as usize] = Some(Rc::new(joiner));
                next.act(n, |node, out| node.join(NOW, via.expect("a member"), out));
            }
            Event::Fail(n) => next.forget(n),
            Event::Leave(n) => {
                next.forget_mail(n);
                next.act(n, |node, out| node.leave(out));
            }
            Event::Stabilise(n) => {
                next.act(n, |node, out| node.stabilise(NOW, out));
                if let Some(at) = next.mail.iter().position(|l| l.from == n) {
                    let letter = next.mail.remove(at);
                    next.hand_over(letter);
                }
            }
            Event::CheckPredecessor(n) => {
                next.act(n, |node, out| node.check_predecessor(NOW, out));
                if let Some(at) = next.mail.iter().position(|l| l.from == n) {
                    let letter = next.mail.remove(at);
                    next.hand_over(letter);
                }
            }
            Event::Deliver(at) => {
                let letter = next.mail.remove(at);
                next.hand_over(letter);
            }
        }
        next
    }

    fn forget(&mut self, n: u32) {
        self.nodes[n as usize] = None;
        self.forget_mail(n);
    }

    /// A question dies with its asker; what it has told others may still arrive.
    fn forget_mail(&mut self, n: u32) {
        self.mail
            .retain(|l| l.from != n || matches!(l.message, Message::Notify { .. }));
    }

    fn best_successor(&self, m: &Member) -> Option<u32> {
        let list = m.successors().iter().map(|s| s.addr);
        list.into_iter().find(|s| self.member(*s).is_some())
    }

    fn principals(&self) -> usize {
        let skipped = |p: &Member| {
            self.members().any(|m| {
                let list = std::iter::once(m.me()).chain(m.successors().iter().copied());
                let list: Vec<_> = list.collect();
                list.windows(2)
                    .any(|w| p.me().id.strictly_between(w[0].id, w[1].id))
            })
        };
        self.members().filter(|p| !skipped(p)).count()
    }

    /// Zave's invariants.
    fn check(&self, principals: usize) -> Result<(), String> {
        let mut next = BTreeMap::new();
        for m in self.members() {
            let me = m.me();
            let Some(best) = self.best_successor(m) else {
                return Err(format!("{me:?} has no living successor"));
            };
            next.insert(me.addr, best);
            let distances: Vec<_> = m
                .successors()
                .iter()
                .map(|s| me.id.distance(s.id))
                .collect();
            if !distances.iter().is_sorted_by(|a, b| a < b) || distances.contains(&P::new(0)) {
                return Err(format!(
                    "{me:?}: the list is disordered: {:?}",
                    m.successors()
                ));
            }
        }
        // Following the best successors as many times as there are members ends on a ring.
        let mut rings: Vec<Vec<u32>> = Vec::new();
        for start in next.keys() {
            let mut at = *start;
            for _ in 0..next.len() {
                at = next[&at];
            }
            let mut ring = vec![at];
            while next[&ring[ring.len() - 1]] != at {
                ring.push(next[&ring[ring.len() - 1]]);
            }
            let least = ring.iter().enumerate().min_by_key(|(_, n)| **n);
            let turn = least.map_or(0, |(i, _)| i);
            ring.rotate_left(turn);
            if !rings.contains(&ring) {
                rings.push(ring);
            }
        }
        match &rings[..] {
            [ring] if ring.is_sorted() => {}
            [ring] => return Err(format!("the ring is disordered: {ring:?}")),
            rings => return Err(format!("not one ring: {rings:?}")),
        }
        if self.principals() < principals {
            return Err(format!("only {} principals", self.principals()));
        }
        Ok(())
    }

    fn is_ideal(&self) -> bool {
        let ring: Vec<_> = self.members().map(Node::me).collect();
        let n = ring.len();
        self.members().enumerate().all(|(at, m)| {
            let list: Vec<_> = (1..=R.min(n - 1)).map(|i| ring[(at + i) % n]).collect();
            m.successors() == list && m.predecessor() == Some(ring[(at + n - 1) % n])
        })
    }

    /// What remains of a state when the circle is turned by `by`.
    fn code(&self, by: u32) -> Vec<u8> {
        let n = self.nodes.len() as u32;
        let turn = |a: u32| ((a + by) % n) as u8;
        let mut code = Vec::with_capacity(64);
        code.push(self.changes as u8);
        for position in 0..n {
            let Some(node) = self.node((position + n - by) % n) else {
                code.push(255);
                continue;
            };
            code.push(u8::from(node.standing() == Standing::Member));
            code.push(node.predecessor().map_or(254, |p| turn(p.addr)));
            code.extend(node.successors().iter().map(|s| turn(s.addr)));
            code.push(253);
        }
        let mut mail: Vec<[u8; 4]> = (self.mail.iter())
            .map(|l| {
                let kind = match l.message {
                    Message::GetNeighbours { .. } => 0,
                    Message::Ping { .. } => 1,
                    Message::Notify { .. } => 2,
                    _ => 3,
                };
                let tag = if l.tag >= 10 {
                    10 + turn(l.tag - 10)
                } else {
                    l.tag as u8
                };
                [kind, turn(l.from), turn(l.to), tag]
            })
            .collect();
        mail.sort_unstable();
        code.extend(mail.into_iter().flatten());
        code
    }

    fn canonical(&self) -> Box<[u8]> {
        let turned = (0..self.nodes.len() as u32).map(|by| self.code(by));
        turned.min().unwrap_or_default().into()
    }

    /// All that is on its way arrives, then each member stabilises once: no faults.
    fn quiet_round(&self, rules: Rules) -> Self {
        let mut state = self.clone();
        let settle = |state: &mut Self| {
            while !state.mail.is_empty() {
                *state = state.apply(Event::Deliver(0), rules);
            }
        };
        settle(&mut state);
        for n in 0..rules.positions {
            if state.member(n).is_some() {
                state = state.apply(Event::Stabilise(n), rules);
                settle(&mut state);
            }
        }
        state
    }
}

struct Explored {
    states: usize,
    transitions: usize,
    /// Most quiet rounds that a state took to become ideal.
    rounds: usize,
}

/// Visits every state; `Err` is the first that violates an invariant and how it came about.
fn explore(rules: Rules, start: State, most: usize) -> Result<Explored, String> {
    let mut seen = FxHashSet::default();
    let mut quiet = FxHashSet::default();
    seen.insert(start.canonical());
    let mut parents: Vec<(usize, Option<Event>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(0, start)]);
    let mut explored = Explored {
        states: 0,
        transitions: 0,
        rounds: 0,
    };
    while let Some((number, state)) = queue.pop_front() {
        explored.states += 1;
        let history = || {
            let mut events = Vec::new();
            let mut at = number;
            while let (parent, Some(event)) = parents[at] {
                events.push(event);
                at = parent;
            }
            events.reverse();
            format!("{events:?}")
        };
        state
            .check(rules.principals)
            .map_err(|e| format!("{e} after {}", history()))?;
        // Where mail is on its way, its delivery leads to a state that is visited too.
        if state.mail.is_empty() {
            let mut path = Vec::new();
            let mut calm = state.clone();
            while !calm.is_ideal() && !quiet.contains(&calm.canonical()) {
                path.push(calm.canonical());
                calm = calm.quiet_round(rules);
                if path.len() > 50 {
                    return Err(format!("never ideal after {}", history()));
                }
            }
            let rounds = path.len();
            quiet.extend(path);
            explored.rounds = explored.rounds.max(rounds);
        }
        if parents.len() > most {
            return Err(format!("more than {most} states"));
        }
        for event in state.events(rules) {
            let next = state.apply(event, rules);
            explored.transitions += 1;
            if seen.insert(next.canonical()) {
                parents.push((number, Some(event)));
                queue.push_back((parents.len() - 1, next));
            }
        }
    }
    Ok(explored)
}

fn report(name: &str, explored: &Explored) {
    // The test's output is the figure asked for.
    #[allow(clippy::print_stdout)]
    {
        println!(
            "{name}: {} states, {} transitions, ideal after at most {} quiet rounds",
            explored.states, explored.transitions, explored.rounds
        );
    }
}

#[test]
fn every_order_of_three_changes_and_leaves_keeps_the_invariants_at_four_positions() {
    check(4, &[0, 1, 2], 3, true);
}

#[test]
fn every_order_of_three_changes_keeps_the_invariants_at_five_positions() {
    check(5, &[0, 1, 3], 3, false);
}

/// `cargo test --release -p shoal-dht --test it model -- --ignored --nocapture`
#[test]
#[ignore = "minutes"]
fn more_changes_and_more_positions() {
    check(6, &[0, 2, 4], 3, false);
    check(4, &[0, 1, 2], 4, true);
    check(5, &[0, 1, 3], 4, false);
    check(7, &[0, 2, 4], 3, false);
}

fn check(positions: u32, members: &[u32], changes: u32, leaves: bool) {
    let rules = Rules {
        positions,
        leaves,
        changes,
        principals: R + 1,
    };
    let explored = explore(rules, State::ideal(rules, members), 50_000_000);
    let explored = explored.unwrap_or_else(|e| panic!("{e}"));
    report(
        &format!("{positions} positions, {changes} changes, r = {R}"),
        &explored,
    );
    assert!(explored.states > 1000);
}
