//! A DHT client for one command: asks, waits, tells progress.

use super::{AGAIN, LOOK, bootstrap, on_overlay, ring};
use crate::cli::{DhtArgs, Via};
use crate::failure::{Exit, Failure, Outcome};
use crate::overlay::OnOverlay;
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::{key, transfer};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use shoal_dht::{Answer, Failure as DhtFailure, Outcome as Stored, Request};
use shoal_node::dht::{self, DhtConfig, DhtError, DhtNode, Ring, Ticket};
use std::time::{Duration, Instant};

/// A node of ours, and what it answers.
pub(crate) struct Client {
    pub(super) node: DhtNode,
    pub(super) answers: Receiver<(Ticket, Answer)>,
    pub(super) interrupt: Interrupt,
    pub(super) next: Ticket,
    /// The place on the overlay by which its datagrams go.
    pub(super) _station: Option<OnOverlay>,
}

impl Client {
    /// Starts a node; one that runs but a moment serves nobody.
    pub(super) fn start(args: &DhtArgs, begins: bool, config: DhtConfig, ui: &Ui) -> Outcome<Self> {
        let interrupt = Interrupt::install()?;
        let by_overlay = begins || on_overlay(&args.bootstrap);
        let station = match by_overlay && args.via == Via::Chord {
            true => {
                let (ip, base) = (args.listen.ip(), args.state_dir.as_deref());
                let started = OnOverlay::start(&args.join, ip, base, &interrupt, ui)?;
                Some(started.ok_or_else(interrupted)?)
            }
            false => None,
        };
        let config = DhtConfig {
            listen: dht::listen_addrs(args.listen),
            overlay: station.as_ref().map(|s| s.overlay.clone()),
            ..config
        };
        let config = match args.via {
            Via::Mainline => DhtConfig {
                bootstrap: bootstrap(&args.bootstrap, args.listen),
                ring: None,
                ..config
            },
            Via::Chord => {
                let given = config.ring.unwrap_or_default();
                let ring = Ring {
                    key: given.key,
                    positions: given.positions,
                    ..ring(&args.ring)?
                };
                DhtConfig {
                    bootstrap: args.bootstrap.clone(),
                    ring: Some(ring),
                    ..config
                }
            }
        };
        let client = Self::with(config, interrupt, station)?;
        for addr in client.node.local_addrs() {
            ui.report(&Report::Listening {
                addr: *addr,
                proto: "udp",
            });
        }
        Ok(client)
    }

    /// The same without a word, and with a seed of its own.
    pub(crate) fn on(config: DhtConfig, interrupt: Interrupt) -> Outcome<Self> {
        Self::with(config, interrupt, None)
    }

    pub(super) fn with(
        config: DhtConfig,
        interrupt: Interrupt,
        station: Option<OnOverlay>,
    ) -> Outcome<Self> {
        let mut seed = [0; 8];
        key::random(&mut seed)?;
        let config = DhtConfig {
            seed: u64::from_le_bytes(seed),
            ..config
        };
        let (sender, answers) = crossbeam_channel::unbounded();
        let sink = Box::new(move |ticket, answer| {
            // Fails when the command is over.
            let _ = sender.send((ticket, answer));
        });
        let node = DhtNode::start(config, sink).map_err(|e| {
            let failure = Failure::failed("cannot start a node").because(&e);
            match &e {
                DhtError::Bind { source, .. } => transfer::bind_hint(failure, source),
                DhtError::Thread(_) | DhtError::Random(_) => failure,
            }
        })?;
        Ok(Self {
            node,
            answers,
            interrupt,
            next: 0,
            _station: station,
        })
    }

    pub(super) fn brief(args: &DhtArgs, ui: &Ui) -> Outcome<Self> {
        let config = DhtConfig {
            read_only: true,
            ..DhtConfig::default()
        };
        Self::start(args, false, config, ui)
    }

    /// Begins an operation; its answers come under the name returned.
    pub(crate) fn begin(&mut self, request: Request) -> Ticket {
        self.next += 1;
        self.node.request(self.next, request);
        self.next
    }

    /// Ends an operation.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        self.node.cancel(ticket);
    }

    /// What all operations find.
    pub(crate) fn answers(&self) -> &Receiver<(Ticket, Answer)> {
        &self.answers
    }

    /// Ends the node.
    pub(crate) fn stop(self) {
        self.node.stop();
    }

    /// Runs an operation to its end, again while no node to start from answers, at most for
    /// `timeout`. Its news go to `heard`.
    pub(crate) fn run(
        &mut self,
        request: &Request,
        timeout: u64,
        mut heard: impl FnMut(Answer),
    ) -> Outcome<Result<Stored, DhtFailure>> {
        let until = Instant::now() + Duration::from_secs(timeout);
        loop {
            let ours = self.begin(request.clone());
            let done = loop {
                match self.hear(until)? {
                    Some((ticket, Answer::Done(done))) if ticket == ours => break done,
                    Some((ticket, news)) if ticket == ours => heard(news),
                    Some(_) => {}
                    None => {
                        return Err(Failure::new(Exit::Unreachable, "no answer in time")
                            .reason(format!("waited for {timeout} s"))
                            .hint("--timeout SECONDS waits longer"));
                    }
                }
            };
            let alone = matches!(done, Err(DhtFailure::NoContacts | DhtFailure::Offline(_)));
            if !alone || Instant::now() + AGAIN >= until {
                return Ok(done);
            }
            self.cancel(ours);
            if self.interrupt.woken().recv_timeout(AGAIN) != Err(RecvTimeoutError::Timeout) {
                return Err(interrupted());
            }
        }
    }

    /// The next answer; none when the time is over.
    pub(super) fn hear(&self, until: Instant) -> Outcome<Option<(Ticket, Answer)>> {
        loop {
            if self.interrupt.asked() {
                return Err(interrupted());
            }
            let next = Instant::now() + LOOK;
            match self.answers.recv_deadline(next.min(until)) {
                Ok(answer) => return Ok(Some(answer)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::failed("the node has stopped"));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Stays until ctrl-C.
    pub(super) fn stay(self, ui: &Ui) -> Exit {
        while !self.interrupt.asked() && !ui.stdout_closed() {
            let _ = self.interrupt.woken().recv_timeout(LOOK);
        }
        self.node.stop();
        Exit::Interrupted
    }
}

pub(super) fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "stopped")
}
