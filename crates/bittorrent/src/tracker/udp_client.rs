//! The client's side of UDP announces (BEP 15): connection ids, retransmission, matching replies
//! to requests. One machine serves all torrents and trackers of a socket.

use super::http_request::with_overlay;
use super::udp::{self, UdpReply, UdpRequest};
use super::{AnnounceReply, AnnounceRequest, http_reply::words};
use rustc_hash::FxHashMap;
use shoal_base::time::earliest;
use shoal_base::{Rng, Time};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a client may use a connection id (BEP 15: one minute).
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// The first wait for a reply; doubles with every retransmission (BEP 15: 15 · 2^n).
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// BEP 15 goes on to n = 8, an hour later. We give up after n = 1, so that the next tracker gets
/// its turn; the announcer comes back with a growing delay of its own.
const MAX_RETRANSMISSION: u32 = 1;
/// Connection ids remembered; the oldest go first.
const MAX_CONNECTIONS: usize = 1024;

/// Why an announce by UDP failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UdpFailure {
    /// Nothing came back in time.
    #[error("tracker does not answer")]
    Timeout,
    /// The tracker refused, in these words.
    #[error("tracker says: {0}")]
    Refused(String),
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UdpClientOutput {
    /// Send this datagram.
    Send {
        /// The tracker.
        to: SocketAddr,
        /// The bytes.
        datagram: Vec<u8>,
    },
    /// The announce that was started under `token` is over.
    Done {
        /// What [`UdpClient::announce`] was called with.
        token: u64,
        /// How it ended.
        result: Result<AnnounceReply, UdpFailure>,
    },
}

#[derive(Debug)]
struct Exchange {
    token: u64,
    to: SocketAddr,
    announce: AnnounceRequest,
    options: Vec<u8>,
    /// The id announced with; none while connecting.
    connection: Option<u64>,
    retransmission: u32,
    /// A cached id was refused once already.
    reconnected: bool,
    resend_at: Time,
}

/// All announces under way by UDP.
#[derive(Debug)]
pub struct UdpClient {
    rng: Rng,
    connections: FxHashMap<SocketAddr, (u64, Time)>,
    /// By transaction id of the last datagram.
    exchanges: BTreeMap<u32, Exchange>,
}

