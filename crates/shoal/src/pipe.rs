//! `shoal pipe`: two programs joined over a connection between two nodes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};
use shoal_node::reach::{Connection, NodeId, Status, Stream};

use crate::cli::PipeArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::report::ReachReport;
use crate::signals::Interrupt;
use crate::station::{Ends, Station};
use crate::supernode::{Member, Who, folder};
use crate::transfer;
use crate::ui::Ui;

/// What a stream begins with, so that the other side hears of it before anything is sent.
const GREETING: &[u8] = b"shoal pipe 1\n";
/// How often ways are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Bytes moved at once.
const PIECE: usize = 64 << 10;
/// How long the service that streams are handed to may take.
const DIAL: Duration = Duration::from_secs(10);

/// Tells of ways as they change.
struct Teller {
    node: NodeId,
    last: Option<(bool, Vec<SocketAddr>)>,
    began: Option<Instant>,
}

impl Teller {
    fn tell(&mut self, status: Option<Status>, ui: &Ui) {
        let Some(status) = status else {
            return;
        };
        let Some(way) = status.way else {
            return;
        };
        let now = (way.hops == 0, status.relays);
        if self.last.as_ref() == Some(&now) {
            return;
        }
        let (direct, relays) = &now;
        let rtt_ms = status.rtt.as_secs_f64() * 1000.0;
        let took = self.began.take().map(|b| b.elapsed());
        ui.report(&ReachReport::Way {
            node: &self.node.to_string(),
            direct: *direct,
            relays,
            rtt_ms,
            ways: status.ways,
            took_ms: took.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        });
        let by = match relays.first() {
            None => "directly".to_owned(),
            Some(relay) => format!("relayed by {relay}"),
        };
        let node = self.node.short();
        ui.status(
            "Reached",
            &format!("{node} {by}, round trip {rtt_ms:.1} ms"),
        );
        self.last = Some(now);
    }
}

/// Runs `pipe`.
pub(crate) fn pipe(args: &PipeArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let dir = folder(args.state_dir.as_deref());
    let who = match args.listen {
        true => Who::Node(None),
        false => Who::Asker,
    };
    let member = Member::join(&args.join, &who, &dir)?;
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    let ends = Ends {
        udp: args.udp,
        accepts: args.listen,
        hidden: args.hidden,
    };
    let Some(station) = Station::start(member, ends, &go_on, ui)? else {
        return Ok(Exit::Interrupted);
    };
    match args.node {
        Some(node) => call(station, node, args, &interrupt, ui),
        None => answer(station, args, &interrupt, ui),
    }
}

