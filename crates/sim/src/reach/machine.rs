//! The machines of this network: homes, relays, and one that carries letters as supernodes do.

use super::carrier::Carrier;
use super::home::Home;
use super::relayer::Relayer;
use super::route::{Hop, Routes};
use crate::world::{Context, Process};
use shoal_base::Time;
use shoal_reach::agent::RelayId;
use shoal_reach::identity::NodeId;
use std::net::SocketAddr;

/// The machine that carries letters.
pub(super) const CARRIER: u32 = 0;
/// Bytes that IPv4 and UDP, or TCP, put before what they carry.
const UDP_HEADERS: u32 = 28;
const TCP_HEADERS: u32 = 40;

/// What travels.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// A datagram, and to which address of the receiver.
    Udp(SocketAddr, Vec<u8>),
    /// A connection is asked for, is there, or is over; the home's number of it.
    Open(RelayId),
    Opened(RelayId),
    Closed(RelayId),
    /// Bytes of a connection.
    Stream(RelayId, Vec<u8>),
    /// A letter, for whom the carrier knows.
    Letter(NodeId, Vec<u8>),
}

impl Message {
    fn bytes(&self) -> u32 {
        match self {
            Self::Udp(_, bytes) => bytes.len() as u32 + UDP_HEADERS,
            Self::Open(_) | Self::Opened(_) | Self::Closed(_) => TCP_HEADERS,
            Self::Stream(_, bytes) | Self::Letter(_, bytes) => bytes.len() as u32 + TCP_HEADERS,
        }
    }
}

/// A machine.
pub(super) enum Machine {
    Carrier(Carrier),
    Relay(Box<Relayer>),
    Home(Box<Home>),
}

pub(super) type Ctx<'a> = Context<'a, Machine>;

/// Sends a datagram.
pub(super) fn datagram(ctx: &mut Ctx<'_>, own: Option<SocketAddr>, to: SocketAddr, bytes: Vec<u8>) {
    let message = Message::Udp(to, bytes);
    let len = message.bytes();
    ctx.send(Hop::Udp { own, at: to }, message, len);
}

/// Sends what nothing of is lost.
pub(super) fn stream(ctx: &mut Ctx<'_>, to: Hop, message: Message) {
    let len = message.bytes();
    ctx.send_stream(to, message, len);
}

impl Process for Machine {
    type Space = Routes;
    type Message = Message;
    type Event = ();

    fn on_start(&mut self, _ctx: &mut Ctx<'_>) {}

    fn on_message(&mut self, ctx: &mut Ctx<'_>, from: Hop, message: Message) {
        match self {
            Self::Carrier(carrier) => {
                if let Message::Letter(to, letter) = message {
                    carrier.carry(ctx, to, letter);
                }
            }
            Self::Relay(relayer) => relayer.on_message(ctx, from, message),
            Self::Home(home) => home.on_message(ctx, from, message),
        }
    }

    fn on_tick(&mut self, ctx: &mut Ctx<'_>) {
        match self {
            Self::Carrier(_) => {}
            Self::Relay(relayer) => relayer.on_tick(ctx),
            Self::Home(home) => home.on_tick(ctx),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Self::Carrier(_) => None,
            Self::Relay(relayer) => relayer.deadline(),
            Self::Home(home) => Some(home.deadline()),
        }
    }
}
