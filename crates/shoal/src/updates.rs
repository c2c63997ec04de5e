//! Torrents that are updated (BEP 46): a signed value in the DHT names the newest version, and the
//! magnet link names its publisher's key.
//!
//! Both ends ask through a node of their own that serves nobody, beside the session's: the reactor
//! knows torrents and nothing of values.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;
use ed25519_dalek::SigningKey;
use shoal_base::InfoHash;
use shoal_base::id::to_hex;
use shoal_content::{Magnet, Publisher};
use shoal_dht::mainline::pointer;
use shoal_dht::{Answer, Failure as DhtFailure, Id, Item, ItemError, Mutable, Request};
use shoal_node::dht::{self as node, DhtConfig, Ticket};

use crate::cli::NetArgs;
use crate::dht::{self, Client};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::count;

/// How long `fetch` looks for the newest version unless it is told (seconds).
const PATIENCE: u64 = 60;
/// The first wait after a failure to publish; each is twice as long …
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// … up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// A wait from which on the user hears of it: the network was given half a minute.
const WORTH_TELLING: Duration = Duration::from_secs(16);

/// A node that asks, beside the transfer's own.
fn client(net: &NetArgs, interrupt: &Interrupt) -> Outcome<Client> {
    let listen = SocketAddr::new(net.listen.ip(), 0);
    let config = DhtConfig {
        listen: node::listen_addrs(listen),
        bootstrap: dht::bootstrap(&net.dht_bootstrap, net.listen),
        read_only: true,
        ..DhtConfig::default()
    };
    Client::on(config, interrupt.clone())
}

fn read(publisher: &Publisher) -> Request {
    Request::GetMutable {
        key: publisher.key,
        salt: publisher.salt.clone(),
        newer_than: None,
    }
}

