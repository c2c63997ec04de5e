//! What the user sees: results on stdout, everything else on stderr.
//!
//! With `--json` stdout carries only [`Report`] lines. Bars are drawn only when stderr is a
//! terminal; elsewhere `-v` gets a plain line now and then. A closed stdout is not an error: it is
//! remembered, and the command ends as if it were done.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{ColorChoice, Globals};
use crate::failure::Failure;
use crate::report::{Line, Report};
use crate::units::Size;

/// Between plain progress lines where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Between redraws of a bar, and between JSON progress lines.
const TICK: Duration = Duration::from_millis(250);

/// Where output goes and in which form.
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    verbose: bool,
    bars: bool,
    color: bool,
    stdout_closed: Cell<bool>,
    bar: RefCell<Option<(Shape, ProgressBar)>>,
    last_tick: Cell<Option<Instant>>,
    last_plain: Cell<Option<Instant>>,
}

/// What a bar looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Bar,
    /// No bar, only words.
    Line,
}

/// How far something is.
pub(crate) struct Step<'a> {
    /// What is being done: `Fetching`.
    pub(crate) verb: &'static str,
    /// Done so far.
    pub(crate) done: u64,
    /// In all.
    pub(crate) total: u64,
    /// Whether `done` and `total` are bytes.
    pub(crate) bytes: bool,
    /// Further facts: rate, peers, time left.
    pub(crate) detail: &'a str,
}

impl Step<'_> {
    /// `136 MiB of 1.0 GiB, 58 MiB/s, 15s left, 1 peer`: fits beside a bar in 80 columns.
    fn words(&self) -> String {
        let (done, total) = (self.done, self.total);
        let mut words = if self.bytes {
            format!("{} of {}", Size(done), Size(total))
        } else {
            format!("{done} of {total}")
        };
        if !self.detail.is_empty() {
            words.push_str(", ");
            words.push_str(self.detail);
        }
        words
    }
}

