//! Kademlia as Mainline speaks it: values put at random nodes and got at others.

use super::Network;
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::link::{Delay, Links};
use crate::report::{Axis, Plot, Report, Series, number};
use crate::stats::Tally;
use crate::world::Step;
use shoal_base::Time;
use shoal_dht::{Answer, Item, Request};
use std::collections::BTreeMap;
use std::time::Duration;

/// Options of the experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kademlia {
    /// How many nodes.
    pub nodes: u32,
    /// How many values are put, and got once each by another node.
    pub lookups: u64,
    /// Share of the nodes behind translators.
    pub nat: f64,
    /// Share of the datagrams that is lost.
    pub loss: f64,
    /// Measures also at smaller sizes.
    pub sweep: bool,
}

/// What came of a size.
#[derive(Debug, Default)]
struct Outcome {
    put_stored: Tally,
    put_queries: Tally,
    get_queries: Tally,
    get_hops: Tally,
    get_ms: Tally,
    put_failed: u64,
    get_failed: u64,
    /// Datagrams a second and node while nobody asks anything.
    idle: f64,
    /// Bytes of the nodes' tables and stores, in the mean.
    memory: f64,
    digest: crate::Digest,
    events: u64,
    speed: Speed,
}

/// How far apart operations begin.
const APART: Duration = Duration::from_millis(200);

impl Kademlia {
    fn measure(&self, seed: u64, nodes: u32, host: &mut dyn Host) -> Outcome {
        let links = Links {
            delay: Delay::LogNormal {
                median_us: 40_000,
                sigma: 0.5,
            },
            loss: self.loss,
            ..Links::default()
        };
        let mut outcome = Outcome::default();
        outcome.speed.start(host, 0);
        let mut net = Network::new(seed, links);
        for i in 0..nodes {
            let hidden = i > 0 && net.rng.chance(self.nat);
            let nat = hidden.then(|| net.draw_nat());
            net.add(nat);
            // Spread over a minute at least, so that node 0 is not asked by all at once.
            let at =
                net.world.now() + Duration::from_micros(60_000_000 / u64::from(nodes.min(6000)));
            net.world.run_until(at, |_, _, _| {});
            if i % 64 == 0 {
                host.progress("Joining", i.into(), nodes.into());
            }
        }
        let settled = net.world.now() + Duration::from_secs(120);
        net.world.run_until(settled, |_, _, _| {});
        let before = net.world.counts().sent;
        let quiet = Duration::from_secs(300);
        net.world.run_until(settled + quiet, |_, _, _| {});
        let sent = net.world.counts().sent - before;
        outcome.idle = sent as f64 / quiet.as_secs_f64() / f64::from(nodes);

        let items: Vec<Item> = (0..self.lookups)
            .filter_map(|i| {
                let text = format!("{i} {}", net.rng.next_u64());
                Item::immutable(format!("{}:{text}", text.len()).into_bytes()).ok()
            })
            .collect();
        self.put(&mut net, &items, &mut outcome, host);
        self.get(&mut net, &items, &mut outcome, host);
        let memory: usize = net
            .world
            .nodes()
            .iter()
            .map(|h| h.core.status().memory)
            .sum();
        outcome.memory = memory as f64 / f64::from(nodes);
        outcome.digest = net.world.digest();
        outcome.events = net.world.counts().events;
        outcome.speed.stop(host, outcome.events);
        outcome
    }

    fn put(&self, net: &mut Network, items: &[Item], outcome: &mut Outcome, host: &mut dyn Host) {
        let requests = items.iter().map(|item| Request::Put {
            item: item.clone(),
            cas: None,
            keep: false,
        });
        each(net, requests, |_, _, answer| {
            if let Answer::Done(result) = answer {
                match result {
                    Ok(done) => {
                        outcome.put_stored.add(done.stored.into());
                        outcome.put_queries.add(done.queries.into());
                    }
                    Err(_) => outcome.put_failed += 1,
                }
                let done = outcome.put_stored.len() + outcome.put_failed;
                host.progress("Putting", done, self.lookups);
            }
        });
    }

