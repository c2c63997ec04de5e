//! Who can be asked: a Napster hub, a Gnutella network, the supernodes, one's own library.

use std::path::PathBuf;
use std::time::Duration;

use shoal_content::hits::{Hashes, Hit};
use shoal_content::keywords::{Search, Terms};
use shoal_content::{FileKind, FileSource, TigerRoot, Urn};
use shoal_gnutella::node::Answer;
use shoal_store::library::{Library, View};

use super::{Ear, Heard, SearchSource};
use crate::cli::{FindArgs, HubFlags, JoinFlags, OverlayFlags, WordFlags};
use crate::failure::{Failure, Outcome};
use crate::supernode::find::Question;
use crate::{gnutella, library, napster, supernode};

/// Proxies of a host behind a firewall that a result names.
const MAX_PROXIES: usize = 4;

struct Hub {
    hub: HubFlags,
    words: WordFlags,
}

pub(super) fn napster(args: &FindArgs) -> Outcome<Box<dyn SearchSource>> {
    let hub = args.hub.clone();
    let hub = hub.ok_or_else(|| Failure::usage("no hub to ask"))?;
    napster::is_place(&hub)?;
    let who = args.who.clone();
    let hub = HubFlags { hub, who };
    let words = args.words.clone();
    Ok(Box::new(Hub { hub, words }))
}

/// Bytes a second of a kind of link, as OpenNap numbers them; none if it is not told. Cable and DSL
/// name no speed: one Mbit/s stands for both.
fn link_rate(link: u8) -> Option<u64> {
    let bits = match link {
        1 => 14_400,
        2 => 28_800,
        3 => 33_600,
        4 => 56_700,
        5 => 64_000,
        6 => 128_000,
        7 | 8 => 1_000_000,
        9 => 1_544_000,
        10 => 44_736_000,
        _ => return None,
    };
    Some(bits / 8)
}

impl SearchSource for Hub {
    fn via(&self) -> &'static str {
        "napster"
    }

    fn run(self: Box<Self>, ear: &Ear) -> Outcome {
        let hub = self.hub.hub.clone();
        let hits = napster::client::ask(&self.hub, &self.words, |hit| {
            ear.tell(Heard::Hit(Box::new(Hit {
                via: "napster",
                sharer: hit.nick.clone(),
                name: shoal_base::words::text_of(&hit.path).into_owned(),
                size: hit.facts.size,
                bitrate: hit.facts.bitrate,
                claimed: link_rate(hit.link),
                source: Some(FileSource::Napster {
                    hub: hub.clone(),
                    nick: hit.nick.clone(),
                    path: hit.path.clone(),
                }),
                ..Hit::default()
            })));
        })?;
        for (hit, ping) in hits {
            if let Some(took) = ping {
                ear.tell(Heard::Answered("napster", hit.nick, took));
            }
        }
        Ok(())
    }
}

struct Network {
    overlay: OverlayFlags,
    words: Vec<String>,
    wait: Duration,
    on_overlay: bool,
}

pub(super) fn gnutella(args: &FindArgs) -> Outcome<Box<dyn SearchSource>> {
    let hosts = args.gnutella.connect.iter().chain(&args.gnutella.cache);
    hosts.map(String::as_str).try_for_each(napster::is_place)?;
    Ok(Box::new(Network {
        overlay: args.gnutella.clone(),
        on_overlay: args.join.login.is_some(),
        words: args.words.words.clone(),
        wait: Duration::from_secs(args.wait),
    }))
}

impl SearchSource for Network {
    fn via(&self) -> &'static str {
        "gnutella"
    }

    fn run(self: Box<Self>, ear: &Ear) -> Outcome {
        let go_on = || ear.listens();
        gnutella::ask(
            &self.overlay,
            None,
            &self.words,
            self.wait,
            &go_on,
            &mut |answer| {
                for file in &answer.files {
                    ear.tell(Heard::Hit(Box::new(Hit {
                        via: "gnutella",
                        sharer: answer.addr.to_string(),
                        name: file.name.clone(),
                        size: file.size,
                        hashes: Hashes {
                            sha1: file.sha1,
                            tiger: file.tiger,
                            ..Hashes::default()
                        },
                        // A busy servent lets whoever asks wait; for how long it does not say.
                        queue: (answer.status.busy == Some(true)).then_some(1),
                        claimed: Some(u64::from(answer.speed) * 1000 / 8).filter(|r| *r > 0),
                        firewalled: answer.status.firewalled == Some(true),
                        source: Urn::of(file.sha1, file.tiger)
                            .and_then(|urn| source(answer, urn.shortest(), self.on_overlay)),
                        ..Hit::default()
                    })));
                }
            },
        )
    }
}

