//! `shoal call` and `shoal answer`.

mod by_name;
mod conference;
mod phone;
mod show;
mod sound;
mod wav;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use shoal_base::id::to_hex;
use shoal_node::call::{
    CallError, CallEvent, CallSettings, Credential, Ended, FileLine, Line, Made, Relay,
    SessionConfig, TcpLine, WaySettings, answer, call, talk, wait_for_call,
};

use crate::cli::{AnswerArgs, CallArgs, RelayFlags, TalkFlags};
use crate::failure::{Exit, Failure, Outcome};
use crate::key;
use crate::napster::first_line;
use crate::report::{CallReport, Report};
use crate::signals::Interrupt;
use crate::ui::Ui;
pub(crate) use phone::phone;
use show::Shower;
use sound::{CallSound, muting_of};

/// How often it is looked whether the output was closed.
const LOOK: Duration = Duration::from_secs(1);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long credentials for relays hold, seconds.
const CREDENTIAL: u64 = 12 * 3600;
/// Where calls by address come in, unless told otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7080);
/// A frame, microseconds.
const FRAME_MICROS: u64 = 20_000;

/// Calls by address or by files tell addresses.
fn only_by_name(hidden: bool) -> Outcome<()> {
    match hidden {
        true => Err(Failure::usage(
            "--hidden is for calls by name or key, with --login",
        )),
        false => Ok(()),
    }
}

/// Runs `call`.
pub(crate) fn place(args: &CallArgs, ui: &Ui) -> Outcome<Exit> {
    match args.whom.as_slice() {
        [whom] if !args.add => {
            if let Some(whom) = by_name::Whom::read(whom) {
                return by_name::place(args, &whom, ui);
            }
        }
        [] => {}
        several => return conference::place(args, several, ui),
    }
    only_by_name(args.talk.hidden)?;
    let stop = stop_flag()?;
    let settings = settings(&args.talk)?;
    let mut sound = CallSound::of_caller(&args.talk, ui)?.mutable(ui);
    let mut shower = Shower::new(ui);
    let line: Box<dyn Line> = match (args.whom.first(), &args.offer_out, &args.answer_in) {
        (_, Some(ours), Some(theirs)) => Box::new(FileLine::new(ours.clone(), theirs.clone())),
        (Some(whom), ..) => Box::new(connect(whom)?),
        _ => return Err(Failure::usage("nobody to call")),
    };
    tell_key(&settings.key, ui);
    let mut tell = |event: &CallEvent| shower.show(event);
    let made = call(&settings, line, args.expect, &stop, &mut tell).map_err(|e| failure(&e))?;
    converse(made, &mut sound, &args.talk, &stop, &mut shower)
}

/// Runs `answer`.
pub(crate) fn wait(args: &AnswerArgs, ui: &Ui) -> Outcome<Exit> {
    CallSound::check(&args.talk)?;
    if args.conference {
        return conference::wait(args, ui);
    }
    let by_files = args.offer_in.is_some();
    if args.net.names.join.login.is_some() && args.listen.is_none() && !by_files {
        return by_name::wait(args, ui);
    }
    only_by_name(args.talk.hidden)?;
    let stop = stop_flag()?;
    let settings = settings(&args.talk)?;
    let may_call = |key: &[u8; 32]| args.allow.is_empty() || args.allow.contains(key);
    let typed = muting_of(args, ui);
    tell_key(&settings.key, ui);
    if let (Some(theirs), Some(ours)) = (&args.offer_in, &args.answer_out) {
        let line = Box::new(FileLine::new(ours.clone(), theirs.clone()));
        let mut sound = CallSound::of_callee(&args.talk, &typed, ui)?;
        let mut shower = Shower::new(ui);
        let mut tell = |event: &CallEvent| shower.show(event);
        let made = answer(&settings, line, &may_call, &stop, &mut tell).map_err(|e| failure(&e))?;
        return converse(made, &mut sound, &args.talk, &stop, &mut shower);
    }
    let wanted = args.listen.unwrap_or(LISTEN);
    let listener = TcpListener::bind(wanted)
        .and_then(|l| l.set_nonblocking(true).map(|()| l))
        .map_err(|e| Failure::failed(format!("cannot listen on {wanted}")).because(&e))?;
    let addr = listener.local_addr().unwrap_or(wanted);
    ui.report(&Report::Listening {
        addr,
        proto: "call",
    });
    ui.result(&format!("call:{addr}"));
    while let Some(stream) = wait_for_call(&listener, &stop) {
        let mut shower = Shower::new(ui);
        let mut tell = |event: &CallEvent| shower.show(event);
        let result = TcpLine::new(stream)
            .map_err(CallError::from)
            .and_then(|line| answer(&settings, Box::new(line), &may_call, &stop, &mut tell))
            .map_err(|e| failure(&e));
        let result = match result {
            Ok(made) => {
                let mut sound = CallSound::of_callee(&args.talk, &typed, ui)?;
                converse(made, &mut sound, &args.talk, &stop, &mut shower)
            }
            Err(failure) => Err(failure),
        };
        match result {
            _ if args.once => return result,
            // A caller's trouble is not the next one's.
            Err(failure) => ui.failure(&failure),
            Ok(_) => {}
        }
        if ui.stdout_closed() {
            break;
        }
    }
    Ok(Exit::Interrupted)
}

