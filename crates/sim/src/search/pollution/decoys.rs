//! Members who share what is not what it is called: with hashes of their own, with one they agreed on,
//! under names of many words, with a false size, or under another content's hash.

use super::super::hierarchy::{Net, Place, file};
use super::super::library::{Library, Zipf, name, sha1, word};
use super::{CONTENTS, Case, Cases, FILES, Pollution};
use crate::experiment::Host;
use crate::rng_for;
use rustc_hash::FxHashMap;
use serde_json::json;
use shoal_base::Rng;
use shoal_content::hits::{Found, Hashes, Hit, Hits};
use shoal_supernode::wire::{File, Hit as Said};
use std::collections::BTreeSet;
use std::time::Duration;

/// Shares of the members who attack.
const SHARES: [f64; 3] = [0.01, 0.05, 0.2];
/// The contents that are attacked: the most popular.
const ATTACKED: u32 = 200;
/// Files of a keyword flooder under each name, and words of each name.
const VARIANTS: u32 = 25;
const WORDS: u32 = 20;
const SIZE: u64 = 4_000_000;
const CHILDREN: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// How they do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoy {
    OwnHash,
    OneHash,
    Keywords,
    FalseSize,
    OtherHash,
}

impl Decoy {
    fn name(self) -> &'static str {
        match self {
            Self::OwnHash => "decoys, a hash each",
            Self::OneHash => "decoys, one hash of all attackers",
            Self::Keywords => "keyword flooding",
            Self::FalseSize => "right hash, false size",
            Self::OtherHash => "another content's hash",
        }
    }

    fn files(self, attacker: u32) -> Vec<File> {
        let mut made = [0xdd; 20];
        match self {
            Self::OwnHash | Self::OneHash => (0..ATTACKED)
                .map(|content| {
                    made[..4].copy_from_slice(&content.to_le_bytes());
                    let who = if self == Self::OwnHash { attacker } else { 0 };
                    made[4..8].copy_from_slice(&who.to_le_bytes());
                    file(&name(content), made, SIZE)
                })
                .collect(),
            Self::Keywords => (0..WORDS)
                .flat_map(|n| (0..VARIANTS).map(move |v| (n, v)))
                .map(|(n, variant)| {
                    let words: Vec<String> = (0..ATTACKED)
                        .filter(|content| content % WORDS == n)
                        .map(word)
                        .collect();
                    made[..4].copy_from_slice(&variant.to_le_bytes());
                    made[4..8].copy_from_slice(&attacker.to_le_bytes());
                    made[8..12].copy_from_slice(&n.to_le_bytes());
                    file(&format!("{} {variant}.mp3", words.join(" ")), made, SIZE)
                })
                .collect(),
            Self::FalseSize => (0..ATTACKED)
                .map(|content| file(&name(content), sha1(content), SIZE / 2))
                .collect(),
            Self::OtherHash => (0..ATTACKED)
                .map(|content| file(&name(content), sha1(content + ATTACKED), SIZE))
                .collect(),
        }
    }

    /// Whether a hit for a content is a lie.
    fn is_lie(self, content: u32, hit: &File) -> bool {
        hit.sha1 != sha1(content) || hit.size != SIZE
    }
}

/// A hit as `shoal find` sees it.
fn as_found(said: &Said<Place>) -> Hit {
    Hit {
        via: "supernode",
        sharer: said.sharer.links.node.to_string(),
        name: said.file.path.clone(),
        size: said.file.size,
        hashes: Hashes {
            sha1: Some(said.file.sha1),
            ..Hashes::default()
        },
        ..Hit::default()
    }
}

/// What came of the questions of one network.
#[derive(Debug, Default)]
struct Judged {
    questions: usize,
    hits: usize,
    lies: usize,
    /// Questions whose first hit was a lie, and whose best result was.
    first: usize,
    best: usize,
    /// Results with a lie in them, and those of them that are doubted or have but one sharer.
    results: usize,
    doubted: usize,
    /// Questions with a right hit at all.
    right: usize,
}

/// Whether a result is what was asked for; one whose hits disagree in size is, when most are right.
fn is_right(found: &Found, content: u32) -> bool {
    found.hashes.sha1 == Some(sha1(content)) && found.size() == SIZE
}

impl Judged {
    fn take(&mut self, decoy: Decoy, content: u32, said: &[Said<Place>]) {
        let Some(first) = said.first() else { return };
        self.questions += 1;
        self.hits += said.len();
        let lies = said
            .iter()
            .filter(|h| decoy.is_lie(content, &h.file))
            .count();
        self.lies += lies;
        self.right += usize::from(lies < said.len());
        self.first += usize::from(decoy.is_lie(content, &first.file));
        let mut hits = Hits::default();
        for hit in said {
            hits.add(as_found(hit));
        }
        let best = hits.ranked().first().and_then(|n| hits.get(*n));
        self.best += usize::from(best.is_some_and(|best| !is_right(best, content)));
        for result in (0..hits.len()).filter_map(|n| hits.get(n)) {
            let lie = |h: &Hit| h.hashes.sha1 != Some(sha1(content)) || h.size != SIZE;
            if result.hits.iter().any(lie) {
                self.results += 1;
                let doubts = result.doubts();
                self.doubted += usize::from(doubts.sizes + doubts.names + doubts.hashes > 0);
            }
        }
    }

