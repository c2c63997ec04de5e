//! The page's calls: descriptions signed and checked, and what happens until somebody hangs up.

use super::pipe::Pipe;
use super::state::News;
use super::{CallRequest, Shared};
use crate::call::carrier::{CALLEE, CALLER, is_offered};
use crate::call::line::{Line, TcpLine};
use crate::call::setup::{LOOK, RING_TIME, accept, hear_offer, join, offer, refuse, ring};
use crate::call::{CallError, CallEvent};
use crate::reach::Connection;
use shoal_base::id::to_hex;
use shoal_call::media::host::Strength;
use shoal_call::media::passage::with_candidates;
use shoal_call::media::say::{Group, Hosting, MOST_MESHED, Say};
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long connecting to the other end may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often it is seen whether somebody hung up, and by which way a connection goes.
const WATCH: Duration = Duration::from_millis(50);

/// Whoever is to be called, reached.
struct Reached {
    line: Box<dyn Line>,
    /// The key that must be at the other end, if that is known.
    key: Option<[u8; 32]>,
    /// What the line goes over, if that carries sound as well.
    connection: Option<Arc<Connection>>,
}

/// What happens on a line.
enum Next {
    /// Somebody has hung up.
    Over,
    Said(Say),
    Nothing,
}

impl Shared {
    /// The page calls somebody.
    pub(super) fn call(
        &self,
        id: u64,
        wanted: &CallRequest,
        expect: Option<[u8; 32]>,
        stop: &AtomicBool,
    ) -> Result<(), CallError> {
        let Reached {
            mut line,
            key,
            connection,
        } = self.line_to(&wanted.whom, expect)?;
        let sdp = match &connection {
            Some(_) => with_candidates(&wanted.sdp, &[CALLER]),
            None => wanted.sdp.clone(),
        };
        if let Some(group) = wanted.group.as_ref().filter(|_| connection.is_some()) {
            // Without members it is one that the other end mixes for.
            if !group.members.is_empty() {
                self.group().get_or_insert_with(|| group.clone());
            }
            line.send(&Say::Group(group.clone()).to_line())?;
        }
        let mut tell = |event: &CallEvent| self.state.tell_event(id, event);
        let answered = offer(line.as_mut(), &self.key, key, sdp, stop, &mut tell)?;
        let mut theirs = answered.theirs.sdp;
        let mut pipe = None;
        if let Some(connection) = &connection {
            if !is_offered(&theirs) {
                let why = "the other end's sound does not go over the connection";
                return Err(CallError::Line(why.to_owned()));
            }
            (pipe, theirs) = self.pipe(connection, &theirs)?;
        }
        let joins = answered.joins;
        self.state.tell(id, News::Answered { sdp: theirs, joins });
        let ended = self.until_bye(id, line.as_mut(), connection.as_deref(), None, stop);
        drop(pipe);
        ended
    }

    /// Carries the browser's packets over the connection, and what the browser is told of that.
    fn pipe(
        &self,
        connection: &Arc<Connection>,
        sdp: &str,
    ) -> Result<(Option<Pipe>, String), CallError> {
        let pipe = Pipe::open(Arc::clone(connection), Arc::clone(&self.browser))?;
        let sdp = with_candidates(sdp, &pipe.at());
        Ok((Some(pipe), sdp))
    }

    /// Reaches whoever is to be called.
    fn line_to(&self, whom: &str, expect: Option<[u8; 32]>) -> Result<Reached, CallError> {
        if let Some(net) = self.net.as_ref().filter(|_| !whom.contains(':')) {
            let (line, connection) = net.reach(whom)?;
            let key = connection.peer().0;
            if expect.is_some_and(|e| e != key) {
                let why = "whoever is called has another key than expected";
                return Err(CallError::Line(why.to_owned()));
            }
            return Ok(Reached {
                line,
                key: Some(key),
                connection: Some(connection),
            });
        }
        let unreachable = |e: io::Error| CallError::Line(format!("cannot reach {whom}: {e}"));
        let mut found = whom.to_socket_addrs().map_err(unreachable)?;
        let address: SocketAddr = found
            .next()
            .ok_or_else(|| CallError::Line("there is no such address".to_owned()))?;
        let stream = TcpStream::connect_timeout(&address, CONNECT).map_err(unreachable)?;
        Ok(Reached {
            line: Box::new(TcpLine::new(stream)?),
            key: expect,
            connection: None,
        })
    }

    /// Somebody calls the page over a line, which may be one of a connection.
    pub(super) fn take(
        &self,
        id: u64,
        connection: Option<Arc<Connection>>,
        line: &mut dyn Line,
        stop: &AtomicBool,
    ) -> Result<(), CallError> {
        let node = connection.as_ref().map(|c| c.peer().0);
        let judge = |key: &[u8; 32], group: Option<&Group>| self.judge(key, group);
        let (theirs, group) = hear_offer(line, &self.key, node, &judge, stop)?;
        let named = group.is_some() && self.group().is_some();
        let connection = connection.filter(|_| is_offered(&theirs.sdp));
        let (pipe, sdp) = match &connection {
            Some(connection) => self.pipe(connection, &theirs.sdp)?,
            None => (None, theirs.sdp.clone()),
        };
        // A browser mixes for nobody, but hears the others through who does.
        let strength = connection.is_some().then(Strength::default);
        ring(line, strength.filter(|_| group.is_none()))?;
        self.state.tell(
            id,
            News::Incoming {
                key: to_hex(&theirs.key),
                sdp,
                carried: pipe.is_some(),
                named,
            },
        );
        let Some(mut sdp) = self.answered(id, line, stop)? else {
            return Ok(());
        };
        if pipe.is_some() {
            sdp = with_candidates(&sdp, &[CALLEE]);
        }
        if let Some(group) = &group {
            join(line, group)?;
        }
        let mut tell = |event: &CallEvent| self.state.tell_event(id, event);
        accept(line, &self.key, &theirs, sdp, &mut tell)?;
        if let Some(group) = group.filter(|_| !named) {
            self.enter(id, group, &theirs.key);
        }
        let caller = Some(theirs.key).filter(|_| connection.is_some());
        let ended = self.until_bye(id, line, connection.as_deref(), caller, stop);
        drop(pipe);
        ended
    }

