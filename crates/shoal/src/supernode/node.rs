//! `shoal supernode node`: an ordinary peer or a supernode.

mod library;
mod relay;
mod running;
mod ways;

use std::net::SocketAddr;
use std::time::Duration;

use shoal_gnutella::huge::Urn;
use shoal_node::relay::Stats;
use shoal_node::supernode::{BoxServer, Looked, this_machine};
use shoal_supernode::node::{Config, Event, Role};

use super::Member;
use super::ring::NamePlace;
use crate::cli::{RoleFlags, SupernodeNodeArgs};
use crate::failure::{Exit, Outcome};
use crate::report::OverlayReport;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::{Rate, Size, count};
use running::Running;

/// Links that one host may begin in a minute.
const KNOCKS: u32 = 60;

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Peer => "peer",
        Role::Supernode => "supernode",
    }
}

fn config(member: &Member, args: &SupernodeNodeArgs) -> Config {
    let flags: &RoleFlags = &args.role;
    let role = match args.supernode {
        true => Role::Supernode,
        false => Role::Peer,
    };
    let secs = Duration::from_secs;
    Config {
        may_change: !args.keep_role,
        max_children: usize::from(flags.max_children),
        neighbours: usize::from(flags.neighbours),
        links_per_host: flags.per_host,
        knocks_per_minute: KNOCKS,
        unlimited: match flags.limit_local {
            true => Vec::new(),
            false => this_machine(),
        },
        promote_at: flags.promote_at,
        min_bandwidth: flags.min_bandwidth,
        min_uptime: secs(flags.min_uptime),
        probe_bytes: u32::try_from(flags.probe).unwrap_or(u32::MAX),
        idle: secs(flags.idle),
        check_every: secs(flags.check_every.max(1)),
        bridge: args.gnutella.is_some() || args.napster.is_some(),
        up_limit: args.up_limit,
        ..Config::new(member.trusted, role)
    }
}

/// Runs the command.
pub(super) fn node(args: &SupernodeNodeArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let mut running = Running::start(args, ui)?;
    running.greet();
    running.run(&interrupt)?;
    running.end();
    Ok(match interrupt.asked() {
        true => Exit::Interrupted,
        false => Exit::Ok,
    })
}

fn tell(event: &Event<SocketAddr>, ui: &Ui) {
    match event {
        Event::Home(addr) => {
            ui.report(&OverlayReport::Home { addr: *addr });
            match addr {
                Some(addr) => ui.news("Home", &format!("at {addr}")),
                None => ui.news("Home", "lost; looking for another"),
            }
        }
        Event::Role(role) => {
            let role = role_name(*role);
            ui.report(&OverlayReport::Role { role });
            ui.status("Role", &format!("{role} from now on"));
        }
        Event::Refused(addr, why) => {
            let (addr, why) = (*addr, why.to_string());
            ui.report(&OverlayReport::LinkRefused { addr, why: &why });
            ui.news("Refused", &format!("by {addr}: {why}"));
        }
        Event::Measured(addr, rate) => {
            ui.report(&OverlayReport::Measured {
                addr: *addr,
                rate: *rate,
            });
            ui.news("Measured", &format!("{addr}: {}", Rate(*rate)));
        }
        Event::Push(sha1, to) => {
            let urn = Urn::Sha1(*sha1).to_string();
            ui.report(&OverlayReport::Pushing { urn: &urn, to: *to });
            ui.news("Pushing", &format!("{urn} to {to}"));
        }
        Event::Hits(..) | Event::Asked(..) | Event::Letter(..) | Event::Relays(_) => {}
    }
}

fn line(looked: &Looked, relayed: Option<Stats>) -> String {
    let stats = &looked.stats;
    let mut line = match (looked.role, looked.home) {
        (Role::Supernode, _) => format!(
            "a supernode of {}, {}, {}, {} queries",
            count(stats.children, "child").replace("childs", "children"),
            count(stats.neighbours, "neighbour"),
            count(stats.files, "file"),
            stats.queries
        ),
        (Role::Peer, Some(home)) => format!("a peer, its supernode is {home}"),
        (Role::Peer, None) => "a peer that looks for a supernode".to_owned(),
    };
    if let Some(stats) = relayed {
        let bytes = Size(stats.bytes_up + stats.bytes_down);
        line += &format!(
            ", relayed {bytes} for {}, {} packets over the limit",
            count(stats.allocations, "allocation"),
            stats.over_rate
        );
    }
    line
}

fn report(looked: &Looked, boxes: Option<&BoxServer>, place: Option<&NamePlace>, ui: &Ui) {
    let s = &looked.stats;
    let kept = boxes.map(BoxServer::stats).unwrap_or_default();
    ui.report(&OverlayReport::SupernodeStats {
        role: role_name(looked.role),
        home: looked.home,
        children: s.children,
        neighbours: s.neighbours,
        files: s.files,
        known: s.known,
        queries: s.queries,
        duplicates: s.duplicates,
        limited: s.limited,
        hits: s.hits,
        forged: s.forged,
        refused: s.refused,
        boxes: kept.boxes,
        letters: kept.letters,
        carried: s.letters,
        flooded: s.floods,
        records: place.map_or(0, |p| p.records() as u64),
    });
}