impl Ui {
    /// Decides the form from the flags, the terminal and `NO_COLOR`.
    pub(crate) fn new(globals: &Globals) -> Self {
        let tty = io::stderr().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let color = match globals.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto => {
                (tty && std::env::var_os("TERM").is_none_or(|t| t != "dumb"))
                    || set("CLICOLOR_FORCE")
            }
        };
        let quiet = globals.quiet;
        // Log lines and a bar would overwrite each other.
        let bars = tty && !quiet && !globals.json && !globals.no_progress && globals.verbose == 0;
        Self {
            json: globals.json,
            quiet,
            verbose: globals.verbose > 0,
            bars,
            color,
            stdout_closed: Cell::new(false),
            bar: RefCell::new(None),
            last_tick: Cell::new(None),
            last_plain: Cell::new(None),
        }
    }

    /// Whether stdout carries JSON lines.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether whoever read stdout has gone.
    pub(crate) fn stdout_closed(&self) -> bool {
        self.stdout_closed.get()
    }

    /// Writes a result for people; nothing with `--json`.
    pub(crate) fn result(&self, line: &str) {
        if !self.json {
            self.stdout(line);
        }
    }

    /// Writes a result that the caller has put into the form asked for.
    pub(crate) fn data(&self, text: &str) {
        self.stdout(text);
    }

    /// Writes a JSON line; nothing without `--json`.
    pub(crate) fn report(&self, report: &impl Line) {
        if self.json {
            self.stdout(&report.to_line());
        }
    }

    fn stdout(&self, line: &str) {
        if self.stdout_closed.get() {
            return;
        }
        let mut text = String::with_capacity(line.len() + 1);
        text.push_str(line);
        text.push('\n');
        let written = self.without_bar(|| {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        });
        if written.is_err() {
            self.stdout_closed.set(true);
        }
    }

    /// Says what is going on: a green verb and a phrase.
    pub(crate) fn status(&self, verb: &str, text: &str) {
        if self.quiet || self.json {
            return;
        }
        if self.color {
            self.stderr(&format!("\x1b[1;32m{verb:>11}\x1b[0m {text}"));
        } else {
            self.stderr(&format!("{verb:>11} {text}"));
        }
    }

    /// Says what only `-v` asks for.
    pub(crate) fn news(&self, verb: &str, text: &str) {
        if self.verbose {
            self.status(verb, text);
        }
    }

    /// Says what the user should know, which stops nothing.
    pub(crate) fn warn(&self, what: &str) {
        self.report(&Report::Warning { what });
        if !self.quiet {
            self.labelled("warning:", "33", what);
        }
    }

    /// Says what the user could do next.
    pub(crate) fn hint(&self, what: &str) {
        if !self.quiet && !self.json {
            self.labelled("hint:", "36", what);
        }
    }

    /// Says why the command failed, on stderr and with `--json` on stdout too.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.finish_step();
        self.report(&Report::Error {
            what: &failure.what,
            because: &failure.because,
            hint: failure.hint.as_deref(),
            code: failure.exit as u8,
        });
        self.stderr(&failure.render(self.color));
    }

    fn labelled(&self, label: &str, code: &str, text: &str) {
        if self.color {
            self.stderr(&format!("\x1b[1;{code}m{label}\x1b[0m {text}"));
        } else {
            self.stderr(&format!("{label} {text}"));
        }
    }

    fn stderr(&self, line: &str) {
        // Nobody is left to tell if stderr itself is closed.
        let _ = self.without_bar(|| writeln!(io::stderr().lock(), "{line}"));
    }

    fn without_bar<R>(&self, write: impl FnOnce() -> R) -> R {
        match &*self.bar.borrow() {
            Some((_, bar)) => bar.suspend(write),
            None => write(),
        }
    }

    /// Whether it is time for the next [`Ui::step`] or JSON progress line.
    pub(crate) fn tick_due(&self) -> bool {
        self.last_tick.get().is_none_or(|at| at.elapsed() >= TICK)
    }

    /// Notes that progress was just reported as JSON or by [`Ui::step`].
    pub(crate) fn ticked(&self) {
        self.last_tick.set(Some(Instant::now()));
    }

    /// Shows how far something is: a bar on a terminal, else with `-v` a line now and then.
    pub(crate) fn step(&self, step: &Step<'_>) {
        if self.bars {
            self.with_bar(Shape::Bar, step.verb, |bar| {
                if bar.length() != Some(step.total) {
                    bar.set_length(step.total);
                }
                bar.set_message(step.words());
                bar.set_position(step.done);
            });
        } else {
            let percent = percent(step.done, step.total);
            self.plain(step.verb, &format!("{percent}%, {}", step.words()));
        }
    }

    /// Shows how something without an end stands, in the same places.
    pub(crate) fn line(&self, verb: &'static str, text: &str) {
        if self.bars {
            self.with_bar(Shape::Line, verb, |bar| bar.set_message(text.to_owned()));
        } else {
            self.plain(verb, text);
        }
    }

    fn plain(&self, verb: &str, text: &str) {
        let due = self
            .last_plain
            .get()
            .is_none_or(|at| at.elapsed() >= PLAIN_INTERVAL);
        if self.verbose && due {
            self.last_plain.set(Some(Instant::now()));
            self.status(verb, text);
        }
    }

    fn with_bar(&self, shape: Shape, verb: &'static str, update: impl FnOnce(&ProgressBar)) {
        let mut slot = self.bar.borrow_mut();
        let other = |(old, bar): &mut (Shape, ProgressBar)| *old != shape || bar.prefix() != verb;
        if let Some((_, bar)) = slot.take_if(other) {
            bar.finish_and_clear();
        }
        let (_, bar) = slot.get_or_insert_with(|| (shape, self.new_bar(shape, verb)));
        update(bar);
    }

    /// Takes the bar away.
    pub(crate) fn finish_step(&self) {
        if let Some((_, bar)) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
        self.last_tick.set(None);
        self.last_plain.set(None);
    }

    fn new_bar(&self, shape: Shape, verb: &'static str) -> ProgressBar {
        let prefix = if self.color {
            "{prefix:>11.bold.green}"
        } else {
            "{prefix:>11}"
        };
        let bar = "{percent:>3}% [{bar:12}]";
        let template = match shape {
            Shape::Bar => format!("{prefix} {bar} {{wide_msg}}"),
            Shape::Line => format!("{prefix} {{wide_msg}}"),
        };
        let style = ProgressStyle::with_template(&template)
            .expect("the template is valid")
            .progress_chars("=> ");
        ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10))
            .with_style(style)
            .with_prefix(verb)
    }
}

fn percent(done: u64, total: u64) -> u64 {
    // 128 bits: `done * 100` may overflow 64.
    (u128::from(done) * 100)
        .checked_div(u128::from(total))
        .unwrap_or(100) as u64
}

#[cfg(test)]
mod tests {
    use super::{Step, percent};

    #[test]
    fn a_step_is_told_in_few_words() {
        let mut step = Step {
            verb: "Fetching",
            done: 136 << 20,
            total: 1 << 30,
            bytes: true,
            detail: "58.1 MiB/s, 15s left, 1 peer",
        };
        let words = step.words();
        assert_eq!(words, "136 MiB of 1.0 GiB, 58.1 MiB/s, 15s left, 1 peer");
        // Verb, percentage, bar and blanks take 32 columns.
        assert!(words.len() <= 80 - 32);
        (step.bytes, step.done, step.total, step.detail) = (false, 3, 8, "");
        assert_eq!(step.words(), "3 of 8");
    }

    #[test]
    fn percent_never_overflows_or_divides_by_zero() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(1, 3), 33);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }
}
