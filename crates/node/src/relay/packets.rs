//! Datagrams in batches: received into one arena, sent from there.

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage,
    recvmmsg, sendmmsg,
};
use shoal_reach::turn::server::{HEADROOM, TAILROOM};
use smallvec::SmallVec;
use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

/// Datagrams that the arena holds.
pub(super) const SLOTS: usize = 64;
/// Datagrams of one system call.
pub(super) const BATCH: usize = 32;
/// The longest datagram there is.
const LONGEST: usize = 65_536;
/// A slot: room for a header, a datagram, padding. No power of two, so that the beginnings of all
/// slots do not compete for the same lines of the cache.
const SLOT: usize = (HEADROOM + LONGEST + TAILROOM).next_multiple_of(64) + 192;
/// Segments that the kernel takes in one train.
const MAX_TRAIN: usize = 64;
/// Bytes of a train at most.
const MAX_TRAIN_BYTES: usize = 65_000;
/// Longer ones do not fit the packets of most networks, and a train's may not be fragmented.
const MAX_SEGMENT: usize = 1472;

/// A datagram in the arena.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// Where in the arena.
    pub(super) data: Range<usize>,
    pub(super) from: SocketAddr,
}

/// A datagram in the arena that is to be sent.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) to: SocketAddr,
    pub(super) data: Range<usize>,
}

/// Room for datagrams, used from the front and emptied as a whole.
pub(super) struct Arena {
    bytes: Box<[u8]>,
    used: usize,
    received: Vec<Received>,
    v4: MultiHeaders<SockaddrIn>,
    v6: MultiHeaders<SockaddrIn6>,
}

/// An address as the kernel and as we have it.
trait Address: SockaddrLike + Copy {
    fn to_std(self) -> SocketAddr;
}

impl Address for SockaddrIn {
    fn to_std(self) -> SocketAddr {
        SocketAddrV4::from(self).into()
    }
}

impl Address for SockaddrIn6 {
    fn to_std(self) -> SocketAddr {
        // Neither flow nor scope: peers and clients are told apart by address and port.
        let address = SocketAddrV6::from(self);
        SocketAddr::new((*address.ip()).into(), address.port())
    }
}

fn receive<A: Address>(
    fd: i32,
    headers: &mut MultiHeaders<A>,
    slots: &mut [u8],
    first: usize,
    most: usize,
    out: &mut Vec<Received>,
) -> Result<usize, Errno> {
    let mut slots = slots.chunks_exact_mut(SLOT);
    let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
        let slot = slots.next().unwrap_or_default();
        let room = slot.get_mut(HEADROOM..HEADROOM + LONGEST);
        [IoSliceMut::new(room.unwrap_or_default())]
    });
    let slices = slices.iter_mut().take(most);
    let results = recvmmsg(fd, headers, slices, MsgFlags::MSG_DONTWAIT, None)?;
    let mut count = 0;
    for (n, message) in results.enumerate() {
        count = n + 1;
        let start = (first + n) * SLOT + HEADROOM;
        if let Some(from) = message.address {
            out.push(Received {
                data: start..start + message.bytes,
                from: from.to_std(),
            });
        }
    }
    Ok(count)
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; SLOTS * SLOT].into_boxed_slice(),
            used: 0,
            received: Vec::with_capacity(BATCH),
            v4: MultiHeaders::preallocate(BATCH, None),
            v6: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Slots that are free.
    pub(super) fn room(&self) -> usize {
        SLOTS - self.used
    }

    /// Forgets what is in it.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Takes up to [`BATCH`] datagrams from a socket. Gives them, and whether there may be more.
    pub(super) fn receive(
        &mut self,
        socket: &impl AsRawFd,
        ipv6: bool,
        out: &mut Vec<Received>,
    ) -> bool {
        let most = self.room().min(BATCH);
        let (fd, first) = (socket.as_raw_fd(), self.used);
        let free = self.bytes.get_mut(first * SLOT..).unwrap_or_default();
        self.received.clear();
        let result = if ipv6 {
            receive(fd, &mut self.v6, free, first, most, &mut self.received)
        } else {
            receive(fd, &mut self.v4, free, first, most, &mut self.received)
        };
        let count = match result {
            Ok(count) => count,
            // An ICMP error of an earlier packet: there may be more behind it.
            Err(Errno::ECONNREFUSED | Errno::EINTR | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                return true;
            }
            Err(_) => return false,
        };
        self.used += count;
        out.append(&mut self.received);
        count == most
    }
}

/// Sends datagrams out of an arena.
pub(super) struct Sender {
    singles: MultiHeaders<SockaddrStorage>,
    trains: MultiHeaders<SockaddrStorage>,
    /// Off once the kernel has refused a train that should pass.
    cuts: bool,
    /// Datagrams that the kernel did not take.
    pub(super) lost: u64,
}

