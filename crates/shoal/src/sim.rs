//! `shoal sim`: runs an experiment, says what came out, writes the page.

use std::fs;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use shoal_sim::faults::{Faults, Subject};
use shoal_sim::gossip::Gossip;
use shoal_sim::mainline::kademlia::Kademlia;
use shoal_sim::mapreduce::paper::MapReduce;
use shoal_sim::overlay::chord::{Chord, Route, Style, Want};
use shoal_sim::overlay::ring::PlainRing;
use shoal_sim::overlay::shortcuts::{Draw, Shortcuts};
use shoal_sim::reach::Reach;
use shoal_sim::report::number;
use shoal_sim::search::flooding::{Flooding, Shape};
use shoal_sim::search::napster::Napster;
use shoal_sim::search::overlays::Overlays;
use shoal_sim::search::pollution::Pollution;
use shoal_sim::search::supernodes::Supernodes;
use shoal_sim::swarm::flashcrowd::FlashCrowd;
use shoal_sim::swarm::freerider::FreeRider;
use shoal_sim::swarm::life::Life;
use shoal_sim::{Experiment, Host, Report};

use crate::cli::{
    ChordArgs, DrawChoice, FaultsArgs, FindChoice, GraphChoice, ModeChoice, SimArgs, SimCommand,
    SubjectChoice,
};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{Step, Ui};

