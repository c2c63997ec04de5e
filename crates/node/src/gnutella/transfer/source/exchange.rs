//! Requests and answers over one connection, and runs of blocks that they bring.

use super::{BodyReader, End, News, Order, Worker, failed};
use crate::assembly::Assembly;
use crate::gnutella::tls::Stream;
use crate::range_source::Slice;
use shoal_content::Block;
use shoal_gnutella::http::client::{Event, Failure, Others, Want};
use std::io::{self, Read, Write};
use std::sync::PoisonError;

/// Bytes asked for in one request, at most.
const MAX_RANGE: u64 = 16 << 20;

impl Worker {
    /// Asks for something, connecting anew if need be; what comes of it, but for waiting and
    /// failing, which it sees to.
    pub(super) fn exchange(&mut self, stream: &mut Stream, want: Want) -> Result<Event, End> {
        if !self.client.is_reusable() {
            if !self.dialled {
                return Err(End::Failed("the host closed the connection".into()));
            }
            *stream = self.connect()?;
        }
        let event = match self.try_exchange(stream, want.clone()) {
            // A connection that was kept may be closed at any time: that is no failure.
            Err(End::Failed(_))
                if self.dialled && (self.used || std::mem::take(&mut self.fell_back)) =>
            {
                *stream = self.connect()?;
                self.try_exchange(stream, want)?
            }
            other => other?,
        };
        if !self.used {
            let secure = stream.is_secure();
            tracing::debug!(addr = %self.addr, secure, "a host answers");
        }
        self.used = true;
        match event {
            Event::Wait {
                at,
                position,
                keep: true,
                ..
            } => {
                self.not_before = at;
                self.pending.clear();
                self.tell(News::Waiting { at, position })?;
                Ok(Event::Lacks)
            }
            Event::Wait { at, position, .. } => Err(End::Waiting(at, position)),
            Event::Failed(Failure::NotThere(status)) => {
                Err(End::NotThere(format!("the host answers {status}")))
            }
            Event::Failed(failure @ Failure::OtherFile) => Err(End::NotThere(failure.to_string())),
            // The tree is not all that it can be asked for.
            Event::Failed(Failure::Tree(error)) => {
                tracing::debug!(addr = %self.addr, %error, "a hash tree that is none");
                Ok(Event::Lacks)
            }
            Event::Failed(failure) => Err(failed(failure)),
            event => Ok(event),
        }
    }

    pub(super) fn try_exchange(&mut self, stream: &mut Stream, want: Want) -> Result<Event, End> {
        let mut others = {
            let told = self.neighbours.lock();
            told.unwrap_or_else(PoisonError::into_inner).clone()
        };
        // What the host heard on this connection is not said again.
        if self.used && self.said == others {
            others = Others::default();
        } else {
            self.said.clone_from(&others);
        }
        let request = self.client.ask(self.now(), want, &others);
        stream.write_all(&request).map_err(failed)?;
        loop {
            if self.at == self.left.len() {
                self.left.resize(16 << 10, 0);
                let n = stream.read(&mut self.left).map_err(failed)?;
                self.left.truncate(n);
                self.at = 0;
                if n == 0 {
                    return Err(End::Failed("the host closed the connection".into()));
                }
            }
            let now = self.now();
            let bytes = self.left.get(self.at..).unwrap_or_default();
            let step = self.client.on_bytes(now, bytes);
            self.at += step.used;
            if let Some(told) = step.told {
                self.tell(News::Told(told))?;
            }
            match step.event {
                // Who connected to us is TLS's client, and begins right behind its answer.
                Some(Event::Secure) if !self.theirs && self.at < self.left.len() => {
                    return Err(End::Failed("the host speaks before TLS begins".into()));
                }
                Some(Event::Secure) => {
                    let came = self.left.split_off(self.at);
                    if let Err(error) = self.change_to_tls(stream, &came) {
                        self.no_tls(&error)?;
                        return Err(failed(error));
                    }
                }
                Some(event) => return Ok(event),
                None => {}
            }
            if self
                .client
                .deadline()
                .is_some_and(|deadline| now > deadline)
            {
                return Err(failed(Failure::Late));
            }
        }
    }

