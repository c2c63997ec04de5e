//! Random walks (Lv, Cao, Cohen, Li and Shenker, "Search and replication in unstructured
//! peer-to-peer networks", 2002): k walkers carry a question from neighbour to neighbour, and ask
//! the one who sent them, every fourth step, whether to go on. For study: no core does this.

use super::Asked;
use super::graph::Graph;
use super::library::{Library, word};
use super::servent::DELAY;
use crate::link::{Delay, Links};
use crate::rng_for;
use crate::space::Direct;
use crate::world::{Context, Process, World};
use rustc_hash::{FxHashMap, FxHashSet};
use shoal_base::{Rng, Time};
use std::time::Duration;

/// A question, numbered by the checker.
type Number = u32;

/// How often walkers ask whether to go on, in steps (Lv 2002 §4.2 found four to be best).
const CHECK: u32 = 4;
/// Bytes of a message besides its words: Gnutella's header, the flags, the zero, and for the way back
/// an address and a count of steps.
const FIXED: u32 = 23 + 2 + 1 + 8;

/// A walker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walker {
    question: Number,
    content: u32,
    asker: u32,
    /// Steps it made, and steps after which it ends.
    steps: u32,
    most: u32,
    /// Whether it ends when the asker has an answer.
    patient: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Step(Walker),
    /// Shall it go on? The walker waits where it is.
    Check(Walker),
    GoOn(Walker),
    /// A content was found, after so many steps.
    Found(Number, u32),
}

/// What the checker is told; bytes of what came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Step(Number, u32),
    Asked(Number, u32),
    Found(Number, u32, u32),
}

/// A node: its neighbours and its library.
#[derive(Debug)]
pub(super) struct Walked {
    neighbours: Vec<u32>,
    library: Library,
    rng: Rng,
    /// To whom each question was sent on from here (Lv 2002 §4.2: state keeping).
    sent: FxHashMap<Number, Vec<u32>>,
    answered: FxHashSet<Number>,
}

fn bytes(walker: &Walker) -> u32 {
    FIXED + word(walker.content).len() as u32
}

impl Walked {
    /// Sends a walker on: to a neighbour that it was not sent to from here, if there is one, and not
    /// back if there is another way.
    fn send_on(&mut self, ctx: &mut Context<'_, Self>, walker: Walker, from: Option<u32>) {
        if walker.steps >= walker.most {
            return;
        }
        let sent = self.sent.entry(walker.question).or_default();
        let fresh = |n: &&u32| !sent.contains(n) && Some(**n) != from;
        let mut ways: Vec<u32> = self.neighbours.iter().filter(fresh).copied().collect();
        if ways.is_empty() {
            let others = self.neighbours.iter().filter(|n| Some(**n) != from);
            ways = others.copied().collect();
        }
        let Some(to) = self.rng.pick(&ways).copied().or(from) else {
            return;
        };
        sent.push(to);
        let next = Walker {
            steps: walker.steps + 1,
            ..walker
        };
        ctx.send_stream(to, Message::Step(next), bytes(&next));
    }

    /// Sends so many walkers out.
    fn ask(&mut self, ctx: &mut Context<'_, Self>, walker: Walker, walkers: u32) {
        for _ in 0..walkers {
            self.send_on(ctx, walker, None);
        }
    }
}

impl Process for Walked {
    type Space = Direct;
    type Message = Message;
    type Event = Event;

