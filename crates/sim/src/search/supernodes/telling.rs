//! What a report says of it.

use super::super::Outcome;
use super::super::hierarchy::End;
use super::trial::{Churned, Homing, Shot};
use super::{MEND, Sized, TTL};
use crate::report::{Axis, Plot, Report, Series, number};
use serde_json::json;

pub(super) fn so(exact: bool) -> &'static str {
    if exact {
        ", just that"
    } else {
        ", not just that"
    }
}

pub(super) fn tell_churn(report: &mut Report, churned: &Churned) {
    report.figure(
        "churn",
        json!({
            "supernodes_left": churned.supernodes, "children_left": churned.children,
            "housed": churned.housed, "homing_s": churned.homing, "questions": churned.round.json(),
        }),
    );
    let recall = churned.round.recall();
    report.check(
        "found while members come and go (lives of 2.5 h and 56 min in the mean)",
        "95 % of what those who are in share",
        format!(
            "{} %, {} supernodes and {} children left, {} % of who runs has a supernode",
            number(recall * 100.0),
            churned.supernodes,
            churned.children,
            number(churned.housed * 100.0)
        ),
        recall >= 0.95,
    );
}

pub(super) fn tell_homing(report: &mut Report, homings: &[Homing]) {
    let name = |how: End| match how {
        End::Killed => "killed",
        End::Gone => "gone without a word",
    };
    let rows = homings.iter().map(|h| {
        json!({
            "how": name(h.how), "supernodes": h.supernodes, "children": h.children,
            "late": h.late, "homing_s": h.homing,
        })
    });
    report.figure("homing", rows.collect::<Vec<_>>());
    for homing in homings {
        report.check(
            format!(
                "{} supernodes {}: their {} children have others",
                homing.supernodes,
                name(homing.how),
                homing.children
            ),
            format!("all within {} s", number(homing.most_s)),
            format!(
                "median {} s, 99 % {} s, last {} s, {} later",
                number(homing.homing.p50),
                number(homing.homing.p99),
                number(homing.homing.max),
                homing.late
            ),
            homing.late == 0,
        );
    }
}

pub(super) fn tell_shots(report: &mut Report, shots: &[Shot]) {
    let rows = shots.iter().map(|s| {
        json!({
            "shot": s.share, "at_once": s.at_once.json(), "housed": s.housed,
            "mended": s.mended.json(),
        })
    });
    report.figure("shot", rows.collect::<Vec<_>>());
    for shot in shots {
        report.check(
            format!(
                "the best connected {} % of supernodes shot, {} s later",
                number(shot.share * 100.0),
                MEND.as_secs()
            ),
            format!("everybody left has a supernode, and all is found that is within {TTL} hops"),
            format!(
                "{} % have one, {} % found; at once {} %, and {} of {} questions find no supernode",
                number(shot.housed * 100.0),
                number(shot.mended.recall() * 100.0),
                number(shot.at_once.recall() * 100.0),
                shot.at_once.mute,
                shot.at_once.mute + shot.at_once.asked.len()
            ),
            shot.housed == 1.0 && shot.mended.exact_hits() && shot.mended.mute == 0,
        );
    }
}

pub(super) fn tell_sizes(report: &mut Report, sizes: &[Sized]) {
    if sizes.is_empty() {
        return;
    }
    let rows = sizes.iter().map(|s| {
        let mut row = s.round.json();
        row["children_each"] = s.children.into();
        row["supernodes"] = s.supernodes.into();
        row["hottest_bytes"] = s.bytes.0.into();
        row["supernode_bytes"] = s.bytes.1.into();
        row["child_bytes"] = s.bytes.2.into();
        row["files_indexed"] = s.indexed.into();
        row
    });
    report.figure("sizes", rows.collect::<Vec<_>>());
    let messages: Vec<f64> = sizes
        .iter()
        .map(|s| Outcome::of(&s.round.asked).messages)
        .collect();
    let falls = messages.windows(2).all(|pair| pair[1] < pair[0]);
    let told: Vec<String> = sizes
        .iter()
        .zip(&messages)
        .map(|(s, m)| format!("{} with {} children each", number(*m), s.children))
        .collect();
    report.check(
        "messages of a question as clusters grow",
        "ever fewer: there are fewer supernodes to ask (Yang and Garcia-Molina 2003)",
        told.join(", "),
        falls && sizes.iter().all(|s| s.round.exact_cost()),
    );
    let points = |of: &dyn Fn(&Sized) -> f64| -> Vec<(f64, f64)> {
        sizes
            .iter()
            .map(|s| (f64::from(s.children), of(s)))
            .collect()
    };
    report.plots.push(Plot {
        title: "Size of clusters".to_owned(),
        caption: "The same members: fewer supernodes ask fewer, and each holds more.".to_owned(),
        x: Axis::log2("children of a supernode"),
        y: Axis::log10("a question"),
        series: vec![
            Series::measured(
                "messages",
                points(&|s| Outcome::of(&s.round.asked).messages),
            ),
            Series::measured("bytes at the busiest supernode", points(&|s| s.bytes.0)),
            Series::measured("bytes at a supernode", points(&|s| s.bytes.1)),
        ],
    });
}