impl UdpClient {
    /// A machine that draws transaction ids from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            connections: FxHashMap::default(),
            exchanges: BTreeMap::new(),
        }
    }

    /// Starts an announce to the tracker at `to`; `path` is the path and query of its URL (BEP
    /// 41), empty if there is none.
    pub fn announce(
        &mut self,
        now: Time,
        token: u64,
        to: SocketAddr,
        announce: AnnounceRequest,
        path: &str,
        out: &mut Vec<UdpClientOutput>,
    ) {
        let mut options = Vec::new();
        let path = path.get(..1024).unwrap_or(path);
        if let Some(overlay) = announce.overlay {
            udp::encode_url_data(&with_overlay(path, overlay), &mut options);
        } else if path.len() > 1 {
            udp::encode_url_data(path, &mut options);
        }
        let exchange = Exchange {
            token,
            to,
            announce,
            options,
            connection: self.cached(now, to),
            retransmission: 0,
            reconnected: false,
            resend_at: now,
        };
        self.send(now, exchange, out);
    }

    /// Forgets the announce under `token`; nothing more is heard of it.
    pub fn cancel(&mut self, token: u64) {
        self.exchanges.retain(|_, e| e.token != token);
    }

    /// How many announces are under way.
    pub fn in_flight(&self) -> usize {
        self.exchanges.len()
    }

    /// A datagram arrived; what fits no announce under way is ignored.
    pub fn on_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Vec<UdpClientOutput>,
    ) {
        let Ok(reply) = udp::decode_reply(datagram) else {
            return;
        };
        let (UdpReply::Connect { transaction, .. }
        | UdpReply::Announce { transaction, .. }
        | UdpReply::Scrape { transaction, .. }
        | UdpReply::Error { transaction, .. }) = reply;
        let Some(exchange) = self.exchanges.get(&transaction) else {
            return;
        };
        let expected = match reply {
            UdpReply::Connect { .. } => exchange.connection.is_none(),
            UdpReply::Announce { .. } => exchange.connection.is_some(),
            UdpReply::Scrape { .. } => false,
            UdpReply::Error { .. } => true,
        };
        if exchange.to != from || !expected {
            return;
        }
        let Some(mut exchange) = self.exchanges.remove(&transaction) else {
            return;
        };
        let result = match reply {
            UdpReply::Connect { connection, .. } => {
                self.remember(now, from, connection);
                exchange.connection = Some(connection);
                exchange.retransmission = 0;
                self.send(now, exchange, out);
                return;
            }
            UdpReply::Error { message, .. } => {
                self.connections.remove(&from);
                if exchange.connection.take().is_some() && !exchange.reconnected {
                    // The id may have aged or the tracker may have restarted: one more try.
                    exchange.reconnected = true;
                    exchange.retransmission = 0;
                    self.send(now, exchange, out);
                    return;
                }
                Err(UdpFailure::Refused(words(message)))
            }
            UdpReply::Announce {
                interval,
                leechers,
                seeders,
                peers,
                ..
            } => {
                let mut peers = udp::reply_peers(from, peers);
                peers.retain(|p| p.port() != 0 && !p.ip().is_unspecified());
                Ok(AnnounceReply {
                    interval,
                    seeders: Some(seeders),
                    leechers: Some(leechers),
                    peers,
                    ..AnnounceReply::default()
                })
            }
            UdpReply::Scrape { .. } => return,
        };
        let token = exchange.token;
        out.push(UdpClientOutput::Done { token, result });
    }

    /// The clock moved on: sends again what is overdue and gives up what was sent often enough.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<UdpClientOutput>) {
        let due: Vec<u32> = self
            .exchanges
            .iter()
            .filter(|(_, e)| e.resend_at <= now)
            .map(|(t, _)| *t)
            .collect();
        for transaction in due {
            let Some(mut exchange) = self.exchanges.remove(&transaction) else {
                continue;
            };
            if exchange.retransmission == MAX_RETRANSMISSION {
                let token = exchange.token;
                let result = Err(UdpFailure::Timeout);
                out.push(UdpClientOutput::Done { token, result });
                continue;
            }
            exchange.retransmission += 1;
            if exchange.connection.is_some() {
                // BEP 15: an id that has aged meanwhile is asked for anew.
                exchange.connection = self.cached(now, exchange.to);
            }
            self.send(now, exchange, out);
        }
    }

    /// When [`UdpClient::on_tick`] has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let at = self.exchanges.values().map(|e| e.resend_at);
        at.fold(None, |soonest, t| earliest(soonest, Some(t)))
    }

    fn send(&mut self, now: Time, mut exchange: Exchange, out: &mut Vec<UdpClientOutput>) {
        let mut transaction = self.rng.next_u32();
        while self.exchanges.contains_key(&transaction) {
            transaction = self.rng.next_u32();
        }
        let mut datagram = Vec::with_capacity(udp::ANNOUNCE_LEN + exchange.options.len());
        let request = match exchange.connection {
            None => UdpRequest::Connect { transaction },
            Some(connection) => UdpRequest::Announce {
                connection,
                transaction,
                announce: exchange.announce.clone(),
                options: &exchange.options,
            },
        };
        udp::encode_request(&request, &mut datagram);
        let to = exchange.to;
        exchange.resend_at = now + FIRST_WAIT * (1 << exchange.retransmission);
        self.exchanges.insert(transaction, exchange);
        out.push(UdpClientOutput::Send { to, datagram });
    }

    fn cached(&self, now: Time, tracker: SocketAddr) -> Option<u64> {
        let (id, expires) = self.connections.get(&tracker)?;
        (*expires > now).then_some(*id)
    }

    fn remember(&mut self, now: Time, tracker: SocketAddr, id: u64) {
        if self.connections.len() >= MAX_CONNECTIONS {
            self.connections.retain(|_, (_, expires)| *expires > now);
        }
        if self.connections.len() < MAX_CONNECTIONS {
            self.connections
                .insert(tracker, (id, now + CONNECTION_LIFE));
        }
    }
}

#[cfg(test)]
mod tests;
