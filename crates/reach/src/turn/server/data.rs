//! Data on its way: nothing is allocated here and nothing copied.

use super::ports::RelayId;
use super::{Client, TurnServer};
use crate::stun::{
    Attribute, CHANNEL_HEADER, Class, HEADER, MAGIC, Message, Method, TransactionId, kind,
    message_type, xor_address_value,
};
use shoal_base::Time;
use std::net::SocketAddr;
use std::ops::Range;

/// Room before a peer's datagram that [`TurnServer::on_peer`] may write to: a STUN header, the
/// peer's IPv6 address, and the head of DATA.
pub const HEADROOM: usize = HEADER + 24 + 4;
/// Room behind it, for padding.
pub const TAILROOM: usize = 3;

/// Data for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToPeer<'f> {
    /// By which socket.
    pub relay: RelayId,
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub data: &'f [u8],
}

/// Data for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToClient {
    /// To whom.
    pub client: Client,
    /// Which part of the buffer, headers included.
    pub bytes: Range<usize>,
}

impl TurnServer {
    /// Whether so many bytes of a user may pass now; counts them if so.
    fn within_rate(&mut self, now: Time, user: usize, len: usize) -> bool {
        self.load.count(now, len);
        let Some(own) = self.users.bucket(user) else {
            return false;
        };
        if own.rate().is_some() && own.available(now) == 0
            || self.bucket.rate().is_some() && self.bucket.available(now) == 0
        {
            self.stats.over_rate += 1;
            return false;
        }
        own.spend(len);
        self.bucket.spend(len);
        true
    }

    pub(super) fn channel_data<'f>(
        &mut self,
        now: Time,
        client: Client,
        number: u16,
        data: &'f [u8],
    ) -> Option<ToPeer<'f>> {
        let found = self.clients.get(&client);
        let allocation = found.and_then(|&key| self.allocations.get(key));
        let way = allocation.and_then(|a| {
            let channel = a.channel(number).filter(|c| c.is_open(now))?;
            let relay = a.relay_for(channel.peer.ip())?;
            let held = !channel.own || self.ports.is_relayed(channel.peer);
            (held && now < a.expires).then_some((a.user, relay.id, channel.peer))
        });
        let Some((user, relay, to)) = way else {
            self.stats.unwanted += 1;
            return None;
        };
        self.up(now, user, ToPeer { relay, to, data })
    }

    fn up<'f>(&mut self, now: Time, user: usize, packet: ToPeer<'f>) -> Option<ToPeer<'f>> {
        if !self.within_rate(now, user, packet.data.len()) {
            return None;
        }
        self.stats.packets_up += 1;
        self.stats.bytes_up += packet.data.len() as u64;
        Some(packet)
    }

    /// A Send indication (RFC 8656 §11.2). What is wrong with one is never told.
    pub(super) fn send<'f>(
        &mut self,
        now: Time,
        client: Client,
        message: &Message<'f>,
    ) -> Option<ToPeer<'f>> {
        let peer = message.get(kind::XOR_PEER_ADDRESS);
        let data = message.value(kind::DATA);
        let (Some(Ok(Attribute::XorPeerAddress(to))), Some(data)) = (peer, data) else {
            self.stats.malformed += 1;
            return None;
        };
        let understood = message
            .unknown(&[kind::XOR_PEER_ADDRESS, kind::DATA])
            .is_empty();
        let found = self.clients.get(&client);
        let allocation = found.and_then(|&key| self.allocations.get(key));
        let way = allocation
            .filter(|a| understood && now < a.expires && a.permits(now, to.ip()))
            .and_then(|a| Some((a.user, a.relay_for(to.ip())?.id)));
        let Some((user, relay)) = way.filter(|_| self.may_send(to)) else {
            self.stats.unwanted += 1;
            return None;
        };
        self.up(now, user, ToPeer { relay, to, data })
    }

    /// A datagram came from `from` to a relayed address: it is `data` of `buffer`, which has
    /// [`HEADROOM`] before it and [`TAILROOM`] behind it. Says what goes to which client, if anything.
    pub fn on_peer(
        &mut self,
        now: Time,
        relay: RelayId,
        from: SocketAddr,
        buffer: &mut [u8],
        data: Range<usize>,
    ) -> Option<ToClient> {
        let allocation = self
            .ports
            .owner(relay)
            .and_then(|key| self.allocations.get(key));
        let allocation = allocation.filter(|a| now < a.expires && a.opening.is_none());
        let Some(allocation) = allocation else {
            self.stats.unwanted += 1;
            return None;
        };
        let channel = allocation.channel_of(from).filter(|c| c.is_open(now));
        let number = channel.map(|c| c.number);
        if number.is_none() && !allocation.permits(now, from.ip()) {
            self.stats.unwanted += 1;
            return None;
        }
        let (client, user) = (allocation.client, allocation.user);
        if !self.within_rate(now, user, data.len()) {
            return None;
        }
        let bytes = match number {
            Some(number) => channel_frame(client, number, buffer, data.clone())?,
            None => {
                let mut id = [0; 12];
                self.rng.fill(&mut id);
                data_indication(id, from, buffer, data.clone())?
            }
        };
        self.stats.packets_down += 1;
        self.stats.bytes_down += data.len() as u64;
        Some(ToClient { client, bytes })
    }
}