    fn get(&self, net: &mut Network, items: &[Item], outcome: &mut Outcome, host: &mut dyn Host) {
        let requests = items.iter().map(|item| Request::GetImmutable {
            target: item.target(),
        });
        let mut found = vec![false; items.len()];
        let (mut ended, mut hops, mut queries, mut ms) =
            (0u64, Tally::default(), Tally::default(), Tally::default());
        each(net, requests, |i, took, answer| match answer {
            Answer::Value(value) if !found[i] && items.get(i) == Some(&value) => {
                found[i] = true;
                ms.add(took.as_millis() as u64);
            }
            Answer::Done(result) => {
                ended += 1;
                if let Ok(done) = result {
                    hops.add(done.hops.into());
                    queries.add(done.queries.into());
                }
                host.progress("Getting", ended, self.lookups);
            }
            _ => {}
        });
        outcome.get_failed = found.iter().filter(|f| !**f).count() as u64;
        (outcome.get_hops, outcome.get_queries, outcome.get_ms) = (hops, queries, ms);
    }
}

/// Begins the requests one after the other, each at a random node, and hears all answers with the
/// number of their request and the time since it began.
fn each(
    net: &mut Network,
    requests: impl Iterator<Item = Request>,
    mut hear: impl FnMut(usize, Duration, Answer),
) {
    const END: u64 = 1 << 40;
    let nodes = net.world.len();
    let mut under_way = BTreeMap::new();
    let mut requests = requests.enumerate();
    let mut next = requests.next();
    let mut deadline = Time::FAR;
    net.world.schedule(net.world.now(), 0);
    while next.is_some() || !under_way.is_empty() {
        match net.world.advance() {
            Step::Control(END) | Step::Quiet => break,
            Step::Control(_) => {
                if let Some((i, request)) = next.take() {
                    let node = net.rng.below(nodes) as u32;
                    let op = net.request(node, request);
                    under_way.insert((node, op), (i, net.world.now()));
                    next = requests.next();
                }
                let now = net.world.now();
                if next.is_some() {
                    net.world.schedule(now + APART, 0);
                } else if deadline == Time::FAR {
                    deadline = now + Duration::from_secs(120);
                    net.world.schedule(deadline, END);
                }
            }
            Step::Told(node, (op, answer)) => {
                let Some((i, since)) = under_way.get(&(node, op)).copied() else {
                    continue;
                };
                if matches!(answer, Answer::Done(_)) {
                    under_way.remove(&(node, op));
                }
                hear(i, net.world.now().since(since), answer);
            }
        }
    }
}

