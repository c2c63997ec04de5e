//! Offer and answer: sent, waited for, signed and checked.

use super::callers::{Caller, GREETING};
use super::carrier::{self, Carried, Carrier};
use super::line::{Line, StreamLine, read};
use super::ways::Ways;
use super::{CallError, CallEvent, CallSettings};
use crate::reach::Connection;
use ed25519_dalek::SigningKey;
use shoal_base::Rng;
use shoal_call::media::binding::{
    Described, Expected, short_authentication_string, sign_answer, sign_offer,
};
use shoal_call::media::host::Strength;
use shoal_call::media::say::{Group, Say};
use shoal_call::media::session::Session;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a description is waited for that only a program has to send.
const PROGRAM_TIME: Duration = Duration::from_secs(10);
/// How long the other end may let it ring.
pub(crate) const RING_TIME: Duration = Duration::from_secs(30);
/// How often a line is looked at meanwhile.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// A call whose ends know of each other.
pub struct Made {
    pub(super) session: Session,
    pub(super) carrier: Carrier,
    pub(super) line: Box<dyn Line>,
    /// Who is at the other end.
    pub(super) peer: [u8; 32],
    /// It takes part in the group that the call is of.
    pub(super) joins: bool,
    /// What it would be as a host, if it was called and knows of hosts.
    pub(super) strength: Option<Strength>,
}

/// Says of a caller, by its key and the group that it names, whether we take part in that group; or why
/// the call is refused.
pub(crate) type Judge<'a> = dyn Fn(&[u8; 32], Option<&Group>) -> Result<bool, &'static str> + 'a;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// It.
    pub(crate) theirs: Described,
    /// The other end takes part in the group that was named.
    pub(crate) joins: bool,
    /// What it would be as a host, if it said so.
    pub(crate) strength: Option<Strength>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.session.fmt(f)
    }
}

/// Calls whoever is at the other end of the line; `to` is his key, if it is known.
///
/// # Errors
/// What went wrong, by its leg.
pub fn call(
    settings: &CallSettings,
    line: Box<dyn Line>,
    to: Option<[u8; 32]>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    let carrier = sockets(settings)?;
    place(settings, line, carrier, to, stop, tell)
}

/// Calls the node at the other end of a connection, over which the sound goes.
///
/// # Errors
/// What went wrong, by its leg.
pub fn call_node(
    settings: &CallSettings,
    connection: Connection,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    call_member(settings, connection, None, stop, tell)
}

/// As [`call_node`], as a member of a group.
pub(crate) fn call_member(
    settings: &CallSettings,
    connection: Connection,
    group: Option<&Group>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    let to = Some(connection.peer().0);
    let connection = Arc::new(connection);
    let mut line = Box::new(StreamLine::new(connection.open()?, Arc::clone(&connection)));
    line.send(GREETING)?;
    let carrier = Carrier::Connection(Carried::new(connection, Instant::now(), true));
    if let Some(group) = group {
        line.send(&Say::Group(group.clone()).to_line())?;
    }
    place(settings, line, carrier, to, stop, tell)
}

fn sockets(settings: &CallSettings) -> Result<Carrier, CallError> {
    let mut rng = Rng::from_seed(super::entropy());
    let ways = Ways::open(&settings.ways, Instant::now(), &mut rng)?;
    Ok(Carrier::Sockets(Box::new(ways)))
}

/// Offers a call over `carrier`.
fn place(
    settings: &CallSettings,
    mut line: Box<dyn Line>,
    carrier: Carrier,
    to: Option<[u8; 32]>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    let mut rng = Rng::from_seed(super::entropy());
    let (base, now, ours) = (carrier.base(), carrier.now(), carrier.candidates());
    let (mut session, sdp) = Session::offer(base, now, settings.session, &ours, &mut rng)?;
    let answered = offer(line.as_mut(), &settings.key, to, sdp, stop, tell)?;
    session.on_answer(carrier.now(), &answered.theirs.sdp)?;
    Ok(Made {
        session,
        carrier,
        line,
        peer: answered.theirs.key,
        joins: answered.joins,
        strength: answered.strength,
    })
}

