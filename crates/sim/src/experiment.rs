//! What an experiment is, and what it may ask of the program that runs it.

use crate::report::Report;

/// The program around an experiment: it alone has a clock and eyes.
pub trait Host {
    /// Says how far a phase is.
    fn progress(&mut self, phase: &'static str, done: u64, total: u64);
    /// Seconds since some beginning, to measure how fast the simulator is. Nothing in a run may
    /// depend on it.
    fn clock_s(&mut self) -> f64;
    /// Seconds of processor time that this process has used, to tell the simulator's speed on a
    /// machine that has other work.
    fn cpu_s(&mut self) -> f64;
    /// The most bytes of memory this process ever had, or zero if that is not known.
    fn memory_peak(&mut self) -> u64;
}

/// A host that says nothing and has no clock; for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Host for Silent {
    fn progress(&mut self, _phase: &'static str, _done: u64, _total: u64) {}
    fn clock_s(&mut self) -> f64 {
        0.0
    }
    fn cpu_s(&mut self) -> f64 {
        0.0
    }
    fn memory_peak(&mut self) -> u64 {
        0
    }
}

/// Options that make no experiment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOptions(pub String);

/// An experiment with its options filled in.
pub trait Experiment {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Each option, as on the command line without the dashes, and its value; also those that
    /// follow from others. They are printed before the run.
    fn options(&self) -> Vec<(&'static str, String)>;
    /// Runs it. The same options and seed give the same report, but for what the host measures.
    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions>;
}

/// Measures how fast a run is, by the host's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Speed {
    clock_s: f64,
    cpu_s: f64,
    events: u64,
}

impl Speed {
    /// Starts the watch, at the count of events the world has.
    pub fn start(&mut self, host: &mut dyn Host, events: u64) {
        self.clock_s -= host.clock_s();
        self.cpu_s -= host.cpu_s();
        self.events = self.events.wrapping_sub(events);
    }

    /// Stops the watch.
    pub fn stop(&mut self, host: &mut dyn Host, events: u64) {
        self.clock_s += host.clock_s();
        self.cpu_s += host.cpu_s();
        self.events = self.events.wrapping_add(events);
    }

    /// Adds the figures to a report: `events_per_s` of real time, `events_per_cpu_s` of processor
    /// time. Zero if the host has no clocks.
    pub fn tell(&self, report: &mut Report) {
        let per = |seconds: f64| match seconds > 0.0 {
            true => (self.events as f64 / seconds).round(),
            false => 0.0,
        };
        report.figure("events_per_s", per(self.clock_s));
        report.figure("events_per_cpu_s", per(self.cpu_s));
    }
}
