//! What a sandbox may call: the interface `shoal`, and stubs for what compilers bring in: an abort
//! for AssemblyScript; for wasi-libc a standard error, a clock that stands still and randomness
//! that is all zeros.

use super::guest::State;
use wasmtime::{Caller, Error, Extern, Linker, Result};

/// Output that may pile up within one call, in bytes.
const OUTPUT_MAX: usize = 256 << 20;
/// Counters that one call may add to.
const COUNTS_MAX: usize = 10_000;
/// Longest name, status or line, in bytes.
const TEXT_MAX: usize = 16 << 10;

/// WASI's error number for a bad file descriptor.
const BAD_DESCRIPTOR: i32 = 8;

type Host<'a> = Caller<'a, State>;

fn said(text: impl Into<String>) -> Error {
    Error::msg(text.into())
}

/// A piece of the guest's memory, and the state beside it.
fn memory<'a>(
    caller: &'a mut Host<'_>,
    at: u32,
    len: u32,
) -> Result<(&'a mut [u8], &'a mut State)> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(said("it exports no memory"));
    };
    let (bytes, state) = memory.data_and_store_mut(caller);
    let size = bytes.len();
    let end = (at as usize).saturating_add(len as usize);
    let piece = bytes.get_mut(at as usize..end).ok_or_else(|| {
        said(format!(
            "it named {len} bytes at {at}, and its memory ends at {size}"
        ))
    })?;
    Ok((piece, state))
}

fn text(caller: &mut Host<'_>, at: u32, len: u32) -> Result<String> {
    if len as usize > TEXT_MAX {
        return Err(said(format!(
            "it named a text of {len} bytes; {TEXT_MAX} are allowed"
        )));
    }
    let (bytes, _) = memory(caller, at, len)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Adds all that a module may import.
pub(super) fn define(linker: &mut Linker<State>) -> Result<()> {
    shoal(linker)?;
    assembly_script(linker)?;
    wasi(linker)
}

fn shoal(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        "shoal",
        "emit",
        |mut caller: Host<'_>, at: u32, len: u32| {
            let (batch, state) = memory(&mut caller, at, len)?;
            if state.output.len().saturating_add(batch.len()) > OUTPUT_MAX {
                let text = format!("it emitted more than {} MiB in one call", OUTPUT_MAX >> 20);
                return Err(said(text));
            }
            // Each batch stands for itself: one that ends within a record must not go on in the next.
            if let Some(Err(e)) = shoal_mapreduce::batch::Records::new(batch).find(Result::is_err) {
                return Err(said(format!("it emitted a malformed batch: {e}")));
            }
            state.output.extend_from_slice(batch);
            Ok(())
        },
    )?;
    linker.func_wrap(
        "shoal",
        "count",
        |mut caller: Host<'_>, group: u32, group_len: u32, name: u32, name_len: u32, by: u64| {
            let group = text(&mut caller, group, group_len)?;
            let name = text(&mut caller, name, name_len)?;
            let state = caller.data_mut();
            if state.counts.len() >= COUNTS_MAX
                && !state.counts.contains_key(&(group.clone(), name.clone()))
            {
                return Err(said(format!(
                    "it counts under more than {COUNTS_MAX} names"
                )));
            }
            let sum = state.counts.entry((group, name)).or_default();
            *sum = sum.saturating_add(by);
            Ok(())
        },
    )?;
    linker.func_wrap(
        "shoal",
        "status",
        |mut caller: Host<'_>, at: u32, len: u32| {
            let text = text(&mut caller, at, len)?;
            caller.data_mut().status = Some(text);
            Ok(())
        },
    )?;
    linker.func_wrap("shoal", "log", |mut caller: Host<'_>, at: u32, len: u32| {
        let text = text(&mut caller, at, len)?;
        caller.data_mut().log(&text);
        Ok(())
    })?;
    linker.func_wrap(
        "shoal",
        "fail",
        |mut caller: Host<'_>, at: u32, len: u32| -> Result<()> {
            Err(said(format!("it says: {}", text(&mut caller, at, len)?)))
        },
    )?;
    Ok(())
}

