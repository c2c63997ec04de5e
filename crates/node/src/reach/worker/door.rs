//! How others speak to a node's thread.

use crate::reach::stream::Stream;
use crate::reach::{Connection, Looked, Status, Unreached};
use bytes::Bytes;
use crossbeam_channel::Sender;
use mio::Waker;
use quinn_proto::StreamId;
use shoal_reach::identity::NodeId;
use shoal_reach::relays::Ticket;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the thread is told.
pub(in crate::reach) enum Command {
    Offer(Vec<Ticket>),
    Letter(Vec<u8>),
    /// A router lets everybody through to us at this address, or nobody any more.
    Forwarded(Option<SocketAddr>),
    Connect(NodeId, Sender<Result<Connection, Unreached>>),
    Open(usize, Sender<Option<Stream>>),
    /// Something was written, or read.
    Look(usize, StreamId),
    Leave(usize, StreamId),
    Datagram(usize, Bytes),
    Status(usize, Sender<Option<Status>>),
    Close(usize),
    Ask(Sender<Looked>),
    Stop,
}

/// By which commands get in.
#[derive(Clone)]
pub(in crate::reach) struct Door {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<Waker>,
    pub(super) open: Arc<AtomicBool>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    /// False when the thread has ended.
    pub(in crate::reach) fn tell(&self, command: Command) -> bool {
        let told = self.is_open() && self.commands.send(command).is_ok();
        let _ = self.waker.wake();
        told
    }

    pub(in crate::reach) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}
