//! Plots as SVG, written by hand: axes, grid, a legend, and points that tell their values when the
//! pointer rests on them.

use super::html::escape;
use super::number;
use std::fmt::Write as _;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A dashed line: what theory says.
    Theory,
    /// Points joined by a line: what was measured.
    Measured,
    /// A line without points, for many values.
    Line,
    /// Points alone.
    Points,
    /// Bars from zero.
    Bars,
}

/// Points of one kind.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (x, y); what is not finite is left out.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: Style,
}

impl Series {
    /// A curve of theory.
    pub fn theory(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self::new(name, points, Style::Theory)
    }

    /// Measured points.
    pub fn measured(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self::new(name, points, Style::Measured)
    }

    /// A line of many values.
    pub fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self::new(name, points, Style::Line)
    }

    /// Points without a line.
    pub fn points(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self::new(name, points, Style::Points)
    }

    /// Bars.
    pub fn bars(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self::new(name, points, Style::Bars)
    }

    fn new(name: impl Into<String>, points: Vec<(f64, f64)>, style: Style) -> Self {
        Self {
            name: name.into(),
            points,
            style,
        }
    }
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// The base if it is logarithmic.
    pub log: Option<f64>,
}

impl Axis {
    /// An axis on which equal steps are equal differences.
    pub fn linear(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            log: None,
        }
    }

    /// An axis on which equal steps are equal ratios, marked at powers of two.
    pub fn log2(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            log: Some(2.0),
        }
    }

    /// An axis on which equal steps are equal ratios, marked at powers of ten.
    pub fn log10(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            log: Some(10.0),
        }
    }
}

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Its heading.
    pub title: String,
    /// What to see in it.
    pub caption: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Drawn in this order.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 48.0;
const COLORS: usize = 6;

/// Maps values of an axis to pixels.
struct Scale {
    log: Option<f64>,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, zero: bool, from: f64, to: f64) -> Self {
        let usable = values.filter(|v| v.is_finite() && (axis.log.is_none() || *v > 0.0));
        let (mut low, mut high) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if let Some(base) = axis.log {
            (low, high) = (low.log(base), high.log(base));
        } else if zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low < 1e-12 {
            (low, high) = (low - 0.5, high + 0.5);
        }
        // Upwards the axis ends at a mark; to the right it ends with the values.
        if axis.log.is_none() && zero {
            let step = nice_step((high - low) / 6.0);
            high = (high / step - 1e-9).ceil() * step;
            low = (low / step + 1e-9).floor() * step;
        }
        Self {
            log: axis.log,
            low,
            high,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> Option<f64> {
        let value = match self.log {
            Some(_) if value <= 0.0 => return None,
            Some(base) => value.log(base),
            None => value,
        };
        let share = (value - self.low) / (self.high - self.low);
        share
            .is_finite()
            .then_some(self.from + share * (self.to - self.from))
    }

    /// Where to mark the axis, and with what.
    fn ticks(&self) -> Vec<(f64, String)> {
        let (step, exponent) = match self.log {
            Some(_) => (((self.high - self.low) / 8.0).ceil().max(1.0), true),
            None => (nice_step((self.high - self.low) / 6.0), false),
        };
        let mut ticks = Vec::new();
        let mut at = (self.low / step - 1e-9).ceil() * step;
        while at <= self.high + 1e-9 * step && ticks.len() < 40 {
            let value = match self.log {
                Some(base) if exponent => base.powf(at),
                _ if at.abs() < step * 1e-6 => 0.0,
                _ => at,
            };
            let share = (at - self.low) / (self.high - self.low);
            ticks.push((self.from + share * (self.to - self.from), short(value)));
            at += step;
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, at least `raw`.
fn nice_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.max(1e-300).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|f| f * power >= raw * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A tick's label: 1.5, 20k, 1M.
fn short(value: f64) -> String {
    let trimmed = |v: f64| {
        let text = format!("{v:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        m if m >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        m if m >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        m if m >= 1e-3 || m == 0.0 => trimmed(value),
        _ => format!("{value:.0e}"),
    }
}

impl Plot {
    /// The plot as one `<svg>` element; its colours are the page's `--s0` to `--s5`.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|s| &s.points);
        let bars = self.series.iter().filter(|s| s.style == Style::Bars);
        let half = bars.flat_map(|s| s.points.windows(2));
        let half = half.map(|w| (w[1].0 - w[0].0).abs() / 2.0);
        // Room for half a bar on either side.
        let half = half.reduce(f64::min).unwrap_or(0.0);
        let places = all().flat_map(|p| [p.0 - half, p.0 + half]);
        let x = Scale::new(&self.x, places, false, LEFT, WIDTH - RIGHT);
        let y = Scale::new(&self.y, all().map(|p| p.1), true, HEIGHT - BOTTOM, TOP);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title)
        );
        let _ = writeln!(
            out,
            "<text class=\"title\" x=\"{LEFT}\" y=\"20\">{}</text>",
            escape(&self.title)
        );
        self.frame(&mut out, &x, &y);
        for (i, series) in self.series.iter().enumerate() {
            draw(&mut out, series, i, &x, &y);
        }
        self.legend(&mut out);
        out.push_str("</svg>");
        out
    }

    fn frame(&self, out: &mut String, x: &Scale, y: &Scale) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (at, label) in y.ticks() {
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                at + 4.0
            );
        }
        for (at, label) in x.ticks() {
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 17.0
            );
        }
        let _ = writeln!(
            out,
            "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 10.0,
            escape(&self.x.label),
            f64::midpoint(TOP, bottom),
            escape(&self.y.label)
        );
    }

    fn legend(&self, out: &mut String) {
        let mut at = LEFT;
        for (i, series) in self.series.iter().enumerate() {
            let color = i % COLORS;
            let dash = match series.style {
                Style::Theory => " stroke-dasharray=\"6 4\"",
                _ => "",
            };
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{:.1}\" y1=\"42\" y2=\"42\" stroke-width=\"{}\"{dash} \
                 style=\"stroke:var(--s{color})\"/>\
                 <text class=\"legend\" x=\"{:.1}\" y=\"46\">{}</text>",
                at + 22.0,
                if series.style == Style::Bars { 9 } else { 2 },
                at + 28.0,
                escape(&series.name)
            );
            at += 46.0 + 6.6 * series.name.chars().count() as f64;
        }
    }
}

