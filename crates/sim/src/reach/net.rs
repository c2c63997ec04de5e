//! A network of homes and relays, and what a checker does with it.

use super::carrier::Carrier;
use super::home::{Home, Talk};
use super::kind::Kind;
use super::machine::{Ctx, Machine};
use super::relayer::{Relayer, SECRET, UNIX};
use super::route::Routes;
use crate::link::Links;
use crate::world::World;
use shoal_base::Time;
use shoal_reach::agent::{Base, InUse};
use shoal_reach::endpoint::{Endpoint, Random};
use shoal_reach::identity::{Identity, NodeId};
use shoal_reach::relays::Ticket;
use shoal_reach::turn::credential::Credential;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The port of every node's socket.
const PORT: u16 = 5000;
/// Relays that a node is told of.
const TOLD: usize = 4;
/// How long two may take to have a way before they count as parted.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// See the module's text.
pub(super) struct Net {
    pub(super) world: World<Machine>,
    pub(super) relays: Vec<u32>,
    pub(super) homes: Vec<u32>,
    lifetime: Duration,
    /// Whether nodes have addresses of IPv6 too.
    pub(super) ipv6: bool,
    nodes: BTreeMap<NodeId, u32>,
}

/// Who machine `node` is in a run.
pub(super) fn identity(seed: u64, node: u32) -> Identity {
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&seed.to_be_bytes());
    secret[8..12].copy_from_slice(&node.to_be_bytes());
    Identity::from_secret(&secret)
}

impl Net {
    /// A network of relays alone; translators forget after `lifetime`.
    pub(super) fn new(seed: u64, links: Links, relays: u32, lifetime: Duration) -> Self {
        let mut world = World::new(seed, Routes::default(), links);
        let carrier = world.add(Machine::Carrier(Carrier::default()));
        world.start(carrier);
        let mut net = Self {
            world,
            relays: Vec::new(),
            homes: Vec::new(),
            lifetime,
            ipv6: false,
            nodes: BTreeMap::new(),
        };
        for n in 0..relays {
            net.add_relay(&[IpAddr::from([44, 1, 0, n as u8 + 1])], None);
        }
        net
    }

    pub(super) fn add_relay(&mut self, ips: &[IpAddr], most: Option<u64>) -> u32 {
        let rng = self.world.rng(self.world.len() as u32);
        let relayer = Box::new(Relayer::new(ips, most, rng));
        let node = self.world.add(Machine::Relay(relayer));
        for ip in ips {
            self.world.space().0.attach_host(node, *ip);
        }
        self.world.start(node);
        self.relays.push(node);
        node
    }

    fn relayer(&self, relay: u32) -> &Relayer {
        match self.world.node(relay) {
            Machine::Relay(relayer) => relayer,
            _ => unreachable!("it is a relay"),
        }
    }

    pub(super) fn home(&self, node: u32) -> &Home {
        match self.world.node(node) {
            Machine::Home(home) => home,
            _ => unreachable!("it is a home"),
        }
    }

