//! One call over WebRTC: str0m does ICE (RFC 8445), DTLS (RFC 5764) and SRTP (RFC 3711); sound is ours.
//!
//! Datagrams, frames of sound and *now* go in; datagrams, sound and events come out. Candidates are
//! given from outside, also those at relays: a packet whose source is a relayed address goes to that
//! relay's client. str0m knows time as `Instant`; the driver hands in the one that our zero stands for.
//! Keys and ICE's secrets are str0m's, from the system's generator: the one thing here that no seed
//! replays.

mod stats;
mod told;

pub use stats::{CallStats, CardDelays};

use super::{Adaptation, FRAME, Packet, PathReport, Receiver, Sender};
use shoal_base::{Rng, Time};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};
use told::refused;
pub use told::{Datagram, Ended, Leg, OurCandidate, SessionError, Told};

/// How often receivers say what they lost, and how often we count.
const REPORTS: Duration = Duration::from_millis(500);
/// How long each leg may take.
const PATH_TIME: Duration = Duration::from_secs(15);
const ENCRYPTION_TIME: Duration = Duration::from_secs(8);
const SOUND_TIME: Duration = Duration::from_secs(6);
/// A call whose path is silent for so long has ended. ICE asks every few seconds, so that this does
/// not depend on somebody speaking.
const SILENT_TIME: Duration = Duration::from_secs(15);
/// Candidates of the other end that are tried.
const MOST_CANDIDATES: usize = 64;

/// One call.
pub struct Session {
    rtc: Rtc,
    base: Instant,
    pending: Option<SdpPendingOffer>,
    mid: Option<Mid>,
    pt: Option<Pt>,
    sender: Sender,
    receiver: Receiver,
    adapt: Adaptation,
    first_sequence: u64,
    first_time: u32,
    leg: Leg,
    leg_since: Time,
    heard: Time,
    timeout: Time,
    ours: Vec<OurCandidate>,
    their_relays: Vec<SocketAddr>,
    theirs: usize,
    path: Option<(SocketAddr, SocketAddr)>,
    relayed: (bool, bool),
    rtt: Option<Duration>,
    /// The other end's count of packets, and of lost ones, at its last report.
    counted: Option<(u64, u64)>,
    sent_bytes: u64,
    ended: Option<Ended>,
    stats: CallStats,
    datagrams: Vec<Datagram>,
    told: Vec<Told>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("leg", &self.leg)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Settings of a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionConfig {
    /// Send next to nothing while the speaker is silent.
    pub dtx: bool,
}

impl Session {
    fn new(
        base: Instant,
        now: Time,
        config: SessionConfig,
        ours: &[OurCandidate],
        rng: &mut Rng,
    ) -> Result<Self, SessionError> {
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .clear_codecs()
            .enable_opus(true, false)
            // A packet of 24 kbit/s holds 60 bytes: 20 more of extensions that nobody reads would count.
            .clear_extension_map()
            .set_rtp_mode(true)
            .set_stats_interval(Some(REPORTS))
            .set_rtcp_report_interval_audio(REPORTS)
            .build(base + Duration::from_micros(now.as_micros()));
        for candidate in ours {
            rtc.add_local_candidate(candidate.to_ice()?);
        }
        let adapt = Adaptation::default();
        Ok(Self {
            rtc,
            base,
            pending: None,
            mid: None,
            pt: None,
            sender: Sender::new(adapt.rate(), config.dtx)?,
            receiver: Receiver::new()?,
            adapt,
            // RFC 3550, 5.1: both begin anywhere; the lower half leaves the wrapping for later.
            first_sequence: u64::from(rng.next_u32() & 0x7fff),
            first_time: rng.next_u32(),
            leg: Leg::Answer,
            leg_since: now,
            heard: now,
            timeout: now,
            ours: ours.to_vec(),
            their_relays: Vec::new(),
            theirs: 0,
            path: None,
            relayed: (false, false),
            rtt: None,
            counted: None,
            sent_bytes: 0,
            ended: None,
            stats: CallStats::default(),
            datagrams: Vec::new(),
            told: Vec::new(),
        })
    }