fn assembly_script(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        "env",
        "abort",
        |mut caller: Host<'_>, message: u32, _file: u32, line: u32, column: u32| -> Result<()> {
            let text = utf16(&mut caller, message).unwrap_or_default();
            Err(said(format!("it aborted at line {line}:{column}: {text}")))
        },
    )?;
    linker.func_wrap("env", "seed", |_: Host<'_>| 0.0f64)?;
    Ok(())
}

/// A string of AssemblyScript: UTF-16, its length in bytes before it.
fn utf16(caller: &mut Host<'_>, at: u32) -> Option<String> {
    let (header, _) = memory(caller, at.checked_sub(4)?, 4).ok()?;
    let len = u32::from_le_bytes(header.try_into().ok()?);
    if len as usize > TEXT_MAX {
        return None;
    }
    let (bytes, _) = memory(caller, at, len).ok()?;
    let (units, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    Some(String::from_utf16_lossy(&units))
}

fn wasi(linker: &mut Linker<State>) -> Result<()> {
    const WASI: &str = "wasi_snapshot_preview1";
    linker.func_wrap(
        WASI,
        "fd_write",
        |mut caller: Host<'_>, fd: u32, parts: u32, count: u32, written: u32| {
            if fd != 1 && fd != 2 {
                return Ok(BAD_DESCRIPTOR);
            }
            let mut total = 0u32;
            for n in 0..count.min(1024) {
                let (part, _) = memory(&mut caller, parts.saturating_add(n * 8), 8)?;
                let (at, len) = part.split_at(4);
                let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
                let (at, len) = (word(at), word(len).min(TEXT_MAX as u32));
                let line = text(&mut caller, at, len)?;
                caller.data_mut().log(&line);
                total = total.saturating_add(len);
            }
            let (place, _) = memory(&mut caller, written, 4)?;
            place.copy_from_slice(&total.to_le_bytes());
            Ok(0)
        },
    )?;
    linker.func_wrap(WASI, "proc_exit", |_: Host<'_>, code: u32| -> Result<()> {
        Err(said(format!("it exited with code {code}")))
    })?;
    linker.func_wrap(
        WASI,
        "clock_time_get",
        |mut caller: Host<'_>, _clock: u32, _precision: u64, at: u32| -> Result<i32> {
            memory(&mut caller, at, 8)?.0.fill(0);
            Ok(0)
        },
    )?;
    linker.func_wrap(
        WASI,
        "random_get",
        |mut caller: Host<'_>, at: u32, len: u32| -> Result<i32> {
            memory(&mut caller, at, len)?.0.fill(0);
            Ok(0)
        },
    )?;
    for name in ["environ_sizes_get", "args_sizes_get"] {
        linker.func_wrap(
            WASI,
            name,
            |mut caller: Host<'_>, count: u32, bytes: u32| -> Result<i32> {
                memory(&mut caller, count, 4)?.0.fill(0);
                memory(&mut caller, bytes, 4)?.0.fill(0);
                Ok(0)
            },
        )?;
    }
    for name in ["environ_get", "args_get"] {
        linker.func_wrap(WASI, name, |_: Host<'_>, _: u32, _: u32| 0i32)?;
    }
    linker.func_wrap(WASI, "fd_close", |_: Host<'_>, _: u32| BAD_DESCRIPTOR)?;
    for name in ["fd_fdstat_get", "fd_prestat_get"] {
        linker.func_wrap(WASI, name, |_: Host<'_>, _: u32, _: u32| BAD_DESCRIPTOR)?;
    }
    linker.func_wrap(
        WASI,
        "fd_prestat_dir_name",
        |_: Host<'_>, _: u32, _: u32, _: u32| BAD_DESCRIPTOR,
    )?;
    linker.func_wrap(
        WASI,
        "fd_seek",
        |_: Host<'_>, _: u32, _: u64, _: u32, _: u32| BAD_DESCRIPTOR,
    )?;
    linker.func_wrap(
        WASI,
        "fd_read",
        |_: Host<'_>, _: u32, _: u32, _: u32, _: u32| BAD_DESCRIPTOR,
    )?;
    Ok(())
}
