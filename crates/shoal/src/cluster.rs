//! `shoal worker`, `shoal serve master` and `shoal job`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{select, unbounded};
use shoal_base::id::to_hex;
use shoal_jobs::cluster::{
    ClusterError, StandingMaster, WorkerOptions, WorkerProcess, master_config,
};
use shoal_jobs::engine::master::News;
use shoal_jobs::engine::worker::WorkerNews;
use shoal_jobs::input::Inputs;
use shoal_jobs::net::auth::{Pass, Secret};
use shoal_jobs::net::client::{Client, Reply, Request};
use shoal_jobs::net::identity::{Identity, addr_of};
use shoal_jobs::prepare::Plan;
use shoal_jobs::run::{Place, Run};
use shoal_jobs::view::JobView;
use shoal_mapreduce::id::JobId;
use shoal_mapreduce::master::Outcome as JobOutcome;

use crate::cli::{JobArgs, JobCommand, MasterArgs, ResumeArgs, WorkerArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::key;
use crate::overlay::{JobWays, OnOverlay};
use crate::report::Report;
use crate::run;
use crate::run::content::Content;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::count;
use crate::{state, transfer};

/// The secret in a file, if one is named.
pub(crate) fn secret(path: Option<&Path>) -> Outcome<Secret> {
    match path {
        None => Ok(Secret::default()),
        Some(path) => Secret::read(path).map_err(|e| Failure::io("read the secret", path, &e)),
    }
}

/// How a worker proves who it is.
fn pass(args: &WorkerArgs, ui: &Ui) -> Outcome<Pass> {
    if !args.stranger {
        return Ok(Pass::own(secret(args.secret_file.as_deref())?));
    }
    let path = match &args.key {
        Some(path) => path.clone(),
        None => {
            let base = state::base(args.content.state_dir.as_deref(), Path::new("."));
            std::fs::create_dir_all(&base).map_err(|e| Failure::io("make", &base, &e))?;
            base.join("worker.key")
        }
    };
    let identity = Identity::new(&key::load_or_make(&path)?.to_bytes());
    let name = to_hex(&identity.key());
    ui.report(&Report::WorkerKey { key: &name });
    ui.status("Stranger", &name);
    Ok(Pass::stranger(identity))
}

/// Runs `shoal worker`.
pub(crate) fn worker(args: &WorkerArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let (dir, temporary) = match &args.dir {
        Some(dir) => (dir.clone(), false),
        None => {
            let name = format!("shoal-worker-{}", std::process::id());
            (std::env::temp_dir().join(name), true)
        }
    };
    let (sender, news) = unbounded();
    let content = Arc::new(Content::new(&args.content));
    let holds = content.seed(&args.seed)?;
    if let Some(addr) = content.addr() {
        let proto = "content";
        ui.report(&Report::Listening { addr, proto });
    }
    let (base, at) = (args.content.state_dir.as_deref(), args.listen.ip());
    let station = OnOverlay::wished(&args.join, at, base, &interrupt, ui)?;
    if interrupt.asked() {
        return Ok(Exit::Interrupted);
    }
    let options = WorkerOptions {
        master: args.master.clone(),
        pass: pass(args, ui)?.by(JobWays::by(station.as_ref())),
        listen: args.listen,
        public: args.public.clone(),
        slots: args.slots.unwrap_or_else(run::processors),
        dir: dir.clone(),
        host: args.host.clone(),
        inputs: Inputs::default().with(content.clone()),
        holds,
    };
    let worker = WorkerProcess::start(options, sender).map_err(|e| {
        transfer::bind_hint(Failure::failed("cannot start a worker").because(&e), &e)
    })?;
    let addr = worker.addr();
    ui.report(&Report::Listening { addr, proto: "tcp" });
    if station.is_some() {
        let (addr, proto) = (worker.there(), "overlay");
        ui.report(&Report::Listening { addr, proto });
    }
    ui.status("Working", &format!("for {} until ctrl-C", args.master));
    loop {
        select! {
            recv(news) -> event => match event {
                Ok(event) => tell(&event, ui),
                Err(_) => break,
            },
            recv(interrupt.woken()) -> _ => break,
        }
    }
    worker.leave();
    if let Some((downloaded, uploaded)) = content.traffic() {
        ui.report(&Report::Content {
            downloaded,
            uploaded,
        });
    }
    if temporary {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(Exit::Interrupted)
}

fn tell(news: &WorkerNews, ui: &Ui) {
    match news {
        WorkerNews::Welcome(name) => {
            ui.report(&Report::WorkerConnected { worker: name });
            ui.status("Connected", &format!("as {name}"));
        }
        WorkerNews::Lost(why) => {
            ui.report(&Report::WorkerLost { why });
            ui.news("Lost", why);
        }
        WorkerNews::Started(attempt) => {
            let attempt = attempt.to_string();
            ui.report(&Report::AttemptStarted { attempt: &attempt });
            ui.news("Started", &attempt);
        }
        WorkerNews::Ended(attempt, error) => {
            let attempt = attempt.to_string();
            let error = error.as_deref();
            ui.report(&Report::AttemptEnded {
                attempt: &attempt,
                error,
            });
            ui.news("Ended", &format!("{attempt} {}", error.unwrap_or("well")));
        }
        WorkerNews::Notice(text) => ui.warn(text),
    }
}

/// Runs `shoal serve master`.
pub(crate) fn master(args: &MasterArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let secret = secret(args.secret_file.as_deref())?;
    let mut config = master_config(Duration::from_secs(args.lease.max(1)));
    config.trust_after = args.trust_after;
    let strangers = match args.strangers {
        true => {
            std::fs::create_dir_all(&args.dir).map_err(|e| Failure::io("make", &args.dir, &e))?;
            let key = key::load_or_make(&args.dir.join("key"))?;
            Some(Identity::new(&key.to_bytes()))
        }
        false => None,
    };
    let key = strangers.as_ref().map(Identity::key);
    let (base, at) = (args.state_dir.as_deref(), args.listen.ip());
    let station = OnOverlay::wished(&args.join, at, base, &interrupt, ui)?;
    if interrupt.asked() {
        return Ok(Exit::Interrupted);
    }
    let ways = JobWays::by(station.as_ref());
    let standing = StandingMaster::start(&args.dir, args.listen, &secret, strangers, ways, config)
        .map_err(|e| not_standing(&e))?;
    let news = standing.master().handle().watch();
    let addr = standing.addr();
    ui.report(&Report::Listening { addr, proto: "tcp" });
    ui.result(&addr.to_string());
    if let Some(addr) = standing.elsewhere() {
        let proto = "overlay";
        ui.report(&Report::Listening { addr, proto });
        ui.result(&addr.to_string());
    }
    if let Some(key) = key {
        let master = addr_of(&key, standing.elsewhere().unwrap_or(addr));
        ui.report(&Report::TakesStrangers { master: &master });
        ui.hint(&format!(
            "strangers: shoal worker --stranger --master {master}"
        ));
    }
    let resumed = standing.master().resumed().len() as u64;
    ui.status(
        "Serving",
        &format!("as master until ctrl-C; {} go on", count(resumed, "job")),
    );
    loop {
        select! {
            recv(news) -> event => match event {
                Ok(News::Notice(job, text)) => {
                    let job = job.map_or_else(String::new, |j| j.to_string());
                    ui.report(&Report::JobNotice { job: &job, text: &text });
                    ui.news("Note", &format!("{job} {text}"));
                }
                Ok(News::Ended(job, outcome)) => {
                    let (job, how) = (job.to_string(), word(Some(&outcome)));
                    ui.report(&Report::JobEnded { job: &job, outcome: how });
                    ui.status("Ended", &format!("{job} {how}"));
                }
                Ok(News::Broken(why)) => {
                    return Err(Failure::failed("the master cannot go on").reason(why));
                }
                Err(_) => break,
            },
            recv(interrupt.woken()) -> _ => break,
        }
    }
    Ok(Exit::Interrupted)
}

fn not_standing(error: &ClusterError) -> Failure {
    let failure = Failure::failed("cannot start the master").because(error);
    match error {
        ClusterError::Listen { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            failure.hint("make a secret: head -c 32 /dev/urandom | base64 > secret; then --secret-file secret")
        }
        ClusterError::Listen { source, .. } => transfer::bind_hint(failure, source),
        _ => failure,
    }
}

/// A connection to a master; `station`: by which one at an overlay address is reached.
pub(crate) fn connect(
    at: &str,
    secret_file: Option<&Path>,
    station: Option<&OnOverlay>,
) -> Outcome<Client> {
    let pass = Pass::own(secret(secret_file)?).by(JobWays::by(station));
    Client::connect(at, &pass).map_err(|e| {
        let refused = e.kind() == std::io::ErrorKind::PermissionDenied;
        let exit = if refused {
            Exit::Refused
        } else {
            Exit::Unreachable
        };
        let failure = Failure::new(exit, format!("cannot speak to the master at {at}")).because(&e);
        if refused {
            failure.hint("--secret-file names the file with the cluster's secret")
        } else {
            failure.hint("shoal serve master starts one")
        }
    })
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unreachable, "the master does not answer").because(error)
}

/// Runs `shoal job`.
pub(crate) fn job(command: &JobCommand, ui: &Ui) -> Outcome<Exit> {
    let at = match command {
        JobCommand::List(at) => at,
        JobCommand::Show(args) | JobCommand::Logs(args) | JobCommand::Cancel(args) => &args.at,
        JobCommand::Resume(args) => return resume(args, ui),
    };
    let interrupt = Interrupt::install()?;
    let base = at.state_dir.as_deref();
    let station = OnOverlay::toward(&at.master, &at.join, base, &interrupt, ui)?;
    let mut client = connect(&at.master, at.secret_file.as_deref(), station.as_ref())?;
    match command {
        JobCommand::List(_) => list(&mut client, ui),
        JobCommand::Show(args) => show(&mut client, args, ui),
        JobCommand::Logs(args) => logs(&mut client, args, ui),
        JobCommand::Cancel(args) => cancel(&mut client, args, ui),
        JobCommand::Resume(args) => resume(args, ui),
    }
}

/// How a job is, in one word.
pub(crate) fn word(outcome: Option<&JobOutcome>) -> &'static str {
    match outcome {
        None => "running",
        Some(JobOutcome::Succeeded) => "succeeded",
        Some(JobOutcome::Failed { .. }) => "failed",
        Some(JobOutcome::Cancelled) => "cancelled",
    }
}

