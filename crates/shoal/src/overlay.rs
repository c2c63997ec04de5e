//! A command's own place on the overlay: by it others reach what the command serves, and are reached,
//! through any NAT.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use shoal_jobs::net::auth::Ways;
use shoal_jobs::net::control::Entrance;
use shoal_node::reach::{Identity, Overlay, OverlaySettings, Service, overlay_of};
use shoal_node::supernode::Place;
use shoal_supernode::node::Event;

use crate::cli::JoinFlags;
use crate::failure::{Failure, Outcome};
use crate::report::ReachReport;
use crate::signals::Interrupt;
use crate::station::tickets;
use crate::supernode::find::{Asker, settings};
use crate::supernode::{Member, Who, folder};
use crate::transfer;
use crate::ui::Ui;

/// How often it is looked whether a token is due, or the end has come.
const LOOK: Duration = Duration::from_millis(200);

/// A place on the overlay, kept until it is dropped.
pub(crate) struct OnOverlay {
    pub(crate) overlay: Overlay,
    over: Arc<AtomicBool>,
}

impl Drop for OnOverlay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.overlay.give_ports_back();
    }
}

/// Where the socket of the overlay is, beside a service that listens there.
pub(crate) fn beside(listen: IpAddr) -> SocketAddr {
    match listen.to_canonical() {
        // Nobody but this machine is to be reached.
        ip if ip.is_loopback() => (ip, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    }
}

impl OnOverlay {
    /// Logs in, finds a supernode, and can be reached from then on. None: interrupted. `listen`: where
    /// the command itself listens.
    pub(crate) fn start(
        join: &JoinFlags,
        listen: IpAddr,
        state_dir: Option<&Path>,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Outcome<Option<Self>> {
        let member = Member::join(join, &Who::Service, &folder(state_dir))?;
        member.tell(ui);
        let identity = Identity::new(member.key.clone());
        let go_on = || !interrupt.asked() && !ui.stdout_closed();
        let made = |member: &Member| settings(member, Place::Hidden(member.own));
        let Some(asker) = Asker::start(member, made, &go_on)? else {
            return Ok(None);
        };
        let (mut member, driver) = (asker.member, asker.driver);
        let post = Arc::clone(&driver);
        let overlay = Overlay::start(OverlaySettings {
            identity,
            listen: beside(listen),
            port_mapping: member.port_mapping,
            write: Box::new(move |to, letter| post.write(to, letter)),
        });
        let overlay = overlay.map_err(|e| {
            let failure = Failure::failed("cannot send and receive datagrams").because(&e);
            transfer::bind_hint(failure, &e)
        })?;
        let node = overlay.id().to_string();
        let addr = overlay.ip();
        ui.report(&ReachReport::Overlay { node: &node, addr });
        ui.status("Overlay", &addr.to_string());
        let over = Arc::new(AtomicBool::new(false));
        let (to, ended) = (overlay.clone(), Arc::clone(&over));
        thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                match driver.events.recv_timeout(LOOK) {
                    Ok(Event::Letter(from, letter)) => to.letter(from, letter),
                    Ok(Event::Relays(relays)) => to.offer(tickets(relays)),
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                // What failed is tried again before the token runs out.
                if let Some(Ok(token)) = member.renewed() {
                    driver.renew(token);
                }
            }
        });
        Ok(Some(Self { overlay, over }))
    }

    /// As [`OnOverlay::start`] if there is need of it: `to` is an overlay address and a port.
    pub(crate) fn toward(
        to: &str,
        join: &JoinFlags,
        state_dir: Option<&Path>,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Outcome<Option<Self>> {
        if to.parse().ok().and_then(overlay_of).is_none() {
            return Ok(None);
        }
        if join.login.is_none() {
            return Err(Failure::usage(format!("{to} is an overlay address"))
                .hint("--login names the login server by which it is reached"));
        }
        Self::start(join, Ipv4Addr::UNSPECIFIED.into(), state_dir, interrupt, ui)
    }

    /// As [`OnOverlay::start`] if a login server is named.
    pub(crate) fn wished(
        join: &JoinFlags,
        listen: IpAddr,
        state_dir: Option<&Path>,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Outcome<Option<Self>> {
        match join.login {
            Some(_) => Self::start(join, listen, state_dir, interrupt, ui),
            None => Ok(None),
        }
    }

    /// As [`OnOverlay::wished`], for who goes on without it.
    pub(crate) fn hoped(
        join: &JoinFlags,
        listen: IpAddr,
        state_dir: Option<&Path>,
        interrupt: &Interrupt,
        ui: &Ui,
    ) -> Option<Self> {
        match Self::wished(join, listen, state_dir, interrupt, ui) {
            Ok(station) => station,
            Err(failure) => {
                let why: Vec<_> = std::iter::once(failure.what)
                    .chain(failure.because)
                    .collect();
                ui.warn(&format!("without the overlay: {}", why.join(": ")));
                None
            }
        }
    }
}

/// The overlay as jobs use it.
#[derive(Debug)]
pub(crate) struct JobWays {
    overlay: Overlay,
    services: Mutex<Vec<Service>>,
}

impl JobWays {
    /// By this place on it.
    pub(crate) fn by(station: Option<&OnOverlay>) -> Option<Arc<dyn Ways>> {
        let overlay = station?.overlay.clone();
        let services = Mutex::default();
        Some(Arc::new(Self { overlay, services }))
    }
}

impl Ways for JobWays {
    fn dial(&self, to: SocketAddr) -> Option<io::Result<TcpStream>> {
        overlay_of(to).map(|to| self.overlay.dial(to))
    }

    fn listen(&self, port: u16, entrance: Entrance) -> io::Result<SocketAddr> {
        let take = move |stream, from: SocketAddr| entrance.take(stream, from.ip());
        let service = self.overlay.listen(port, take)?;
        let services = self.services.lock();
        services
            .unwrap_or_else(PoisonError::into_inner)
            .push(service);
        Ok(self.overlay.at(port))
    }
}