    /// The caller's end, and its offer.
    ///
    /// # Errors
    /// If a candidate is none, or Opus cannot be set up.
    pub fn offer(
        base: Instant,
        now: Time,
        config: SessionConfig,
        ours: &[OurCandidate],
        rng: &mut Rng,
    ) -> Result<(Self, String), SessionError> {
        let mut session = Self::new(base, now, config, ours, rng)?;
        let mut change = session.rtc.sdp_api();
        let mid = change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = change.apply().ok_or(SessionError::NoAudio)?;
        session.pending = Some(pending);
        session.mid = Some(mid);
        session.drain(now);
        Ok((session, offer.to_sdp_string()))
    }

    /// The callee's end, and its answer.
    ///
    /// # Errors
    /// As [`Session::offer`], or if the offer cannot be used.
    pub fn answer(
        base: Instant,
        now: Time,
        config: SessionConfig,
        ours: &[OurCandidate],
        offer: &str,
        rng: &mut Rng,
    ) -> Result<(Self, String), SessionError> {
        let mut session = Self::new(base, now, config, ours, rng)?;
        session.look_at(offer);
        let parsed = SdpOffer::from_sdp_string(offer).map_err(|e| refused(&e))?;
        let answer = session
            .rtc
            .sdp_api()
            .accept_offer(parsed)
            .map_err(|e| refused(&e))?;
        session.drain(now);
        session.mid = audio_mid(offer);
        session.choose_payload()?;
        session.reach(now, Leg::Path);
        Ok((session, answer.to_sdp_string()))
    }

    /// The caller takes the answer.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn on_answer(&mut self, now: Time, answer: &str) -> Result<(), SessionError> {
        let pending = self.pending.take().ok_or(SessionError::NotWaiting)?;
        self.look_at(answer);
        let parsed = SdpAnswer::from_sdp_string(answer).map_err(|e| refused(&e))?;
        let api = self.rtc.sdp_api();
        api.accept_answer(pending, parsed)
            .map_err(|e| refused(&e))?;
        self.drain(now);
        self.choose_payload()?;
        self.reach(now, Leg::Path);
        self.on_deadline(now);
        Ok(())
    }

    /// Remembers what a description says of relays.
    fn look_at(&mut self, sdp: &str) {
        let candidates = sdp.lines().filter_map(|l| l.trim_end().strip_prefix("a="));
        for line in candidates
            .filter(|l| l.starts_with("candidate:"))
            .take(MOST_CANDIDATES)
        {
            self.theirs += 1;
            if let Ok(candidate) = Candidate::from_sdp_string(line)
                && candidate.kind() == str0m::CandidateKind::Relayed
            {
                self.their_relays.push(candidate.addr());
            }
        }
    }

    fn choose_payload(&mut self) -> Result<(), SessionError> {
        let mid = self.mid.ok_or(SessionError::NoAudio)?;
        let media = self.rtc.media(mid).ok_or(SessionError::NoAudio)?;
        if media.kind() != MediaKind::Audio || media.direction() != Direction::SendRecv {
            return Err(SessionError::NoAudio);
        }
        self.pt = media.remote_pts().first().copied();
        self.pt.map(|_| ()).ok_or(SessionError::NoAudio)
    }

    /// A datagram came from `source` to our socket, or relayed address, `destination`.
    pub fn on_datagram(
        &mut self,
        now: Time,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) {
        if self.ended.is_some() {
            return;
        }
        let Ok(receive) = Receive::new(Protocol::Udp, source, destination, bytes) else {
            return;
        };
        let input = Input::Receive(self.instant(now), receive);
        if self.rtc.accepts(&input) {
            self.heard = now;
            self.input(now, input);
        }
    }

