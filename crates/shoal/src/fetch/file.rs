//! A file without a torrent: by its own hash, or by who has it alone.

use std::time::Duration;

use shoal_content::{FileSource, Magnet};
use shoal_node::SourceSpec;
use shoal_node::gnutella::transfer::Download;
use shoal_node::reach::Overlay;

use super::seek::Seeker;
use super::sources;
use crate::cli::FetchArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::gnutella::{Entrance, Target, fetch_file};
use crate::napster;
use crate::signals::Interrupt;
use crate::ui::Ui;

/// Sources asked at once.
const MAX_SOURCES: usize = 16;

/// Fetches what a link without an info-hash names.
pub(super) fn fetch(
    magnet: &Magnet,
    args: &FetchArgs,
    overlay: Option<Overlay>,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<Exit> {
    if magnet.urn().is_none() {
        return unproven(magnet, args, overlay.as_ref(), ui);
    }
    let seeker = Seeker::start(magnet, args, overlay.clone());
    let target = Target {
        overlay,
        ..target(magnet, args, seeker.is_some(), ui)?
    };
    let end = fetch_file(
        target,
        interrupt,
        &mut |download| take(seeker.as_ref(), download, ui),
        ui,
    )?;
    Ok(end.unwrap_or(Exit::Ok))
}

/// Hands those found on the way to the download.
pub(super) fn take(seeker: Option<&Seeker>, download: &Download, ui: &Ui) -> bool {
    let found = seeker.map(|seeker| seeker.take(ui)).unwrap_or_default();
    if !found.is_empty() {
        download.add_sources(found);
    }
    for sharer in download.pushes.try_iter() {
        if let (Some(seeker), Some(back)) = (seeker, download.listen) {
            seeker.push(sharer, back);
        }
    }
    false
}

/// What is to be fetched from whom, by the file's own hash. `seeks`: more are looked for.
pub(super) fn target(magnet: &Magnet, args: &FetchArgs, seeks: bool, ui: &Ui) -> Outcome<Target> {
    let specs = sources::specs(magnet, &args.sources, ui);
    let web = magnet.web_seeds.iter().chain(&args.web_seeds);
    let mut others: Vec<SourceSpec> = web.cloned().map(SourceSpec::Web).collect();
    let is_host = |spec: &SourceSpec| matches!(spec, SourceSpec::Gnutella { .. });
    let any_host = specs.iter().any(is_host);
    others.extend(specs);
    if others.is_empty() && !seeks {
        let urn = magnet.urn().map(|urn| urn.to_string()).unwrap_or_default();
        return Err(Failure::not_found(format!("nobody is known who has {urn}"))
            .hint("shoal find WORDS finds out who has it; --source names somebody"));
    }
    if !any_host && magnet.len.is_none() && !seeks {
        return Err(
            Failure::failed("its length is not known, and nobody can be asked for it")
                .hint("a link tells it by xl="),
        );
    }
    let urn = magnet.urn().ok_or_else(|| {
        Failure::failed("cannot fetch this link").reason("it names the file by no hash of its own")
    })?;
    Ok(Target {
        urn,
        name: magnet.name.clone(),
        len: magnet.len,
        from: Vec::new(),
        tls_hosts: Vec::new(),
        tls: true,
        sources: others,
        hub_login: napster::client::login_as(&args.who, 0, &mut napster::client::rng())?,
        dir: args.dir.clone(),
        state_dir: args.net.state_dir.clone(),
        entrance: Some(Entrance::At(args.net.listen)),
        awaits_more: seeks,
        overlay: None,
        local: Some(args.net.listen),
        max_sources: MAX_SOURCES,
        timeout: args.timeout.map(Duration::from_secs),
        hint: "shoal find WORDS finds others; what is there is kept",
    })
}

/// A file that nothing but its length proves: from one user of a hub after the other.
fn unproven(
    magnet: &Magnet,
    args: &FetchArgs,
    overlay: Option<&Overlay>,
    ui: &Ui,
) -> Outcome<Exit> {
    let users = |hub: &str| {
        let theirs = magnet.sources.iter().filter_map(move |s| match s {
            FileSource::Napster {
                hub: other,
                nick,
                path,
            } if hub == other => Some((nick.clone(), path.clone())),
            _ => None,
        });
        theirs.collect::<Vec<_>>()
    };
    let hub = magnet.sources.iter().find_map(|s| match s {
        FileSource::Napster { hub, .. } => Some(hub.clone()),
        FileSource::Gnutella { .. } | FileSource::Pushed { .. } => None,
    });
    match (hub, magnet.len) {
        (Some(hub), Some(len)) => {
            ui.warn("no hash is known: nothing proves that it is the file that was meant");
            let dir = super::folder(&args.dir)?;
            napster::client::fetch_unproven(&hub, (&users(&hub), len), &dir, args, overlay, ui)
        }
        _ => Err(Failure::failed("cannot fetch this link")
            .reason("it names neither an info-hash nor a hash of the file, nor a user of a hub")),
    }
}
