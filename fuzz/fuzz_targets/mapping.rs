//! What a router says that is asked to map ports, or whoever speaks in its name.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use shoal_base::{Rng, Time};
use shoal_reach::mapping::client::{Client, Output};
use shoal_reach::mapping::upnp::{address, location, service, values};
use shoal_reach::mapping::{Port, Transport, is_outside};

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Some(place) = location(data, ROUTER) {
        assert_eq!(place.at.ip(), ROUTER);
        if let Some(found) = service(&text, &place) {
            assert_eq!(found.at.at.ip(), ROUTER);
        }
    }
    if let Ok(values) = values(&text) {
        let _ = address(&values);
    }

    let ports = [Transport::Udp, Transport::Tcp].map(|transport| Port {
        transport,
        number: 4000,
    });
    let mut client = Client::new(Time::ZERO, OWN, &ports, Rng::from_seed(1));
    let (mut now, mut out, mut asked) = (Time::ZERO, Vec::new(), Vec::new());
    // A byte says how long it takes and whether our own question comes back, changed by those after it.
    for said in data.chunks(24) {
        let (how, bytes) = said.split_first().unwrap_or((&0, &[]));
        now += Duration::from_millis(u64::from(*how) * 40);
        if client.deadline() <= now {
            client.tick(now, &mut out);
        }
        let mut answer = bytes.to_vec();
        if how & 1 == 1 {
            answer.clone_from(&asked);
            for (byte, change) in answer.iter_mut().skip(1).step_by(3).zip(bytes) {
                *byte ^= change;
            }
        }
        client.handle(now, &answer, &mut out);
        assert!(out.len() <= 16, "{} things at once", out.len());
        for output in out.drain(..) {
            match output {
                Output::Send(request) => {
                    assert!(request.len() <= 60);
                    asked = request;
                }
                Output::Mapped(mapping) => {
                    assert!(is_outside(*mapping.external.ip()) && mapping.external.port() != 0);
                    assert!(ports.contains(&mapping.port) && !mapping.lifetime.is_zero());
                }
                _ => {}
            }
        }
    }
    client.stop(&mut out);
});