    /// Reads a body that nobody wants.
    pub(super) fn drop_body(&mut self, stream: &mut Stream, len: u64) -> Result<(), End> {
        let mut reader = BodyReader {
            left: &self.left,
            at: &mut self.at,
            stream,
        };
        let got = io::copy(&mut (&mut reader).take(len), &mut io::sink()).map_err(failed)?;
        let now = self.now();
        if got < len || !self.client.on_body(now, got) {
            return Err(End::Failed("the body ended early".into()));
        }
        Ok(())
    }

    /// Fetches what is pending, run by run.
    pub(super) fn fetch(&mut self, stream: &mut Stream, slice: Slice) -> Result<(), End> {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                if let Order::Blocks(_, blocks) = order {
                    self.take_blocks(blocks);
                }
            }
            let run = self.next_run(slice);
            if run.is_empty() {
                return Ok(());
            }
            self.fetch_run(stream, slice, &run)?;
        }
    }

    /// The blocks to be asked for in one request: those that follow one another.
    pub(super) fn next_run(&mut self, slice: Slice) -> Vec<Block> {
        let mut run: Vec<Block> = Vec::new();
        let mut len = 0;
        while let Some(block) = self.pending.front() {
            let end = run.last().map(|last| slice.at(last) + u64::from(last.len));
            let follows = end.is_none_or(|end| end == slice.at(block));
            len += u64::from(block.len);
            if !follows || len > MAX_RANGE {
                break;
            }
            run.extend(self.pending.pop_front());
        }
        run
    }

    pub(super) fn fetch_run(
        &mut self,
        stream: &mut Stream,
        slice: Slice,
        run: &[Block],
    ) -> Result<(), End> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let end = slice.at(last) + u64::from(last.len);
        let mut at = slice.at(first);
        let mut run = run;
        let mut assembly = Assembly::new(run);
        while at < end {
            let Event::Body(body) = self.exchange(stream, Want::Range(at..end))? else {
                // Not now, or not here. What is waited for is forgotten by who asked for it.
                return self.tell(News::Missed(run.to_vec()));
            };
            if body.start > at {
                // The host has a later part only: whole blocks of it will do.
                let skip = run.partition_point(|b| slice.at(b) < body.start);
                let (missed, rest) = run.split_at(skip);
                self.tell(News::Missed(missed.to_vec()))?;
                run = rest;
                let from = run.first().map_or(body.end, |b| slice.at(b));
                at = from.min(body.end);
                self.drop_part(stream, at - body.start)?;
                assembly = Assembly::new(run);
            }
            self.take_body(stream, body.end - at, &mut assembly, &mut run)?;
            at = body.end;
        }
        Ok(())
    }

    /// As [`Self::drop_body`], of a part of a body.
    pub(super) fn drop_part(&mut self, stream: &mut Stream, len: u64) -> Result<(), End> {
        let mut reader = BodyReader {
            left: &self.left,
            at: &mut self.at,
            stream,
        };
        let got = io::copy(&mut (&mut reader).take(len), &mut io::sink()).map_err(failed)?;
        self.client.on_body(self.now(), got);
        if got < len {
            return Err(End::Failed("the body ended early".into()));
        }
        Ok(())
    }

    pub(super) fn take_body<'r>(
        &mut self,
        stream: &mut Stream,
        mut left: u64,
        assembly: &mut Assembly<'r>,
        run: &mut &'r [Block],
    ) -> Result<(), End> {
        while left > 0 {
            let mut reader = BodyReader {
                left: &self.left,
                at: &mut self.at,
                stream,
            };
            let n = assembly.read(&mut reader, left).map_err(failed)?;
            left -= n;
            self.client.on_body(self.now(), n);
            if let Some((buf, blocks)) = assembly.take() {
                *run = run.get(blocks.len()..).unwrap_or_default();
                self.tell(News::Data(buf, blocks))?;
            }
        }
        Ok(())
    }
}
