//! The thread that asks a router by UPnP: search, description, then a mapping for each port, again and again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use shoal_base::Rng;
use shoal_reach::mapping::upnp::{
    Action, Fault, MAX_DOCUMENT, Place, Service, TARGETS, address, location, search, service,
    values,
};
use shoal_reach::mapping::{Mapping, Port, Protocol, Refusal, is_outside};
use socket2::{Domain, Protocol as Ip, Socket, Type};

use super::{Change, Gateway, Shared};

/// How long answers to a search are waited for (they are spread over a second), and how often it is sent.
const SEARCH: Duration = Duration::from_millis(1500);
const SEARCHES: usize = 2;
/// How long a router may take for an answer by HTTP.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a mapping is asked for again: nothing tells that a router was started again.
const RENEW: Duration = Duration::from_secs(120);
const LIFETIME: Duration = Duration::from_secs(3600);
/// How often a router is searched again that was not found, or refused.
const REST: Duration = Duration::from_secs(600);
/// Ports of the router's that are tried when the one that we would like is taken.
const OTHERS: usize = 6;
/// The longest answer to a search.
const MAX_ANSWER: usize = 2048;

/// Runs until nobody wants it any more.
pub(super) fn run(gateway: Gateway, ports: &[Port], shared: &Shared, stopped: &Receiver<()>) {
    let mut asker = Asker {
        gateway,
        agent: agent(),
        service: None,
        given: BTreeMap::new(),
    };
    loop {
        let wait = match asker.renew(ports, shared) {
            Ok(()) => RENEW,
            Err(why) => {
                shared.refused(1, why);
                // Perhaps it is another router by now.
                asker.service = None;
                for (port, _) in std::mem::take(&mut asker.given) {
                    shared.change(Change::Lost(port));
                }
                REST
            }
        };
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    asker.end();
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .proxy(None)
        .build();
    config.new_agent()
}

struct Asker {
    gateway: Gateway,
    agent: ureq::Agent,
    service: Option<Service>,
    /// Ports of the router's that are let through.
    given: BTreeMap<Port, u16>,
}

impl Asker {
    /// Has all ports let through, or why not.
    fn renew(&mut self, ports: &[Port], shared: &Shared) -> Result<(), String> {
        let service = match self.service.take() {
            Some(service) => service,
            None => self.find()?,
        };
        let said = |fault: Fault| match fault {
            Fault::Refused(refusal) => format!("by UPnP {refusal}"),
            Fault::Taken => "by UPnP all ports that were tried are taken".to_owned(),
            _ => "by UPnP the router gives no sensible answer".to_owned(),
        };
        let outside = self.outside(&service).map_err(said)?;
        for port in ports {
            let external = self.map(&service, *port).map_err(said)?;
            self.given.insert(*port, external);
            shared.change(Change::Mapped(Mapping {
                port: *port,
                external: SocketAddrV4::new(outside, external),
                lifetime: LIFETIME,
                by: Protocol::Upnp,
            }));
        }
        self.service = Some(service);
        Ok(())
    }

    /// Gives all ports back.
    fn end(&mut self) {
        if let Some(service) = self.service.take() {
            for (port, external) in std::mem::take(&mut self.given) {
                // It ends by itself, too.
                let _ = self.call(&service, &Action::End(external, port.transport));
            }
        }
    }

    fn outside(&self, service: &Service) -> Result<Ipv4Addr, Fault> {
        let found = address(&self.call(service, &Action::Address)?);
        let found = found.filter(|ip| is_outside(*ip));
        found.ok_or(Fault::Refused(Refusal::NoNetwork))
    }

    /// Has one port let through: by the number that it has or had, if that is free.
    fn map(&self, service: &Service, port: Port) -> Result<u16, Fault> {
        let mut seed = [0; 8];
        crate::reach::random(&mut seed);
        let mut rng = Rng::from_seed(u64::from_le_bytes(seed));
        let mut external = self.given.get(&port).copied().unwrap_or(port.number);
        let mut lifetime = LIFETIME;
        for _ in 0..OTHERS {
            let action = Action::Map(external, port, self.gateway.own, lifetime);
            match self.call(service, &action) {
                Ok(_) => return Ok(external),
                Err(Fault::Permanent) if !lifetime.is_zero() => lifetime = Duration::ZERO,
                // Of those that are nobody's by rule (RFC 6335).
                Err(Fault::Taken) => external = 49_152 + rng.below(16_384) as u16,
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Taken)
    }

    fn call(&self, service: &Service, action: &Action) -> Result<BTreeMap<String, String>, Fault> {
        let answer = self
            .agent
            .post(service.at.url())
            .header("SOAPAction", action.header(service.kind))
            .content_type("text/xml; charset=\"utf-8\"")
            .send(action.body(service.kind));
        values(&text(answer).map_err(|_| Fault::Nonsense)?)
    }

    /// The router's service.
    fn find(&self) -> Result<Service, String> {
        let place = self
            .search()
            .map_err(|e| format!("cannot search by UPnP: {e}"))?;
        let place = place.ok_or("no answer by UPnP")?;
        let cannot = |why| format!("the router does not describe itself by UPnP: {why}");
        let document = text(self.agent.get(place.url()).call()).map_err(cannot)?;
        service(&document, &place).ok_or("the router maps no ports by UPnP".into())
    }

    /// Where the router describes itself.
    fn search(&self) -> std::io::Result<Option<Place>> {
        let (own, router) = (self.gateway.own, *self.gateway.router.ip());
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Ip::UDP))?;
        socket.bind(&SocketAddrV4::new(own, 0).into())?;
        socket.set_multicast_if_v4(&own)?;
        socket.set_multicast_ttl_v4(2)?;
        let socket = std::net::UdpSocket::from(socket);
        let mut buf = [0; MAX_ANSWER];
        for _ in 0..SEARCHES {
            for target in TARGETS {
                socket.send_to(search(target).as_bytes(), self.gateway.search)?;
            }
            let until = Instant::now() + SEARCH;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                socket.set_read_timeout(Some(left))?;
                let Ok((len, from)) = socket.recv_from(&mut buf) else {
                    break;
                };
                // Whoever else answers is no router of ours.
                let ours = from.ip() == router;
                let answer = buf.get(..len).unwrap_or_default();
                if let Some(place) = location(answer, router.into()).filter(|_| ours) {
                    return Ok(Some(place));
                }
            }
        }
        Ok(None)
    }
}

/// The text of an answer, whatever its status.
fn text(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String, String> {
    let mut answer = answer.map_err(|e| e.to_string())?;
    let body = answer.body_mut().with_config().limit(MAX_DOCUMENT);
    let bytes = body.read_to_vec().map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