impl Experiment for Kademlia {
    fn name(&self) -> &'static str {
        "kademlia"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("nodes", self.nodes.to_string()),
            ("lookups", self.lookups.to_string()),
            ("nat", self.nat.to_string()),
            ("loss", self.loss.to_string()),
            ("delay", "log-normal, 40 ms in the median".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if self.nodes < 2 || self.lookups == 0 {
            return Err(BadOptions("two nodes and a lookup are needed".to_owned()));
        }
        if !(0.0..=0.9).contains(&self.nat) || !(0.0..=0.5).contains(&self.loss) {
            let why = "--nat is a share from 0 to 0.9, --loss one from 0 to 0.5";
            return Err(BadOptions(why.to_owned()));
        }
        let mut report = Report::new(
            self.name(),
            "Lookups in Kademlia, as Mainline speaks it",
            seed,
        );
        report.summary =
            "Values are put at random nodes and got at others, by the core that speaks to the \
             public network, datagram for datagram."
                .to_owned();
        let (mut hops, mut queries) = (Vec::new(), Vec::new());
        let sizes: Vec<u32> = [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
            .into_iter()
            .filter(|n| self.sweep && *n < self.nodes)
            .chain([self.nodes])
            .collect();
        for nodes in sizes {
            let outcome = self.measure(seed, nodes, host);
            hops.push((f64::from(nodes), outcome.get_hops.mean()));
            queries.push((f64::from(nodes), outcome.get_queries.mean()));
            if nodes < self.nodes {
                continue;
            }
            report.digest = outcome.digest;
            report.figure("mean_hops", outcome.get_hops.mean());
            report.figure("max_hops", outcome.get_hops.max());
            report.figure("get_queries", outcome.get_queries.mean());
            report.figure("get_ms_p50", outcome.get_ms.quantile(0.5));
            report.figure("get_ms_p99", outcome.get_ms.quantile(0.99));
            report.figure("get_failed", outcome.get_failed);
            report.figure("put_queries", outcome.put_queries.mean());
            report.figure("put_stored", outcome.put_stored.mean());
            report.figure("put_failed", outcome.put_failed);
            report.figure("idle_datagrams_per_s", outcome.idle);
            report.figure("node_bytes", outcome.memory);
            report.figure("events", outcome.events);
            outcome.speed.tell(&mut report);
            // A loss may take all eight replicas out of one lookup's reach, rarely.
            let most = (self.lookups as f64 * self.loss * 0.05).ceil() as u64;
            report.check(
                "values put are got",
                format!("at most {most} of {} not", self.lookups),
                format!("{} not", outcome.get_failed),
                outcome.get_failed <= most,
            );
            let bound = f64::from(nodes).log2().ceil();
            report.check(
                "longest chain of nodes",
                format!("⌈log₂ N⌉ = {}", number(bound)),
                outcome.get_hops.max().to_string(),
                outcome.get_hops.max() as f64 <= bound.max(3.0),
            );
            report.plots.push(Plot {
                title: format!("How long a get takes among {nodes} nodes"),
                caption: "Until the value is there.".to_owned(),
                x: Axis::linear("ms"),
                y: Axis::linear("share of the gets, %"),
                series: vec![Series::bars("measured", in_bins(&outcome.get_ms))],
            });
        }
        let bound = hops.iter().map(|(n, _)| (*n, n.log2())).collect();
        // Each step comes half as near again, to the best of the eight nodes told.
        let likely = hops.iter().map(|(n, _)| (*n, n.log2() / 4.0)).collect();
        report.plots.insert(
            0,
            Plot {
                title: "Hops and queries of a get".to_owned(),
                caption:
                    "The paper bounds hops by log₂ N; answers of eight nodes save three more bits \
                      a step, which makes log₁₆ N."
                        .to_owned(),
                x: Axis::log2("nodes"),
                y: Axis::linear("a get"),
                series: vec![
                    Series::theory("log₂ N", bound),
                    Series::theory("log₁₆ N", likely),
                    Series::measured("hops", hops),
                    Series::measured("queries", queries),
                ],
            },
        );
        report.options = self.options();
        Ok(report)
    }
}

/// Shares in percent, in forty bins up to the 99.5th percentile.
fn in_bins(tally: &Tally) -> Vec<(f64, f64)> {
    let width = tally.quantile(0.995).div_ceil(40).max(1);
    let mut bins = BTreeMap::new();
    for (value, share) in tally.shares() {
        *bins.entry(value / width).or_insert(0.0) += share * 100.0;
    }
    bins.into_iter()
        .take(40)
        .map(|(bin, share)| ((bin as f64 + 0.5) * width as f64, share))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn what_is_put_is_got_also_from_behind_translators() {
        let experiment = Kademlia {
            nodes: 40,
            lookups: 20,
            nat: 0.5,
            loss: 0.02,
            sweep: false,
        };
        let report = experiment.run(1, &mut Silent).expect("good options");
        assert!(report.holds(), "{:?} {:?}", report.checks, report.figures);
        let again = experiment.run(1, &mut Silent).expect("good options");
        assert_eq!(report.json(), again.json());
    }
}
