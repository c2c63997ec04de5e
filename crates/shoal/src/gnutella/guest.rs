//! A leaf that is there for one question.

use super::{GATHER, caches, question, settings, start};
use crate::cli::OverlayFlags;
use crate::failure::{Exit, Failure, Outcome};
use crossbeam_channel::RecvTimeoutError;
use shoal_gnutella::node::{Answer, Config, Mode};
use shoal_node::gnutella::{Control, GnutellaServer, SearchEvent, Shelf, WebCaches};
use shoal_node::reach::Overlay;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How long a first neighbour is waited for.
const MEET: Duration = Duration::from_secs(20);

/// A leaf of a network that asks, and shares nothing.
pub(crate) struct Guest {
    pub(super) server: GnutellaServer,
    pub(super) _caches: Option<WebCaches>,
}

impl Guest {
    /// Joins where the flags say; none if `go_on` says that nobody waits any more. `oob`: answers may come by
    /// datagrams, which leave no way back to who sent them. `place`: by which hosts on the overlay are reached.
    pub(crate) fn join(
        overlay: &OverlayFlags,
        place: Option<Overlay>,
        oob: bool,
        go_on: &dyn Fn() -> bool,
    ) -> Outcome<Option<Self>> {
        let mut config = Config::of(Mode::Leaf);
        config.oob = oob;
        let mut settings = settings(overlay, config, place)?;
        if settings.connect.is_empty() && settings.caches.is_empty() && overlay.gwebcache.is_empty()
        {
            return Err(Failure::usage("no host to begin with").hint(
                "give one with --connect HOST:PORT, or a cache with --cache or --gwebcache",
            ));
        }
        // A search needs no port that others know.
        if overlay.external.is_none() && settings.listen.port() == 6346 {
            settings.listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        }
        let server = start(settings, Box::new(Shelf::default()))?;
        let caches = caches(overlay, server.control(), false)?;
        Ok(meet(&server, GATHER, go_on)?.then_some(Self {
            server,
            _caches: caches,
        }))
    }

    /// Whether it has a neighbour.
    pub(crate) fn is_linked(&self) -> bool {
        !self.server.control().snapshot().links.is_empty()
    }

    /// Asks: `each` hears answers as they come, for as long as `wait` and `go_on` say.
    pub(crate) fn ask(
        &self,
        words: &[String],
        wait: Duration,
        go_on: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&Answer),
    ) -> Outcome {
        let (text, wanted) = question(words)?;
        let events = self.server.control().search(&text, wanted);
        let until = Instant::now() + wait;
        while go_on() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match events.recv_timeout(left.min(Duration::from_millis(200))) {
                Ok(SearchEvent::Found(answer)) => each(&answer),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    /// What asks a sharer by the way that its answer came.
    pub(crate) fn control(&self) -> Control {
        self.server.control().clone()
    }

    /// Leaves.
    pub(crate) fn leave(self) {
        self.server.stop();
    }
}

/// Asks the network: `each` hears answers as they come, for as long as `wait` and `go_on` say.
pub(crate) fn ask(
    overlay: &OverlayFlags,
    place: Option<Overlay>,
    words: &[String],
    wait: Duration,
    go_on: &dyn Fn() -> bool,
    each: &mut dyn FnMut(&Answer),
) -> Outcome {
    if let Some(guest) = Guest::join(overlay, place, true, go_on)? {
        guest.ask(words, wait, go_on, each)?;
        guest.leave();
    }
    Ok(())
}

/// Waits for a first neighbour, and for others as long as `gather` says. False: `go_on` said no.
pub(super) fn meet(
    server: &GnutellaServer,
    gather: Duration,
    go_on: &dyn Fn() -> bool,
) -> Outcome<bool> {
    let begun = Instant::now();
    let mut met: Option<Instant> = None;
    loop {
        let snapshot = server.control().snapshot();
        if !snapshot.links.is_empty() {
            let met = met.get_or_insert_with(Instant::now);
            if met.elapsed() >= gather {
                return Ok(true);
            }
        } else if begun.elapsed() >= MEET {
            let failure = Failure::new(Exit::Unreachable, "no node of the network takes us in");
            return Err(match snapshot.failures.last() {
                Some((addr, why)) => failure.reason(format!("{addr}: {why}")),
                None => failure,
            });
        }
        if !go_on() {
            return Ok(false);
        }
        // The node tells of itself once a second at most; nothing else can be waited on.
        std::thread::sleep(Duration::from_millis(50));
    }
}
