//! What goes between QUIC's streams and those who use them.

use quinn_proto::{ReadError, StreamId, VarInt, WriteError};

use super::Live;

/// Moves what came to its reader.
pub(super) fn read(live: &mut Live, id: StreamId) {
    let Some(pipe) = live.streams.get(&id).cloned() else {
        return;
    };
    let mut ends = pipe.look();
    if ends.came_all || ends.broken.is_some() {
        return;
    }
    let mut stream = live.connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else {
        ends.came_all = true;
        drop(ends);
        return pipe.wake();
    };
    loop {
        let room = ends.room();
        if room == 0 {
            ends.full = true;
            break;
        }
        ends.full = false;
        match chunks.next(room) {
            Ok(Some(chunk)) => {
                ends.came_len += chunk.bytes.len();
                ends.came.push_back(chunk.bytes);
            }
            Ok(None) => {
                ends.came_all = true;
                break;
            }
            Err(ReadError::Blocked) => break,
            Err(ReadError::Reset(_)) => {
                ends.broken = Some("the other side gave the stream up".into());
                break;
            }
        }
    }
    let _ = chunks.finalize();
    drop(ends);
    pipe.wake();
}

/// Moves what was written to QUIC.
pub(super) fn write(live: &mut Live, id: StreamId) {
    let Some(pipe) = live.streams.get(&id).cloned() else {
        return;
    };
    let mut ends = pipe.look();
    let mut stream = live.connection.send_stream(id);
    while ends.goes_len > 0 {
        let written = stream.write_chunks(ends.goes.make_contiguous());
        match written {
            Ok(written) => {
                ends.goes_len -= written.bytes;
                ends.goes.drain(..written.chunks);
            }
            Err(WriteError::Blocked) => break,
            Err(error) => {
                ends.goes.clear();
                ends.goes_len = 0;
                ends.broken = Some(error.to_string());
            }
        }
    }
    if ends.finished && ends.goes_len == 0 && !ends.arrived && ends.broken.is_none() {
        // Again when it was done already: it says so.
        let _ = stream.finish();
    }
    drop(ends);
    pipe.wake();
}

/// Nobody uses a stream any more: what was written still goes, what comes is not wanted.
pub(super) fn leave(live: &mut Live, id: StreamId) {
    if let Some(pipe) = live.streams.get(&id).cloned() {
        pipe.lock().finished = true;
        write(live, id);
        let sent = pipe.lock().goes_len == 0;
        let _ = live.connection.recv_stream(id).stop(VarInt::from_u32(0));
        if sent {
            live.streams.remove(&id);
        } else {
            let _ = live.connection.send_stream(id).reset(VarInt::from_u32(0));
            live.streams.remove(&id);
        }
    }
}