    /// The deadline has come.
    pub fn on_deadline(&mut self, now: Time) {
        if self.ended.is_some() {
            return;
        }
        let at = self.instant(now);
        self.input(now, Input::Timeout(at));
        let waited = now.since(self.leg_since);
        match self.leg {
            Leg::Path if waited > PATH_TIME => self.end(Ended::NoPath {
                pairs: self.ours.len() * self.theirs,
            }),
            Leg::Encryption if waited > ENCRYPTION_TIME => self.end(Ended::NoEncryption),
            Leg::Sound if waited > SOUND_TIME => self.end(Ended::NoSound),
            Leg::Talking if now.since(self.heard) > SILENT_TIME => self.end(Ended::PathLost),
            _ => {}
        }
    }

    /// When [`Session::on_deadline`] has something to do.
    pub fn deadline(&self) -> Time {
        let leg = match self.leg {
            Leg::Answer => Time::FAR,
            Leg::Path => self.leg_since + PATH_TIME,
            Leg::Encryption => self.leg_since + ENCRYPTION_TIME,
            Leg::Sound => self.leg_since + SOUND_TIME,
            Leg::Talking => self.heard + SILENT_TIME,
        };
        self.timeout.min(leg + Duration::from_millis(1))
    }

    /// Takes 20 ms from the microphone.
    pub fn record(&mut self, now: Time, frame: &[i16]) {
        if !matches!(self.leg, Leg::Sound | Leg::Talking) || frame.len() != FRAME {
            return;
        }
        let sent = match self.sender.push(frame) {
            Ok(Some(sent)) => sent,
            Ok(None) => return,
            Err(_) => return self.end(Ended::Codec),
        };
        let (Some(mid), Some(pt)) = (self.mid, self.pt) else {
            return;
        };
        let at = self.instant(now);
        let sequence = (self.first_sequence + sent.sequence).into();
        let time = self.first_time.wrapping_add(sent.time as u32);
        self.sent_bytes += sent.payload.len() as u64;
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_tx_by_mid(mid, None) {
            let write = RtpWrite::new(pt, sequence, time, at, sent.payload).marker(sent.marker);
            stream.write_rtp(write);
        }
        self.drain(now);
        // str0m sends what was written when its time is asked for.
        self.input(now, Input::Timeout(at));
    }

    /// Fills `out` for the loudspeaker.
    pub fn play(&mut self, now: Time, out: &mut [i16]) {
        self.receiver.pull(now, out);
    }

    /// Ends the call, telling the other end.
    pub fn hang_up(&mut self, now: Time) {
        if self.ended.is_none() {
            let _ = self.rtc.close();
            self.drain(now);
            self.end(Ended::Local);
        }
    }

    /// The other end said so on another way.
    pub fn hung_up(&mut self) {
        self.end(Ended::Remote);
    }