/// Runs the command. Exit code 1 if what was measured is not what theory says.
pub(crate) fn sim(command: SimCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        SimCommand::Ring(args) => {
            let experiment = PlainRing {
                nodes: args.nodes,
                lookups: args.lookups,
                both_ways: args.both_ways,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Shortcuts(args) => {
            let experiment = Shortcuts {
                nodes: args.nodes,
                lookups: args.lookups,
                shortcuts: args.shortcuts,
                draw: match args.draw {
                    DrawChoice::Uniform => Draw::Uniform,
                    DrawChoice::Harmonic => Draw::Harmonic,
                },
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Chord(args) => run(&chord(&args), &args.sim, ui),
        SimCommand::Kademlia(args) => {
            let experiment = Kademlia {
                nodes: args.nodes,
                lookups: args.lookups,
                nat: args.nat,
                loss: args.loss,
                sweep: args.sweep,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Swarm(args) => {
            let experiment = Life {
                arrivals: args.arrivals,
                pieces: args.pieces,
                quick: args.quick,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Freerider(args) => {
            let experiment = FreeRider {
                peers: args.peers,
                quick: args.quick,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Flashcrowd(args) => {
            let experiment = FlashCrowd {
                peers: args.peers,
                pieces: args.pieces,
                runs: args.runs,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Mapreduce(args) => {
            let experiment = MapReduce {
                workers: args.workers,
                faults: args.faults,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Napster(args) => {
            let experiment = Napster {
                users: args.users,
                files: args.shares.files,
                contents: args.shares.contents,
                questions: args.questions,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Flooding(args) => {
            let experiment = Flooding {
                nodes: args.nodes,
                degree: args.degree,
                shape: match args.graph {
                    GraphChoice::Regular => Shape::Regular,
                    GraphChoice::PowerLaw => Shape::PowerLaw,
                },
                files: args.shares.files,
                contents: args.shares.contents,
                questions: args.questions,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Overlays(args) => {
            let experiment = Overlays {
                nodes: args.nodes,
                files: args.shares.files,
                contents: args.shares.contents,
                questions: args.questions,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Pollution(args) => {
            let experiment = Pollution {
                members: args.members,
                questions: args.questions,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Reach(args) => {
            let experiment = Reach {
                kinds: args.nat,
                copies: args.pairs,
                relays: args.relays,
                delay_ms: args.delay,
                jitter_ms: args.jitter,
                loss: args.loss,
                mapping_s: args.mapping,
                ipv6: args.ipv6,
                churn_s: args.churn,
                kills: args.kills,
                flushes: args.flushes,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Supernodes(args) => {
            let experiment = Supernodes {
                supernodes: args.supernodes,
                children: args.children,
                files: args.shares.files,
                contents: args.shares.contents,
                questions: args.questions,
                churn_s: args.churn,
                sweep: args.sweep,
            };
            run(&experiment, &args.sim, ui)
        }
        SimCommand::Faults(args) => faults(&args, ui),
        SimCommand::Gossip(args) => {
            let experiment = Gossip {
                nodes: args.nodes,
                loss: args.loss,
            };
            run(&experiment, &args.sim, ui)
        }
    }
}

fn chord(args: &ChordArgs) -> Chord {
    let disturbed = args.fail > 0.0 || args.churn > 0.0;
    let find = args.find.unwrap_or(match disturbed {
        true => FindChoice::Owner,
        false => FindChoice::Predecessor,
    });
    Chord {
        nodes: args.nodes,
        lookups: args.lookups,
        successors: args.successors.unwrap_or(if disturbed { 20 } else { 1 }),
        want: match find {
            FindChoice::Predecessor => Want::Predecessor,
            FindChoice::Owner => Want::Owner,
        },
        fail: args.fail,
        churn: args.churn,
        stabilise_s: args.stabilise,
        virtual_nodes: args.virtual_nodes,
        route: match args.mode {
            ModeChoice::Ring => Route::Ring,
            ModeChoice::BothWays => Route::BothWays,
            ModeChoice::Fingers => Route::Fingers,
        },
        style: match args.iterative {
            true => Style::Iterative,
            false => Style::Recursive,
        },
        rate: args.rate,
        sweep: args.sweep,
    }
}

fn faults(args: &FaultsArgs, ui: &Ui) -> Outcome<Exit> {
    let chosen = |choice: &SubjectChoice| match choice {
        SubjectChoice::Chord => Subject::Chord,
        SubjectChoice::Mainline => Subject::Mainline,
    };
    let experiment = Faults {
        subjects: match args.subjects.as_slice() {
            [] => vec![Subject::Chord, Subject::Mainline],
            some => some.iter().map(chosen).collect(),
        },
        seeds: args.seeds,
        shrink: args.keep.is_some(),
    };
    let report = simulate(&experiment, &args.sim, ui)?;
    let failed = report.figures.get("regressions").and_then(|r| r.as_array());
    if let Some(folder) = &args.keep {
        fs::create_dir_all(folder).map_err(|e| Failure::io("make", folder, &e))?;
        for kept in failed.into_iter().flatten() {
            let subject = kept["subject"].as_str().unwrap_or_default();
            let path = folder.join(format!("{subject}-{}.json", kept["plan"]["seed"]));
            fs::write(&path, format!("{kept:#}\n")).map_err(|e| Failure::io("write", &path, &e))?;
            ui.status("Wrote", &path.display().to_string());
        }
    }
    tell(&report, &args.sim, ui)
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

    fn cpu_s(&mut self) -> f64 {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
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
    let report = simulate(experiment, args, ui)?;
    tell(&report, args, ui)
}

fn simulate(experiment: &dyn Experiment, args: &SimArgs, ui: &Ui) -> Outcome<Report> {
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
    Ok(report)
}

fn tell(report: &Report, args: &SimArgs, ui: &Ui) -> Outcome<Exit> {
    if let Some(path) = &args.report {
        fs::write(path, report.html()).map_err(|e| Failure::io("write", path, &e))?;
        ui.status("Wrote", &path.display().to_string());
    }
    if ui.is_json() {
        ui.data(&report.json().to_string());
    } else {
        ui.data(&table(report));
    }
    if report.holds() {
        Ok(Exit::Ok)
    } else {
        let again = format!("shoal sim {} --seed {}", report.experiment, report.seed);
        ui.status(
            "Failed",
            &format!("{again}, with the same options, replays it"),
        );
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
    lines.extend(side_by_side(&report.table));
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

/// The cells of a table, in columns as wide as they need be.
fn side_by_side(rows: &[Vec<String>]) -> Vec<String> {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = (0..).zip(row).zip(&widths);
        let cells = cells.map(|((i, cell), width)| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
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
