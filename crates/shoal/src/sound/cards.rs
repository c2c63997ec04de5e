//! Sound cards through cpal: ALSA on Linux, and with it PulseAudio and PipeWire.
//!
//! A thread has each device in use. It opens it, waits for its end, and opens it again while somebody
//! wants it: a microphone that was unplugged comes back with its plug.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, ErrorKind, FromSample, Sample, SampleFormat, SizedSample, Stream, StreamConfig,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use shoal_node::call::card::{Intake, Outlet};

use super::format::{Format, choose};
use super::{Clock, Device, Happened, InUse, Which};
use crate::failure::{Exit, Failure, Outcome};

/// How long a device may take to open.
const OPEN: Duration = Duration::from_secs(5);
/// A lost one is tried again this often.
const AGAIN: Duration = Duration::from_secs(1);
/// A busy one is tried again this often while it is opened.
const BUSY: Duration = Duration::from_millis(100);
/// It is looked this often whether a device still has turns, and it is lost when it has had none for
/// three times.
const LOOK: Duration = Duration::from_secs(1);
/// News that wait at most; nobody reads them while nothing is said.
const NEWS: usize = 64;
/// The name of whatever the system takes for the right one.
const DEFAULT: &str = "default";

/// Whether this program was built with sound cards.
pub(crate) const fn is_built_in() -> bool {
    true
}

/// The devices of this machine.
pub(super) fn list() -> Outcome<Vec<Device>> {
    quiet();
    let found = host()?.devices();
    let found = found.map_err(|e| Failure::failed("cannot list sound devices").because(&e))?;
    let mut devices = Vec::new();
    for device in found {
        let Ok(id) = device.id() else { continue };
        let of = |which| Device {
            which,
            id: id.id().to_owned(),
            name: device.to_string(),
        };
        if device.supports_input() {
            devices.push(of(Which::Microphone));
        }
        if device.supports_output() {
            devices.push(of(Which::Loudspeaker));
        }
    }
    devices.sort_by_key(|d| d.which as u8);
    Ok(devices)
}

/// Opens a microphone by its name, or the default one if that is empty.
///
/// # Errors
/// If there is none, or it cannot be opened.
pub(crate) fn microphone(wanted: &str, clock: Clock) -> Outcome<InUse<Intake>> {
    keep(Which::Microphone, wanted, clock)
}

/// Opens a loudspeaker by its name, or the default one if that is empty.
///
/// # Errors
/// If there is none, or it cannot be opened.
pub(crate) fn loudspeaker(wanted: &str, clock: Clock) -> Outcome<InUse<Outlet>> {
    keep(Which::Loudspeaker, wanted, clock)
}

/// What samples pass through.
trait Passage: Send + Sync + Sized + 'static {
    fn new(rate: u32) -> Self;
    /// Opens the device; what is wrong with it later goes to `watch`.
    fn open(
        self: &Arc<Self>,
        device: &cpal::Device,
        config: StreamConfig,
        sample: SampleFormat,
        clock: Clock,
        watch: &Watch,
    ) -> Result<Stream, cpal::Error>;
}

/// What is known of a device in use.
#[derive(Clone)]
struct Watch {
    turns: Arc<AtomicU64>,
    broken: Sender<String>,
}

impl Watch {
    fn on_error(&self) -> impl FnMut(cpal::Error) + Send + 'static {
        let broken = self.broken.clone();
        move |error| match error.kind() {
            // It goes on by itself: what is missing is heard, and counted as a gap.
            ErrorKind::Xrun | ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
            _ => {
                // The first is the cause of the others.
                let _ = broken.try_send(error.to_string());
            }
        }
    }
}

impl Passage for Intake {
    fn new(rate: u32) -> Self {
        Self::new(rate)
    }

    fn open(
        self: &Arc<Self>,
        device: &cpal::Device,
        config: StreamConfig,
        sample: SampleFormat,
        clock: Clock,
        watch: &Watch,
    ) -> Result<Stream, cpal::Error> {
        match sample {
            SampleFormat::I16 => listen::<i16>(self, device, config, clock, watch),
            SampleFormat::F32 => listen::<f32>(self, device, config, clock, watch),
            SampleFormat::I32 => listen::<i32>(self, device, config, clock, watch),
            SampleFormat::U16 => listen::<u16>(self, device, config, clock, watch),
            SampleFormat::F64 => listen::<f64>(self, device, config, clock, watch),
            SampleFormat::U8 => listen::<u8>(self, device, config, clock, watch),
            _ => Err(ErrorKind::UnsupportedConfig.into()),
        }
    }
}

impl Passage for Outlet {
    fn new(rate: u32) -> Self {
        Self::new(rate)
    }

