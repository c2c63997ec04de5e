//! The browser's end: a page with microphone and loudspeaker, and this node as its signalling.
//!
//! The page is served to whoever asks; what it does needs the token, which is behind `#` in the
//! address that is printed and so never sent in a request's line. A request that comes under another
//! name than the one we listen at is refused (rebinding of names). The key stays here: descriptions
//! are signed and checked by the node, and the page shows the digits.

mod calls;
mod http;
mod net;
mod pipe;
mod state;

pub use net::PageNet;

use super::line::{Line, TcpLine};
use super::setup::LOOK;
use super::{CallError, Credential};
use crate::accept::wait;
use crate::reach::Connection;
use crossbeam_channel::RecvTimeoutError;
use ed25519_dalek::SigningKey;
use http::{Reply, Request};
use serde::{Deserialize, Serialize};
use shoal_base::Rng;
use shoal_base::id::{from_hex, to_hex};
use shoal_call::media::say::{Group, MOST_MESHED};
use state::{News, State};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Requests at once.
const MOST_REQUESTS: usize = 32;
/// Calls that come in or go out at once, those that are not answered among them.
const MOST_CALLS: usize = 16;
/// How long a request for news waits.
const NEWS_TIME: Duration = Duration::from_secs(20);

/// Settings of the page.
#[derive(Debug)]
pub struct PageSettings {
    /// Where browsers find it.
    pub page: SocketAddr,
    /// Where calls come in; none if none shall.
    pub listen: Option<SocketAddr>,
    /// Who we are.
    pub key: SigningKey,
    /// STUN servers for the browser, as `HOST:PORT`.
    pub stun: Vec<String>,
    /// Relays for the browser, as `HOST:PORT`.
    pub relays: Vec<(String, Credential)>,
    /// Who may call; none for everybody.
    pub allow: Vec<[u8; 32]>,
    /// By whom others are reached without an address.
    pub net: Option<PageNet>,
}

/// Serves the page until it is dropped.
#[derive(Debug)]
pub struct PageServer {
    address: SocketAddr,
    listening: Option<SocketAddr>,
    token: String,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    key: SigningKey,
    address: SocketAddr,
    token: String,
    ice: Vec<IceServer>,
    allow: Vec<[u8; 32]>,
    net: Option<PageNet>,
    state: State,
    /// The group that the page's calls are of, as long as there are any.
    group: Mutex<Option<Group>>,
    /// Where the page was asked from last, with its token.
    browser: Arc<Mutex<Option<IpAddr>>>,
    requests: AtomicUsize,
    stop: AtomicBool,
}