/// Writes the head of channel data before it, and on a stream the padding behind it.
fn channel_frame(
    client: Client,
    number: u16,
    buffer: &mut [u8],
    data: Range<usize>,
) -> Option<Range<usize>> {
    let len = u16::try_from(data.len()).ok()?;
    let start = data.start.checked_sub(CHANNEL_HEADER)?;
    let [n0, n1] = number.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    let head = buffer.get_mut(start..data.start)?;
    head.copy_from_slice(&[n0, n1, l0, l1]);
    let end = match client {
        Client::Udp(..) => data.end,
        Client::Stream(_) => pad(buffer, &data)?,
    };
    Some(start..end)
}

/// Fills up to four bytes; gives the end.
fn pad(buffer: &mut [u8], data: &Range<usize>) -> Option<usize> {
    let end = data.start + data.len().next_multiple_of(4);
    buffer.get_mut(data.end..end)?.fill(0);
    Some(end)
}

/// Writes a Data indication's head before the data, which is its last attribute.
fn data_indication(
    id: [u8; 12],
    from: SocketAddr,
    buffer: &mut [u8],
    data: Range<usize>,
) -> Option<Range<usize>> {
    let id = TransactionId(id);
    let end = pad(buffer, &data)?;
    let (address, address_len) = xor_address_value(from, &id);
    let start = data.start.checked_sub(HEADER + 4 + address_len + 4)?;
    let told = u16::try_from(end - start - HEADER).ok()?;
    let len = u16::try_from(data.len()).ok()?;
    let head = buffer.get_mut(start..data.start)?;
    let (stun, attributes) = head.split_at_mut_checked(HEADER)?;
    stun.get_mut(..2)?
        .copy_from_slice(&message_type(Class::Indication, Method::DATA));
    stun.get_mut(2..4)?.copy_from_slice(&told.to_be_bytes());
    stun.get_mut(4..8)?.copy_from_slice(&MAGIC.to_be_bytes());
    stun.get_mut(8..)?.copy_from_slice(&id.0);
    let (peer, data_head) = attributes.split_at_mut_checked(4 + address_len)?;
    let (peer_head, peer_value) = peer.split_at_mut_checked(4)?;
    let put = |head: &mut [u8], kind: u16, len: u16| {
        let [k0, k1] = kind.to_be_bytes();
        let [l0, l1] = len.to_be_bytes();
        head.copy_from_slice(&[k0, k1, l0, l1]);
    };
    put(peer_head, kind::XOR_PEER_ADDRESS, address_len as u16);
    peer_value.copy_from_slice(address.get(..address_len)?);
    put(data_head, kind::DATA, len);
    Some(start..end)
}