    /// Datagrams to send.
    pub fn datagrams(&mut self) -> std::vec::Drain<'_, Datagram> {
        self.datagrams.drain(..)
    }

    /// What happened.
    pub fn told(&mut self) -> std::vec::Drain<'_, Told> {
        self.told.drain(..)
    }

    /// How far the call is.
    pub fn leg(&self) -> Leg {
        self.leg
    }

    /// Why it ended, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// How it goes.
    pub fn stats(&self) -> CallStats {
        CallStats {
            receiver: self.receiver.stats(),
            bitrate: self.adapt.rate(),
            rtt: self.rtt,
            our_relay: self.relayed.0,
            their_relay: self.relayed.1,
            path: self.path,
            sent_bytes: self.sent_bytes,
            ..self.stats
        }
    }

    fn instant(&self, now: Time) -> Instant {
        self.base + Duration::from_micros(now.as_micros())
    }

    fn input(&mut self, now: Time, input: Input<'_>) {
        if self.rtc.handle_input(input).is_err() {
            return self.end(if self.leg == Leg::Encryption {
                Ended::Certificate
            } else {
                Ended::PathLost
            });
        }
        self.drain(now);
    }

    /// Takes all that str0m has to give.
    fn drain(&mut self, now: Time) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    let at = at.saturating_duration_since(self.base).as_micros();
                    self.timeout = Time::from_micros(u64::try_from(at).unwrap_or(u64::MAX));
                    return;
                }
                Ok(Output::Transmit(t)) => self.datagrams.push(Datagram {
                    source: t.source,
                    destination: t.destination,
                    bytes: t.contents.to_vec(),
                }),
                Ok(Output::Event(event)) => self.on_event(now, event),
                Err(_) => {
                    return self.end(if self.leg == Leg::Encryption {
                        Ended::Certificate
                    } else {
                        Ended::PathLost
                    });
                }
            }
        }
    }

    fn on_event(&mut self, now: Time, event: Event) {
        match event {
            Event::IceConnectionStateChange(
                IceConnectionState::Connected | IceConnectionState::Completed,
            ) if self.leg == Leg::Path => self.reach(now, Leg::Encryption),
            Event::Connected => self.reach(now, Leg::Sound),
            Event::RtpPacket(packet) => {
                if Some(packet.header.payload_type) != self.pt {
                    return;
                }
                if self.leg == Leg::Sound {
                    self.reach(now, Leg::Talking);
                }
                let packet = Packet {
                    sequence: *packet.seq_no,
                    time: packet.time.numer(),
                    payload: packet.payload.to_vec(),
                };
                self.receiver.on_packet(now, packet);
            }
            Event::MediaEgressStats(stats) => {
                if let Some(remote) = &stats.remote {
                    self.on_report(
                        now,
                        *remote.maximum_sequence_number,
                        remote.packets_lost,
                        stats.rtt,
                    );
                }
            }
            Event::PeerStats(stats) => {
                if let Some(pair) = stats.selected_candidate_pair {
                    self.rtt = self.rtt.or(pair.current_round_trip_time);
                    self.on_path(pair.local.addr, pair.remote.addr);
                }
            }
            Event::Closed => self.end(Ended::Remote),
            _ => {}
        }
    }

    fn on_report(&mut self, now: Time, highest: u64, lost: u64, rtt: Option<Duration>) {
        let before = self.counted.replace((highest, lost));
        let (expected, lost) = match before {
            Some((h, _)) if h == highest => return,
            Some((h, l)) => (highest.saturating_sub(h), lost.saturating_sub(l)),
            None => (0, 0),
        };
        self.rtt = rtt.or(self.rtt);
        let queue = self.receiver.stats().queue_ms.max(0.0);
        let report = PathReport {
            expected,
            lost,
            rtt,
            incoming_queue: Duration::from_secs_f64(queue / 1000.0),
        };
        self.adapt.on_report(now, report);
        self.stats.reported_lost += lost;
        self.stats.reported += expected;
        let tuned = self
            .sender
            .tune(self.adapt.rate(), self.adapt.loss_percent());
        if tuned.is_err() {
            self.end(Ended::Codec);
        }
    }

    fn on_path(&mut self, local: SocketAddr, remote: SocketAddr) {
        if self.path == Some((local, remote)) {
            return;
        }
        self.path = Some((local, remote));
        let our_relay = self
            .ours
            .iter()
            .any(|c| matches!(c, OurCandidate::Relayed { address, .. } if *address == local));
        let their_relay = self.their_relays.contains(&remote);
        self.relayed = (our_relay, their_relay);
        self.told.push(Told::Path {
            local,
            remote,
            our_relay,
            their_relay,
        });
    }

    fn reach(&mut self, now: Time, leg: Leg) {
        self.leg = leg;
        self.leg_since = now;
        self.told.push(Told::Reached(leg));
    }

    fn end(&mut self, why: Ended) {
        if self.ended.is_none() {
            self.ended = Some(why);
            self.told.push(Told::Ended(why));
        }
    }
}

/// The name of the first part of an offer that is sound (RFC 8843). str0m tells it only when keys are
/// there, which is too late to say no.
fn audio_mid(sdp: &str) -> Option<Mid> {
    let mut lines = sdp.lines().map(str::trim_end);
    lines.find(|l| l.starts_with("m=audio "))?;
    let mid = lines
        .take_while(|l| !l.starts_with("m="))
        .find_map(|l| l.strip_prefix("a=mid:"))?;
    let fits = mid.len() <= 16 && mid.chars().all(|c| c.is_ascii_alphanumeric());
    fits.then(|| mid.into())
}

#[cfg(test)]
mod tests;
