//! The thread of one web seed.

use super::WebSeedEvent;
use crate::assembly::Assembly;
use crate::http;
use crate::outbound::Outbound;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use shoal_bittorrent::webseed::{
    Answer, Backoff, Body, Part, check_answer, file_url, parts, range_header, run_len,
};
use shoal_content::{Block, Layout};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_REDIRECTS: u32 = 5;

pub(super) struct Worker {
    base: String,
    layout: Arc<Layout>,
    requests: Receiver<Vec<Block>>,
    stop: Arc<AtomicBool>,
    sink: Box<dyn Fn(WebSeedEvent) + Send>,
    agent: ureq::Agent,
    pending: VecDeque<Block>,
    backoff: Backoff,
}

/// Why a fetch ended early.
enum End {
    /// Nobody wants the rest.
    Stopped,
    /// Worth another try.
    Transient(String, Option<Duration>),
    /// Not worth one for so long.
    Lasting(String, Duration),
}

/// What a web seed's requests are made with.
pub(super) fn agent(outbound: Outbound) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(HEAD_TIMEOUT))
        .timeout_per_read(Some(READ_TIMEOUT))
        .max_redirects(MAX_REDIRECTS)
        .http_status_as_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .proxy(None)
        .max_idle_connections(1)
        .input_buffer_size(64 * 1024)
        .build();
    http::guarded_agent(config, outbound)
}

impl Worker {
    pub(super) fn new(
        base: &str,
        layout: Arc<Layout>,
        requests: Receiver<Vec<Block>>,
        stop: Arc<AtomicBool>,
        sink: Box<dyn Fn(WebSeedEvent) + Send>,
        agent: ureq::Agent,
    ) -> Self {
        Self {
            base: base.to_owned(),
            layout,
            requests,
            stop,
            sink,
            agent,
            pending: VecDeque::new(),
            backoff: Backoff::default(),
        }
    }

    pub(super) fn run(mut self) {
        while self.take_requests() {
            let blocks = self.pending.make_contiguous();
            let n = run_len(&self.layout, blocks);
            let run: Vec<Block> = blocks.iter().take(n).copied().collect();
            match self.fetch(&run) {
                Ok(()) => {}
                Err(End::Stopped) => return,
                Err(End::Transient(why, rest)) => match self.backoff.on_failure() {
                    Some(wait) if rest.is_none_or(|r| r <= wait) => {
                        if !self.wait(wait) {
                            return;
                        }
                    }
                    _ => {
                        let rest = rest.unwrap_or(self.backoff.rest());
                        self.fail(why, rest);
                    }
                },
                Err(End::Lasting(why, rest)) => self.fail(why, rest),
            }
        }
    }

    /// Waits until something is asked for; false if nothing will be any more.
    fn take_requests(&mut self) -> bool {
        if self.pending.is_empty() {
            match self.requests.recv() {
                Ok(blocks) => self.pending.extend(blocks),
                Err(_) => return false,
            }
        }
        self.pending.extend(self.requests.try_iter().flatten());
        !self.stop.load(Ordering::Relaxed)
    }

    /// Lets `wait` pass; false if the handle was dropped meanwhile.
    fn wait(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            match self.requests.recv_deadline(until) {
                Ok(blocks) => self.pending.extend(blocks),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn fail(&mut self, why: String, rest: Duration) {
        self.backoff.on_success();
        self.pending.clear();
        self.pending.extend(self.requests.try_iter().flatten());
        self.pending.clear();
        (self.sink)(WebSeedEvent::Failed {
            why,
            retry_after: Some(rest),
        });
    }

    /// Fetches a run of blocks; what came is taken off the pending ones.
    fn fetch(&mut self, run: &[Block]) -> Result<(), End> {
        let mut assembly = Assembly::new(run);
        for part in parts(&self.layout, run) {
            match part {
                Part::Zeros { mut len } => {
                    while len > 0 {
                        len -= assembly.zeros(len);
                        self.hand_on(&mut assembly)?;
                    }
                }
                Part::File { file, start, len } => {
                    self.fetch_range(file, start..start + len, &mut assembly)?;
                }
            }
        }
        Ok(())
    }

    fn fetch_range(
        &mut self,
        file: usize,
        range: Range<u64>,
        assembly: &mut Assembly<'_>,
    ) -> Result<(), End> {
        let url = file_url(&self.base, &self.layout, file).unwrap_or_default();
        let file_len = self.layout.files().get(file).map_or(0, |f| f.len);
        let mut at = range.start;
        while at < range.end {
            let (body, mut reader) = self.get(&url, at..range.end, file_len)?;
            let skipped = io::copy(&mut (&mut reader).take(body.skip), &mut io::sink());
            let mut left = match skipped {
                Ok(n) if n == body.skip => body.len,
                Ok(_) => return Err(End::Transient("the body ended early".into(), None)),
                Err(error) => return Err(End::Transient(error.to_string(), None)),
            };
            at += left;
            while left > 0 {
                left -= assembly.read(&mut reader, left).map_err(|e| broken(&e))?;
                self.hand_on(assembly)?;
            }
            // Reading to the end lets the connection be used again.
            if body.whole && !matches!(reader.read(&mut [0]), Ok(0)) {
                let why = "the body is longer than announced".into();
                return Err(End::Transient(why, None));
            }
        }
        Ok(())
    }

    fn get(
        &self,
        url: &str,
        range: Range<u64>,
        file_len: u64,
    ) -> Result<(Body, impl Read + use<>), End> {
        let request = self.agent.get(url).header("Range", range_header(&range));
        let response = request.call().map_err(|error| classify(&error))?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let answer = Answer {
            status: response.status().as_u16(),
            content_range: header("content-range"),
            content_length: header("content-length").and_then(|v| v.trim().parse().ok()),
            content_encoding: header("content-encoding"),
            retry_after: header("retry-after"),
        };
        match check_answer(&answer, &range, file_len) {
            Ok(body) => Ok((body, response.into_body().into_reader())),
            Err((fault, rest)) if fault.is_transient() => {
                let said = answer.retry_after.is_some();
                Err(End::Transient(fault.to_string(), said.then_some(rest)))
            }
            Err((fault, rest)) => Err(End::Lasting(format!("{url}: {fault}"), rest)),
        }
    }

    /// Gives a full buffer to the sink.
    fn hand_on(&mut self, assembly: &mut Assembly<'_>) -> Result<(), End> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(End::Stopped);
        }
        let Some((buf, blocks)) = assembly.take() else {
            return Ok(());
        };
        self.backoff.on_success();
        self.pending.drain(..blocks.len().min(self.pending.len()));
        (self.sink)(WebSeedEvent::Blocks { buf, blocks });
        Ok(())
    }
}

fn broken(error: &io::Error) -> End {
    End::Transient(error.to_string(), None)
}

fn classify(error: &ureq::Error) -> End {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
    let why = error.to_string();
    match error {
        Io(_) | Timeout(_) | ConnectionFailed | HostNotFound => End::Transient(why, None),
        _ => End::Lasting(why, Duration::from_secs(3600)),
    }
}
