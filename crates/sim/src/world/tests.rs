use super::*;
use crate::link::Delay;
use crate::nat::{Internet, NatKind};
use crate::space::Direct;
use std::net::SocketAddr;

/// Rumours spread: who hears one for the first time tells three others.
struct Gossip {
    rng: Rng,
    nodes: u32,
    heard: Option<Time>,
    /// Tells one more node every second while set.
    next: Option<Time>,
}

impl Process for Gossip {
    type Space = Direct;
    type Message = u64;
    type Event = u64;

    fn on_start(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, _from: u32, rumour: u64) {
        if self.heard.is_none() {
            self.heard = Some(ctx.now());
            ctx.tell(rumour);
            for _ in 0..3 {
                ctx.send(self.rng.below(self.nodes as usize) as u32, rumour, 100);
            }
            self.next = Some(ctx.now() + Duration::from_secs(1));
        }
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        ctx.send(self.rng.below(self.nodes as usize) as u32, 7, 100);
        self.next = Some(ctx.now() + Duration::from_secs(1));
    }

    fn deadline(&self) -> Option<Time> {
        self.next
    }
}

fn gossip(seed: u64, nodes: u32, links: Links) -> World<Gossip> {
    let mut world = World::new(seed, Direct, links);
    for i in 0..nodes {
        let rng = world.rng(i);
        world.add(Gossip {
            rng,
            nodes,
            heard: None,
            next: None,
        });
        world.start(i);
    }
    world
}

fn spread(seed: u64) -> (u64, Counts, usize) {
    let links = Links {
        delay: Delay::Uniform {
            low_us: 1000,
            high_us: 90_000,
        },
        loss: 0.1,
        duplicate: 0.1,
        reorder: 0.1,
        ..Links::default()
    };
    let mut world = gossip(seed, 200, links);
    world.call(0, |node, ctx| node.on_message(ctx, 0, 7));
    let mut heard = 0;
    world.run_until(Time::from_secs(20), |_, _, _| heard += 1);
    (world.digest().value(), world.counts(), heard)
}

#[test]
fn a_seed_replays_and_another_differs() {
    let first = spread(1);
    assert_eq!(first.2, 200, "everybody hears");
    assert_eq!(first, spread(1));
    assert_ne!(first.0, spread(2).0);
}

#[test]
fn a_partition_keeps_rumours_in_until_it_heals() {
    let mut world = gossip(3, 100, Links::default());
    world.split((0..100).map(|i| u8::from(i >= 50)).collect());
    world.call(0, |node, ctx| node.on_message(ctx, 0, 7));
    world.run_until(Time::from_secs(30), |_, node, _| assert!(node < 50));
    world.heal();
    let mut others = 0;
    world.run_until(Time::from_secs(60), |_, node, _| {
        others += u32::from(node >= 50);
    });
    assert_eq!(others, 50);
}

#[test]
fn a_crashed_node_hears_nothing_and_its_timer_dies() {
    let mut world = gossip(4, 2, Links::default());
    world.call(0, |node, ctx| node.on_message(ctx, 0, 7));
    world.run_until(Time::from_secs(5), |_, _, _| {});
    world.crash(0);
    world.crash(1);
    let before = world.counts().events;
    world.run_until(Time::from_secs(50), |_, _, _| {});
    assert_eq!(world.counts().events, before);
    assert_eq!(world.pending(), 0, "stale ticks are gone");
    assert_eq!(world.live().count(), 0);
    world.start(0);
    world.run_until(Time::from_secs(60), |_, _, _| {});
    assert!(world.counts().events > before, "its timer runs again");
}

#[test]
fn a_fast_clock_ticks_more_often() {
    let ticks = |drift| {
        let mut world = gossip(5, 1, Links::default());
        world.adjust_clock(0, |now, clock| clock.set_drift(now, drift));
        world.call(0, |node, ctx| {
            node.heard = Some(ctx.now());
            node.next = node.heard;
        });
        world.run_until(Time::from_secs(1000), |_, _, _| {});
        world.counts().sent
    };
    let (slow, right, fast) = (ticks(-100_000), ticks(0), ticks(100_000));
    assert!((899..=901).contains(&slow), "{slow}");
    assert!((999..=1001).contains(&right), "{right}");
    assert!((1099..=1101).contains(&fast), "{fast}");
}

#[test]
fn controls_come_in_their_turn() {
    let mut world = gossip(6, 1, Links::default());
    world.schedule(Time::from_secs(2), 20);
    world.schedule(Time::from_secs(1), 10);
    world.schedule(Time::from_secs(2), 21);
    let mut steps = Vec::new();
    loop {
        match world.advance() {
            Step::Control(token) => steps.push((world.now().as_micros() / 1_000_000, token)),
            Step::Told(..) => unreachable!("nobody tells anything"),
            Step::Quiet => break,
        }
    }
    assert_eq!(steps, [(1, 10), (2, 20), (2, 21)]);
}

/// Answers every datagram, and tells what came.
struct Echo;

impl Process for Echo {
    type Space = Internet;
    type Message = Vec<u8>;
    type Event = (SocketAddr, Vec<u8>);

    fn on_start(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: SocketAddr, bytes: Vec<u8>) {
        if bytes == b"ping" {
            ctx.send(from, b"pong".to_vec(), 4);
        }
        ctx.tell((from, bytes));
    }

    fn on_tick(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn deadline(&self) -> Option<Time> {
        None
    }
}

#[test]
fn a_node_behind_a_nat_is_answered_but_not_called() {
    let mut world = World::new(7, Internet::new(), Links::default());
    let public: SocketAddr = "5.5.5.5:5".parse().expect("an address");
    for _ in 0..2 {
        let node = world.add(Echo);
        world.start(node);
    }
    let nat = world
        .space()
        .add_nat(NatKind::cone(Duration::from_secs(30)), [9, 9, 9, 9].into());
    world.space().attach(0, public);
    world.space().attach_behind(1, nat);

    let mut heard = Vec::new();
    world.call(1, |_, ctx| ctx.send(public, b"ping".to_vec(), 4));
    world.run_until(Time::from_secs(5), |_, node, (from, bytes)| {
        heard.push((node, from, bytes));
    });
    let outer = heard[0].1;
    assert_eq!(heard[0], (0, outer, b"ping".to_vec()));
    assert_eq!(heard[1], (1, public, b"pong".to_vec()));
    assert_eq!(outer.ip(), std::net::IpAddr::from([9, 9, 9, 9]));

    world.run_until(Time::from_secs(60), |_, _, _| {});
    world.call(0, |_, ctx| ctx.send(outer, b"ping".to_vec(), 4));
    let mut late = 0;
    world.run_until(Time::from_secs(70), |_, _, _| late += 1);
    assert_eq!(late, 0, "the mapping has ended");
}

#[test]
fn a_stream_waits_for_the_partition() {
    let mut world = gossip(8, 2, Links::default());
    world.split(vec![0, 1]);
    world.call(0, |_, ctx| ctx.send_stream(1, 7, 10));
    let mut at = None;
    world.run_until(Time::from_secs(10), |now, _, _| at = Some(now));
    assert_eq!(at, None);
    world.heal();
    world.run_until(Time::from_secs(11), |now, _, _| at = at.or(Some(now)));
    assert_eq!(at, Some(Time::from_micros(10_050_000)));
}
