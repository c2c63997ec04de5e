//! Ctrl-C and termination: the first asks to stop, the second stops at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Exit, Failure, Outcome};

/// Whether the user asked to stop.
#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    /// Becomes readable (closed) when the user asks.
    woken: Receiver<()>,
}

impl Interrupt {
    /// Starts to listen.
    pub(crate) fn install() -> Outcome<Self> {
        Self::listen().map_err(|e| Failure::failed("cannot listen for signals").because(&e))
    }

    fn listen() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let asked = Arc::new(AtomicBool::new(false));
        let (wake, woken) = bounded::<()>(0);
        let flag = Arc::clone(&asked);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || {
                let mut wake = Some(wake);
                for _ in signals.forever() {
                    if flag.swap(true, Ordering::Relaxed) {
                        std::process::exit(Exit::Interrupted as i32);
                    }
                    wake = None;
                }
                drop(wake);
            })?;
        Ok(Self { asked, woken })
    }

    /// Whether it was asked.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The same, for threads that look at it themselves.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Closes when it is asked: for `select!`.
    pub(crate) fn woken(&self) -> &Receiver<()> {
        &self.woken
    }
}
