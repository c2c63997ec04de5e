//! Gnutella's hosts: which of them are connected to, by what name they are asked, what they are told of others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use shoal_base::Time;
use shoal_gnutella::Guid;
use shoal_gnutella::http::client::{self, Client, ClientConfig};
use shoal_gnutella::huge::Urn;

use super::run::{Fetch, Handle, Heard, Who};
use crate::gnutella::tls::Stream;
use crate::gnutella::transfer::listen::Listener;
use crate::gnutella::transfer::partial::PartialFile;
use crate::gnutella::transfer::source::{Dial, Source, Start};
use crate::range_source::SourceSpec;

/// Names of hosts, and of sharers, that are remembered.
const MAX_NAMES: usize = 1024;
/// Hosts that are told to others.
const TOLD: usize = 10;

/// By what names sharers were found: they know a file by its SHA-1, whatever we know it by.
#[derive(Debug, Default)]
pub(super) struct Names {
    hosts: BTreeMap<SocketAddr, Urn>,
    /// Those who connect to us.
    sharers: BTreeMap<Guid, Urn>,
}

impl Fetch {
    /// Connects to hosts as long as there is room. Those that make us wait take none.
    pub(super) fn dial(&mut self, now: Time) {
        if self.is_finished() {
            return;
        }
        // While there is room for all, who is best does not matter.
        let busy = self.live.values().filter(|l| l.waits.is_none()).count();
        let room = self.settings.max_sources.saturating_sub(busy);
        if self.sources.ready(now).count() > room && self.awaits_heads(now) {
            return;
        }
        loop {
            let busy = self.live.values().filter(|l| l.waits.is_none()).count();
            if busy >= self.settings.max_sources || self.live.len() >= self.settings.max_sources * 4
            {
                return;
            }
            let Some(addr) = self.sources.take(now) else {
                break;
            };
            let urn = self.name_at(&addr);
            self.start_source(addr, urn, None);
        }
        let others = self.others.any_left() && self.len().is_some() || self.any_pushed();
        if self.live.is_empty() && !self.sources.any_left() && !others && !self.settings.awaits_more
        {
            self.nobody_left();
        }
    }

    /// What a host is asked for: by the SHA-1 where that is known, else by the name that it was found with.
    pub(super) fn name_at(&self, addr: &SocketAddr) -> Urn {
        let found = self.names.hosts.get(addr).copied();
        self.name_or(found)
    }

    /// The same of a sharer that connects to us.
    pub(super) fn name_of(&self, sharer: &Guid) -> Urn {
        let found = self.names.sharers.get(sharer).copied();
        self.name_or(found)
    }

    fn name_or(&self, found: Option<Urn>) -> Urn {
        let own = self.settings.urn;
        match own.sha1() {
            Some(_) => own.shortest(),
            None => found.unwrap_or(own),
        }
    }

    /// Talks to a host that is asked for the file by `urn`, over `stream` if there is a connection already.
    pub(super) fn start_source(
        &mut self,
        addr: SocketAddr,
        urn: Urn,
        stream: Option<Stream>,
    ) -> u32 {
        let listener = self.settings.listener.as_ref().map(Listener::addr);
        let node_port = listener.filter(|l| l.ip().is_unspecified());
        let client = self.clients.remove(&addr).unwrap_or_else(|| {
            let config = ClientConfig {
                agent: concat!("shoal/", env!("CARGO_PKG_VERSION")).to_owned(),
                urn,
                node: listener.filter(|l| !l.ip().is_unspecified()),
                tls: self.tls.is_some(),
            };
            Client::new(config, addr)
        });
        let mut client = client;
        if let Some(len) = self.len() {
            client.set_len(len);
        }
        if let Ok(mut told) = self.neighbours.lock() {
            let alternates = self.sources.alternates(addr, TOLD);
            let dead = self.sources.useless(TOLD);
            let all = alternates.iter().chain(&dead);
            let tls = all.filter(|a| self.sources.speaks_tls(a)).copied();
            *told = client::Others {
                tls: tls.collect(),
                alternates,
                dead,
            };
        }
        self.tell_of_us();
        self.waiting.remove(&addr);
        let key = self.take_key();
        let start = Start {
            addr,
            client,
            stream,
            tls: self.tls.clone(),
            secure: self.tls.is_some() && self.sources.speaks_tls(&addr),
            node_port: node_port.map(|l| l.port()),
            dial: Dial::Out(self.settings.outbound.clone()),
            origin: self.origin,
            neighbours: Arc::clone(&self.neighbours),
        };
        let inbox = self.inbox.0.clone();
        let sink = Box::new(move |news| inbox.send((key, Heard::Host(news))).map_err(drop));
        match Source::spawn(start, sink) {
            Ok(source) => self.take_in(key, Who::Host(addr), Handle::Host(source)),
            Err(error) => {
                tracing::warn!(%error, "no thread for a source");
                let now = self.now();
                self.sources.failed(now, &addr);
            }
        }
        key
    }

    /// More who have it; those that are known already change nothing.
    pub(super) fn learn(&mut self, specs: Vec<SourceSpec>) {
        for spec in specs {
            match spec {
                SourceSpec::Gnutella { addr, urn, .. } => {
                    if self.names.hosts.len() < MAX_NAMES {
                        self.names.hosts.entry(addr).or_insert(urn);
                    }
                    if self.sources.state(&addr).is_none() {
                        self.sources.name(addr);
                    }
                }
                SourceSpec::Pushed { sharer, urn, .. } => {
                    let now = self.now();
                    if self.names.sharers.len() < MAX_NAMES {
                        self.names.sharers.entry(sharer.guid).or_insert(urn);
                    }
                    self.pushes.name(now, sharer);
                }
                spec => self.others.add(spec),
            }
        }
    }

    /// Hosts hear that what is there can be had from us.
    pub(super) fn tell_of_us(&self) {
        let partial = self.settings.partial.as_ref();
        let listener = self.settings.listener.as_ref();
        let of_use = partial.is_some_and(PartialFile::is_of_use);
        let reached = |l: &&Listener| of_use && !l.addr().ip().is_unspecified();
        let Some(listener) = listener.filter(reached) else {
            return;
        };
        if let Ok(mut told) = self.neighbours.lock()
            && !told.alternates.contains(&listener.addr())
        {
            told.alternates.push(listener.addr());
        }
    }
}