/// Finds the newest version that `publisher` named.
fn newest(
    publisher: &Publisher,
    net: &NetArgs,
    timeout: Option<u64>,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<InfoHash> {
    ui.status("Looking up", "the newest version in the DHT");
    let mut client = client(net, interrupt)?;
    let mut found: Option<Item> = None;
    let done = client.run(&read(publisher), timeout.unwrap_or(PATIENCE), |answer| {
        if let Answer::Value(item) = answer
            && found.as_ref().is_none_or(|old| old.seq() < item.seq())
        {
            found = Some(item);
        }
    })?;
    client.stop();
    let what = "cannot find the newest version";
    let item = match (found, done) {
        (Some(item), _) => item,
        (None, Err(why)) => return Err(dht::failed(what, &why)),
        (None, Ok(o)) => return Err(dht::failed(what, &DhtFailure::NotFound(o.answered))),
    };
    let Some(Id(hash)) = pointer::from_value(item.value()) else {
        return Err(Failure::failed(what).reason("the value stored under this key is no info-hash"));
    };
    let info_hash = InfoHash(hash);
    ui.report(&Report::Resolved {
        magnet: &link(publisher),
        info_hash_v1: &info_hash.to_string(),
        seq: item.seq().unwrap_or_default(),
    });
    Ok(info_hash)
}

/// Puts the info-hash of the newest version into a link that names its publisher. A hash that the
/// link has serves when the DHT has none.
pub(crate) fn resolve(
    magnet: &mut Magnet,
    net: &NetArgs,
    timeout: Option<u64>,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome {
    let Some(publisher) = &magnet.publisher else {
        return Ok(());
    };
    if net.no_dht {
        if magnet.info_hash.is_some() {
            return Ok(());
        }
        return Err(
            Failure::usage("this link names what only the DHT knows").hint("leave out --no-dht")
        );
    }
    match newest(publisher, net, timeout, interrupt, ui) {
        Ok(found) => magnet.info_hash = Some(found),
        Err(why) if magnet.info_hash.is_some() && why.exit != Exit::Interrupted => {
            ui.warn(&format!("{}; fetching the version in the link", why.what));
        }
        Err(why) => return Err(why),
    }
    Ok(())
}

fn link(publisher: &Publisher) -> String {
    let magnet = Magnet {
        publisher: Some(publisher.clone()),
        ..Magnet::default()
    };
    magnet.to_string()
}

/// How far publishing got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Looking for the sequence number that is stored.
    Reading,
    Storing,
    /// Stored, and stored again each hour.
    Stored,
    /// Waiting to begin again.
    Waiting(Instant),
    Over,
}

/// Names a torrent as the newest version, until it ends.
pub(crate) struct Publishing {
    client: Client,
    signer: SigningKey,
    publisher: Publisher,
    info_hash: InfoHash,
    step: Step,
    ticket: Ticket,
    /// Highest sequence number seen.
    newest: i64,
    wait: Duration,
}

impl Publishing {
    /// Begins, and prints the link.
    pub(crate) fn start(
        signer: SigningKey,
        salt: &str,
        info_hash: InfoHash,
        net: &NetArgs,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Outcome<Self> {
        let publisher = Publisher {
            key: signer.verifying_key().to_bytes(),
            salt: salt.as_bytes().to_vec(),
        };
        let mut publishing = Self {
            client: client(net, interrupt)?,
            signer,
            publisher,
            info_hash,
            step: Step::Over,
            ticket: 0,
            newest: 0,
            wait: FIRST_RETRY,
        };
        ui.result(&publishing.link());
        publishing.read();
        Ok(publishing)
    }

    /// The magnet link of the newest version, whichever it is.
    fn link(&self) -> String {
        link(&self.publisher)
    }

    /// What is to be handed to [`Publishing::heard`].
    pub(crate) fn answers(&self) -> Receiver<(Ticket, Answer)> {
        self.client.answers().clone()
    }

    fn item(&self, seq: i64) -> Result<Item, ItemError> {
        let value = pointer::to_value(self.info_hash.as_bytes());
        let item = Mutable::sign(&self.signer, &self.publisher.salt, seq, value)?;
        Ok(Item::Mutable(Box::new(item)))
    }

    fn read(&mut self) {
        self.step = Step::Reading;
        self.ticket = self.client.begin(read(&self.publisher));
    }

    fn store(&mut self, ui: &Ui) {
        // Beyond what is stored, and beyond what was stored before the network forgot it: readers
        // may remember that.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        let next = self.newest.checked_add(1).map(|next| next.max(now));
        match next.map(|seq| self.item(seq)) {
            Some(Ok(item)) => {
                self.step = Step::Storing;
                self.newest = item.seq().unwrap_or_default();
                self.ticket = self.client.begin(Request::Put {
                    item,
                    cas: None,
                    keep: true,
                });
            }
            _ => {
                ui.warn("cannot name this as the newest version: no sequence number is left");
                self.step = Step::Over;
            }
        }
    }

    fn again(&mut self, why: &DhtFailure, ui: &Ui) {
        self.client.cancel(self.ticket);
        self.step = Step::Waiting(Instant::now() + self.wait);
        if self.wait == WORTH_TELLING {
            ui.warn(&format!(
                "cannot name this as the newest version yet: {why}; trying on"
            ));
        }
        self.wait = (self.wait * 2).min(LONGEST_RETRY);
    }

    /// Takes an answer of the node's.
    pub(crate) fn heard(&mut self, ticket: Ticket, answer: Answer, ui: &Ui) {
        if ticket != self.ticket {
            return;
        }
        match (self.step, answer) {
            (Step::Reading, Answer::Value(item)) => {
                self.newest = self.newest.max(item.seq().unwrap_or_default());
            }
            (Step::Reading, Answer::Done(Ok(_) | Err(DhtFailure::NotFound(_)))) => self.store(ui),
            (Step::Storing, Answer::Done(Ok(outcome))) => {
                self.step = Step::Stored;
                ui.report(&Report::Published {
                    magnet: &self.link(),
                    info_hash_v1: &self.info_hash.to_string(),
                    key: &to_hex(&self.publisher.key),
                    seq: self.newest,
                    nodes: outcome.stored,
                });
                let nodes = count(outcome.stored.into(), "node");
                ui.status("Published", &format!("as the newest version, on {nodes}"));
            }
            (Step::Stored, Answer::Done(Err(DhtFailure::OlderThan(_)))) => {
                self.client.cancel(self.ticket);
                self.step = Step::Over;
                ui.warn("a newer version was published elsewhere; this one is no longer named");
            }
            (Step::Reading | Step::Storing, Answer::Done(Err(why))) => self.again(&why, ui),
            // A round that failed is tried again by the node.
            _ => {}
        }
    }

    /// To be called now and then.
    pub(crate) fn tick(&mut self) {
        if let Step::Waiting(until) = self.step
            && Instant::now() >= until
        {
            self.read();
        }
    }

    /// Ends; what was stored lasts for two hours.
    pub(crate) fn stop(self) {
        self.client.stop();
    }
}
