//! UDP workers: datagrams are received, answered and sent in batches, with one system call for
//! each direction of a batch (`recvmmsg`, `sendmmsg`).

use super::service::{Desk, Service};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, recvmmsg};
use rustix::net::addr::SocketAddrArg as _;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use smallvec::SmallVec;
use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Datagrams in a batch.
const BATCH: usize = 64;
/// Bytes of a datagram that are read: a full scrape is 1496.
const DATAGRAM: usize = 1536;
/// How often a worker that waits looks whether it should end.
const LOOK_UP: Duration = Duration::from_millis(200);

/// One socket's thread.
pub(super) struct Worker {
    service: Arc<Service>,
    socket: UdpSocket,
}

/// An address as the kernel and as we have it.
trait Address: SockaddrLike + Copy {
    fn to_std(&self) -> SocketAddr;
}

impl Address for SockaddrIn {
    fn to_std(&self) -> SocketAddr {
        SocketAddrV4::from(*self).into()
    }
}

impl Address for SockaddrIn6 {
    fn to_std(&self) -> SocketAddr {
        SocketAddrV6::from(*self).into()
    }
}

impl Worker {
    pub(super) fn new(service: Arc<Service>, socket: UdpSocket) -> Self {
        Self { service, socket }
    }

    /// Serves until `stop` is set.
    pub(super) fn run(self, stop: &AtomicBool) {
        if let Err(error) = self.socket.set_read_timeout(Some(LOOK_UP)) {
            return tracing::error!(%error, "cannot serve a tracker socket");
        }
        match self.socket.local_addr() {
            Ok(SocketAddr::V4(_)) => self.serve::<SockaddrIn>(stop),
            Ok(SocketAddr::V6(_)) => self.serve::<SockaddrIn6>(stop),
            Err(error) => tracing::error!(%error, "cannot serve a tracker socket"),
        }
    }

    fn serve<A: Address>(&self, stop: &AtomicBool) {
        let mut desk = self.service.desk();
        let mut batch = Batch::<A>::new();
        while !stop.load(Ordering::Acquire) {
            match batch.receive(&self.socket) {
                Ok(()) => {
                    batch.answer(&mut desk);
                    batch.send(&self.socket);
                }
                // Time to look up; or an ICMP error that belongs to an earlier reply.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(error) => {
                    tracing::warn!(%error, "receiving tracker requests");
                    // An error that stays must not spin this thread; it has no loop to block.
                    std::thread::sleep(LOOK_UP);
                }
            }
        }
    }
}

/// Buffers for a batch of requests and their replies.
struct Batch<A: Address> {
    incoming: MultiHeaders<A>,
    buffers: Box<[[u8; DATAGRAM]; BATCH]>,
    /// Length and sender of each datagram received.
    requests: Vec<(usize, A)>,
    /// All replies, one after another.
    replies: Vec<u8>,
    /// Where each reply ends in `replies`, and whom it is for.
    ends: Vec<usize>,
    receivers: Vec<SocketAddrAny>,
}

impl<A: Address> Batch<A> {
    fn new() -> Self {
        Self {
            incoming: MultiHeaders::preallocate(BATCH, None),
            buffers: Box::new([[0; DATAGRAM]; BATCH]),
            requests: Vec::with_capacity(BATCH),
            replies: Vec::with_capacity(BATCH * 256),
            ends: Vec::with_capacity(BATCH),
            receivers: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for a datagram and takes it with all that are there already.
    fn receive(&mut self, socket: &UdpSocket) -> Result<(), Errno> {
        self.requests.clear();
        let mut slices = self.buffers.each_mut().map(|b| [IoSliceMut::new(b)]);
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.incoming,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        )?;
        let requests = received.filter_map(|m| Some((m.bytes, m.address?)));
        self.requests.extend(requests);
        Ok(())
    }

    fn answer(&mut self, desk: &mut Desk) {
        self.replies.clear();
        self.ends.clear();
        self.receivers.clear();
        let now = desk.service().now();
        for ((len, from), buffer) in self.requests.iter().zip(self.buffers.iter()) {
            let datagram = buffer.get(..*len).unwrap_or_default();
            let before = self.replies.len();
            let from = from.to_std();
            desk.udp(now, from, datagram, &mut self.replies);
            if self.replies.len() > before {
                self.ends.push(self.replies.len());
                self.receivers.push(from.as_any());
            }
        }
    }

    fn send(&mut self, socket: &UdpSocket) {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let slices: SmallVec<[[IoSlice<'_>; 1]; BATCH]> = starts
            .zip(&self.ends)
            .map(|(start, end)| {
                [IoSlice::new(
                    self.replies.get(start..*end).unwrap_or_default(),
                )]
            })
            .collect();
        let mut no_control: SmallVec<[SendAncillaryBuffer<'_, '_, '_>; BATCH]> = slices
            .iter()
            .map(|_| SendAncillaryBuffer::default())
            .collect();
        let mut messages: SmallVec<[MMsgHdr<'_>; BATCH]> = self
            .receivers
            .iter()
            .zip(&slices)
            .zip(&mut no_control)
            .map(|((to, slice), control)| MMsgHdr::new_with_addr(to, slice, control))
            .collect();
        let mut rest = messages.as_mut_slice();
        while !rest.is_empty() {
            // What cannot be sent (no route, a firewall) is skipped: its client asks again.
            let sent = sendmmsg(socket, rest, SendFlags::empty()).unwrap_or(1);
            rest = rest.get_mut(sent.max(1)..).unwrap_or_default();
        }
    }
}
