//! What a run's report says.

use super::kind::Kind;
use super::trial::{Broken, Churned, Seen};
use super::{Reach, goals};
use crate::report::{Axis, Plot, Report, Series, number};
use crate::stats::{Summary, mean};
use serde_json::{Value, json};
use std::time::Duration;

fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 100_000.0).round() / 100.0
}

fn summary(spans: &[Duration]) -> Summary {
    Summary::of(&mut spans.iter().map(|s| ms(*s)).collect::<Vec<_>>())
}

fn spans_json(spans: &[Duration]) -> Value {
    let all = summary(spans);
    json!({ "count": all.count, "p50_ms": all.p50, "p99_ms": all.p99, "max_ms": all.max })
}

/// How many lie below each value, for a plot.
fn shares(spans: &[Duration]) -> Vec<(f64, f64)> {
    let mut all: Vec<f64> = spans.iter().map(|s| ms(*s)).collect();
    all.sort_by(f64::total_cmp);
    let count = all.len().max(1) as f64;
    (1..)
        .zip(all)
        .map(|(n, at)| (at, f64::from(n) / count))
        .collect()
}

/// A check that the longest of these is no longer than it may be.
fn within(report: &mut Report, what: &str, spans: &[Duration], most: Duration) {
    let longest = spans.iter().copied().max().unwrap_or_default();
    report.check(
        what,
        format!("at most {} ms", number(ms(most))),
        format!(
            "{} ms in the middle, {} ms at most, of {}",
            number(summary(spans).p50),
            number(ms(longest)),
            spans.len()
        ),
        longest <= most,
    );
}

impl Reach {
    pub(super) fn tell_ways(&self, report: &mut Report, seen: &[Seen], relayed: u64) {
        let met: Vec<Duration> = seen.iter().filter_map(|s| s.met).collect();
        report.check(
            "calls that find a way",
            format!("all {}", seen.len()),
            number(met.len() as f64),
            met.len() == seen.len(),
        );
        within(report, "time to the first way", &met, goals::met(self));
        let right = |s: &&Seen| s.is_direct() == self.meets(s.kinds);
        let direct = seen.iter().filter(|s| s.is_direct()).count();
        let exact = seen.iter().filter(right).count();
        report.check(
            "calls that go directly exactly where holes can be punched",
            format!("all {}", seen.len()),
            format!("{exact}; {direct} go directly"),
            exact == seen.len(),
        );
        report.figure("calls", seen.len());
        report.figure("direct", direct);
        report.figure("first_way", spans_json(&met));
        report.figure("relayed_bytes", relayed);
        let (said, heard) = seen
            .iter()
            .fold((0, 0), |(s, h), seen| (s + seen.said, h + seen.heard));
        report.figure("words_said", said);
        report.figure("words_lost_share", 1.0 - heard as f64 / said.max(1) as f64);
        self.tell_pairs(report, seen);
        let of = |direct: bool| {
            let some = seen.iter().filter(|s| s.is_direct() == direct);
            shares(&some.filter_map(|s| s.met).collect::<Vec<_>>())
        };
        report.plots.push(Plot {
            title: "Time to the first way".into(),
            caption: "The way that both ends have first is by a relay as a rule; a hole opens a \
                      round trip later."
                .into(),
            x: Axis::linear("ms since the call began"),
            y: Axis::linear("share of the calls"),
            series: vec![
                Series::line("direct in the end", of(true)),
                Series::line("relayed", of(false)),
            ],
        });
    }

