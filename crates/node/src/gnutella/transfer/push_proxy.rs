//! Asking a push proxy (Push Proxy 0.6 §5): it tells its leaf to connect to us.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use shoal_gnutella::Guid;
use shoal_gnutella::http::request::ask_push_proxy;

/// How long a proxy may take for each step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `proxy` to have `servent` connect to `back`, or at that port to the address by which we reach the
/// proxy if `back` names every one; on a thread of its own: what comes of it is that
/// the servent connects, or does not.
pub fn push_by_proxy(proxy: SocketAddrV4, servent: Guid, back: SocketAddrV4) {
    let spawned = thread::Builder::new()
        .name("gnutella-push".into())
        .stack_size(128 << 10)
        .spawn(move || match ask(proxy, servent, back) {
            Ok(answer) => tracing::debug!(%proxy, %servent, answer, "a push proxy answers"),
            Err(error) => tracing::debug!(%proxy, %error, "a push proxy cannot be asked"),
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for a push");
    }
}

/// The first line of its answer.
fn ask(proxy: SocketAddrV4, servent: Guid, back: SocketAddrV4) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(proxy), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut back = back;
    if back.ip().is_unspecified()
        && let SocketAddr::V4(own) = stream.local_addr()?
    {
        back.set_ip(*own.ip());
    }
    stream.write_all(&ask_push_proxy(proxy, servent, back))?;
    let mut answer = [0; 256];
    let n = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(answer.get(..n).unwrap_or_default());
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
