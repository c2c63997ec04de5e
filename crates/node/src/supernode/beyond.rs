//! Links by overlay addresses, to supernodes and peers behind NATs: only by ways that need no relay.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, TcpStream};
use std::time::Duration;

use shoal_supernode::Address;

use super::front::first_bytes;
use crate::reach::{Overlay, overlay_of};

/// How long a way without a relay may take to be found, once another is reached.
const DIRECT: Duration = Duration::from_secs(3);

/// Connects; the stream, and the host at the other end of the way.
pub(super) fn dial(overlay: &Overlay, to: SocketAddrV6) -> io::Result<(TcpStream, u128)> {
    let peer = overlay.directly(*to.ip(), DIRECT)?;
    Ok((overlay.dial(to)?, peer.host()))
}

/// A stream came from a node: what it begins with, if that is a link, and its host.
pub(super) fn arrived(
    overlay: &Overlay,
    stream: &TcpStream,
    from: SocketAddr,
) -> io::Result<(Vec<u8>, u128)> {
    let first = first_bytes(stream)?;
    if first.last() != Some(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no link"));
    }
    let node = overlay_of(from).ok_or(io::ErrorKind::InvalidInput)?;
    let peer = overlay.directly(*node.ip(), DIRECT)?;
    Ok((first, peer.host()))
}