    /// One row for each ordered pair of kinds, and the table of them.
    fn tell_pairs(&self, report: &mut Report, seen: &[Seen]) {
        let mut rows = Vec::new();
        let names = self.kinds.iter().map(|k| k.name().to_owned());
        report.table.push(
            std::iter::once("share direct, ms to the first way".to_owned())
                .chain(names)
                .collect(),
        );
        for one in &self.kinds {
            let mut line = vec![one.name().to_owned()];
            for two in &self.kinds {
                let of = seen.iter().filter(|s| s.kinds == (*one, *two));
                let of: Vec<&Seen> = of.collect();
                let met: Vec<Duration> = of.iter().filter_map(|s| s.met).collect();
                let share =
                    of.iter().filter(|s| s.is_direct()).count() as f64 / of.len().max(1) as f64;
                let hops: Vec<f64> = of
                    .iter()
                    .flat_map(|s| s.hops.into_iter().flatten().map(f64::from))
                    .collect();
                let rtt: Vec<f64> = of.iter().filter_map(|s| Some(ms(s.rtt?))).collect();
                line.push(format!(
                    "{} %, {:.0}",
                    number((share * 100.0).round()),
                    summary(&met).p50
                ));
                rows.push(json!({
                    "caller": one.name(), "called": two.name(), "calls": of.len(),
                    "direct": share, "theory": f64::from(u8::from(self.meets((*one, *two)))),
                    "relays": mean(&hops), "rtt_ms": mean(&rtt), "first_way": spans_json(&met),
                }));
            }
            report.table.push(line);
        }
        report.figure("pairs", rows);
    }

    pub(super) fn tell_killed(&self, report: &mut Report, killed: &Broken) {
        report.figure("relay_killed", spans_json(&killed.touched));
        report.figure("relay_killed_others", spans_json(&killed.others));
        if self.relays > 1 {
            within(
                report,
                "silence of a call when a relay on its way is killed",
                &killed.touched,
                goals::killed(self),
            );
        }
        report.plots.push(Plot {
            title: "Silence when a relay dies".into(),
            caption: "The longest time in ten seconds without a word, for calls by that relay \
                      and for the others."
                .into(),
            x: Axis::linear("ms"),
            y: Axis::linear("share of the calls"),
            series: vec![
                Series::line("by the relay", shares(&killed.touched)),
                Series::line("others", shares(&killed.others)),
            ],
        });
    }

    pub(super) fn tell_churned(&self, report: &mut Report, churned: &Churned) {
        let all = [
            &churned.after_kill,
            &churned.after_flush,
            &churned.unexplained,
        ]
        .map(|spans| spans_json(spans));
        let [kill, flush, unexplained] = all;
        report.figure(
            "churn",
            json!({
                "calls": churned.calls, "failed": churned.failed,
                "first_way": spans_json(&churned.setups),
                "kills": churned.kills, "flushes": churned.flushes,
                "silences_after_kill": kill, "silences_after_flush": flush,
                "silences_unexplained": unexplained,
            }),
        );
        report.check(
            "calls that find a way while relays die and NATs forget",
            format!("all {}", churned.calls),
            format!("all but {}", churned.failed),
            churned.failed == 0,
        );
        for (what, spans, most) in [
            (
                "after a relay's death",
                &churned.after_kill,
                goals::killed(self),
            ),
            ("after a NAT forgot", &churned.after_flush, goals::FLUSHED),
        ] {
            let what = format!("silences over 300 ms {what}, at random");
            within(report, &what, spans, most);
        }
        if self.loss == 0.0 {
            report.check(
                "silences over 300 ms that nothing explains",
                "none",
                number(churned.unexplained.len() as f64),
                churned.unexplained.is_empty(),
            );
        }
    }
}

pub(super) fn tell_flushed(report: &mut Report, flushed: &[(Kind, Broken)]) {
    let mut rows = serde_json::Map::new();
    let mut all = Vec::new();
    for (kind, broken) in flushed {
        rows.insert(kind.name().to_owned(), spans_json(&broken.touched));
        all.extend(&broken.touched);
    }
    report.figure("nat_forgot", rows);
    within(
        report,
        "silence of a call when a NAT forgets",
        &all,
        goals::FLUSHED,
    );
    report.plots.push(Plot {
        title: "Silence when a NAT forgets".into(),
        caption: "The longest time in ten seconds without a word, by the kind of NAT.".into(),
        x: Axis::linear("ms"),
        y: Axis::linear("share of the calls"),
        series: flushed
            .iter()
            .map(|(kind, broken)| Series::line(kind.name(), shares(&broken.touched)))
            .collect(),
    });
}
