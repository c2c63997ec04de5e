//! Runs a built-in job from a program of one's own, on this machine, as `shoal run` does:
//! `cargo run -p shoal-jobs --example embedded -- wordcount INPUT OUTPUT [PATTERN]`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use shoal_jobs::engine::master::News;
use shoal_jobs::input::Inputs;
use shoal_jobs::prepare::Plan;
use shoal_jobs::run::{Place, Run};
use shoal_mapreduce::data::builtin;
use shoal_mapreduce::job::{Code, JobSpec};
use shoal_mapreduce::master::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, input, output, rest @ ..] = args.as_slice() else {
        eprintln!("usage: embedded JOB INPUT OUTPUT [PATTERN]");
        return ExitCode::from(2);
    };
    match run(name, input, output, rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, input: &str, output: &str, args: &[String]) -> Result<(), String> {
    let mut spec = JobSpec {
        name: name.to_owned(),
        inputs: vec![input.to_owned()],
        output: output.to_owned(),
        mapper: Code::Identity,
        combiner: None,
        reducer: None,
        reduces: 1,
        partitioner: Default::default(),
        order: Default::default(),
        order_values: false,
        associative: false,
        map_fields: Default::default(),
        reduce_fields: Default::default(),
        side_files: Vec::new(),
        environment: Default::default(),
        properties: Default::default(),
        limits: Default::default(),
        speculative: true,
        priority: 0,
    };
    builtin::fill_in(name, args, &mut spec).map_err(|e| e.what)?;
    let plan = Plan {
        parallel: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        reduces_given: false,
        split_given: false,
    };
    let run = Run::start(spec, plan, Inputs::default(), &Place::Here).map_err(|e| e.to_string())?;
    let outcome = loop {
        match run.news().recv() {
            Ok(News::Ended(job, outcome)) if job == run.job() => break outcome,
            Ok(News::Broken(why)) => return Err(why),
            Ok(News::Notice(_, text)) => eprintln!("{text}"),
            Ok(News::Ended(..)) => {}
            Err(_) => return Err("the master ended".to_owned()),
        }
    };
    run.stop();
    match outcome {
        Outcome::Succeeded => {
            println!("{output}");
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}
