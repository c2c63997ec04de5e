//! `shoal reach`: how this machine is reached.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::RecvTimeoutError;
use shoal_node::mapping::is_public;
use shoal_node::reach::probe::{Mapping, Probed, State, probe};
use shoal_node::supernode::Place;
use shoal_supernode::node::Event;
use shoal_supernode::wire::Relay;

use crate::cli::ReachArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::report::{ReachReport, RouterReport};
use crate::signals::Interrupt;
use crate::station::tickets;
use crate::supernode::find::{Asker, settings};
use crate::supernode::{Member, Who, folder};
use crate::transfer;
use crate::ui::Ui;
use crate::units::count;

/// How long relays are waited for, and further ones after the first.
const RELAYS: Duration = Duration::from_secs(5);
const MORE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
/// Relays that tell all: two that are asked, one that sends as a stranger.
const ENOUGH: usize = 3;

/// Runs `reach`.
pub(crate) fn reach(args: &ReachArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let member = Member::join(&args.join, &Who::Asker, &folder(args.state_dir.as_deref()))?;
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let made = |member: &Member| settings(member, Place::Hidden(member.own));
    let Some(asker) = Asker::start(member, made, &go_on)? else {
        return Ok(Exit::Interrupted);
    };
    let Some(relays) = relays(&asker, &go_on)? else {
        return Ok(Exit::Interrupted);
    };
    ui.status("Asking", &count(relays.len() as u64, "relay"));
    let port_mapping = !args.join.no_port_mapping;
    let probed = probe(&tickets(relays), args.udp, port_mapping).map_err(|e| {
        let failure = Failure::failed(format!("cannot look from {}", args.udp)).because(&e);
        transfer::bind_hint(failure, &e)
    })?;
    tell(&probed, ui);
    Ok(Exit::Ok)
}

/// The relays that the overlay offers.
fn relays(asker: &Asker, go_on: &dyn Fn() -> bool) -> Outcome<Option<Vec<Relay>>> {
    let began = Instant::now();
    let mut known: Vec<Relay> = Vec::new();
    let mut first = None;
    loop {
        match asker.driver.events.recv_timeout(LOOK) {
            Ok(Event::Relays(relays)) => {
                known = relays;
                first.get_or_insert_with(Instant::now);
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::failed("the node stopped by itself"));
            }
        }
        if known.len() >= ENOUGH || first.is_some_and(|f| f.elapsed() >= MORE) {
            return Ok(Some(known));
        }
        if began.elapsed() >= RELAYS {
            return Err(
                Failure::new(Exit::Unreachable, "no supernode here has a relay")
                    .hint("shoal supernode node --relay makes one"),
            );
        }
        if !go_on() {
            return Ok(None);
        }
    }
}

fn tell(probed: &Probed, ui: &Ui) {
    let (state, says) = match probed.state {
        Some(State::Open) => ("open", "what strangers send arrives"),
        Some(State::Punched) => ("punched", "others get here after we have sent to them"),
        Some(State::Relayed) => ("relayed", "no UDP gets out: by relays alone"),
        None => (
            "unknown",
            "UDP gets out; no second relay could send as a stranger",
        ),
    };
    let (mapping, means) = match probed.mapping {
        Mapping::One => ("one", "one address for all"),
        Mapping::PerPeer => ("per_peer", "another address for each whom we send to"),
        Mapping::Unknown => ("unknown", "how it maps addresses is not known"),
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let rtt_ms = probed.round_trip.map(|r| r.as_secs_f64() * 1000.0);
    ui.report(&ReachReport::Reachability {
        state,
        mapping,
        mapped: probed.mapped,
        rtt_ms,
        stranger: probed.stranger,
        router: router(probed),
        tested: since.map_or(0, |s| s.as_secs()),
    });
    ui.result(&format!("{state}: {says}"));
    if let Some(mapped) = probed.mapped {
        ui.result(&format!("seen as {mapped}; {means}"));
    }
    if let Some(rtt) = rtt_ms {
        ui.result(&format!("{rtt:.1} ms to the nearest relay"));
    }
    let by = router(probed);
    match (by.external, by.why_not) {
        (Some(external), _) => {
            let protocol = by.protocol.unwrap_or_default();
            let minutes = by.lifetime.unwrap_or_default() / 60;
            ui.result(&format!(
                "the router lets others through at {external}, by {protocol}, for {minutes} minutes each time"
            ));
            if by.public == Some(false) {
                ui.warn("that address is not public: another NAT is behind the router");
            }
        }
        (None, Some(why)) => ui.result(&format!("the router lets nobody through: {why}")),
        (None, None) => {}
    }
}

/// What the router said.
fn router(probed: &Probed) -> RouterReport {
    let nothing = |why_not| RouterReport {
        why_not,
        ..RouterReport::default()
    };
    match &probed.router {
        Ok(standing) => match standing.mappings.first() {
            Some(mapping) => RouterReport {
                protocol: Some(mapping.by.to_string()),
                external: Some(mapping.external.into()),
                lifetime: Some(mapping.lifetime.as_secs()),
                public: Some(is_public(*mapping.external.ip())),
                why_not: None,
            },
            None => nothing(Some(
                standing.why_not.clone().unwrap_or("no answer yet".into()),
            )),
        },
        Err(why) => nothing(Some(why.clone())),
    }
}
