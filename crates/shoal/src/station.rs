//! A node of the overlay that reaches others and is reached: what `pipe` and calls stand on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded, select};
use shoal_node::reach::{Connection, Identity, NodeId, Reach, ReachSettings, Ticket, Unreached};
use shoal_node::relay::Credential;
use shoal_node::supernode::{NodeDriver, Place};
use shoal_supernode::node::Event;
use shoal_supernode::wire::Relay;

use crate::failure::{Failure, Outcome};
use crate::report::ReachReport;
use crate::signals::Interrupt;
use crate::supernode::Member;
use crate::supernode::find::{Asker, settings};
use crate::transfer;
use crate::ui::Ui;

/// How often letters' threads look whether they are to end, and relays are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long relays are waited for before others are told that we can be reached.
const PREPARE: Duration = Duration::from_secs(5);
/// How long it is waited that the supernode offers some.
const OFFERED: Duration = Duration::from_secs(2);

/// See the module's text.
pub(crate) struct Station {
    pub(crate) reach: Arc<Reach>,
    driver: Arc<NodeDriver>,
    member: Member,
    pub(crate) tickets: Tickets,
    over: Arc<AtomicBool>,
}

/// How a node is reached, and reaches others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Where its datagrams come and go.
    pub(crate) udp: SocketAddr,
    /// Whether others may connect.
    pub(crate) accepts: bool,
    /// Whether nobody is told our address: all goes by relays.
    pub(crate) hidden: bool,
}

/// Relays that may be used at the moment, with credentials of an hour.
#[derive(Clone, Default)]
pub(crate) struct Tickets(Arc<Mutex<Vec<Ticket>>>);

impl Tickets {
    fn lock(&self) -> MutexGuard<'_, Vec<Ticket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They.
    pub(crate) fn get(&self) -> Vec<Ticket> {
        self.lock().clone()
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.reach.give_ports_back();
    }
}

pub(crate) fn tickets(relays: Vec<Relay>) -> Vec<Ticket> {
    let each = relays.into_iter().map(|r| Ticket {
        at: r.at,
        credential: Credential {
            name: r.name,
            password: r.password,
        },
    });
    each.collect()
}

impl Station {
    /// Finds a supernode for a member and begins to reach others by it; none if `go_on` says that nobody
    /// waits any more.
    pub(crate) fn start(
        member: Member,
        ends: Ends,
        go_on: &dyn Fn() -> bool,
        ui: &Ui,
    ) -> Outcome<Option<Self>> {
        member.tell(ui);
        Self::begin(member, ends, go_on)
    }

    /// As [`Station::start`], without a word.
    pub(crate) fn begin(
        member: Member,
        ends: Ends,
        go_on: &dyn Fn() -> bool,
    ) -> Outcome<Option<Self>> {
        let reach = Reach::start(ReachSettings {
            identity: Identity::new(member.key.clone()),
            listen: ends.udp,
            accepts: ends.accepts,
            hidden: ends.hidden,
            port_mapping: member.port_mapping,
        });
        let reach = reach.map_err(|e| {
            let failure = Failure::failed("cannot send and receive datagrams").because(&e);
            transfer::bind_hint(failure, &e)
        })?;
        let made = |member: &Member| settings(member, Place::Hidden(member.own));
        let Some(Asker { member, driver, .. }) = Asker::start(member, made, go_on)? else {
            return Ok(None);
        };
        let reach = Arc::new(reach);
        let over = Arc::new(AtomicBool::new(false));
        let kept = Tickets::default();
        let (to, from, ended) = (Arc::clone(&reach), Arc::clone(&driver), Arc::clone(&over));
        let last = kept.clone();
        thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                match from.events.recv_timeout(LOOK) {
                    Ok(Event::Letter(_, letter)) => to.letter(letter),
                    Ok(Event::Relays(relays)) => {
                        let fresh = tickets(relays);
                        last.lock().clone_from(&fresh);
                        to.offer(fresh);
                    }
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        let (from, to, ended) = (Arc::clone(&reach), Arc::clone(&driver), Arc::clone(&over));
        thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                match from.letters.recv_timeout(LOOK) {
                    Ok((node, letter)) => to.write(node.0, letter),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Ok(Some(Self {
            reach,
            driver,
            member,
            tickets: kept,
            over,
        }))
    }

    /// Reaches a node; none if the user asks for an end meanwhile.
    pub(crate) fn connect(
        &self,
        node: NodeId,
        interrupt: &Interrupt,
    ) -> Outcome<Option<Result<Connection, Unreached>>> {
        let (reach, (tell, told)) = (Arc::clone(&self.reach), bounded(1));
        thread::spawn(move || {
            let _ = tell.send(reach.connect(node));
        });
        select! {
            recv(told) -> connected => match connected {
                Ok(connected) => Ok(Some(connected)),
                Err(_) => Err(Failure::failed("the node stopped by itself")),
            },
            recv(interrupt.woken()) -> _ => Ok(None),
        }
    }

    /// As [`Station::upkeep`], without a word: what failed is tried again before the token runs out.
    pub(crate) fn renew(&mut self) {
        if let Some(Ok(token)) = self.member.renewed() {
            self.driver.renew(token);
        }
    }

    /// What is due now and then.
    pub(crate) fn upkeep(&mut self, ui: &Ui) {
        if let Some(token) = self.member.renew(ui) {
            self.driver.renew(token);
        }
    }

    /// Waits until there is a relay, or none can be hoped for, and tells how we are reached.
    pub(crate) fn tell_reachable(&self, go_on: &dyn Fn() -> bool, ui: &Ui) {
        let began = Instant::now();
        loop {
            let looked = self.reach.look();
            let relays: Vec<SocketAddr> = looked
                .iter()
                .flat_map(|l| l.relays.iter().map(|r| r.at))
                .collect();
            let patience = match self.tickets.get().is_empty() {
                true => OFFERED,
                false => PREPARE,
            };
            if relays.is_empty() && began.elapsed() < patience && go_on() {
                // There is nothing that tells when relays have answered.
                thread::sleep(LOOK / 4);
                continue;
            }
            let node = self.reach.id().to_string();
            let mapped = looked.and_then(|l| l.mapped);
            ui.report(&ReachReport::Reachable {
                node: &node,
                mapped,
                relays: &relays,
            });
            ui.status("Reachable", &node);
            if relays.is_empty() {
                ui.warn("no relay has answered: only who needs none gets here");
            }
            return;
        }
    }
}
