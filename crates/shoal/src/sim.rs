//! `shoal sim`: runs an experiment, says what came out, writes the page.

use std::fs;
use std::time::Instant;

use shoal_sim::report::number;
use shoal_sim::{Experiment, Host, Report};

use crate::cli::{SimArgs, SimCommand};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{Step, Ui};

/// Runs the command. Exit code 1 if what was measured is not what theory says.
pub(crate) fn sim(command: SimCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        SimCommand::Gossip(args) => {
            let experiment = shoal_sim::gossip::Gossip {
                nodes: args.nodes,
                loss: args.loss,
            };
            run(&experiment, &args.sim, ui)
        }
    }
}

/// Lets an experiment measure itself and be watched.
struct Watch<'a> {
    ui: &'a Ui,
    began: Instant,
}

impl Host for Watch<'_> {
    fn progress(&mut self, phase: &'static str, done: u64, total: u64) {
        if self.ui.tick_due() {
            self.ui.step(&Step {
                verb: phase,
                done,
                total,
                bytes: false,
                detail: "",
            });
            self.ui.ticked();
        }
    }

    fn clock_s(&mut self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn memory_peak(&mut self) -> u64 {
        memory_peak()
    }
}

/// The most memory this process ever had in bytes, as the kernel tells; zero where it does not.
fn memory_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn run(experiment: &dyn Experiment, args: &SimArgs, ui: &Ui) -> Outcome<Exit> {
    let options = experiment.options();
    let told: Vec<_> = options
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    // First, so that a run that ends badly can be replayed.
    ui.status(
        "Simulating",
        &format!(
            "{}, seed {}: {}",
            experiment.name(),
            args.seed,
            told.join(", ")
        ),
    );
    let mut watch = Watch {
        ui,
        began: Instant::now(),
    };
    let mut report = experiment.run(args.seed, &mut watch).map_err(|e| {
        Failure::usage(format!("cannot simulate {}", experiment.name())).because(&e)
    })?;
    ui.finish_step();
    report.figure("wall_s", watch.clock_s());
    report.figure("memory_peak", memory_peak());

    if let Some(path) = &args.report {
        fs::write(path, report.html()).map_err(|e| Failure::io("write", path, &e))?;
        ui.status("Wrote", &path.display().to_string());
    }
    if ui.is_json() {
        ui.data(&report.json().to_string());
    } else {
        ui.data(&table(&report));
    }
    if report.holds() {
        Ok(Exit::Ok)
    } else {
        Ok(Exit::Failed)
    }
}

/// What came out, for people.
fn table(report: &Report) -> String {
    let mut lines = vec![format!("{:<28} {}", "digest", report.digest)];
    for (name, value) in &report.figures {
        let shown = match value.as_f64() {
            Some(value) => number(value),
            None if value.is_array() || value.is_object() => continue,
            None => value.to_string(),
        };
        lines.push(format!("{:<28} {shown}", name.replace('_', " ")));
    }
    for check in &report.checks {
        lines.push(format!(
            "{}: {}: {}, expected {}",
            if check.holds { "holds" } else { "FAILS" },
            check.what,
            check.measured,
            check.expected
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_known_on_linux() {
        if cfg!(target_os = "linux") {
            assert!(memory_peak() > 1 << 20);
        }
    }
}
