//! What Hadoop's client says of a job, as programs read it: log4j lines, identifiers, counters, and
//! the logs of failed tasks in the store.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_base::Date;

use super::store::JobStore;
use crate::view::{FailedAttempt, Groups, JobView};

/// Where YARN keeps logs by default, below which programs look for those of tasks.
const LOGS: &str = "tmp/hadoop-yarn/staging/userlogs";
/// Bytes of a task's log that are kept.
const LOG_MAX: u64 = 4 << 20;

/// Identifiers of a job in Hadoop's form: `job_STARTED_NNNN`, where STARTED is in milliseconds since
/// 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    stem: String,
}

impl Ids {
    /// For a job that starts now; `number` tells apart those of one moment.
    pub fn now(number: u32) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = since.unwrap_or_default().as_millis();
        Self {
            stem: format!("{ms}_{:04}", number % 10_000),
        }
    }

    /// `job_…`.
    pub fn job(&self) -> String {
        format!("job_{}", self.stem)
    }

    /// `application_…`.
    pub fn application(&self) -> String {
        format!("application_{}", self.stem)
    }

    /// The name in Hadoop's form of an attempt or task that calls itself `attempt_0001_m_000000_0`.
    pub fn renamed(&self, own: &str) -> String {
        let mut parts = own.splitn(3, '_');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(kind), Some(_), Some(rest)) => format!("{kind}_{}_{rest}", self.stem),
            _ => own.to_owned(),
        }
    }
}

/// Writes log4j lines: `yy/MM/dd HH:mm:ss LEVEL class: message`, in UTC.
#[derive(Debug)]
pub struct Log<W> {
    out: W,
}

impl<W: Write> Log<W> {
    /// Into `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// A line; one that cannot be written is nobody's loss.
    pub fn line(&mut self, level: &str, class: &str, message: &str) {
        let _ = writeln!(self.out, "{} {level} {class}: {message}", stamp());
        let _ = self.out.flush();
    }

    /// Of the class that tells how a job goes.
    pub fn job(&mut self, message: &str) {
        self.line("INFO", "mapreduce.Job", message);
    }

    /// A line without a head.
    pub fn bare(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }
}

fn stamp() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(0);
    Date::utc(seconds).map_or_else(String::new, |d| {
        format!(
            "{:02}/{:02}/{:02} {:02}:{:02}:{:02}",
            d.year % 100,
            d.month,
            d.day,
            d.hour,
            d.minute,
            d.second
        )
    })
}

/// ` map 50% reduce 0%`.
pub fn progress(view: &JobView) -> String {
    let percent = |share: f64| (share * 100.0).floor() as u64;
    // Hadoop counts fetching, sorting and reducing as a third each.
    let reduce = if view.reduces.total == 0 {
        0.0
    } else if view.outcome.is_some() {
        view.reduce
    } else {
        view.shuffle / 3.0 + view.reduce * 2.0 / 3.0
    };
    format!(" map {}% reduce {}%", percent(view.map), percent(reduce))
}

/// Our names of what every task counts, and Hadoop's.
const FRAMEWORK: &[(&str, &str)] = &[
    ("map_input_records", "Map input records"),
    ("map_output_records", "Map output records"),
    ("map_output_bytes", "Map output bytes"),
    ("map_combined_records", "Combine input records"),
    ("reduce_groups", "Reduce input groups"),
    ("reduce_input_records", "Reduce input records"),
    ("reduce_output_records", "Reduce output records"),
];

/// Counters by Hadoop's groups and names.
pub fn counters(view: &JobView) -> Groups {
    let mut groups = view.counters.clone();
    let own = groups.remove("shoal").unwrap_or_default();
    let of = |name: &str| own.get(name).copied().unwrap_or(0);
    let maps_only = view.reduces.total == 0;
    let mut put = |group: &str, name: &str, value: u64| {
        let group = groups.entry(group.to_owned()).or_default();
        group.insert(name.to_owned(), value);
    };
    for (ours, theirs) in FRAMEWORK {
        let of_reduce = ours.starts_with("reduce") || *ours == "map_combined_records";
        if !(of_reduce && maps_only) {
            put("Map-Reduce Framework", theirs, of(ours));
        }
    }
    let spilled = of("map_spilled_records").saturating_add(of("reduce_spilled_records"));
    put("Map-Reduce Framework", "Spilled Records", spilled);
    put(
        "File Input Format Counters",
        "Bytes Read",
        of("map_input_bytes"),
    );
    let written = if maps_only { "map" } else { "reduce" };
    let written = of(&format!("{written}_output_bytes"));
    put("File Output Format Counters", "Bytes Written", written);
    let launched = |tasks: u32| u64::from(tasks);
    put(
        "Job Counters",
        "Launched map tasks",
        launched(view.maps.total),
    );
    if !maps_only {
        put(
            "Job Counters",
            "Launched reduce tasks",
            launched(view.reduces.total),
        );
    }
    let failed = |kind: &str| {
        let of_kind = view.failures.iter().filter(|f| f.attempt.contains(kind));
        of_kind.count() as u64
    };
    for (kind, name) in [("_m_", "Failed map tasks"), ("_r_", "Failed reduce tasks")] {
        if failed(kind) > 0 {
            put("Job Counters", name, failed(kind));
        }
    }
    groups
}