/// As the browser wants it (W3C WebRTC, RTCIceServer).
#[derive(Debug, Clone, Serialize)]
struct IceServer {
    urls: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

impl IceServer {
    fn relay(server: &str, transport: &str, credential: &Credential) -> Self {
        Self {
            urls: format!("turn:{server}?transport={transport}"),
            username: Some(credential.name.clone()),
            credential: Some(credential.password.clone()),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallRequest {
    whom: String,
    expect: Option<String>,
    sdp: String,
    /// The call is one of this group's.
    #[serde(default)]
    group: Option<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupRequest {
    /// Names or keys of the others.
    whom: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerRequest {
    id: u64,
    sdp: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdRequest {
    id: u64,
}

impl PageServer {
    /// Begins to serve.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub fn start(settings: PageSettings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.page)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let token = to_hex(&bytes);
        let mut ice: Vec<_> = settings
            .stun
            .iter()
            .map(|s| IceServer {
                urls: format!("stun:{s}"),
                username: None,
                credential: None,
            })
            .collect();
        let relays = settings.relays.iter();
        ice.extend(relays.map(|(server, c)| IceServer::relay(server, "udp", c)));
        let shared = Arc::new(Shared {
            key: settings.key,
            address,
            token: token.clone(),
            ice,
            allow: settings.allow,
            net: settings.net,
            state: State::default(),
            group: Mutex::default(),
            browser: Arc::default(),
            requests: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        let pages = Arc::clone(&shared);
        threads.push(spawn("phone-page", move || {
            while let Some((stream, _)) = wait(&listener, &pages.stop) {
                Shared::on_browser(&pages, stream);
            }
        })?);
        let mut listening = None;
        if let Some(wanted) = settings.listen {
            let listener = TcpListener::bind(wanted)?;
            listener.set_nonblocking(true)?;
            listening = Some(listener.local_addr()?);
            let calls = Arc::clone(&shared);
            threads.push(spawn("phone-calls", move || {
                while let Some((stream, _)) = wait(&listener, &calls.stop) {
                    Shared::on_caller(&calls, stream);
                }
            })?);
        }
        if let Some(callers) = shared.net.as_ref().map(PageNet::callers) {
            let nodes = Arc::clone(&shared);
            threads.push(spawn("phone-nodes", move || {
                while !nodes.stop.load(Ordering::Acquire) {
                    match callers.calls.recv_timeout(LOOK * 10) {
                        Ok(caller) => {
                            let connection = Arc::clone(&caller.connection);
                            let line = caller.line();
                            Shared::on_call(&nodes, Some(connection), || Ok(line as Box<dyn Line>));
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            })?);
        }
        Ok(Self {
            address,
            listening,
            token,
            shared,
            threads,
        })
    }

    /// What a browser opens.
    pub fn url(&self) -> String {
        format!("http://{}/#{}", self.address, self.token)
    }

    /// Where calls come in.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.state.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the page panicked");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl Shared {
    /// Serves one request in a thread of its own.
    fn on_browser(self: &Arc<Self>, mut stream: TcpStream) {
        if self.requests.fetch_add(1, Ordering::AcqRel) >= MOST_REQUESTS {
            self.requests.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let shared = Arc::clone(self);
        let served = spawn("phone-request", move || {
            if let Ok(request) = http::read(&mut stream) {
                let from = stream.peer_addr().map(|at| at.ip()).ok();
                let reply = shared.serve(&request, from);
                // A browser that has gone needs none.
                let _ = http::write(&mut stream, &reply);
            }
            shared.requests.fetch_sub(1, Ordering::AcqRel);
        });
        if served.is_err() {
            self.requests.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn serve(self: &Arc<Self>, request: &Request, from: Option<IpAddr>) -> Reply {
        if !request.is_for(self.address) {
            return Reply::error(403, "this page is not served under that name");
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let page = match (request.method.as_str(), path) {
            ("GET", "/") => Some(("text/html; charset=utf-8", include_str!("page/phone.html"))),
            ("GET", "/phone.js") => Some((
                "text/javascript; charset=utf-8",
                include_str!("page/phone.js"),
            )),
            ("GET", "/phone.css") => {
                Some(("text/css; charset=utf-8", include_str!("page/phone.css")))
            }
            _ => None,
        };
        if let Some((kind, text)) = page {
            return Reply::page(kind, text);
        }
        let given = request.bearer.as_deref().unwrap_or_default();
        if !shoal_base::secret::same(given.as_bytes(), self.token.as_bytes()) {
            return Reply::error(401, "the token is missing or wrong");
        }
        *self.browser.lock().unwrap_or_else(PoisonError::into_inner) = from;
        match (request.method.as_str(), path) {
            ("GET", "/api/config") => Reply::json(&serde_json::json!({
                "key": to_hex(&self.key.verifying_key().to_bytes()),
                "ice": self.ice(),
                "names": self.net.is_some(),
            })),
            ("GET", "/api/events") => self.news(query),
            ("POST", "/api/group") => self.group_of(request),
            ("POST", "/api/call") => self.place(request),
            ("POST", "/api/answer") => match request.json::<AnswerRequest>() {
                Some(a) if self.state.answer(a.id, Some(a.sdp.clone())) => Reply::done(),
                Some(_) => Reply::error(404, "that call does not wait for an answer any more"),
                None => Reply::error(400, "no answer"),
            },
            ("POST", "/api/refuse") => match request.json::<IdRequest>() {
                Some(r) if self.state.answer(r.id, None) => Reply::done(),
                _ => Reply::error(404, "that call does not wait for an answer any more"),
            },
            ("POST", "/api/bye") => match request.json::<IdRequest>() {
                Some(r) if self.state.hang_up(r.id) => Reply::done(),
                _ => Reply::error(404, "there is no such call"),
            },
            _ => Reply::error(404, "there is nothing here"),
        }
    }

    fn news(&self, query: &str) -> Reply {
        let since = query.strip_prefix("since=").and_then(|n| n.parse().ok());
        let (events, next) = self.state.since(since.unwrap_or(0), NEWS_TIME, &self.stop);
        Reply::json(&serde_json::json!({ "events": events, "next": next }))
    }

    /// Finds whom the page wants to talk to together.
    fn group_of(&self, request: &Request) -> Reply {
        let (Some(wanted), Some(net)) = (request.json::<GroupRequest>(), &self.net) else {
            return Reply::error(400, "several are called by name or key");
        };
        if wanted.whom.len() >= MOST_MESHED {
            let why = "at most three others; a room takes more (shoal answer --conference)";
            return Reply::error(400, why);
        }
        let found: Result<Vec<_>, _> = thread::scope(|scope| {
            let finding: Vec<_> = wanted
                .whom
                .iter()
                .map(|whom| scope.spawn(|| net.key_of(whom)))
                .collect();
            let broke = || Err("the search for a name broke".to_owned());
            let found = finding
                .into_iter()
                .map(|f| f.join().unwrap_or_else(|_| broke()));
            found.collect()
        });
        match found {
            Ok(mut members) => {
                members.push(self.key.verifying_key().to_bytes());
                let mut id = [0; 16];
                Rng::from_seed(super::entropy()).fill(&mut id);
                Reply::json(&Group { id, members })
            }
            Err(why) => Reply::error(404, &why),
        }
    }

    /// The page calls somebody.
    fn place(self: &Arc<Self>, request: &Request) -> Reply {
        let Some(wanted) = request.json::<CallRequest>() else {
            return Reply::error(400, "no call");
        };
        let Ok(expect) = wanted.expect.as_deref().map(from_hex).transpose() else {
            return Reply::error(400, "64 hexadecimal digits are a key");
        };
        let Some((id, stop)) = self.state.open(MOST_CALLS) else {
            return Reply::error(503, "too many calls at once");
        };
        let shared = Arc::clone(self);
        let started = spawn("phone-call", move || {
            let result = shared.call(id, &wanted, expect, &stop);
            shared.close(id, result);
        });
        if started.is_err() {
            self.state.close(id);
            return Reply::error(503, "too many calls at once");
        }
        Reply::json(&serde_json::json!({ "id": id }))
    }

    /// Relays and STUN servers for the browser, as they are now.
    fn ice(&self) -> Vec<IceServer> {
        let tickets = self.net.iter().flat_map(PageNet::tickets);
        let fresh = tickets.flat_map(|ticket| {
            let by = |at: Option<&SocketAddr>, transport: &str| {
                at.map(|at| IceServer::relay(&at.to_string(), transport, &ticket.credential))
            };
            // A browser asks all that it is told: one way for each protocol is enough.
            [by(ticket.at.first(), "udp"), by(ticket.at.last(), "tcp")]
        });
        self.ice.iter().cloned().chain(fresh.flatten()).collect()
    }

    /// Somebody calls the page.
    fn on_caller(self: &Arc<Self>, stream: TcpStream) {
        Self::on_call(self, None, || Ok(Box::new(TcpLine::new(stream)?)));
    }

    /// Somebody calls over a line, which may be one of a connection.
    fn on_call(
        self: &Arc<Self>,
        connection: Option<Arc<Connection>>,
        line: impl FnOnce() -> io::Result<Box<dyn Line>> + Send + 'static,
    ) {
        let Some((id, stop)) = self.state.open(MOST_CALLS) else {
            return;
        };
        let shared = Arc::clone(self);
        let started = spawn("phone-caller", move || {
            let result = line()
                .map_err(CallError::from)
                .and_then(|mut line| shared.take(id, connection, line.as_mut(), &stop));
            shared.close(id, result);
        });
        if started.is_err() {
            self.state.close(id);
        }
    }

    fn close(&self, id: u64, result: Result<(), CallError>) {
        let news = match result {
            Ok(()) => News::Ended {
                why: "the call has ended".to_owned(),
            },
            Err(error) => News::Failed {
                why: error.to_string(),
            },
        };
        self.state.tell(id, news);
        if self.state.close(id) == 0 {
            *self.group.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

#[cfg(test)]
mod tests;