/// Moves what comes from one to the other until there is no more.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buf = vec![0; PIECE];
    loop {
        match from.read(&mut buf) {
            Ok(0) => return to.flush(),
            Ok(n) => to.write_all(buf.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        to.flush()?;
    }
}

/// Joins a stream with stdin and stdout; what becomes of it comes out of the channel.
fn join_stdio(stream: &Stream) -> crossbeam_channel::Receiver<io::Result<()>> {
    let (tell, told) = bounded(2);
    let (up, done) = (stream.clone(), tell.clone());
    thread::spawn(move || {
        let sent = copy(&mut io::stdin(), &mut &up).and_then(|()| up.arrived());
        let _ = done.send(sent);
    });
    let down = stream.clone();
    thread::spawn(move || {
        let came = copy(&mut &down, &mut io::stdout());
        let _ = tell.send(came);
    });
    told
}

/// Joins a stream with a connection, until both are over.
fn join_tcp(stream: &Stream, tcp: &TcpStream) {
    let (up, from) = (stream.clone(), tcp.try_clone());
    let Ok(mut from) = from else {
        return;
    };
    let upward = thread::spawn(move || {
        // Either end may break off: the other then sees the end.
        let _ = copy(&mut from, &mut &up).and_then(|()| up.arrived());
        up.finish();
    });
    let _ = copy(&mut &*stream, &mut &*tcp);
    let _ = tcp.shutdown(std::net::Shutdown::Write);
    let _ = upward.join();
}

fn open(connection: &Connection) -> io::Result<Stream> {
    let stream = connection.open()?;
    (&stream).write_all(GREETING)?;
    Ok(stream)
}

/// Whether a stream begins as it should.
fn greeted(stream: &Stream) -> bool {
    let mut greeting = vec![0; GREETING.len()];
    (&mut &*stream).read_exact(&mut greeting).is_ok() && greeting == GREETING
}

fn call(
    mut station: Station,
    node: NodeId,
    args: &PipeArgs,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<Exit> {
    ui.status("Reaching", &node.short());
    let began = Instant::now();
    let Some(connection) = station.connect(node, interrupt)? else {
        return Ok(Exit::Interrupted);
    };
    let connection = connection.map_err(|e| {
        Failure::new(Exit::Unreachable, format!("cannot reach {}", node.short()))
            .because(&e)
            .hint("is shoal pipe --listen running there, with the same login server?")
    })?;
    let connection = Arc::new(connection);
    let mut teller = Teller {
        node,
        last: None,
        began: Some(began),
    };
    teller.tell(connection.status(), ui);
    let lost = |e: io::Error| {
        Failure::new(Exit::Unreachable, format!("lost {}", node.short())).because(&e)
    };
    let done = match args.forward {
        Some(at) => {
            let (listener, at) = TcpListener::bind(at)
                .and_then(|l| Ok((l.local_addr()?, l)))
                .map(|(at, l)| (l, at))
                .map_err(|e| {
                    let failure = Failure::failed(format!("cannot listen on {at}")).because(&e);
                    transfer::bind_hint(failure, &e)
                })?;
            ui.report(&crate::report::Report::Listening {
                addr: at,
                proto: "pipe",
            });
            ui.result(&at.to_string());
            let connection = Arc::clone(&connection);
            thread::spawn(move || {
                for tcp in listener.incoming().map_while(Result::ok) {
                    let Ok(stream) = open(&connection) else {
                        return;
                    };
                    thread::spawn(move || join_tcp(&stream, &tcp));
                }
            });
            crossbeam_channel::never()
        }
        None => join_stdio(&open(&connection).map_err(lost)?),
    };
    let mut halves = 0;
    loop {
        select! {
            recv(done) -> half => match half {
                Ok(Ok(())) => halves += 1,
                Ok(Err(e)) if ui.stdout_closed() || e.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Ok),
                Ok(Err(e)) => return Err(lost(e)),
                Err(_) => halves = 2,
            },
            recv(interrupt.woken()) -> _ => return Ok(Exit::Interrupted),
            default(LOOK) => {}
        }
        let status = connection.status();
        let alive = status.is_some();
        teller.tell(status, ui);
        station.upkeep(ui);
        if halves >= 2 {
            return Ok(Exit::Ok);
        }
        if !alive && args.forward.is_some() {
            return Err(lost(io::ErrorKind::ConnectionReset.into()));
        }
    }
}

fn answer(mut station: Station, args: &PipeArgs, interrupt: &Interrupt, ui: &Ui) -> Outcome<Exit> {
    let go_on = || !interrupt.asked() && !ui.stdout_closed();
    station.tell_reachable(&go_on, ui);
    let mut held: Vec<(Arc<Connection>, Teller)> = Vec::new();
    let (tell, streams) = bounded::<Stream>(64);
    let mut done = crossbeam_channel::never();
    let mut halves = 0;
    let mut joined = false;
    let mut waiting = Some(streams);
    while go_on() {
        let idle = crossbeam_channel::never();
        let streams = waiting.as_ref().unwrap_or(&idle);
        select! {
            recv(station.reach.arrivals) -> connection => {
                let Ok(connection) = connection else {
                    return Err(Failure::failed("the node stopped by itself"));
                };
                let node = connection.peer();
                if !args.from.is_empty() && !args.from.contains(&node) {
                    ui.warn(&format!("{} was not let in", node.short()));
                    continue;
                }
                let connection = Arc::new(connection);
                let (own, tell) = (Arc::downgrade(&connection), tell.clone());
                let incoming = connection.streams.clone();
                thread::spawn(move || {
                    while let Ok(stream) = incoming.recv() {
                        if own.upgrade().is_none() {
                            return;
                        }
                        if greeted(&stream) && tell.send(stream).is_err() {
                            return;
                        }
                    }
                });
                held.push((connection, Teller { node, last: None, began: None }));
            }
            recv(streams) -> stream => if let Ok(stream) = stream {
                match &args.to {
                    Some(to) => {
                        let to = to.clone();
                        thread::spawn(move || {
                            let found = std::net::ToSocketAddrs::to_socket_addrs(&to);
                            let at = found.ok().and_then(|mut a| a.next());
                            let tcp = at.and_then(|at| TcpStream::connect_timeout(&at, DIAL).ok());
                            // A service that does not answer: the stream ends, as it would itself.
                            if let Some(tcp) = tcp {
                                join_tcp(&stream, &tcp);
                            }
                        });
                    }
                    None if !joined => {
                        joined = true;
                        done = join_stdio(&stream);
                        waiting = None;
                    }
                    None => {}
                }
            },
            recv(done) -> half => match half {
                Ok(Ok(())) => halves += 1,
                Ok(Err(e)) => return Err(Failure::new(Exit::Unreachable, "lost the other side").because(&e)),
                Err(_) => halves = 2,
            },
            recv(interrupt.woken()) -> _ => {}
            default(LOOK) => {}
        }
        held.retain_mut(|(connection, teller)| {
            let status = connection.status();
            let alive = status.is_some();
            teller.tell(status, ui);
            if !alive {
                ui.report(&ReachReport::Left {
                    node: &teller.node.to_string(),
                });
                ui.status("Left", &teller.node.short());
            }
            alive
        });
        station.upkeep(ui);
        if halves >= 2 {
            return Ok(Exit::Ok);
        }
    }
    Ok(Exit::Interrupted)
}
