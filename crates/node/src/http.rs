//! HTTP(S) to trackers and web seeds: connections that leave from the right address, and names
//! that do not lead from the Internet into the local network.

use crate::outbound::Outbound;
use shoal_bittorrent::peers::is_local;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Error, Timeout};

/// Why a name was not followed.
#[derive(Debug, thiserror::Error)]
#[error("{0} leads from a public server to a local address")]
pub(crate) struct LeadsInside(String);

/// An agent whose connections leave as `outbound` says.
pub(crate) fn agent(config: Config, outbound: Outbound) -> Agent {
    let connector = BoundConnector(outbound).chain(RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// As [`agent`], for one server: if it is a public one, neither its redirects nor its name's next
/// answers lead to this machine or its network, where a stranger's torrent could press buttons.
pub(crate) fn guarded_agent(config: Config, outbound: Outbound) -> Agent {
    let connector = BoundConnector(outbound).chain(RustlsConnector::default());
    Agent::with_parts(config, connector, Guard::default())
}

/// Looks names up; remembers whether the first was local.
#[derive(Debug, Default)]
struct Guard {
    inner: DefaultResolver,
    local: OnceLock<bool>,
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let all_local = found.iter().all(|a| is_inside(a.ip()));
        if *self.local.get_or_init(|| all_local) {
            return Ok(found);
        }
        let mut public = self.empty();
        for addr in found.iter().filter(|a| !is_inside(a.ip())) {
            public.push(*addr);
        }
        if public.is_empty() {
            let host = uri.host().unwrap_or_default().chars().take(200).collect();
            return Err(Error::Other(Box::new(LeadsInside(host))));
        }
        Ok(public)
    }
}

/// Whether an address is of this machine or its network; the unspecified one stands for loopback.
fn is_inside(ip: std::net::IpAddr) -> bool {
    is_local(ip) || ip.to_canonical().is_unspecified()
}

/// Opens TCP connections from a given address.
#[derive(Debug)]
struct BoundConnector(Outbound);

impl Connector for BoundConnector {
    type Out = Tcp;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Tcp>, Error> {
        let usable = || details.addrs.iter().filter(|a| self.0.can_reach(**a));
        let total = details.timeout.not_zero().map(|d| *d);
        let mut last = Error::Io(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "no address of the server can be reached from the address we listen on",
        ));
        let count = usable().count() as u32;
        // An address that does not answer must leave time for those after it.
        let share = total.map(|t| t / count.max(1));
        for addr in usable() {
            match self.0.connect(*addr, share) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let config = details.config;
                    return Ok(Some(Tcp {
                        stream,
                        buffers: LazyBuffers::new(
                            config.input_buffer_size(),
                            config.output_buffer_size(),
                        ),
                        read_timeout: None,
                        write_timeout: None,
                    }));
                }
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    last = Error::Timeout(details.timeout.reason);
                }
                Err(e) => last = Error::Io(e),
            }
        }
        Err(last)
    }
}

/// A TCP connection.
#[derive(Debug)]
struct Tcp {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// As last set, to spare the system call.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

/// Asks for the timeout of the socket to be changed if it is another.
fn adjust(
    now: &mut Option<Duration>,
    wanted: NextTimeout,
    set: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> Result<(), Error> {
    let wanted = wanted.not_zero().map(|d| *d);
    if *now != wanted {
        set(wanted)?;
        *now = wanted;
    }
    Ok(())
}

/// A socket's timeout shows as `WouldBlock`.
fn classify(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(reason),
        _ => Error::Io(error),
    }
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        if timeout.after.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let stream = &self.stream;
        adjust(&mut self.write_timeout, timeout, |t| {
            stream.set_write_timeout(t)
        })?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        (&self.stream)
            .write_all(output)
            .map_err(|e| classify(e, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        if timeout.after.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let stream = &self.stream;
        adjust(&mut self.read_timeout, timeout, |t| {
            stream.set_read_timeout(t)
        })?;
        let n = loop {
            match (&self.stream).read(self.buffers.input_append_buf()) {
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(classify(e, timeout.reason)),
            }
        };
        self.buffers.input_appended(n);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        let probe = || -> io::Result<bool> {
            self.stream.set_nonblocking(true)?;
            // Bytes that nobody asked for are as bad as the end.
            let quiet = matches!(
                (&self.stream).read(&mut [0]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock
            );
            self.stream.set_nonblocking(false)?;
            Ok(quiet)
        };
        probe().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(guard: &Guard, url: &str) -> Result<ResolvedSocketAddrs, Error> {
        let uri = url.parse().expect("a URL");
        guard.resolve(&uri, &Config::default(), NextTimeout::default())
    }

    #[test]
    fn public_servers_do_not_lead_inside() {
        let guard = Guard::default();
        resolve(&guard, "http://192.0.2.1/file").expect("an address");
        resolve(&guard, "http://198.51.100.7:8080/file").expect("an address");
        for inside in [
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://10.0.0.1/",
            "http://169.254.1.1/",
            "http://[fd00::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0/",
        ] {
            assert!(
                matches!(resolve(&guard, inside), Err(Error::Other(_))),
                "{inside}"
            );
        }
    }

    #[test]
    fn local_servers_may_lead_anywhere() {
        let guard = Guard::default();
        for url in ["http://127.0.0.1/", "http://10.0.0.1/", "http://192.0.2.1/"] {
            resolve(&guard, url).expect("an address");
        }
    }
}