/// Answers the call that comes over the line, if `from` says yes to the caller's key.
///
/// # Errors
/// What went wrong, by its leg.
pub fn answer(
    settings: &CallSettings,
    line: Box<dyn Line>,
    from: &dyn Fn(&[u8; 32]) -> bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    take(settings, line, None, &alone(from), None, stop, tell)
}

/// Says yes to callers, and to no group.
pub(crate) fn alone<'a>(
    from: &'a dyn Fn(&[u8; 32]) -> bool,
) -> impl Fn(&[u8; 32], Option<&Group>) -> Result<bool, &'static str> + 'a {
    |key, _| match from(key) {
        true => Ok(false),
        false => Err("not a key that may call here"),
    }
}

/// Answers a node that calls. See [`call_node`].
///
/// # Errors
/// What went wrong, by its leg.
pub fn answer_node(
    settings: &CallSettings,
    caller: Caller,
    from: &dyn Fn(&[u8; 32]) -> bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    answer_member(settings, caller, &alone(from), None, stop, tell)
}

/// As [`answer_node`], perhaps as a member of a group, for which we may be a host of this strength.
pub(crate) fn answer_member(
    settings: &CallSettings,
    caller: Caller,
    judge: &Judge<'_>,
    strength: Option<Strength>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    let connection = Arc::clone(&caller.connection);
    let line = caller.line();
    take(
        settings,
        line,
        Some(connection),
        judge,
        strength,
        stop,
        tell,
    )
}

