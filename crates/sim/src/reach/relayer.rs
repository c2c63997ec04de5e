//! A relay: the real core, on the addresses of its machine.

use super::machine::{Ctx, Message, datagram, stream};
use super::route::Hop;
use rustc_hash::FxHashMap;
use shoal_base::{Rng, Time};
use shoal_reach::agent::RelayId;
use shoal_reach::stun::{Frame, datagram_frame, next_frame};
use shoal_reach::turn::credential::Credentials;
use shoal_reach::turn::server::{
    Client, Config, Effect, Effects, HEADROOM, RelayAddress, RelayId as Socket, TAILROOM, ToClient,
    TurnServer,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What all relays here make credentials with.
pub(super) const SECRET: &[u8] = b"north";
/// Unix time at the beginning, in seconds.
pub(super) const UNIX: u64 = 1_700_000_000;

/// One relay.
pub(super) struct Relayer {
    /// Where it listens.
    pub(super) at: Vec<SocketAddr>,
    config: Config,
    rng: Rng,
    /// None while the program does not run.
    server: Option<TurnServer>,
    by_address: FxHashMap<SocketAddr, Socket>,
    by_socket: FxHashMap<Socket, SocketAddr>,
    /// Connections: the home and its number of it.
    streams: BTreeSet<(u32, RelayId)>,
    /// Bytes that earlier lives relayed.
    carried: u64,
}

fn name(node: u32, id: RelayId) -> Client {
    Client::Stream((u64::from(node) << 32) | u64::from(id))
}

impl Relayer {
    /// One that listens at ports 3478 and 80 of these addresses; `most`: bytes a second.
    pub(super) fn new(ips: &[IpAddr], most: Option<u64>, rng: Rng) -> Self {
        let relay = |v6: bool| {
            let ip = ips.iter().copied().find(|ip| ip.is_ipv6() == v6)?;
            let (bind, public) = (ip, ip);
            Some(RelayAddress { bind, public })
        };
        let config = Config {
            credentials: Credentials {
                secrets: vec![SECRET.to_vec()],
                users: BTreeMap::new(),
            },
            relay_v4: relay(false),
            relay_v6: relay(true),
            max_rate: most,
            unix_at_zero: UNIX,
            ..Config::default()
        };
        let ports = |port| ips.iter().map(move |ip| SocketAddr::new(*ip, port));
        let mut relayer = Self {
            at: ports(3478).chain(ports(80)).collect(),
            config,
            rng,
            server: None,
            by_address: FxHashMap::default(),
            by_socket: FxHashMap::default(),
            streams: BTreeSet::new(),
            carried: 0,
        };
        relayer.begin();
        relayer
    }

    /// The program runs, and remembers nothing.
    pub(super) fn begin(&mut self) {
        self.server = Some(TurnServer::new(self.config.clone(), &mut self.rng));
    }

    /// The program is killed; the machine ends its connections and answers for nobody.
    pub(super) fn kill(&mut self, ctx: &mut Ctx<'_>) {
        self.carried = self.carried();
        self.server = None;
        self.by_address.clear();
        self.by_socket.clear();
        for (node, id) in std::mem::take(&mut self.streams) {
            stream(ctx, Hop::Machine(node), Message::Closed(id));
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.server.is_some()
    }

    /// Bytes of data relayed so far, both ways.
    pub(super) fn carried(&self) -> u64 {
        let stats = self.server.as_ref().map(TurnServer::stats);
        self.carried + stats.map_or(0, |s| s.bytes_up + s.bytes_down)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.server.as_ref()?.deadline()
    }

    pub(super) fn on_tick(&mut self, ctx: &mut Ctx<'_>) {
        let mut out = Effects::default();
        if let Some(server) = &mut self.server {
            server.on_tick(ctx.now(), &mut out);
        }
        self.settle(ctx, out);
    }

    pub(super) fn on_message(&mut self, ctx: &mut Ctx<'_>, from: Hop, message: Message) {
        match (from, message) {
            (Hop::Udp { at: from, .. }, Message::Udp(to, bytes)) => {
                match self.at.iter().position(|at| *at == to) {
                    Some(socket) => {
                        let client = Client::Udp(socket as u16, from);
                        if let Some(frame) = datagram_frame(&bytes) {
                            self.serve(ctx, client, from, frame);
                        }
                    }
                    None => self.on_peer(ctx, from, to, &bytes),
                }
            }
            (Hop::Machine(node), Message::Open(id)) => {
                let answer = match self.is_alive() {
                    true => {
                        self.streams.insert((node, id));
                        Message::Opened(id)
                    }
                    false => Message::Closed(id),
                };
                stream(ctx, from, answer);
            }
            (Hop::Machine(node), Message::Stream(id, bytes)) => {
                if self.streams.contains(&(node, id))
                    && let Ok(Some((frame, _))) = next_frame(&bytes)
                {
                    // Its address is not told to anybody but itself.
                    let ip = IpAddr::from([44, 0, (node >> 8) as u8, node as u8]);
                    let from = SocketAddr::new(ip, id as u16);
                    self.serve(ctx, name(node, id), from, frame);
                }
            }
            (Hop::Machine(node), Message::Closed(id)) if self.streams.remove(&(node, id)) => {
                let mut out = Effects::default();
                if let Some(server) = &mut self.server {
                    server.on_gone(name(node, id), &mut out);
                }
                self.settle(ctx, out);
            }
            _ => {}
        }
    }

    fn serve(&mut self, ctx: &mut Ctx<'_>, client: Client, from: SocketAddr, frame: Frame<'_>) {
        let mut out = Effects::default();
        let Some(server) = &mut self.server else {
            return;
        };
        if let Some(sent) = server.on_client(ctx.now(), client, from, frame, &mut out)
            && let Some(own) = self.by_socket.get(&sent.relay)
        {
            datagram(ctx, Some(*own), sent.to, sent.data.to_vec());
        }
        self.settle(ctx, out);
    }

    /// A datagram came to a relayed address.
    fn on_peer(&mut self, ctx: &mut Ctx<'_>, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let socket = self.by_address.get(&to).copied();
        let (Some(socket), Some(server)) = (socket, &mut self.server) else {
            return;
        };
        let mut buffer = vec![0; HEADROOM + bytes.len() + TAILROOM];
        let range = HEADROOM..HEADROOM + bytes.len();
        buffer[range.clone()].copy_from_slice(bytes);
        if let Some(ToClient { client, bytes }) =
            server.on_peer(ctx.now(), socket, from, &mut buffer, range)
        {
            self.reply(ctx, client, buffer[bytes].to_vec());
        }
    }

    fn reply(&self, ctx: &mut Ctx<'_>, client: Client, bytes: Vec<u8>) {
        match client {
            Client::Udp(socket, to) => {
                datagram(ctx, self.at.get(usize::from(socket)).copied(), to, bytes);
            }
            Client::Stream(name) => {
                let (node, id) = ((name >> 32) as u32, name as RelayId);
                stream(ctx, Hop::Machine(node), Message::Stream(id, bytes));
            }
        }
    }

    /// Does what the server wants.
    fn settle(&mut self, ctx: &mut Ctx<'_>, mut out: Effects) {
        while !out.list.is_empty() {
            let list = std::mem::take(&mut out.list);
            let bytes = std::mem::take(&mut out.bytes);
            for effect in list {
                match effect {
                    Effect::Reply(client, range) => self.reply(ctx, client, bytes[range].to_vec()),
                    Effect::OpenRelay(socket, at) => {
                        let bound = (!self.by_address.contains_key(&at)).then_some(at);
                        if let Some(at) = bound {
                            self.by_address.insert(at, socket);
                            self.by_socket.insert(socket, at);
                        }
                        if let Some(server) = &mut self.server {
                            server.on_relay(ctx.now(), socket, bound, &mut out);
                        }
                    }
                    Effect::CloseRelay(socket) => {
                        if let Some(at) = self.by_socket.remove(&socket) {
                            self.by_address.remove(&at);
                        }
                    }
                }
            }
        }
    }
}