    fn open(
        self: &Arc<Self>,
        device: &cpal::Device,
        config: StreamConfig,
        sample: SampleFormat,
        clock: Clock,
        watch: &Watch,
    ) -> Result<Stream, cpal::Error> {
        match sample {
            SampleFormat::I16 => play::<i16>(self, device, config, clock, watch),
            SampleFormat::F32 => play::<f32>(self, device, config, clock, watch),
            SampleFormat::I32 => play::<i32>(self, device, config, clock, watch),
            SampleFormat::U16 => play::<u16>(self, device, config, clock, watch),
            SampleFormat::F64 => play::<f64>(self, device, config, clock, watch),
            SampleFormat::U8 => play::<u8>(self, device, config, clock, watch),
            _ => Err(ErrorKind::UnsupportedConfig.into()),
        }
    }
}

/// A stream from a microphone; several channels become one.
fn listen<T: SizedSample>(
    intake: &Arc<Intake>,
    device: &cpal::Device,
    config: StreamConfig,
    clock: Clock,
    watch: &Watch,
) -> Result<Stream, cpal::Error>
where
    i16: FromSample<T>,
{
    let (intake, turns) = (Arc::clone(intake), Arc::clone(&watch.turns));
    let channels = usize::from(config.channels.max(1));
    device.build_input_stream::<T, _, _>(
        config,
        move |data, info| {
            let stamp = info.timestamp();
            let old = stamp.callback.saturating_duration_since(stamp.capture);
            let mixed = data.chunks_exact(channels).map(|frame| {
                let sum: i32 = frame.iter().map(|&s| i32::from(i16::from_sample(s))).sum();
                (sum / frame.len().max(1) as i32) as i16
            });
            intake.give(clock.now(), old, mixed);
            turns.fetch_add(1, Ordering::Relaxed);
        },
        watch.on_error(),
        Some(LOOK),
    )
}

/// A stream to a loudspeaker; every channel has the same.
fn play<T: SizedSample + FromSample<i16>>(
    outlet: &Arc<Outlet>,
    device: &cpal::Device,
    config: StreamConfig,
    clock: Clock,
    watch: &Watch,
) -> Result<Stream, cpal::Error> {
    let (outlet, turns) = (Arc::clone(outlet), Arc::clone(&watch.turns));
    let channels = usize::from(config.channels.max(1));
    device.build_output_stream::<T, _, _>(
        config,
        move |data, info| {
            let stamp = info.timestamp();
            let ahead = stamp.playback.saturating_duration_since(stamp.callback);
            let samples = data.len() / channels;
            let mut frames = data.chunks_exact_mut(channels);
            outlet.take(clock.now(), ahead, samples, |sample| {
                if let Some(frame) = frames.next() {
                    frame.fill(T::from_sample(sample));
                }
            });
            turns.fetch_add(1, Ordering::Relaxed);
        },
        watch.on_error(),
        Some(LOOK),
    )
}

/// A device that is open.
struct Opened<T> {
    passage: Arc<T>,
    /// It works while this is there.
    _stream: Stream,
    name: String,
    rate: u32,
    turns: Arc<AtomicU64>,
    broken: Receiver<String>,
}

/// Opens a device and keeps it.
fn keep<T: Passage>(which: Which, wanted: &str, clock: Clock) -> Outcome<InUse<T>> {
    let (tell, happened) = bounded(NEWS);
    let (hold, held) = bounded(0);
    let (first, opened) = bounded(1);
    let name = wanted.to_owned();
    thread::Builder::new()
        .name("sound".to_owned())
        .spawn(move || match open::<T>(which, &name, clock) {
            Ok(device) => {
                let _ = first.send(Ok(()));
                mind(device, || open(which, &name, clock), &tell, &held);
            }
            Err(failure) => {
                let _ = first.send(Err(failure));
            }
        })
        .map_err(|e| Failure::failed("cannot start a thread for sound").because(&e))?;
    match opened.recv_timeout(OPEN) {
        Ok(result) => result.map(|()| InUse {
            happened,
            _hold: hold,
        }),
        Err(_) => Err(Failure::failed(format!(
            "the {} does not open",
            which.title().to_lowercase()
        ))),
    }
}

/// Has a device until nobody wants it any more.
fn mind<T: Passage>(
    device: Opened<T>,
    again: impl Fn() -> Outcome<Opened<T>>,
    tell: &Sender<Happened<T>>,
    held: &Receiver<()>,
) {
    let mut device = Some(device);
    loop {
        if let Some(device) = device.take() {
            let passage = Arc::clone(&device.passage);
            let _ = tell.try_send(Happened::Open(passage, device.name.clone(), device.rate));
            match until_lost(&device, held) {
                Some(why) => {
                    let _ = tell.try_send(Happened::Lost(why));
                }
                None => return,
            }
        }
        match held.recv_timeout(AGAIN) {
            Err(RecvTimeoutError::Timeout) => device = again().ok(),
            _ => return,
        }
    }
}