fn storage(address: SocketAddr) -> SockaddrStorage {
    SockaddrStorage::from(address)
}

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            singles: MultiHeaders::preallocate(SLOTS, None),
            trains: MultiHeaders::preallocate(1, Some(nix::cmsg_space!(u16))),
            cuts: true,
            lost: 0,
        }
    }

    /// One datagram.
    pub(super) fn send_one(&mut self, socket: &impl AsFd, data: &[u8], to: SocketAddr) {
        let flags = rustix::net::SendFlags::empty();
        if rustix::net::sendto(socket, data, flags, &to).is_err() {
            self.lost += 1;
        }
    }

    /// All of `packets` by one socket, in order.
    pub(super) fn send(
        &mut self,
        socket: &(impl AsFd + AsRawFd),
        bytes: &[u8],
        packets: &[Packet],
    ) {
        let data = |p: &Packet| bytes.get(p.data.clone()).unwrap_or_default();
        let mut rest = packets;
        let mut singles = 0;
        while let Some(first) = rest.get(singles) {
            let ahead = rest.get(singles..).unwrap_or_default();
            let train = if self.cuts { train(first, ahead) } else { 1 };
            if train < 2 {
                singles += 1;
                continue;
            }
            let (before, after) = rest.split_at(singles);
            let (train, after) = after.split_at(train);
            self.send_singles(socket, bytes, before);
            if !self.send_train(socket, bytes, train) {
                self.send_singles(socket, bytes, train);
            }
            (rest, singles) = (after, 0);
        }
        match rest {
            [] => {}
            [one] => self.send_one(socket, data(one), one.to),
            many => self.send_singles(socket, bytes, many),
        }
    }

    fn send_singles(&mut self, socket: &impl AsRawFd, bytes: &[u8], packets: &[Packet]) {
        let mut rest = packets;
        while !rest.is_empty() {
            let now = rest.get(..rest.len().min(SLOTS)).unwrap_or_default();
            let slices: SmallVec<[[IoSlice<'_>; 1]; SLOTS]> = now
                .iter()
                .map(|p| [IoSlice::new(bytes.get(p.data.clone()).unwrap_or_default())])
                .collect();
            let to: SmallVec<[Option<SockaddrStorage>; SLOTS]> =
                now.iter().map(|p| Some(storage(p.to))).collect();
            let none: &[ControlMessage<'_>] = &[];
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = socket.as_raw_fd();
            let sent = sendmmsg(fd, &mut self.singles, slices.iter(), &to, none, flags);
            let sent = sent.map_or(0, Iterator::count);
            if sent == 0 {
                // No route, or no room: this one is lost, as datagrams are.
                self.lost += 1;
            }
            rest = rest.get(sent.max(1)..).unwrap_or_default();
        }
    }

    /// Whether the kernel took it.
    fn send_train(&mut self, socket: &impl AsRawFd, bytes: &[u8], packets: &[Packet]) -> bool {
        let Some(first) = packets.first() else {
            return true;
        };
        let segment = first.data.len() as u16;
        let parts: SmallVec<[IoSlice<'_>; MAX_TRAIN]> = packets
            .iter()
            .map(|p| IoSlice::new(bytes.get(p.data.clone()).unwrap_or_default()))
            .collect();
        let to = [Some(storage(first.to))];
        let cut = [ControlMessage::UdpGsoSegments(&segment)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let parts = [parts.as_slice()];
        let sent = sendmmsg(fd, &mut self.trains, parts.iter(), to, cut, flags);
        match sent.map(Iterator::count) {
            Ok(_) => true,
            // A device or a route that cannot cut: not tried again.
            Err(Errno::EIO | Errno::EINVAL | Errno::ENOPROTOOPT) => {
                self.cuts = false;
                false
            }
            Err(Errno::EMSGSIZE) => false,
            Err(_) => {
                self.lost += packets.len() as u64;
                true
            }
        }
    }
}

/// How many of the packets from `first` on are one train: to one receiver, of one length, but for
/// the last, which may be shorter.
fn train(first: &Packet, ahead: &[Packet]) -> usize {
    let len = first.data.len();
    if len == 0 || len > MAX_SEGMENT {
        return 1;
    }
    let most = MAX_TRAIN.min(MAX_TRAIN_BYTES / len);
    let mut count = 0;
    for packet in ahead.iter().take(most) {
        if packet.to != first.to || packet.data.len() > len || packet.data.is_empty() {
            break;
        }
        count += 1;
        if packet.data.len() < len {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn pair() -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (a, b) = (bind(), bind());
        b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (a, b)
    }

    #[test]
    fn what_is_sent_arrives_whole_and_in_order() {
        let (from, to) = pair();
        let bytes: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
        // Trains, a shorter end, single ones, an empty one, a long one, another receiver.
        let other = pair().1;
        let lengths = [700, 700, 700, 100, 300, 700, 700, 0, 5000, 900, 20, 20, 20];
        let mut at = 0;
        let mut packets = Vec::new();
        for (n, len) in lengths.into_iter().enumerate() {
            let receiver = if n == 9 { &other } else { &to };
            let to = receiver.local_addr().unwrap();
            packets.push(Packet {
                to,
                data: at..at + len,
            });
            at += len;
        }
        assert_eq!(train(&packets[0], &packets), 4);
        let mut sender = Sender::new();
        sender.send(&from, &bytes, &packets);
        let mut buffer = [0; 9000];
        for packet in packets {
            let receiver = if packet.to == to.local_addr().unwrap() {
                &to
            } else {
                &other
            };
            let (len, sent_by) = receiver.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..len], bytes[packet.data]);
            assert_eq!(sent_by, from.local_addr().unwrap());
        }
        assert_eq!(sender.lost, 0);
    }

    #[test]
    fn what_arrives_is_received_with_room_around_it() {
        let (to, from) = pair();
        to.set_nonblocking(true).unwrap();
        let mut arena = Arena::new();
        let mut got = Vec::new();
        assert!(!arena.receive(&to, false, &mut got));
        for n in 0..70u8 {
            from.send_to(&[n; 9], to.local_addr().unwrap()).unwrap();
        }
        assert!(arena.receive(&to, false, &mut got));
        assert!(arena.receive(&to, false, &mut got));
        assert_eq!((got.len(), arena.room()), (64, 0));
        for (n, received) in got.iter().enumerate() {
            assert_eq!(arena.bytes()[received.data.clone()], [n as u8; 9]);
            assert!(received.data.start >= HEADROOM);
            assert_eq!(received.from, from.local_addr().unwrap());
        }
        arena.clear();
        got.clear();
        assert!(!arena.receive(&to, false, &mut got));
        assert_eq!(got.len(), 6);
    }
}
