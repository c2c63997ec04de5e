//! A hub hears any sequence of messages from three connections; its tables hold after each.
//!
//! The input is a list of steps: who (and whether time passes or the connection ends), the
//! message's type, the length of its data, the data.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::{Rng, Time};
use shoal_napster::frame;
use shoal_napster::hub::{Config, ConnId, Effect, Hub};
use std::time::Duration;

/// Does what a driver would, with hashes that cost nothing.
fn settle(hub: &mut Hub, now: Time, first: Vec<Effect>) {
    let mut todo = first;
    while let Some(effect) = todo.pop() {
        match effect {
            Effect::Write(id) => {
                let waiting = hub.output(id).len();
                hub.on_sent(now, id, waiting, &mut todo);
            }
            Effect::Close(id) => hub.on_closed(now, id, &mut todo),
            Effect::Hash { conn, password } => hub.on_hashed(now, conn, password, &mut todo),
            Effect::Verify {
                conn,
                password,
                hash,
            } => {
                hub.on_verified(now, conn, password == hash, &mut todo);
            }
            Effect::Save(_) | Effect::Linked { .. } => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let config = Config {
        max_list: 3,
        max_shared: 5,
        max_rooms: 2,
        max_bans: 3,
        max_accounts: 3,
        lines_per_minute: 0,
        searches_per_minute: 0,
        link_secret: Some(b"secret".to_vec()),
        ..Config::default()
    };
    let mut hub = Hub::new(config, Rng::from_seed(1));
    let mut now = Time::from_secs(1);
    let mut conns: [Option<ConnId>; 3] = [None; 3];
    let mut rest = data;
    while let Some((&[who, low, high, len], tail)) = rest.split_first_chunk::<4>() {
        let (said, tail) = tail.split_at(tail.len().min(usize::from(len)));
        rest = tail;
        let n = usize::from(who % 3);
        let mut out = Vec::new();
        let id = match conns[n].filter(|_| who < 240) {
            Some(id) => id,
            None => {
                if let Some(id) = conns[n].take() {
                    hub.on_closed(now, id, &mut out);
                }
                let Ok(id) = hub.connect(now, ([10, 0, 0, n as u8], 5000).into()) else {
                    continue;
                };
                conns[n] = Some(id);
                let mut login = Vec::new();
                let name = ["ann", "bob", "cyd"][n];
                frame::encode(
                    2,
                    format!("{name} {name} 6699 \"x\" 3").as_bytes(),
                    &mut login,
                );
                hub.on_bytes(now, id, &login, &mut out);
                id
            }
        };
        let mut bytes = Vec::new();
        frame::encode(u16::from_le_bytes([low, high]), said, &mut bytes);
        if hub.takes(id) {
            hub.on_bytes(now, id, &bytes, &mut out);
        }
        settle(&mut hub, now, out);
        if who & 0x40 != 0 {
            now += Duration::from_secs(7);
            let mut out = Vec::new();
            hub.on_tick(now, &mut out);
            settle(&mut hub, now, out);
        }
        hub.check_invariants();
    }
});
