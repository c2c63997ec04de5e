//! WebAssembly: code of people one need not trust, in a sandbox that reaches nothing but its own
//! memory and the batch interface of `docs/wasm-abi.md`. No file, no socket, no clock, no
//! randomness: the same module makes of the same input the same output on every machine, so that
//! results can be compared.

mod compile;
mod guest;
mod host;
#[cfg(test)]
mod tests;

use crate::code::{Attempt, Role, failed};
use guest::Guest;
use shoal_mapreduce::batch;
use shoal_mapreduce::code::{CodeError, Collect, MapCode, ReduceCode};
use std::fs;

/// Lines or records that one call gets at most, in bytes, unless a single one is longer.
const CALL_BYTES: usize = 256 << 10;

/// A mapper that is a module.
#[derive(Debug)]
pub(crate) struct WasmMapper {
    guest: Guest,
}

/// A reducer or combiner that is a module.
#[derive(Debug)]
pub(crate) struct WasmReducer {
    guest: Guest,
    role: Role,
}

impl WasmMapper {
    pub(crate) fn new(module: &str, args: &[String], attempt: &Attempt) -> Result<Self, CodeError> {
        let guest = start(module, args, attempt)?;
        guest.must_export("shoal_map")?;
        Ok(Self { guest })
    }
}

impl WasmReducer {
    pub(crate) fn new(
        module: &str,
        args: &[String],
        role: Role,
        attempt: &Attempt,
    ) -> Result<Self, CodeError> {
        let guest = start(module, args, attempt)?;
        if role == Role::Reduce || !guest.exports("shoal_combine") {
            guest.must_export("shoal_reduce")?;
        }
        Ok(Self { guest, role })
    }
}

/// Finds the module among the side files, compiles it unless that was done before, instantiates it.
fn start(module: &str, args: &[String], attempt: &Attempt) -> Result<Guest, CodeError> {
    let mut files = attempt.spec.side_files.iter().zip(&attempt.side_files);
    let path = files
        .find(|(file, _)| file.name == module || file.source == module)
        .map(|(_, path)| path)
        .ok_or_else(|| {
            failed(format!(
                "the module {module:?} is not among the job's side files"
            ))
        })?;
    let bytes =
        fs::read(path).map_err(|e| failed(format!("cannot read the module {module:?}: {e}")))?;
    let compiled = compile::compiled(&bytes)
        .map_err(|e| failed(format!("the module {module:?} cannot be compiled: {e:#}")))?;
    Guest::new(module, &compiled, args, attempt)
}

impl MapCode for WasmMapper {
    fn file(&mut self, name: &str, input: u32) -> Result<(), CodeError> {
        self.guest.file(name, input)
    }

    fn lines(
        &mut self,
        mut lines: &[u8],
        offset: u64,
        out: &mut dyn Collect,
    ) -> Result<(), CodeError> {
        let mut at = offset;
        while !lines.is_empty() {
            let window = lines.get(..CALL_BYTES).unwrap_or(lines);
            let take = if window.len() == lines.len() {
                lines.len()
            } else {
                memchr::memrchr(b'\n', window)
                    .or_else(|| memchr::memchr(b'\n', lines))
                    .map_or(lines.len(), |newline| newline + 1)
            };
            let (now, later) = lines.split_at(take);
            self.guest.map(now, at, out)?;
            at = at.saturating_add(take as u64);
            lines = later;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        self.guest.finish(out)
    }
}

impl ReduceCode for WasmReducer {
    fn records(&mut self, batch: &[u8], out: &mut dyn Collect) -> Result<(), CodeError> {
        let name = match self.role {
            Role::Combine if self.guest.exports("shoal_combine") => "shoal_combine",
            _ => "shoal_reduce",
        };
        let mut rest = batch;
        while !rest.is_empty() {
            let mut take = 0;
            for record in batch::Records::new(rest) {
                let (key, value) = record.map_err(|e| failed(e.to_string()))?;
                let next = take + batch::HEADER_BYTES + key.len() + value.len();
                if take > 0 && next > CALL_BYTES {
                    break;
                }
                take = next;
            }
            let (now, later) = rest.split_at(take);
            self.guest.reduce(name, now, out)?;
            rest = later;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        self.guest.finish(out)
    }
}
