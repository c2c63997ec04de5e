//! The compiler, its settings, and what it has compiled before.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use wasmtime::{Config, Engine, Module};

/// Compiled modules that are kept; they are small, and a worker sees few.
const KEPT_MAX: usize = 32;
/// Longest module, in bytes.
const MODULE_MAX: usize = 64 << 20;
/// How often running code is asked to look whether it may go on.
const TICK: Duration = Duration::from_millis(20);
/// Stack of a sandbox, in bytes.
const STACK_BYTES: usize = 1 << 20;

/// What all sandboxes of the process share.
struct Shared {
    engine: Engine,
    kept: Mutex<BTreeMap<[u8; 32], Module>>,
    running: Mutex<usize>,
    wake: Condvar,
}

fn shared() -> wasmtime::Result<&'static Shared> {
    static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .cranelift_nan_canonicalization(true)
            .wasm_relaxed_simd(false)
            .max_wasm_stack(STACK_BYTES);
        Ok(Shared {
            engine: Engine::new(&config).map_err(|e| format!("{e:#}"))?,
            kept: Mutex::default(),
            running: Mutex::new(0),
            wake: Condvar::new(),
        })
    });
    shared.as_ref().map_err(|e| wasmtime::Error::msg(e.clone()))
}

/// Compiles a module, or finds what came of the same bytes before.
pub(super) fn compiled(bytes: &[u8]) -> wasmtime::Result<Module> {
    if bytes.len() > MODULE_MAX {
        let text = format!("it is longer than {} MiB", MODULE_MAX >> 20);
        return Err(wasmtime::Error::msg(text));
    }
    let shared = shared()?;
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    let kept = || shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = kept().get(&hash) {
        return Ok(module.clone());
    }
    // Not under the lock: others need not wait for a compiler that may be busy for seconds.
    let module = Module::from_binary(&shared.engine, bytes)?;
    let mut all = kept();
    if all.len() >= KEPT_MAX {
        all.pop_first();
    }
    all.insert(hash, module.clone());
    Ok(module)
}

/// While one of these lives, the epoch advances, and with it the checks on running code happen.
#[derive(Debug)]
pub(super) struct Ticking(());

impl Ticking {
    pub(super) fn start() -> wasmtime::Result<Self> {
        static TICKER: OnceLock<bool> = OnceLock::new();
        let shared = shared()?;
        let up = *TICKER.get_or_init(|| {
            let ticker = thread::Builder::new().name("wasm-ticker".to_owned());
            ticker.spawn(move || tick(shared)).is_ok()
        });
        if !up {
            return Err(wasmtime::Error::msg("no thread for the ticker"));
        }
        *shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += 1;
        shared.wake.notify_all();
        Ok(Self(()))
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        if let Ok(shared) = shared() {
            let mut running = shared
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *running = running.saturating_sub(1);
        }
    }
}

/// Never ends; sleeps for good while nothing runs.
fn tick(shared: &'static Shared) {
    loop {
        let idle = shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(
            shared
                .wake
                .wait_while(idle, |running| *running == 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
        // This thread is the sandbox's clock: a tick an epoch is all that it does.
        thread::sleep(TICK);
        shared.engine.increment_epoch();
    }
}