fn json(view: &JobView, ui: &Ui) {
    if let Ok(text) = serde_json::to_string(view) {
        ui.data(&text);
    }
}

fn list(client: &mut Client, ui: &Ui) -> Outcome<Exit> {
    for view in client.jobs().map_err(|e| lost(&e))? {
        if ui.is_json() {
            json(&view, ui);
        } else {
            ui.result(&format!(
                "{}  {:<9}  {:>3.0}%  {:>8.1}s  {}  {}",
                view.id,
                word(view.outcome.as_ref()),
                100.0 * (view.map + view.reduce) / 2.0,
                view.elapsed_s,
                view.name,
                view.output
            ));
        }
    }
    Ok(Exit::Ok)
}

fn one(client: &mut Client, args: &JobArgs) -> Outcome<JobView> {
    client
        .job(JobId(args.job))
        .map_err(|e| lost(&e))?
        .ok_or_else(|| Failure::not_found(format!("there is no job {}", args.job)))
}

fn show(client: &mut Client, args: &JobArgs, ui: &Ui) -> Outcome<Exit> {
    let view = one(client, args)?;
    if ui.is_json() {
        json(&view, ui);
        return Ok(Exit::Ok);
    }
    ui.result(&format!("{} {}", view.id, view.name));
    ui.result(&format!("state    {}", word(view.outcome.as_ref())));
    ui.result(&format!("output   {}", view.output));
    ui.result(&format!(
        "maps     {} of {}",
        view.maps.done, view.maps.total
    ));
    ui.result(&format!(
        "reduces  {} of {}",
        view.reduces.done, view.reduces.total
    ));
    ui.result(&format!("seconds  {:.1}", view.elapsed_s));
    if let Some(why) = &view.waiting_for {
        ui.result(&format!("waits    {why}"));
    }
    for (host, times) in &view.hosts_failed {
        ui.result(&format!("failed   {times} times on {host}"));
    }
    for (group, names) in &view.counters {
        for (name, value) in names {
            ui.result(&format!("counter  {group} {name} {value}"));
        }
    }
    for record in &view.skipped {
        ui.result(&format!("skipped  {record}"));
    }
    Ok(Exit::Ok)
}