/// Counters as Hadoop prints them: how many, then each group and its counters, indented.
pub fn counters_text(groups: &Groups) -> String {
    let count: usize = groups.values().map(std::collections::BTreeMap::len).sum();
    let mut text = format!("Counters: {count}");
    // One line each, whatever code called them.
    let line = |name: &str| name.replace(['\n', '\r'], " ");
    for (group, names) in groups {
        let _ = write!(text, "\n\t{}", line(group));
        for (name, value) in names {
            let _ = write!(text, "\n\t\t{}={value}", line(name));
        }
    }
    text
}

/// The lines that follow `Task Id : …, Status : FAILED`.
pub fn error_text(failure: &FailedAttempt) -> String {
    // Programs know a task that failed by itself from one that its machine failed by this word.
    let code = failure.what.contains("exited with code") || failure.what.contains("by signal");
    let head = if code { "subprocess failed: " } else { "" };
    format!("Error: {head}{}", failure.what)
}

/// Keeps the logs of a failed attempt in the store, where programs look for them: what it wrote to
/// its standard error, and what there is to say of it in the form of a Java log.
///
/// # Errors
/// What the file system says.
pub fn keep(
    store: &JobStore,
    ids: &Ids,
    failure: &FailedAttempt,
    stderr: &Path,
) -> io::Result<PathBuf> {
    let name = ids.renamed(&failure.attempt);
    let dir = store.root().join(LOGS).join(ids.application()).join(name);
    std::fs::create_dir_all(&dir)?;
    let mut text = String::new();
    let first = failure.what.lines().next().unwrap_or_default();
    let mut log = Vec::new();
    Log::new(&mut log).line(
        "WARN",
        "mapred.YarnChild",
        &format!("Exception running child : {first}"),
    );
    text.push_str(&String::from_utf8_lossy(&log));
    // Programs take a log for an error by a frame of a Java stack. This is the one that Hadoop
    // Streaming shows when a command fails.
    text.push_str(
        "\tat org.apache.hadoop.streaming.PipeMapRed.waitOutputThreads(PipeMapRed.java:326)\n",
    );
    std::fs::write(dir.join("syslog"), text)?;
    let mut to = std::fs::File::create(dir.join("stderr"))?;
    match std::fs::File::open(stderr) {
        Ok(from) => drop(io::copy(&mut io::Read::take(from, LOG_MAX), &mut to)?),
        // It ran elsewhere; its last lines came with the failure.
        Err(e) if e.kind() == io::ErrorKind::NotFound => to.write_all(failure.what.as_bytes())?,
        Err(e) => return Err(e),
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hadoops() {
        let ids = Ids::now(12_345);
        assert!(ids.job().starts_with("job_") && ids.job().ends_with("_2345"));
        let renamed = ids.renamed("attempt_0001_m_000002_3");
        assert_eq!(renamed, format!("attempt_{}_m_000002_3", ids.stem));
        assert_eq!(ids.renamed("x"), "x");
    }

    #[test]
    fn counters_are_one_line_each() {
        let mut groups = Groups::new();
        let group = groups.entry("my\ngroup".to_owned()).or_default();
        group.insert("a=b".to_owned(), 3);
        assert_eq!(counters_text(&groups), "Counters: 1\n\tmy group\n\t\ta=b=3");
    }

    #[test]
    fn lines_have_a_date_a_level_and_a_class() {
        let mut out = Vec::new();
        Log::new(&mut out).job("Running job: job_1_0001");
        let text = String::from_utf8(out).expect("text");
        let (stamp, rest) = text.split_at("26/11/26 15:00:00".len());
        assert_eq!(rest, " INFO mapreduce.Job: Running job: job_1_0001\n");
        assert!(
            stamp
                .chars()
                .all(|c| c.is_ascii_digit() || "/: ".contains(c)),
            "{stamp}"
        );
    }
}
