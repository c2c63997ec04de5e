//! `--engine spark`: the program `spark.py`, submitted by `spark-submit`.

use std::fs;

use super::{CommandLine, Handed, program};
use crate::cli::RunArgs;
use crate::failure::{Failure, Outcome};

/// The program's name beside the job.
pub(super) const PROGRAM: &str = "spark.py";

/// Writes the program; returns the command that submits it.
pub(super) fn command(
    handed: &Handed,
    reduces: Option<u32>,
    args: &RunArgs,
) -> Outcome<CommandLine> {
    let path = handed.dir.join(PROGRAM);
    fs::write(&path, include_str!("spark.py")).map_err(|e| Failure::io("write", &path, &e))?;
    let mut words = vec![program(&["SPARK_HOME"], "spark-submit")];
    if let Some(master) = &args.master {
        words.extend(["--master".to_owned(), master.clone()]);
    }
    words.extend(["--name".to_owned(), handed.spec.name.clone()]);
    let files: Vec<_> = handed
        .names()
        .iter()
        .map(|name| handed.path(name))
        .collect();
    words.extend(["--files".to_owned(), files.join(",")]);
    words.extend(args.hand_over.engine_args.iter().cloned());
    words.push(handed.path(PROGRAM));
    words.push(reduces.unwrap_or(0).to_string());
    Ok(CommandLine(words))
}