    fn group(&self) -> MutexGuard<'_, Option<Group>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether a caller may ring, and whether we take part in its group.
    pub(super) fn judge(
        &self,
        key: &[u8; 32],
        group: Option<&Group>,
    ) -> Result<bool, &'static str> {
        let names = |group: &Group, key: &[u8; 32]| group.members.contains(key);
        // A browser does not mix.
        if group.is_some_and(|g| g.members.is_empty() || g.members.len() > MOST_MESHED) {
            return Err("not a group for browsers");
        }
        match (group, &*self.group()) {
            // Whoever the user said yes to named him.
            (Some(theirs), Some(ours)) if theirs.id == ours.id && names(ours, key) => Ok(true),
            _ if !(self.allow.is_empty() || self.allow.contains(key)) => {
                Err("not a key that may call here")
            }
            (Some(theirs), None) => {
                let ours = self.key.verifying_key().to_bytes();
                Ok(names(theirs, key) && names(theirs, &ours))
            }
            _ => Ok(false),
        }
    }

    /// The user has said yes to somebody's group: from now on it is ours.
    pub(super) fn enter(&self, id: u64, group: Group, from: &[u8; 32]) {
        let ours = self.key.verifying_key().to_bytes();
        // Of two members the one with the larger key calls.
        let below = |key: &&[u8; 32]| **key < ours && *key != from;
        let call = group.members.iter().filter(below);
        let news = News::Group {
            group: group.clone(),
            call: call.map(|key| to_hex(key)).collect(),
        };
        *self.group() = Some(group);
        self.state.tell(id, news);
    }

    /// The page's answer, once it gives one; none if the call is over.
    fn answered(
        &self,
        id: u64,
        line: &mut dyn Line,
        stop: &AtomicBool,
    ) -> Result<Option<String>, CallError> {
        let end = Instant::now() + RING_TIME;
        loop {
            match self.state.answer_of(id) {
                Some(Some(sdp)) => return Ok(Some(sdp)),
                Some(None) => {
                    refuse(line, "declined");
                    return Err(CallError::Refused("declined here".to_owned()));
                }
                None => {}
            }
            if Instant::now() > end {
                refuse(line, "nobody answered");
                return Err(CallError::NoAnswer(RING_TIME.as_secs()));
            }
            if self.is_over(line, stop)? {
                return Ok(None);
            }
            // The caller may hang up meanwhile, of which only looking tells.
            thread::sleep(LOOK);
        }
    }

    /// Waits until either hangs up, and tells by which way the connection goes, and who mixes if the other end,
    /// which called us and has this key, says so.
    fn until_bye(
        &self,
        id: u64,
        line: &mut dyn Line,
        connection: Option<&Connection>,
        caller: Option<[u8; 32]>,
        stop: &AtomicBool,
    ) -> Result<(), CallError> {
        let mut told = None;
        loop {
            match (self.next(line, stop)?, caller) {
                (Next::Over, _) => return Ok(()),
                (Next::Said(Say::Host(hosting)), Some(caller)) => {
                    self.hosts(id, &hosting, &caller);
                }
                (Next::Said(Say::Away), _) => self.state.tell(id, News::Away),
                _ => {}
            }
            if let Some(connection) = connection {
                let Some(status) = connection.status() else {
                    return Ok(());
                };
                let way = status.way.map(|_| status.relays);
                if way.is_some() && way != told {
                    let relays = way.iter().flatten().map(ToString::to_string).collect();
                    self.state.tell(id, News::Way { relays });
                    told = way;
                }
            }
            thread::sleep(WATCH); // several sources, none of which wakes for the others
        }
    }

    /// Who called tells who mixes for its group.
    pub(super) fn hosts(&self, id: u64, told: &Hosting, caller: &[u8; 32]) {
        let members = &told.group.members;
        let ours = self.key.verifying_key().to_bytes();
        if self.group().is_some() || !members.contains(&ours) || !members.contains(caller) {
            return;
        }
        let others = |key: &&[u8; 32]| **key != ours && members.contains(*key);
        let hosts = told.hosts.iter().filter(others).map(|key| to_hex(key));
        let news = News::Host {
            group: Group {
                id: told.group.id,
                members: Vec::new(),
            },
            hosts: hosts.collect(),
            caller: to_hex(caller),
        };
        self.state.tell(id, news);
    }

    fn is_over(&self, line: &mut dyn Line, stop: &AtomicBool) -> Result<bool, CallError> {
        Ok(matches!(self.next(line, stop)?, Next::Over))
    }

    /// What happens on the line.
    fn next(&self, line: &mut dyn Line, stop: &AtomicBool) -> Result<Next, CallError> {
        if stop.load(Ordering::Acquire) || self.stop.load(Ordering::Acquire) {
            let _ = line.send(&Say::Bye.to_line());
            return Ok(Next::Over);
        }
        match line.poll() {
            Ok(Some(text)) => Ok(match Say::parse(&text) {
                Ok(Say::Bye) => Next::Over,
                Ok(said) => Next::Said(said),
                // A later version's.
                Err(_) => Next::Nothing,
            }),
            Ok(None) => Ok(Next::Nothing),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Next::Over),
            Err(e) => Err(e.into()),
        }
    }
}