/// A flag that is set when the user asks to stop.
fn stop_flag() -> Outcome<Arc<AtomicBool>> {
    Ok(Interrupt::install()?.flag())
}

fn settings(flags: &TalkFlags) -> Outcome<CallSettings> {
    let key = our_key(flags.key.as_deref())?;
    let mut stun = Vec::new();
    for name in &flags.relays.stun {
        stun.push(resolve(name)?);
    }
    let mut relays = Vec::new();
    for name in &flags.relays.relay {
        relays.push(Relay {
            server: resolve(name)?,
            credential: credential(&flags.relays)?,
        });
    }
    Ok(with_ways(flags, key, stun, relays))
}

/// A call's settings, with the servers for its ways.
fn with_ways(
    flags: &TalkFlags,
    key: SigningKey,
    stun: Vec<SocketAddr>,
    relays: Vec<Relay>,
) -> CallSettings {
    CallSettings {
        key,
        ways: WaySettings {
            bind: flags.bind,
            advertise: flags.advertise.into_iter().collect(),
            stun,
            relays,
            relay_only: flags.relay_only,
        },
        session: SessionConfig { dtx: flags.dtx },
    }
}

/// The key in the file, or a fresh one.
fn our_key(path: Option<&Path>) -> Outcome<SigningKey> {
    if let Some(path) = path {
        return key::load_or_make(path);
    }
    let mut secret = [0; 32];
    key::random(&mut secret)?;
    Ok(SigningKey::from_bytes(&secret))
}

fn credential(flags: &RelayFlags) -> Outcome<Credential> {
    if let Some(path) = &flags.relay_secret_file {
        let secret = first_line(path)?;
        let until = micros_now() / 1_000_000 + CREDENTIAL;
        return Ok(Credential::short_lived(&secret, "call", until));
    }
    let user = flags.relay_user.as_deref().unwrap_or_default();
    let Some((name, password)) = user.split_once(':') else {
        return Err(Failure::usage("a relay asks who we are")
            .hint("--relay-secret-file FILE, or --relay-user NAME:PASSWORD"));
    };
    Ok(Credential {
        name: name.to_owned(),
        password: password.to_owned(),
    })
}

fn resolve(name: &str) -> Outcome<SocketAddr> {
    let found = name.to_socket_addrs().map_err(|e| {
        Failure::new(Exit::NotFound, format!("no address for {name}"))
            .because(&e)
            .hint("HOST:PORT")
    })?;
    let mut all: Vec<_> = found.collect();
    // Most paths are IPv4's.
    all.sort_by_key(SocketAddr::is_ipv6);
    all.first()
        .copied()
        .ok_or_else(|| Failure::not_found(format!("no address for {name}")))
}

fn connect(whom: &str) -> Outcome<TcpLine> {
    let address = resolve(whom)?;
    TcpStream::connect_timeout(&address, CONNECT)
        .and_then(TcpLine::new)
        .map_err(|e| {
            Failure::new(
                Exit::Unreachable,
                format!("signalling: cannot reach {whom}"),
            )
            .because(&e)
            .hint("does `shoal answer` run there, and may we connect?")
        })
}

fn tell_key(key: &SigningKey, ui: &Ui) {
    let key = to_hex(&key.verifying_key().to_bytes());
    ui.status("Key", &key);
    ui.report(&CallReport::CallKey { key });
}

/// Talks until it is over.
fn converse(
    made: Made,
    sound: &mut CallSound,
    flags: &TalkFlags,
    stop: &AtomicBool,
    shower: &mut Shower<'_>,
) -> Outcome<Exit> {
    let ui = shower.ui;
    sound.limit_to(flags);
    shower.listen(sound.watch());
    let hang_up = flags.limit.is_some() || (flags.wav_in.is_some() && !flags.stay);
    let mut tell = |event: &CallEvent| shower.show(event);
    let (ended, stats) = talk(made, sound, hang_up, stop, &mut tell);
    ui.finish_step();
    ui.report(&CallReport::CallSound {
        recorded_at_micros: sound.recorded_at,
        played_at_micros: sound.played_at,
    });
    ui.report(&CallReport::CallEnded {
        reason: ended.to_string(),
        stats: Box::new(stats.into()),
        relays: shower.relays.clone(),
    });
    sound.finish()?;
    match ended {
        Ended::Remote | Ended::Local => {
            ui.status("Ended", &ended.to_string());
            Ok(if stop.load(Ordering::Acquire) {
                Exit::Interrupted
            } else {
                Exit::Ok
            })
        }
        Ended::NoPath { .. } => Err(Failure::new(Exit::Unreachable, ended.to_string())
            .hint("behind NATs on both sides a relay helps: --relay, --stun")),
        Ended::Codec => Err(Failure::failed(ended.to_string())),
        _ => Err(Failure::new(Exit::Unreachable, ended.to_string())),
    }
}

fn failure(error: &CallError) -> Failure {
    let exit = match error {
        CallError::Refused(_) | CallError::Binding(_) => Exit::Refused,
        CallError::NoAnswer(_) | CallError::Line(_) | CallError::LineIo(_) | CallError::Ways(_) => {
            Exit::Unreachable
        }
        CallError::Session(_) => Exit::Failed,
        CallError::Stopped => Exit::Interrupted,
    };
    let failure = Failure::new(exit, error.to_string());
    match std::error::Error::source(error) {
        Some(source) => failure.because(source),
        None => failure,
    }
}

fn micros_now() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
