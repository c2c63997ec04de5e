//! What those who use the thread ask of it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Dir, VarInt};
use shoal_reach::agent::Base;
use shoal_reach::endpoint::Output;

use super::streams::{leave, read, write};
use super::{Command, FIND, Live, Looked, Pipe, Status, Stream, Unreached, Wanted, Worker};

impl Worker {
    pub(super) fn obey(&mut self, command: Command, out: &mut Vec<Output>) {
        let now = self.now();
        match command {
            Command::Offer(tickets) => self.endpoint.offer(now, tickets, out),
            Command::Letter(letter) => self.endpoint.on_letter(now, &letter, out),
            Command::Connect(to, tell) => match self.endpoint.open(now, to, out) {
                Some(session) => {
                    let until = Instant::now() + FIND;
                    self.wanted.push(Wanted {
                        session,
                        to,
                        tell,
                        until,
                    });
                    self.dial();
                }
                None => drop(tell.send(Err(Unreached::Full))),
            },
            Command::Open(at, tell) => {
                let stream = self.live.get_mut(&at).and_then(|live| {
                    let id = live.connection.streams().open(Dir::Bi)?;
                    let pipe = Arc::<Pipe>::default();
                    live.streams.insert(id, Arc::clone(&pipe));
                    Some(Stream::new(pipe, self.door.clone(), at, id))
                });
                let _ = tell.send(stream);
            }
            Command::Look(at, id) => {
                if let Some(live) = self.live.get_mut(&at) {
                    write(live, id);
                    read(live, id);
                    self.touched.insert(at);
                }
            }
            Command::Leave(at, id) => {
                if let Some(live) = self.live.get_mut(&at) {
                    leave(live, id);
                    self.touched.insert(at);
                }
            }
            Command::Datagram(at, data) => {
                if let Some(live) = self.live.get_mut(&at) {
                    // Those that do not fit any more are lost, the oldest first.
                    let _ = live.connection.datagrams().send(data, true);
                    self.touched.insert(at);
                }
            }
            Command::Status(at, tell) => {
                let status = self.live.get(&at).map(|live| self.status(live));
                let _ = tell.send(status);
            }
            Command::Close(at) => {
                if let Some(live) = self.live.get_mut(&at) {
                    let why = Bytes::from_static(b"closed");
                    live.connection
                        .close(Instant::now(), VarInt::from_u32(0), why);
                    self.touched.insert(at);
                }
            }
            Command::Forwarded(at) => {
                let now = self.now();
                self.endpoint.set_forwarded(now, at);
            }
            Command::Ask(tell) => {
                let relays = self.endpoint.relays();
                let _ = tell.send(Looked {
                    mapped: relays.mapped(),
                    one: relays.is_mapped_as_one(),
                    udp: relays.has_udp(),
                    relays: relays.in_use().collect(),
                });
            }
            Command::Stop => {}
        }
    }

    pub(super) fn status(&self, live: &Live) -> Status {
        let way = self.endpoint.in_use(live.session);
        let ours = way.and_then(|w| match w.path.base {
            Base::Direct => None,
            Base::Relay(id) => {
                let mut relays = self.endpoint.relays().in_use();
                relays.find(|r| r.id == id)
            }
        });
        let theirs = way.filter(|w| w.hops > u8::from(ours.is_some()));
        let stats = live.connection.stats().path;
        Status {
            relays: ours
                .map(|r| r.at)
                .into_iter()
                .chain(theirs.map(|w| w.path.peer))
                .collect(),
            way,
            ways: self.endpoint.working(live.session),
            rtt: way.map_or(stats.rtt, |w| w.rtt),
            sent: stats.sent_packets,
            lost: stats.lost_packets,
        }
    }
}