    fn on_start(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: u32, message: Message) {
        match message {
            Message::Step(walker) => {
                ctx.tell(Event::Step(walker.question, bytes(&walker)));
                if walker.asker != ctx.me() && self.library.has(walker.content) {
                    let found = Message::Found(walker.question, walker.steps);
                    ctx.send_stream(walker.asker, found, 100);
                    if !walker.patient {
                        return;
                    }
                }
                if !walker.patient && walker.steps.is_multiple_of(CHECK) {
                    ctx.send_stream(walker.asker, Message::Check(walker), FIXED);
                } else {
                    self.send_on(ctx, walker, Some(from));
                }
            }
            Message::Check(walker) => {
                ctx.tell(Event::Asked(walker.question, FIXED));
                if !self.answered.contains(&walker.question) {
                    ctx.send_stream(from, Message::GoOn(walker), FIXED);
                }
            }
            Message::GoOn(walker) => {
                ctx.tell(Event::Asked(walker.question, FIXED));
                self.send_on(ctx, walker, None);
            }
            Message::Found(question, steps) => {
                self.answered.insert(question);
                ctx.tell(Event::Found(question, 100, steps));
            }
        }
    }

    fn on_tick(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn deadline(&self) -> Option<Time> {
        None
    }
}

/// Nodes on a graph, and a record of every question.
pub(super) struct Walks {
    pub(super) world: World<Walked>,
    numbers: Number,
    asked: FxHashMap<Number, (Time, Asked, FxHashSet<u32>)>,
    /// Messages that came to each node.
    pub(super) loads: Vec<u64>,
}

impl Walks {
    pub(super) fn new(seed: u64, graph: &Graph, libraries: &[Library]) -> Self {
        let links = Links {
            delay: Delay::Constant {
                us: DELAY.as_micros() as u64,
            },
            ..Links::default()
        };
        let mut world = World::new(seed, Direct, links);
        for (node, (neighbours, library)) in (0..).zip(graph.0.iter().zip(libraries)) {
            world.add(Walked {
                neighbours: neighbours.clone(),
                library: library.clone(),
                rng: rng_for(seed, 1 << 43 | node),
                sent: FxHashMap::default(),
                answered: FxHashSet::default(),
            });
            world.start(node as u32);
        }
        Self {
            world,
            numbers: 0,
            asked: FxHashMap::default(),
            loads: vec![0; libraries.len()],
        }
    }

    /// A node sends walkers out for a content, each for so many steps at most; `patient` ones go on when
    /// it was found.
    pub(super) fn ask(
        &mut self,
        (node, content): (u32, u32),
        (walkers, most): (u32, u32),
        patient: bool,
    ) -> Number {
        let question = self.numbers;
        self.numbers += 1;
        let walker = Walker {
            question,
            content,
            asker: node,
            steps: 0,
            most,
            patient,
        };
        self.world
            .call(node, |walked, ctx| walked.ask(ctx, walker, walkers));
        let reached = FxHashSet::from_iter([node]);
        let asked = (self.world.now(), Asked::default(), reached);
        self.asked.insert(question, asked);
        question
    }

    /// What became of a question; it is forgotten.
    pub(super) fn take(&mut self, question: Number) -> Asked {
        let known = self.asked.remove(&question);
        known.map_or_else(Asked::default, |(_, asked, reached)| Asked {
            reach: reached.len() as u64,
            ..asked
        })
    }

    /// Runs for so long and takes down what becomes of questions.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.world.now() + time;
        let (all, loads) = (&mut self.asked, &mut self.loads);
        self.world.run_until(until, |at, node, event| {
            let (number, bytes) = match event {
                Event::Step(n, b) | Event::Asked(n, b) | Event::Found(n, b, _) => (n, b),
            };
            loads[node as usize] += 1;
            let Some((since, asked, reached)) = all.get_mut(&number) else {
                return;
            };
            asked.bytes += u64::from(bytes);
            match event {
                Event::Step(..) => {
                    asked.messages += 1;
                    reached.insert(node);
                }
                Event::Asked(..) => asked.messages += 1,
                Event::Found(_, _, steps) => {
                    asked.hops.get_or_insert(steps);
                    asked.answers += 1;
                    asked.found += 1;
                    let ms = at.since(*since).as_secs_f64() * 1000.0;
                    asked.first_ms.get_or_insert(ms);
                }
            }
        });
    }
}