    fn share(&self, of: usize) -> f64 {
        of as f64 / self.questions.max(1) as f64
    }
}

struct Network {
    net: Net,
    honest: Vec<u32>,
    /// Honest members who share each content.
    holders: FxHashMap<u32, Vec<u32>>,
    zipf: Zipf,
    rng: Rng,
}

impl Network {
    fn new(options: &Pollution, seed: u64, decoy: Decoy, share: f64, limited: bool) -> Self {
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(CONTENTS);
        let libraries: Vec<Library> = (0..options.members)
            .map(|_| Library::draw(FILES, &zipf, &mut rng))
            .collect();
        let supernodes = (options.members / (CHILDREN + 1)).max(4);
        let mut net = Net::new(seed, supernodes, libraries, |config| {
            config.max_children = CHILDREN as usize * 2;
            if !limited {
                config.max_of_sharer = config.max_results;
            }
        });
        let mut children: Vec<u32> = (supernodes + 1..=options.members).collect();
        rng.shuffle(&mut children);
        let count = (f64::from(options.members) * share).ceil() as usize;
        let attackers: BTreeSet<u32> = children.into_iter().take(count).collect();
        for attacker in &attackers {
            net.share_instead(*attacker, decoy.files(*attacker));
        }
        let honest: Vec<u32> = net.members().filter(|n| !attackers.contains(n)).collect();
        let mut holders: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for node in &honest {
            for content in &net.library(*node).0 {
                holders.entry(*content).or_default().push(*node);
            }
        }
        net.assemble(Duration::from_secs(20), Duration::from_secs(30));
        Self {
            net,
            honest,
            holders,
            zipf,
            rng,
        }
    }

    /// Honest members ask for what is attacked and somebody honest has.
    fn ask(&mut self, decoy: Decoy, questions: u32) -> Judged {
        let mut asked = Vec::new();
        while asked.len() < questions as usize {
            let Some(node) = self.rng.pick(&self.honest).copied() else {
                break;
            };
            let content = self.zipf.draw(&mut self.rng);
            let holders = self.holders.get(&content).map_or(&[][..], Vec::as_slice);
            let others = holders.iter().any(|h| *h != node);
            if content >= ATTACKED || !others {
                continue;
            }
            // Who has no supernode cannot ask; there is none such after the beginning.
            let id = self.net.ask(node, content);
            asked.push((content, id));
            self.net.run(PAUSE);
        }
        self.net.run(Duration::from_secs(2));
        let mut judged = Judged::default();
        for (content, id) in asked {
            if let Some(id) = id {
                let (_, hits) = self.net.take(id);
                judged.take(decoy, content, &hits);
            }
        }
        judged
    }
}

/// How often the best result may be a lie, where anything stands against it: decoys that agree outnumber
/// what few share, and keyword flooders who are many take all the places of an answer.
fn bound(decoy: Decoy, share: f64) -> Option<f64> {
    match decoy {
        Decoy::OwnHash => Some(0.05),
        _ => (share <= 0.01).then_some(0.1),
    }
}

pub(super) fn run(options: &Pollution, seed: u64, cases: &mut Cases, host: &mut dyn Host) {
    let all = [
        Decoy::OwnHash,
        Decoy::OneHash,
        Decoy::Keywords,
        Decoy::FalseSize,
        Decoy::OtherHash,
    ];
    for (n, decoy) in (0..).zip(all) {
        host.progress("Polluting", n, all.len() as u64);
        for share in SHARES {
            attack(options, seed, decoy, share, cases);
        }
    }
}

/// One network, with so many attackers.
pub(super) fn attack(options: &Pollution, seed: u64, decoy: Decoy, share: f64, cases: &mut Cases) {
    let mut network = Network::new(options, seed, decoy, share, true);
    let judged = network.ask(decoy, options.questions);
    let world = &network.net.world;
    cases.ran(world.counts(), world.digest());
    cases.all.push(Case {
        attack: format!("{}, {:.0} % of members", decoy.name(), share * 100.0),
        what: "answers whose first is a lie, and whose best is",
        without: Some(judged.share(judged.first)),
        with: judged.share(judged.best),
        at_most: bound(decoy, share),
        at_least: None,
        more: json!({
            "hits": judged.hits, "lies": judged.lies, "results_with_lies": judged.results,
            "of_them_doubted": judged.doubted, "answered_rightly": judged.share(judged.right),
        }),
    });
    if decoy == Decoy::Keywords {
        let mut open = Network::new(options, seed, decoy, share, false);
        let unlimited = open.ask(decoy, options.questions);
        let world = &open.net.world;
        cases.ran(world.counts(), world.digest());
        let lies = |j: &Judged| j.lies as f64 / j.hits.max(1) as f64;
        cases.all.push(Case {
            attack: format!("{}, {:.0} % of members", decoy.name(), share * 100.0),
            what: "lies among all hits: no limit for a sharer, and 20",
            without: Some(lies(&unlimited)),
            with: lies(&judged),
            at_most: None,
            at_least: None,
            more: json!({
                "answered_rightly_without": unlimited.share(unlimited.right),
                "answered_rightly": judged.share(judged.right),
            }),
        });
    }
}
