//! One module at work in one attempt: its memory, what it may still use, the calls into it.

use super::compile::Ticking;
use super::host;
use crate::code::{Attempt, Stop, failed};
use shoal_mapreduce::batch::Records;
use shoal_mapreduce::code::{CodeError, Collect};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::{
    Instance, Linker, Memory, Module, ResourceLimiter, Store, Trap, UpdateDeadline, WasmParams,
    WasmResults,
};

/// The version of the interface that `shoal_abi` must return.
const ABI: u32 = 1;
/// Memory of a sandbox where the job names none, in bytes: as much on every machine, so that what
/// fits on one fits on all.
const MEMORY_BYTES: u64 = 1 << 30;
/// Elements of all tables together.
const TABLE_MAX: usize = 1 << 20;
/// Log of one attempt, in bytes.
const LOG_MAX: usize = 4 << 20;

/// What the host keeps beside the guest.
#[derive(Debug)]
pub(super) struct State {
    /// Batches that were emitted in this call.
    pub(super) output: Vec<u8>,
    /// What was counted in this call.
    pub(super) counts: BTreeMap<(String, String), u64>,
    /// The last status that was set in this call.
    pub(super) status: Option<String>,
    memory_max: usize,
    memory_denied: bool,
    log: PathBuf,
    logged: usize,
    stop: Arc<Stop>,
    call_begun: Instant,
    call_max: Duration,
}

impl State {
    /// Appends to the attempt's log; what exceeds its bound is dropped.
    pub(super) fn log(&mut self, text: &str) {
        if self.logged > LOG_MAX {
            return;
        }
        self.logged = self.logged.saturating_add(text.len());
        if let Ok(mut file) = File::options().create(true).append(true).open(&self.log) {
            // A log that cannot be written fails no job.
            let _ = writeln!(file, "{}", text.trim_end());
        }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired <= self.memory_max;
        self.memory_denied |= !granted;
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_MAX)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }
}

/// An instance and its store.
#[derive(Debug)]
pub(super) struct Guest {
    name: String,
    store: Store<State>,
    instance: Instance,
    memory: Memory,
    _ticking: Ticking,
}