fn logs(client: &mut Client, args: &JobArgs, ui: &Ui) -> Outcome<Exit> {
    let view = one(client, args)?;
    for failed in &view.failures {
        if ui.is_json() {
            ui.data(&serde_json::to_string(failed).unwrap_or_default());
        } else {
            ui.result(&format!("{} on {}:", failed.attempt, failed.host));
            for line in failed.what.lines() {
                ui.result(&format!("  {line}"));
            }
        }
    }
    Ok(Exit::Ok)
}

fn cancel(client: &mut Client, args: &JobArgs, ui: &Ui) -> Outcome<Exit> {
    let view = one(client, args)?;
    if view.outcome.is_some() {
        let what = format!("{} is over already", view.id);
        return Err(Failure::new(Exit::Refused, what));
    }
    match client
        .ask(&Request::Cancel(view.id))
        .map_err(|e| lost(&e))?
    {
        Reply::Done => {
            ui.status("Cancelled", &view.id.to_string());
            Ok(Exit::Ok)
        }
        _ => Err(Failure::new(Exit::Refused, "the master refuses")),
    }
}

fn resume(args: &ResumeArgs, ui: &Ui) -> Outcome<Exit> {
    let plan = Plan {
        parallel: args.workers.unwrap_or_else(run::processors),
        reduces_given: true,
        split_given: true,
    };
    let interrupt = Interrupt::install()?;
    let running =
        Run::resume(&args.output, plan, &Place::Here).map_err(|e| run::not_started(&e))?;
    run::follow(running, &interrupt, ui)
}