/// Why the device does not work any more; none when nobody wants it.
fn until_lost<T>(device: &Opened<T>, held: &Receiver<()>) -> Option<String> {
    let (mut seen, mut idle) = (0, 0);
    loop {
        select! {
            recv(device.broken) -> why => return Some(why.unwrap_or_default()),
            recv(held) -> _ => return None,
            default(LOOK) => {}
        }
        let turns = device.turns.load(Ordering::Relaxed);
        idle = if turns == seen { idle + 1 } else { 0 };
        seen = turns;
        if idle == 3 {
            return Some("it stands still".to_owned());
        }
    }
}

fn open<T: Passage>(which: Which, wanted: &str, clock: Clock) -> Outcome<Opened<T>> {
    quiet();
    let what = which.title().to_lowercase();
    let refused = |e: &cpal::Error| {
        Failure::failed(format!("cannot open the {what}"))
            .because(e)
            .hint("shoal sound lists what there is")
    };
    let device = find(which, wanted)?;
    let offered = match which {
        Which::Microphone => device.supported_input_configs().map(Iterator::collect),
        Which::Loudspeaker => device.supported_output_configs().map(Iterator::collect),
    };
    let offered: Vec<_> = offered.map_err(|e| refused(&e))?;
    let format = choose(which, offered.into_iter())
        .ok_or_else(|| Failure::failed(format!("the {what} has no usual form of samples")))?;
    let started = Instant::now();
    let mut turn = format.turn;
    loop {
        match start(&device, format, turn, clock) {
            Ok(opened) => return Ok(opened),
            // Not every card has turns of that length.
            Err(_) if turn.is_some() => turn = None,
            Err(e) if e.kind() == ErrorKind::DeviceBusy && started.elapsed() < AGAIN => {
                // The one who had it lets it go in a moment, and nothing tells when: it is tried again.
                thread::sleep(BUSY);
            }
            Err(e) => return Err(refused(&e)),
        }
    }
}

fn start<T: Passage>(
    device: &cpal::Device,
    format: Format,
    turn: Option<u32>,
    clock: Clock,
) -> Result<Opened<T>, cpal::Error> {
    let (broke, broken) = bounded(1);
    let turns = Arc::new(AtomicU64::new(0));
    let watch = Watch {
        turns: Arc::clone(&turns),
        broken: broke,
    };
    let config = StreamConfig {
        channels: format.channels,
        sample_rate: format.rate,
        buffer_size: turn.map_or(BufferSize::Default, BufferSize::Fixed),
    };
    let passage = Arc::new(T::new(format.rate));
    let stream = passage.open(device, config, format.sample, clock, &watch)?;
    stream.play()?;
    Ok(Opened {
        passage,
        _stream: stream,
        name: device.to_string(),
        rate: format.rate,
        turns,
        broken,
    })
}

/// The system's way to sound: cpal's first that works. Its own choice panics where ALSA's settings are
/// broken.
fn host() -> Outcome<cpal::Host> {
    let mut failure = Failure::not_found("there is no way to sound here");
    for id in cpal::ALL_HOSTS {
        match cpal::host_from_id(*id) {
            Ok(host) => return Ok(host),
            Err(error) => {
                failure = Failure::failed("cannot get at sound devices")
                    .because(&error)
                    .hint("are ALSA's settings whole: ~/.asoundrc, /etc/asound.conf?");
            }
        }
    }
    Err(failure)
}

/// The device with that name, by what it is called or by what people call it.
fn find(which: Which, wanted: &str) -> Outcome<cpal::Device> {
    let host = host()?;
    let what = which.title().to_lowercase();
    if wanted.is_empty() || wanted == DEFAULT {
        let found = match which {
            Which::Microphone => host.default_input_device(),
            Which::Loudspeaker => host.default_output_device(),
        };
        return found.ok_or_else(|| Failure::not_found(format!("there is no {what} here")));
    }
    let devices = host
        .devices()
        .map_err(|e| Failure::failed("cannot list sound devices").because(&e))?;
    let mut near: Vec<cpal::Device> = Vec::new();
    for device in devices {
        let fits = match which {
            Which::Microphone => device.supports_input(),
            Which::Loudspeaker => device.supports_output(),
        };
        if !fits {
            continue;
        }
        if device.id().is_ok_and(|id| id.id() == wanted) {
            return Ok(device);
        }
        let name = device.to_string().to_lowercase();
        if name.contains(&wanted.to_lowercase()) {
            near.push(device);
        }
    }
    let several = near.len() > 1;
    match near.pop() {
        Some(device) if !several => Ok(device),
        Some(_) => Err(Failure::new(
            Exit::NotFound,
            format!("several {what}s are called {wanted}"),
        )
        .hint("shoal sound lists them; the second column is unique")),
        None => Err(Failure::not_found(format!("no {what} is called {wanted}"))
            .hint("shoal sound lists what there is")),
    }
}

/// From now on ALSA says nothing on stderr in this thread: what fails is in our own errors. What it would have
/// said before is forgotten.
fn quiet() {
    #[cfg(target_os = "linux")]
    let _ = alsa::Output::local_error_handler();
}