impl Guest {
    /// Instantiates the module, checks its interface, hands it its arguments.
    pub(super) fn new(
        name: &str,
        module: &Module,
        args: &[String],
        attempt: &Attempt,
    ) -> Result<Self, CodeError> {
        let limits = &attempt.spec.limits;
        let memory_max = match limits.code_memory_bytes {
            0 => MEMORY_BYTES,
            bytes => bytes,
        };
        let state = State {
            output: Vec::new(),
            counts: BTreeMap::new(),
            status: None,
            memory_max: usize::try_from(memory_max).unwrap_or(usize::MAX),
            memory_denied: false,
            log: attempt.log.clone(),
            logged: 0,
            stop: Arc::clone(&attempt.stop),
            call_begun: Instant::now(),
            call_max: Duration::from_millis(limits.stalled_ms),
        };
        let bad = |why: String| failed(format!("the module {name:?} {why}"));
        let mut store = Store::new(module.engine(), state);
        store.limiter(|state| state);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            let state = context.data();
            if state.stop.is_stopped() {
                return Err(wasmtime::Error::msg("the attempt was stopped"));
            }
            if state.call_begun.elapsed() > state.call_max {
                let seconds = state.call_max.as_secs_f64();
                let text = format!("a call took longer than {seconds} s");
                return Err(wasmtime::Error::msg(text));
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let ticking = Ticking::start().map_err(|e| bad(format!("cannot run: {e:#}")))?;
        let mut linker = Linker::new(module.engine());
        host::define(&mut linker).map_err(|e| bad(format!("cannot run: {e:#}")))?;
        let instance = linker
            .instantiate(&mut store, module)
            .map_err(|e| bad(format!("cannot be started: {}", reason(&e, store.data()))))?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or_else(|| bad("exports no memory".to_owned()))?;
        let mut guest = Self {
            name: name.to_owned(),
            store,
            instance,
            memory,
            _ticking: ticking,
        };
        // What a reactor of WASI wants to be called first; constructors run in there.
        if guest.exports("_initialize") {
            guest.call::<(), ()>("_initialize", ())?;
        }
        guest.must_export("shoal_abi")?;
        let version: u32 = guest.call("shoal_abi", ())?;
        if version != ABI {
            let text = format!("speaks version {version} of the interface, this is version {ABI}");
            return Err(failed(format!("the module {name:?} {text}")));
        }
        guest.must_export("shoal_input")?;
        if !args.is_empty() {
            guest.must_export("shoal_args")?;
            let joined = args.join("\0");
            let (at, len) = guest.input(joined.as_bytes())?;
            guest.call::<_, ()>("shoal_args", (at, len))?;
        }
        Ok(guest)
    }

    pub(super) fn exports(&self, name: &str) -> bool {
        // Asking by name needs a store that can be changed; the module knows as well.
        self.instance
            .module(&self.store)
            .get_export(name)
            .is_some_and(|export| export.func().is_some())
    }

    pub(super) fn must_export(&self, name: &str) -> Result<(), CodeError> {
        if self.exports(name) {
            Ok(())
        } else {
            Err(failed(format!(
                "the module {:?} exports no function {name}",
                self.name
            )))
        }
    }

    pub(super) fn file(&mut self, name: &str, input: u32) -> Result<(), CodeError> {
        if !self.exports("shoal_file") {
            return Ok(());
        }
        let (at, len) = self.input(name.as_bytes())?;
        self.call("shoal_file", (at, len, input))
    }

    pub(super) fn map(
        &mut self,
        lines: &[u8],
        offset: u64,
        out: &mut dyn Collect,
    ) -> Result<(), CodeError> {
        let (at, len) = self.input(lines)?;
        self.call::<_, ()>("shoal_map", (at, len, offset))?;
        self.drain(out)
    }

    pub(super) fn reduce(
        &mut self,
        name: &str,
        batch: &[u8],
        out: &mut dyn Collect,
    ) -> Result<(), CodeError> {
        let (at, len) = self.input(batch)?;
        self.call::<_, ()>(name, (at, len))?;
        self.drain(out)
    }

    pub(super) fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        if self.exports("shoal_finish") {
            self.call::<(), ()>("shoal_finish", ())?;
        }
        self.drain(out)
    }

    /// Puts bytes where the guest wants them.
    fn input(&mut self, bytes: &[u8]) -> Result<(u32, u32), CodeError> {
        let name = self.name.clone();
        let bad = |why: String| failed(format!("the module {name:?} {why}"));
        let len = u32::try_from(bytes.len())
            .map_err(|_| bad(format!("cannot take {} bytes at once", bytes.len())))?;
        let at: u32 = self.call("shoal_input", len)?;
        if at == 0 && len > 0 {
            return Err(bad(format!("has no room for {len} bytes of input")));
        }
        self.memory
            .write(&mut self.store, at as usize, bytes)
            .map_err(|_| bad(format!("wants its input at {at}, beyond its memory")))?;
        Ok((at, len))
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        params: P,
    ) -> Result<R, CodeError> {
        let function = self
            .instance
            .get_typed_func::<P, R>(&mut self.store, name)
            .map_err(|e| {
                failed(format!(
                    "the function {name} of the module {:?} has another type than it should: {e:#}",
                    self.name
                ))
            })?;
        self.store.data_mut().call_begun = Instant::now();
        function.call(&mut self.store, params).map_err(|e| {
            let why = reason(&e, self.store.data());
            failed(format!(
                "the module {:?} failed in {name}: {why}",
                self.name
            ))
        })
    }

    /// Hands on what the call left.
    fn drain(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        let state = self.store.data_mut();
        for record in Records::new(&state.output) {
            let (key, value) = record.map_err(|e| failed(e.to_string()))?;
            out.emit(key, value);
        }
        state.output.clear();
        for ((group, name), by) in std::mem::take(&mut state.counts) {
            out.count(&group, &name, by);
        }
        if let Some(status) = state.status.take() {
            out.status(&status);
        }
        Ok(())
    }
}

/// What went wrong, in words: the trap or what the host said, and where the guest was.
fn reason(error: &wasmtime::Error, state: &State) -> String {
    let cause = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    if state.memory_denied {
        let mib = state.memory_max >> 20;
        format!("{cause}; it had asked for more memory than the {mib} MiB it may have")
    } else {
        cause
    }
}