fn draw(out: &mut String, series: &Series, index: usize, x: &Scale, y: &Scale) {
    let color = index % COLORS;
    let places: Vec<_> = series
        .points
        .iter()
        .filter_map(|(px, py)| Some((x.at(*px)?, y.at(*py)?, *px, *py)))
        .collect();
    let tip = |px: f64, py: f64| {
        format!(
            "<title>{}: {}, {}</title>",
            escape(&series.name),
            number(px),
            number(py)
        )
    };
    if series.style == Style::Bars {
        let gaps = places.windows(2).map(|w| (w[1].0 - w[0].0).abs());
        let width = (gaps.fold(60.0, f64::min) * 0.8).max(1.0);
        let zero = y.at(0.0).unwrap_or(HEIGHT - BOTTOM);
        for (px, py, vx, vy) in &places {
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
                 fill-opacity=\".75\" style=\"fill:var(--s{color})\">{}</rect>",
                px - width / 2.0,
                py.min(zero),
                (zero - py).abs(),
                tip(*vx, *vy)
            );
        }
        return;
    }
    if series.style != Style::Points {
        let mut path = String::new();
        for (i, (px, py, ..)) in places.iter().enumerate() {
            let _ = write!(path, "{}{px:.1} {py:.1}", if i == 0 { 'M' } else { 'L' });
        }
        let dash = match series.style {
            Style::Theory => " stroke-dasharray=\"6 4\"",
            _ => "",
        };
        let _ = writeln!(
            out,
            "<path fill=\"none\" stroke-width=\"{}\"{dash} style=\"stroke:var(--s{color})\" \
             d=\"{path}\"/>",
            if series.style == Style::Theory {
                2.0
            } else {
                1.6
            }
        );
    }
    if matches!(series.style, Style::Measured | Style::Points) {
        let radius = if places.len() > 200 { 1.6 } else { 3.5 };
        for (px, py, vx, vy) in &places {
            let _ = writeln!(
                out,
                "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"{radius}\" \
                 style=\"fill:var(--s{color})\">{}</circle>",
                tip(*vx, *vy)
            );
        }
    }
}

#[cfg(test)]
mod tests;