fn take(
    settings: &CallSettings,
    mut line: Box<dyn Line>,
    connection: Option<Arc<Connection>>,
    judge: &Judge<'_>,
    strength: Option<Strength>,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Made, CallError> {
    let node = connection.as_ref().map(|c| c.peer().0);
    let (theirs, group) = hear_offer(line.as_mut(), &settings.key, node, judge, stop)?;
    ring(line.as_mut(), strength)?;
    let carried = connection.filter(|_| carrier::is_offered(&theirs.sdp));
    match ready(settings, carried, &theirs) {
        Ok((session, carrier, sdp)) => {
            if let Some(group) = &group {
                join(line.as_mut(), group)?;
            }
            accept(line.as_mut(), &settings.key, &theirs, sdp, tell)?;
            Ok(Made {
                session,
                carrier,
                line,
                peer: theirs.key,
                joins: group.is_some(),
                strength: None,
            })
        }
        Err(error) => {
            refuse(line.as_mut(), &error.to_string());
            Err(error)
        }
    }
}

fn ready(
    settings: &CallSettings,
    carried: Option<Arc<Connection>>,
    theirs: &Described,
) -> Result<(Session, Carrier, String), CallError> {
    let carrier = match carried {
        Some(connection) => Carrier::Connection(Carried::new(connection, Instant::now(), false)),
        None => sockets(settings)?,
    };
    let mut rng = Rng::from_seed(super::entropy());
    let (base, now, ours) = (carrier.base(), carrier.now(), carrier.candidates());
    let answered = Session::answer(base, now, settings.session, &ours, &theirs.sdp, &mut rng);
    let (session, sdp) = answered?;
    Ok((session, carrier, sdp))
}

/// Signs and sends an offer; gives the answer, once it is there and genuine.
pub(crate) fn offer(
    line: &mut dyn Line,
    key: &SigningKey,
    to: Option<[u8; 32]>,
    sdp: String,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<Answered, CallError> {
    let mut name = [0; 16];
    Rng::from_seed(super::entropy()).fill(&mut name);
    let (description, ours) = sign_offer(key, name, to, sdp)?;
    line.send(&Say::Describe { description }.to_line())?;
    let (mut limit, mut joins, mut strength) = (PROGRAM_TIME, false, None);
    let answer = loop {
        match next(line, limit, stop)? {
            Say::Ringing { strength: said } => {
                tell(&CallEvent::Ringing);
                strength = said;
                limit = RING_TIME;
            }
            Say::Describe { description } => break description,
            Say::Group(_) => joins = true,
            // Said while it is talked.
            Say::Host(_) | Say::Away | Say::Microphone { .. } => {}
            Say::Refuse { why } => return Err(CallError::Refused(plain(&why))),
            Say::Bye => return Err(CallError::Line("the other end hung up".to_owned())),
        }
    };
    let theirs = answer.verify(Expected::Answer {
        offer: &ours,
        from: to,
    })?;
    told(&ours, &theirs, tell);
    Ok(Answered {
        theirs,
        joins,
        strength,
    })
}

/// The offer that comes over the line, if it is genuine and of somebody who may call; and the group that
/// we take part in by answering it. `node`: whose the line is, if that is known.
pub(crate) fn hear_offer(
    line: &mut dyn Line,
    key: &SigningKey,
    node: Option<[u8; 32]>,
    judge: &Judge<'_>,
    stop: &AtomicBool,
) -> Result<(Described, Option<Group>), CallError> {
    let mut group = None;
    let description = match next(line, PROGRAM_TIME, stop)? {
        Say::Group(named) => {
            group = Some(named);
            next(line, PROGRAM_TIME, stop)?
        }
        said => said,
    };
    let Say::Describe { description } = description else {
        return Err(CallError::Line(
            "the caller did not say who calls".to_owned(),
        ));
    };
    let ours = key.verifying_key().to_bytes();
    let theirs = match description.verify(Expected::Offer { ours }) {
        Ok(theirs) => theirs,
        Err(error) => {
            refuse(line, &error.to_string());
            return Err(error.into());
        }
    };
    // Who calls over a connection is who has it, and only such a one is believed about others.
    let judged = match node {
        Some(node) if node != theirs.key => Err("not the key of the node that calls"),
        _ => judge(&theirs.key, group.as_ref().filter(|_| node.is_some())),
    };
    match judged {
        Ok(joins) => Ok((theirs, group.filter(|_| joins))),
        Err(why) => {
            refuse(line, why);
            Err(CallError::Refused(why.to_owned()))
        }
    }
}

/// Tells the caller that we take part in the group.
pub(crate) fn join(line: &mut dyn Line, group: &Group) -> Result<(), CallError> {
    let ours = Group {
        id: group.id,
        members: Vec::new(),
    };
    Ok(line.send(&Say::Group(ours).to_line())?)
}

/// Tells the caller that it rings, and what we would be as a host if we know of hosts.
pub(crate) fn ring(line: &mut dyn Line, strength: Option<Strength>) -> Result<(), CallError> {
    Ok(line.send(&Say::Ringing { strength }.to_line())?)
}

/// Signs and sends the answer to an offer.
pub(crate) fn accept(
    line: &mut dyn Line,
    key: &SigningKey,
    theirs: &Described,
    sdp: String,
    tell: &mut dyn FnMut(&CallEvent),
) -> Result<(), CallError> {
    let (description, ours) = sign_answer(key, theirs, sdp)?;
    line.send(&Say::Describe { description }.to_line())?;
    told(&ours, theirs, tell);
    Ok(())
}

/// Says no.
pub(crate) fn refuse(line: &mut dyn Line, why: &str) {
    let why = why.to_owned();
    // Whoever is gone needs no answer.
    let _ = line.send(&Say::Refuse { why }.to_line());
}

fn told(ours: &Described, theirs: &Described, tell: &mut dyn FnMut(&CallEvent)) {
    tell(&CallEvent::Described {
        key: theirs.key,
        digits: short_authentication_string(ours, theirs),
    });
}

/// The next line.
fn next(line: &mut dyn Line, limit: Duration, stop: &AtomicBool) -> Result<Say, CallError> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if stop.load(Ordering::Acquire) {
            let _ = line.send(&Say::Bye.to_line());
            return Err(CallError::Stopped);
        }
        match line.poll() {
            Ok(Some(text)) => return Ok(read(&text)?),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let why = "the other end went away before it answered";
                return Err(CallError::Line(why.to_owned()));
            }
            Err(e) => return Err(e.into()),
        }
        // A line may be a file, of which nothing tells when it comes.
        std::thread::sleep(LOOK);
    }
    Err(CallError::NoAnswer(limit.as_secs()))
}

/// What a stranger says, fit to be shown.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
