//! A Chord ring, where publishers keep what they know of under the words of its title.

use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_base::id::to_hex;
use shoal_content::hits::{Hashes, Hit};
use shoal_dht::keywords::{Record, words_of};
use shoal_dht::{Answer, Failure as DhtFailure, Request};
use shoal_node::dht::{DhtConfig, listen_addrs};

use super::{Ear, Heard, LOOK, SearchSource};
use crate::cli::FindArgs;
use crate::dht::{AGAIN, Client, failed, ring};
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::Interrupt;

struct Words {
    config: DhtConfig,
    words: String,
    most: u8,
    wait: Duration,
}

pub(super) fn source(args: &FindArgs) -> Outcome<Box<dyn SearchSource>> {
    // The listening port is Gnutella's.
    let listen = (args.gnutella.listen.ip(), 0).into();
    Ok(Box::new(Words {
        config: DhtConfig {
            listen: listen_addrs(listen),
            bootstrap: args.ring.clone(),
            ring: Some(ring(&args.which_ring)?),
            read_only: true,
            ..DhtConfig::default()
        },
        words: args.words.words.join(" "),
        most: u8::try_from(args.words.limit).unwrap_or(u8::MAX),
        wait: Duration::from_secs(args.wait),
    }))
}

fn hit(record: Record) -> Hit {
    Hit {
        via: "dht",
        sharer: to_hex(&record.publisher),
        name: record.title,
        size: record.size,
        hashes: Hashes {
            info_hash: Some(record.content.0),
            ..Hashes::default()
        },
        ..Hit::default()
    }
}

impl Words {
    /// Asks once; none if nobody waits any more.
    fn ask(
        &self,
        client: &mut Client,
        until: Instant,
        ear: &Ear,
    ) -> Outcome<Option<Result<(), DhtFailure>>> {
        let ours = client.begin(Request::Find {
            words: self.words.clone(),
            most: self.most,
        });
        let words = words_of(&self.words);
        while ear.listens() && Instant::now() < until {
            match client.answers().recv_timeout(LOOK) {
                Ok((ticket, Answer::Records(records))) if ticket == ours => {
                    for record in records.into_iter().filter(|r| r.matches(&words)) {
                        ear.tell(Heard::Hit(Box::new(hit(record))));
                    }
                }
                Ok((ticket, Answer::Done(done))) if ticket == ours => {
                    return Ok(Some(done.map(drop)));
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::failed("the node has stopped"));
                }
            }
        }
        client.cancel(ours);
        Ok(None)
    }
}

impl SearchSource for Words {
    fn via(&self) -> &'static str {
        "dht"
    }

    fn run(self: Box<Self>, ear: &Ear) -> Outcome {
        let mut client = Client::on(self.config.clone(), Interrupt::install()?)?;
        let until = Instant::now() + self.wait;
        let asked = loop {
            match self.ask(&mut client, until, ear) {
                Ok(Some(Err(DhtFailure::NoContacts | DhtFailure::Offline(_))))
                    if ear.listens() && Instant::now() + AGAIN < until =>
                {
                    // The node to start from may be starting too.
                    std::thread::sleep(AGAIN);
                }
                asked => break asked,
            }
        };
        client.stop();
        match asked? {
            Some(Ok(()) | Err(DhtFailure::NotFound(_))) => Ok(()),
            Some(Err(failure)) => Err(failed("the ring was not asked", &failure)),
            None if ear.listens() => Err(Failure::new(Exit::Unreachable, "no answer in time")
                .reason("the ring did not answer")
                .hint("--wait SECONDS waits longer")),
            None => Ok(()),
        }
    }
}
