//! The real Mainline core in the world: datagrams between socket addresses, some of them behind
//! translators.

pub mod faults;
pub mod kademlia;

use crate::nat::{Internet, NatKind};
use crate::world::{Context, Process, World};
use crate::{Links, rng_for};
use shoal_base::{Rng, Time};
use shoal_dht::mainline::{Config, Mainline, Snapshot};
use shoal_dht::{Answer, Dht, OpId, Output, Request};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A Mainline node in the world.
pub struct Host {
    /// The core.
    pub core: Mainline,
}

impl Host {
    /// Has the core do something and carries its effects out.
    pub fn act<R>(
        &mut self,
        ctx: &mut Context<'_, Self>,
        act: impl FnOnce(&mut Mainline, Time, &mut Vec<Output>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.core, ctx.now(), &mut out);
        for output in out {
            match output {
                Output::Send { to, bytes } => {
                    // IPv4 and UDP headers are 28 bytes.
                    let size = bytes.len() as u32 + 28;
                    ctx.send(to, bytes, size);
                }
                Output::Answer { op, answer } => ctx.tell((op, answer)),
            }
        }
        result
    }
}

impl Process for Host {
    type Space = Internet;
    type Message = Vec<u8>;
    type Event = (OpId, Answer);

    fn on_start(&mut self, _ctx: &mut Context<'_, Self>) {}

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: SocketAddr, bytes: Vec<u8>) {
        self.act(ctx, |core, now, out| {
            core.on_datagram(now, from, &bytes, out);
        });
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        self.act(ctx, |core, now, out| core.on_tick(now, out));
    }

    fn deadline(&self) -> Option<Time> {
        self.core.deadline()
    }
}

/// A world of Mainline nodes. Node 0 is public and always up: the one to start from.
pub struct Network {
    /// The nodes and their internet.
    pub world: World<Host>,
    /// Draws addresses, askers and targets.
    pub rng: Rng,
    seed: u64,
    /// How many cores were made: each has a stream of its own.
    made: u64,
    /// The translator of each node that is behind one.
    pub nats: Vec<Option<usize>>,
}

/// A mapping of a translator lives this long: two minutes are common (RFC 4787 asks for them).
const NAT_TIMEOUT: Duration = Duration::from_secs(120);

impl Network {
    /// A network without nodes.
    pub fn new(seed: u64, links: Links) -> Self {
        Self {
            world: World::new(seed, Internet::new(), links),
            rng: rng_for(seed, u64::MAX - 1),
            seed,
            made: 0,
            nats: Vec::new(),
        }
    }

    /// A random public IPv4 address: nodes are spread over the whole of it.
    fn address(&mut self) -> SocketAddr {
        loop {
            let [a, b, c, d] = self.rng.next_u32().to_be_bytes();
            let reserved = [0, 10, 100, 127, 169, 172, 192, 198, 203];
            if !reserved.contains(&a) && a < 224 && d != 0 {
                return SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), 6881);
            }
        }
    }

    /// A core that starts from node 0, and from what it kept.
    pub fn core(&mut self, kept: Option<Snapshot>) -> Mainline {
        self.made += 1;
        let rng = rng_for(self.seed, 1 << 40 | self.made);
        let config = Config {
            bootstrap: self.bootstrap(),
            ..Config::default()
        };
        Mainline::new(self.world.now(), config, kept, rng)
    }

    fn bootstrap(&mut self) -> Vec<SocketAddr> {
        self.world.space().public_addr(0).into_iter().collect()
    }

    /// Adds a node, behind a translator of its own if asked for, and starts it.
    pub fn add(&mut self, nat: Option<NatKind>) -> u32 {
        let core = self.core(None);
        let node = self.world.add(Host { core });
        let addr = self.address();
        let nat = nat.map(|kind| self.world.space().add_nat(kind, addr.ip()));
        match nat {
            Some(nat) => self.world.space().attach_behind(node, nat),
            None => self.world.space().attach(node, addr),
        }
        self.nats.push(nat);
        self.world.start(node);
        node
    }

    /// A cone, as most are; one in five symmetric.
    pub fn draw_nat(&mut self) -> NatKind {
        match self.rng.below(5) {
            0 => NatKind::symmetric(NAT_TIMEOUT),
            _ => NatKind::cone(NAT_TIMEOUT),
        }
    }

    /// Gives a node another address; behind a translator, the translator forgets.
    pub fn relocate(&mut self, node: u32) {
        match self.nats.get(node as usize).copied().flatten() {
            Some(nat) => self.world.space().reboot_nat(nat),
            None => {
                let addr = self.address();
                self.world.space().attach(node, addr);
            }
        }
    }

    /// Begins an operation at a node.
    pub fn request(&mut self, node: u32, request: Request) -> OpId {
        self.world.call(node, |host, ctx| {
            host.act(ctx, |core, now, out| core.request(now, request, out))
        })
    }
}