    pub(super) fn on_home<R>(
        &mut self,
        node: u32,
        act: impl FnOnce(&mut Home, &mut Ctx<'_>) -> R,
    ) -> R {
        self.world.call(node, |machine, ctx| match machine {
            Machine::Home(home) => act(home, ctx),
            _ => unreachable!("it is a home"),
        })
    }

    /// Some of the relays, with credentials of the node's own; others for the next node.
    fn tickets(&self, node: u32) -> Vec<Ticket> {
        let all = self.relays.iter().cycle().skip(node as usize);
        let some = all.take(self.relays.len().min(TOLD));
        let ticket = |relay: &u32| Ticket {
            at: self.relayer(*relay).at.clone(),
            credential: Credential::short_lived(SECRET, &node.to_string(), UNIX + 100_000),
        };
        some.map(ticket).collect()
    }

    /// A node behind a translator of its own; it looks for relays at once.
    pub(super) fn add(&mut self, kind: Kind) -> u32 {
        let node = self.world.len() as u32;
        let [_, _, high, low] = node.to_be_bytes();
        let outer = IpAddr::from([44, 2 + high, low, 1]);
        let inner = match kind {
            Kind::Open | Kind::Wall => SocketAddr::new(outer, PORT),
            _ => ([10, high, low, 2], PORT).into(),
        };
        let mut own = vec![(inner, self.translator(kind, outer))];
        if self.ipv6 && kind.has_udp() {
            // As homes have it: no translator, but a firewall.
            let ip = IpAddr::from([0x2600, 0, high.into(), low.into(), 0, 0, 0, 1]);
            own.push(((ip, PORT).into(), self.translator(Kind::Wall, ip)));
        }
        self.settle_down(kind, &own)
    }

    /// What such a kind puts there, if anything.
    pub(super) fn translator(&mut self, kind: Kind, outer: IpAddr) -> Option<usize> {
        let nat = kind.nat(self.lifetime)?;
        Some(self.world.space().0.add_nat(nat, outer))
    }

    /// A node at these addresses, each inside a translator or not.
    pub(super) fn settle_down(&mut self, kind: Kind, own: &[(SocketAddr, Option<usize>)]) -> u32 {
        let node = self.world.len() as u32;
        for (addr, nat) in own {
            let internet = &mut self.world.space().0;
            match nat {
                Some(nat) => internet.attach_inside(node, *nat, *addr),
                None => internet.attach(node, *addr),
            }
        }
        let nats = own.iter().filter_map(|(_, nat)| *nat).collect();
        let own = own.iter().map(|(addr, _)| *addr).collect();
        let mut random = self.world.rng(node);
        let random: Random = Box::new(move |buf| random.fill(buf));
        let identity = identity(self.world.seed(), node);
        let id = identity.id();
        let endpoint = Endpoint::new(identity, own, true, UNIX * 1_000_000, random);
        let home = Box::new(Home::new(kind, nats, endpoint));
        let added = self.world.add(Machine::Home(home));
        debug_assert_eq!(added, node);
        self.nodes.insert(id, node);
        let carrier = super::machine::CARRIER;
        self.world.call(carrier, |machine, _| {
            if let Machine::Carrier(Carrier { places, .. }) = machine {
                places.insert(id, node);
            }
        });
        self.world.start(node);
        self.offer(node);
        self.homes.push(node);
        node
    }

    /// A node is told of relays.
    pub(super) fn offer(&mut self, node: u32) {
        let tickets = self.tickets(node);
        self.on_home(node, |home, ctx| {
            home.with(ctx, |e, now, out| e.offer(now, tickets, out));
        });
    }

    /// Time passes.
    pub(super) fn run(&mut self, span: Duration) {
        let until = self.world.now() + span;
        self.world.run_until(until, |_, _, ()| {});
    }

    /// One calls another; nobody speaks yet.
    pub(super) fn call(&mut self, a: u32, b: u32) {
        let (one, two) = (self.home(a).id, self.home(b).id);
        self.on_home(b, |home, ctx| home.begin(ctx, one, false));
        self.on_home(a, |home, ctx| home.begin(ctx, two, true));
    }

    /// Both ends have a way; how long that took.
    pub(super) fn met(&self, a: u32, b: u32) -> Option<Duration> {
        let at = |n| self.talk(n)?.met;
        let began = self.talk(a)?.began;
        Some(at(a)?.max(at(b)?).since(began))
    }

    /// Both ends speak, or are silent, from now on.
    pub(super) fn speak(&mut self, a: u32, b: u32, speaks: bool) {
        for n in [a, b] {
            self.on_home(n, |home, ctx| home.speak(ctx.now(), speaks));
        }
    }

    pub(super) fn talk(&self, n: u32) -> Option<&Talk> {
        self.home(n).talk.as_ref()
    }

    pub(super) fn way(&self, n: u32) -> Option<InUse> {
        let home = self.home(n);
        home.endpoint.in_use(home.talk.as_ref()?.session?)
    }

    /// The longest time for which a node heard nothing, since that was last measured anew.
    pub(super) fn gap(&self, n: u32) -> Duration {
        self.talk(n)
            .map_or(Duration::ZERO, |t| t.gap(self.world.now()))
    }

    /// Silences of these are measured anew.
    pub(super) fn measure(&mut self, nodes: &[u32]) {
        for n in nodes {
            self.on_home(*n, |home, _| {
                home.talk.iter_mut().for_each(Talk::measure);
            });
        }
    }

    /// The relays by which a node sends now.
    pub(super) fn relays_of(&self, n: u32) -> Vec<u32> {
        let Some(way) = self.way(n) else {
            return Vec::new();
        };
        let mut ips = Vec::new();
        if let Base::Relay(id) = way.path.base {
            let mut ours = self.home(n).endpoint.relays().in_use();
            ips.extend(ours.find(|r| r.id == id).map(|r| r.at.ip()));
        }
        if usize::from(way.hops) > ips.len() {
            ips.push(way.path.peer.ip());
        }
        let has = |relay: &u32| {
            self.relayer(*relay)
                .at
                .iter()
                .any(|a| ips.contains(&a.ip()))
        };
        self.relays.iter().copied().filter(has).collect()
    }

    /// The program of a relay is killed.
    pub(super) fn kill(&mut self, relay: u32) {
        self.world.call(relay, |machine, ctx| {
            if let Machine::Relay(relayer) = machine {
                relayer.kill(ctx);
            }
        });
    }

    /// It is started again.
    pub(super) fn revive(&mut self, relay: u32) {
        self.world.call(relay, |machine, _| {
            if let Machine::Relay(relayer) = machine {
                relayer.begin();
            }
        });
    }

    pub(super) fn is_alive(&self, relay: u32) -> bool {
        self.relayer(relay).is_alive()
    }

    /// Bytes that all relays have relayed.
    pub(super) fn relayed(&self) -> u64 {
        let relays = self.relays.iter();
        relays.map(|r| self.relayer(*r).carried()).sum()
    }

    /// A node's translators forget everything, as when they are started again.
    pub(super) fn flush(&mut self, node: u32) {
        for nat in self.home(node).nats.clone() {
            self.world.space().0.reboot_nat(nat);
        }
    }

    /// The machine of a node.
    pub(super) fn node_of(&self, id: &NodeId) -> Option<u32> {
        self.nodes.get(id).copied()
    }

    pub(super) fn now(&self) -> Time {
        self.world.now()
    }
}
