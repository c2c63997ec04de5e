//! Microphones and loudspeakers of this machine, for calls; `shoal sound`.
//!
//! Without the feature `sound` there are none: whoever asks for one is told so.

#[cfg(feature = "sound")]
mod cards;
#[cfg(feature = "sound")]
mod format;
#[cfg(not(feature = "sound"))]
mod without;

#[cfg(feature = "sound")]
use cards as machine;
#[cfg(not(feature = "sound"))]
use without as machine;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
pub(crate) use machine::{is_built_in, loudspeaker, microphone};
use serde::Serialize;
use shoal_base::Time;

use crate::cli::SoundArgs;
use crate::failure::{Exit, Outcome};
use crate::report::CallReport;
use crate::ui::Ui;

/// Which way a device carries sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Which {
    /// From the user.
    Microphone,
    /// To him.
    Loudspeaker,
}

impl Which {
    /// For the beginning of a line.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Microphone => "Microphone",
            Self::Loudspeaker => "Loudspeaker",
        }
    }
}

/// A device that could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    which: Which,
    /// What `--microphone` and `--loudspeaker` take.
    id: String,
    name: String,
}

/// What happens to a device: it is opened, is lost, and is opened again, by itself.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "sound"),
    expect(dead_code, reason = "nothing happens where there are no devices")
)]
pub(crate) enum Happened<T> {
    /// It works: what it gives, or takes; its name and rate.
    Open(Arc<T>, String, u32),
    /// It does not, and why.
    Lost(String),
}

/// A device in use, until it is dropped.
#[derive(Debug)]
pub(crate) struct InUse<T> {
    /// What happens to it.
    pub(crate) happened: Receiver<Happened<T>>,
    /// The thread that has it ends when this is dropped.
    _hold: crossbeam_channel::Sender<()>,
}

/// The clock that both the cards' threads and the call's look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins a while after zero, when nothing has happened yet.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    pub(crate) fn now(self) -> Time {
        let since = self.0.elapsed() + Duration::from_secs(1);
        Time::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

/// Runs `sound`.
pub(crate) fn sound(_: &SoundArgs, ui: &Ui) -> Outcome<Exit> {
    let devices = machine::list()?;
    for device in &devices {
        let which = device.which.title();
        ui.result(&format!("{which}\t{}\t{}", device.id, device.name));
        ui.report(&CallReport::SoundDevice {
            which: device.which,
            id: device.id.clone(),
            name: device.name.clone(),
        });
    }
    if devices.is_empty() {
        ui.status("Sound", "there is no microphone and no loudspeaker here");
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use shoal_node::call::card::Ring;

    #[test]
    fn a_ring_passes_on_what_another_thread_writes() {
        let ring = Arc::new(Ring::new(1000));
        let writer = Arc::clone(&ring);
        let thread = thread::spawn(move || {
            let mut next = 0u32;
            while next < 100_000 {
                let until = (next + 37).min(100_000);
                let refused = writer.write((next..until).map(|n| (n % 30_000) as i16));
                next = until - refused as u32;
            }
        });
        let mut expected = 0u32;
        while expected < 100_000 {
            ring.read(64, |sample| {
                assert_eq!(u32::from(sample.cast_unsigned()), expected % 30_000);
                expected += 1;
            });
        }
        thread.join().expect("the writer ended well");
    }
}
