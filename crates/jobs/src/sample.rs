//! Samples of a job's input: what range partitioning cuts by.

use crate::code::Attempt;
use crate::engine::attempt::{chain, mapper};
use crate::input::{Compression, Inputs};
use shoal_mapreduce::code::Collect;
use shoal_mapreduce::data::split::Lines;
use shoal_mapreduce::split::Split;
use std::sync::Arc;

/// Keys of a sample of the input, as the job's mapper makes them: what range partitioning cuts by.
///
/// # Errors
/// When the input cannot be read or the mapper fails on it.
pub(crate) fn sample_keys(
    inputs: &Inputs,
    splits: &[Split],
    attempt: &Attempt,
) -> Result<Vec<Vec<u8>>, String> {
    /// Places of the input that are looked at.
    const PLACES: usize = 32;
    /// Bytes that are read at each.
    const BYTES: usize = 64 << 10;
    struct Keys(Vec<Vec<u8>>);
    impl Collect for Keys {
        fn emit(&mut self, key: &[u8], _value: &[u8]) {
            self.0.push(key.to_vec());
        }
        fn count(&mut self, _group: &str, _name: &str, _by: u64) {}
        fn status(&mut self, _text: &str) {}
    }
    let mut code = mapper(attempt).map_err(|e| e.what)?;
    let mut keys = Keys(Vec::new());
    let parts: Vec<_> = splits.iter().flat_map(|s| &s.parts).collect();
    let total: u64 = parts.iter().map(|p| p.len).sum();
    let read = Arc::default();
    for place in 0..PLACES as u64 {
        // Evenly spread over all bytes.
        let mut at = total / PLACES as u64 * place;
        let Some(part) = parts.iter().find(|p| {
            let here = at < p.len;
            if !here {
                at -= p.len;
            }
            here
        }) else {
            break;
        };
        let whole = Compression::of(&part.file) != Compression::None;
        if whole && at > 0 && place > 0 {
            // Of a packed file only the beginning can be had.
            continue;
        }
        let (start, len) = if whole {
            (0, BYTES as u64)
        } else {
            (part.offset + at, (part.len - at).min(BYTES as u64))
        };
        let mut lines = Lines::new(start, len, BYTES);
        let mut reader = inputs
            .open(&part.file, lines.read_from(), BYTES as u64, &read)
            .map_err(|e| chain(&e))?;
        code.file(&part.file, part.input).map_err(|e| e.what)?;
        while !lines.done() {
            let n = reader
                .read(lines.room())
                .map_err(|e| format!("{}: {e}", part.file))?;
            if let Some((bytes, offset)) = lines.filled(n) {
                code.lines(bytes, offset, &mut keys).map_err(|e| e.what)?;
            }
        }
    }
    code.finish(&mut keys).map_err(|e| e.what)?;
    Ok(keys.0)
}