/// Where a file of an answer is to be had; none if nobody can say how.
/// `on_overlay`: whoever asks reaches overlay addresses.
fn source(answer: &Answer, urn: Urn, on_overlay: bool) -> Option<FileSource> {
    if answer.status.firewalled != Some(true) {
        let host = answer.addr.to_string();
        return Some(FileSource::Gnutella { host, urn });
    }
    let proxies = answer.proxies.iter().take(MAX_PROXIES);
    let proxies: Vec<String> = proxies.map(ToString::to_string).collect();
    if let Some(place) = answer.overlay.filter(|_| on_overlay || proxies.is_empty()) {
        let host = place.to_string();
        return Some(FileSource::Gnutella { host, urn });
    }
    (!proxies.is_empty()).then_some(FileSource::Pushed {
        servent: answer.servent.0,
        proxies,
        urn,
    })
}

struct Supernodes {
    join: JoinFlags,
    state_dir: Option<PathBuf>,
    question: Question,
    wait: Duration,
}

pub(super) fn supernodes(args: &FindArgs) -> Outcome<Box<dyn SearchSource>> {
    Ok(Box::new(Supernodes {
        join: args.join.clone(),
        state_dir: args.place.state_dir.clone(),
        question: Question::read(&args.words.words)?,
        wait: Duration::from_secs(args.wait),
    }))
}

impl SearchSource for Supernodes {
    fn via(&self) -> &'static str {
        "supernode"
    }

    fn run(self: Box<Self>, ear: &Ear) -> Outcome {
        let go_on = || ear.listens();
        supernode::find::ask(
            &self.join,
            self.state_dir.as_deref(),
            &self.question,
            self.wait,
            &go_on,
            &mut |heard| {
                let (hit, standing) = (&heard.hit, heard.hit.standing);
                // Who has no slot left lets the next one wait, whether others do or not.
                let waiting = standing.and_then(|s| match s.free? {
                    0 => Some(u32::from(s.waiting).max(1)),
                    _ => Some(0),
                });
                // Whom nobody can connect to serves there, if it is the sharer itself.
                let by_overlay = || {
                    let own = hit.elsewhere.is_none();
                    own.then(|| supernode::overlay_files(&hit.sharer.token.key))
                };
                ear.tell(Heard::Hit(Box::new(Hit {
                    via: "supernode",
                    sharer: match hit.elsewhere {
                        Some(host) => host.to_string(),
                        None => hit.sharer.token.name.clone(),
                    },
                    name: hit.file.path.clone(),
                    size: hit.file.size,
                    hashes: Hashes {
                        sha1: Some(hit.file.sha1),
                        tiger: hit.file.tiger.map(TigerRoot),
                        ..Hashes::default()
                    },
                    bitrate: hit.file.sound.map_or(0, |s| s.bitrate.into()),
                    queue: waiting,
                    claimed: standing.and_then(|s| s.rate).filter(|r| *r > 0),
                    firewalled: heard.place.is_none(),
                    source: heard
                        .place
                        .or_else(by_overlay)
                        .map(|host| FileSource::Gnutella {
                            host: host.to_string(),
                            urn: Urn::Sha1(hit.file.sha1),
                        }),
                    ..Hit::default()
                })));
            },
        )
    }
}

struct Own {
    library: Library,
    search: Search,
}

pub(super) fn library(args: &FindArgs) -> Outcome<Box<dyn SearchSource>> {
    let words = &args.words;
    let mut terms = Terms::parse(&words.words.join(" "));
    words.without.iter().for_each(|word| terms.ban(word));
    let search = Search {
        terms,
        kind: words
            .kind
            .as_ref()
            .and_then(|k| FileKind::parse(k.as_bytes())),
        size: args.min_size.unwrap_or(0)..=args.max_size.unwrap_or(u64::MAX),
    };
    let library = library::open_quietly(&args.place)?;
    Ok(Box::new(Own { library, search }))
}

impl SearchSource for Own {
    fn via(&self) -> &'static str {
        "library"
    }

    fn run(self: Box<Self>, ear: &Ear) -> Outcome {
        let files = self.library.local_files(&View::Owner);
        let files = files.map_err(|e| Failure::failed("cannot read the library").because(&e))?;
        files.search(&self.search, 0, |found| {
            ear.tell(Heard::Hit(Box::new(Hit {
                via: "library",
                sharer: "this machine".to_owned(),
                size: found.file.size,
                hashes: Hashes {
                    sha1: Some(found.file.sha1),
                    tiger: Some(found.file.tiger),
                    ..Hashes::default()
                },
                answered: Some(Duration::ZERO),
                name: found.path,
                ..Hit::default()
            })))
        });
        Ok(())
    }
}
