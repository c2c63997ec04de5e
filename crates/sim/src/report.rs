//! What a run found: figures, checks against theory, plots; as JSON or as one page of HTML.

mod html;
mod plot;

pub use plot::{Axis, Plot, Series, Style};

use crate::digest::Digest;
use serde_json::{Map, Value};

/// A statement of theory or of a paper, and what came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What is stated.
    pub what: String,
    /// What it should be, in words or a number.
    pub expected: String,
    /// What it is.
    pub measured: String,
    /// Whether they agree.
    pub holds: bool,
}

/// What a run found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The experiment's name on the command line.
    pub experiment: &'static str,
    /// The heading.
    pub title: String,
    /// A sentence or two under it.
    pub summary: String,
    /// The seed that replays it.
    pub seed: u64,
    /// The hash of all events.
    pub digest: Digest,
    /// Option and value.
    pub options: Vec<(&'static str, String)>,
    /// Name and value of what was measured; the names are those of the JSON object.
    pub figures: Map<String, Value>,
    /// Figures side by side, the first row and the first column their names; for people, as
    /// [`Report::figures`] has them too.
    pub table: Vec<Vec<String>>,
    /// Theory against measurement.
    pub checks: Vec<Check>,
    /// In the order of the page.
    pub plots: Vec<Plot>,
}

impl Report {
    /// An empty report of an experiment.
    pub fn new(experiment: &'static str, title: impl Into<String>, seed: u64) -> Self {
        Self {
            experiment,
            title: title.into(),
            seed,
            ..Self::default()
        }
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Adds a check.
    pub fn check(
        &mut self,
        what: impl Into<String>,
        expected: impl Into<String>,
        measured: impl Into<String>,
        holds: bool,
    ) {
        self.checks.push(Check {
            what: what.into(),
            expected: expected.into(),
            measured: measured.into(),
            holds,
        });
    }

    /// Whether every check holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|c| c.holds)
    }

    /// One object: the experiment, its options, seed and digest, all figures, and the checks.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("event".into(), "simulated".into());
        object.insert("experiment".into(), self.experiment.into());
        object.insert("seed".into(), self.seed.into());
        object.insert("digest".into(), self.digest.to_string().into());
        let options: Map<_, _> = self
            .options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        object.insert("options".into(), options.into());
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|c| {
                serde_json::json!({
                    "what": c.what, "expected": c.expected, "measured": c.measured, "holds": c.holds
                })
            })
            .collect();
        object.insert("checks".into(), checks.into());
        object.extend(self.figures.clone());
        object.into()
    }

    /// One page of HTML that needs nothing else.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

/// A number as people like to read it: three digits that matter, thousands apart.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        return value.to_string();
    }
    if magnitude >= 1000.0 || (magnitude >= 100.0 && value.fract() == 0.0) {
        let whole = format!("{:.0}", magnitude);
        let mut out = String::new();
        for (i, digit) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        return if value < 0.0 { format!("-{out}") } else { out };
    }
    let digits = match magnitude {
        m if m == 0.0 || value.fract() == 0.0 => 0,
        m if m >= 100.0 => 1,
        m if m >= 1.0 => 2,
        m if m >= 0.01 => 4,
        _ => return format!("{value:.2e}"),
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut report = Report::new("chord", "Lookups <in> Chord", 7);
        report.options.push(("nodes", "128".into()));
        report.figure("mean_hops", 3.5);
        report.check("mean path", "3.5", "3.4", true);
        report.plots.push(Plot {
            title: "Path & N".into(),
            caption: "Hops.".into(),
            x: Axis::log2("nodes"),
            y: Axis::linear("hops"),
            series: vec![
                Series::theory("½ log₂ N", vec![(128.0, 3.5), (1024.0, 5.0)]),
                Series::measured("measured", vec![(128.0, 3.4), (1024.0, 4.9)]),
                Series::bars("bars", vec![(128.0, 1.0)]),
                Series::measured("nothing", vec![(f64::NAN, 1.0)]),
            ],
        });
        report
    }

    #[test]
    fn the_json_is_one_object_with_the_figures_as_fields() {
        let json = sample().json();
        assert_eq!(json["mean_hops"], 3.5);
        assert_eq!(json["seed"], 7);
        assert_eq!(json["options"]["nodes"], "128");
        assert_eq!(json["checks"][0]["holds"], true);
        assert!(!json.to_string().contains('\n'));
    }

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_quotes() {
        let page = sample().html();
        assert!(page.starts_with("<!doctype html>"));
        assert!(page.contains("Lookups &lt;in&gt; Chord"));
        assert!(page.contains("Path &amp; N"));
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("<svg"));
        for foreign in ["<script", "src=", "href=", "NaN", "inf"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        let opened = page.matches("<svg").count();
        assert_eq!(opened, page.matches("</svg>").count());
    }

    #[test]
    fn numbers_read_well() {
        for (value, text) in [
            (0.0, "0"),
            (12.0, "12"),
            (1_234_567.4, "1,234,567"),
            (-1000.0, "-1,000"),
            (2.3456, "2.35"),
            (0.0312, "0.0312"),
            (0.000_012, "1.20e-5"),
            (123.45, "123.5"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
