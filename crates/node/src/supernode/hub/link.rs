//! The link between the hub of a supernode and the supernode: a connection within the process.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use shoal_base::Rng;
use shoal_napster::gateway::{Event, Gateway, Guest};

/// How long the hub may take to take what it is told.
const STALL: Duration = Duration::from_secs(10);

/// The link; ends when dropped.
#[derive(Debug)]
pub(super) struct Link {
    core: Arc<Mutex<Gateway>>,
    stream: TcpStream,
    /// What the hub said.
    pub(super) events: Receiver<Event>,
}

impl Link {
    /// Links with the hub at `hub` as another hub of this name.
    ///
    /// # Errors
    /// It cannot be reached, or no thread be made.
    pub(super) fn open(
        hub: SocketAddr,
        name: &str,
        secret: &[u8],
        guest: Guest,
        rng: &mut Rng,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&hub, STALL)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let core = Arc::new(Mutex::new(Gateway::new(name, secret, guest, rng)));
        // Holds no more than the hub's users may ask in a minute each.
        let (tell, events) = unbounded();
        let (mut reading, heard) = (stream.try_clone()?, Arc::clone(&core));
        let link = Self {
            core,
            stream,
            events,
        };
        link.say(|_| {});
        thread::Builder::new()
            .name("supernode-hub".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let mut buf = [0; 16 << 10];
                loop {
                    let n = reading.read(&mut buf).unwrap_or(0);
                    let mut news = Vec::new();
                    let bytes = buf.get(..n).unwrap_or_default();
                    let mut core = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    let understood = core.on_bytes(bytes, &mut news);
                    let said = core.output();
                    let written = reading.write_all(&said);
                    drop(core);
                    let over = n == 0 || understood.is_err() || written.is_err();
                    if over {
                        news.push(Event::Refused("the link with the hub ended".to_owned()));
                    }
                    for event in news {
                        // Whoever listened may be gone.
                        let _ = tell.send(event);
                    }
                    if over {
                        return;
                    }
                }
            })?;
        Ok(link)
    }

    /// Says something to the hub.
    pub(super) fn say<R>(&self, say: impl FnOnce(&mut Gateway) -> R) -> R {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let result = say(&mut core);
        let said = core.output();
        if let Err(error) = (&self.stream).write_all(&said) {
            tracing::warn!(%error, "the hub does not take what it is told");
        }
        result
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
