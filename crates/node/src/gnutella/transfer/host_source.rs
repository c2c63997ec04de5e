//! A Gnutella host as one source among others of what is fetched.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use shoal_base::Time;
use shoal_content::Block;
use shoal_gnutella::http::client::{Client, ClientConfig, Others};
use shoal_gnutella::huge::Urn;

use super::source::{Dial, End, Neighbours, News, Order, Source, Start};
use crate::gnutella::tls::Tls;
use crate::range_source::{Again, RangeEvent, RangeSource, Sink, Slice};

/// What is remembered of a host from one connection to the next: our place in its queue.
pub(crate) type Place = Arc<Mutex<Option<Box<Client>>>>;

/// A host that is asked for ranges of a file; its thread ends soon after it is dropped.
pub(crate) struct HostSource {
    source: Source,
    slice: Slice,
}

impl HostSource {
    /// Starts to use the host at `addr`, which is reached by `dial`, for the file of that hash, which is `slice` of what is
    /// fetched. `neighbours`: others who have it, and who do not, to be told to the host. `origin`:
    /// what times are counted from.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn spawn(
        addr: SocketAddr,
        urn: Urn,
        slice: Slice,
        (dial, origin): (Dial, Instant),
        neighbours: (Vec<SocketAddr>, Vec<SocketAddr>),
        place: Place,
        sink: Sink,
    ) -> io::Result<Self> {
        let known = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        // No TLS is no reason not to fetch.
        let tls = Tls::new().ok();
        let mut client = known.map_or_else(
            || {
                let config = ClientConfig {
                    agent: concat!("shoal/", env!("CARGO_PKG_VERSION")).to_owned(),
                    urn,
                    node: None,
                    tls: tls.is_some(),
                };
                Client::new(config, addr)
            },
            |client| *client,
        );
        client.set_len(slice.len);
        let start = Start {
            addr,
            client,
            stream: None,
            tls,
            secure: false,
            node_port: None,
            dial,
            origin,
            neighbours: Neighbours::new(Mutex::new(Others {
                alternates: neighbours.0,
                dead: neighbours.1,
                tls: Vec::new(),
            })),
        };
        let told = Mutex::new(None);
        let news = Box::new(move |news| {
            let now = Time::ZERO + origin.elapsed();
            events(news, now, &place, &told)
                .into_iter()
                .try_for_each(&sink)
        });
        let source = Source::spawn(start, news)?;
        Ok(Self { source, slice })
    }
}

/// What a host's news mean for what is fetched. `told`: what it last said that it has.
fn events(
    news: News,
    now: Time,
    place: &Place,
    told: &Mutex<Option<shoal_gnutella::http::ranges::RangeSet>>,
) -> Vec<RangeEvent> {
    match news {
        News::Connected | News::NoTls | News::Tree(_) | News::NoTree => Vec::new(),
        News::Told(said) => {
            let mut all = Vec::new();
            let mut before = told.lock().unwrap_or_else(PoisonError::into_inner);
            if *before != said.available {
                before.clone_from(&said.available);
                all.push(RangeEvent::Has(said.available));
            }
            if !said.alternates.is_empty() {
                all.push(RangeEvent::Others(said.alternates));
            }
            all
        }
        News::Data(buf, blocks) => vec![RangeEvent::Blocks { buf, blocks }],
        News::Missed(blocks) => vec![RangeEvent::Missed(blocks)],
        News::Waiting { at, position } => vec![RangeEvent::Waits {
            wait: at.since(now),
            position,
            lives: true,
        }],
        News::Ended(client, end) => {
            if client.place().is_some() {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
            }
            let (why, again) = match end {
                End::Stopped => return Vec::new(),
                End::Waiting(at, position) => {
                    return vec![RangeEvent::Waits {
                        wait: at.since(now),
                        position,
                        lives: false,
                    }];
                }
                End::NotThere(why) => (why, Again::Never),
                End::Failed(why) => (why, Again::Soon),
            };
            vec![RangeEvent::Failed { why, again }]
        }
    }
}

impl RangeSource for HostSource {
    fn request(&self, blocks: Vec<Block>) {
        self.source.order(Order::Blocks(self.slice, blocks));
    }

    fn probe(&self) {
        self.source.order(Order::Probe);
    }
}
