//! Reading updates of a neighbour's table.

use flate2::{Decompress, FlushDecompress, Status};

use super::Table;
use crate::message::route::{Patch, Route};

/// What is wrong with an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A PATCH before any RESET.
    #[error("a PATCH without a RESET")]
    NoReset,
    /// A part that is not the next, or says other things than the first.
    #[error("a PATCH out of order")]
    Order,
    /// Data that do not inflate.
    #[error("a PATCH that does not inflate")]
    Packed,
    /// More or fewer entries than the table has.
    #[error("a PATCH of another length than the table's")]
    Length,
}

/// A neighbour's table as its updates come in.
#[derive(Debug, Default)]
pub struct Receiver {
    table: Option<Table>,
    /// A whole update was read since the last RESET.
    complete: bool,
    update: Option<Update>,
}

#[derive(Debug)]
struct Update {
    next: u8,
    of: u8,
    bits: u8,
    inflater: Option<Box<Decompress>>,
    /// The slot that the next entry is for.
    at: usize,
}

impl Receiver {
    /// The table, once a whole update was read.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref().filter(|_| self.complete)
    }

    /// Takes a message; whether it completed an update.
    ///
    /// # Errors
    /// It breaks the rules; the connection should be closed (code 413).
    pub fn on_message(&mut self, route: Route<'_>) -> Result<bool, RouteError> {
        match route {
            Route::Reset { slots, .. } => {
                self.update = None;
                self.complete = false;
                self.table = Some(Table::new(slots.trailing_zeros() as u8));
                Ok(false)
            }
            Route::Patch(patch) => self.on_patch(&patch),
        }
    }

    fn on_patch(&mut self, patch: &Patch<'_>) -> Result<bool, RouteError> {
        let table = self.table.as_mut().ok_or(RouteError::NoReset)?;
        let update = match &mut self.update {
            Some(update) => update,
            None if patch.seq == 1 => self.update.insert(Update {
                next: 1,
                of: patch.of,
                bits: patch.bits,
                inflater: patch.packed.then(|| Box::new(Decompress::new(true))),
                at: 0,
            }),
            None => return Err(RouteError::Order),
        };
        let same = patch.of == update.of
            && patch.bits == update.bits
            && patch.packed == update.inflater.is_some();
        if !same || patch.seq != update.next {
            return Err(RouteError::Order);
        }
        let slots = table.slots_mut();
        match update.inflater.take() {
            None => apply(slots, &mut update.at, update.bits, patch.data)?,
            Some(mut inflater) => {
                let mut rest = patch.data;
                let mut buf = [0; 4096];
                while !rest.is_empty() {
                    let (read, written) = (inflater.total_in(), inflater.total_out());
                    let status = inflater
                        .decompress(rest, &mut buf, FlushDecompress::None)
                        .map_err(|_| RouteError::Packed)?;
                    let read = (inflater.total_in() - read) as usize;
                    let written = (inflater.total_out() - written) as usize;
                    let out = buf.get(..written).unwrap_or_default();
                    apply(slots, &mut update.at, update.bits, out)?;
                    rest = rest.get(read..).unwrap_or_default();
                    match status {
                        Status::StreamEnd => break,
                        _ if read == 0 && written == 0 => return Err(RouteError::Packed),
                        _ => {}
                    }
                }
                drain(&mut inflater, slots, update, &mut buf)?;
                update.inflater = Some(inflater);
            }
        }
        if update.next < update.of {
            update.next += 1;
            return Ok(false);
        }
        let whole = update.at == slots.len() * 8;
        self.update = None;
        if !whole {
            return Err(RouteError::Length);
        }
        self.complete = true;
        Ok(true)
    }
}

/// Takes out what the inflater still holds of input it took already.
fn drain(
    inflater: &mut Decompress,
    slots: &mut [u8],
    update: &mut Update,
    buf: &mut [u8],
) -> Result<(), RouteError> {
    loop {
        let before = inflater.total_out();
        // An inflater without input says so by an error; all it held was taken out before.
        let Ok(_) = inflater.decompress(&[], buf, FlushDecompress::None) else {
            return Ok(());
        };
        let written = (inflater.total_out() - before) as usize;
        if written == 0 {
            return Ok(());
        }
        let out = buf.get(..written).unwrap_or_default();
        apply(slots, &mut update.at, update.bits, out)?;
    }
}

/// Applies entries from slot `at` on.
fn apply(slots: &mut [u8], at: &mut usize, bits: u8, data: &[u8]) -> Result<(), RouteError> {
    let per_byte = 8 / usize::from(bits);
    if data.len() * per_byte > slots.len() * 8 - *at {
        return Err(RouteError::Length);
    }
    if bits == 1 {
        for (slot, toggle) in slots.iter_mut().skip(*at / 8).zip(data) {
            *slot ^= toggle;
        }
        *at += data.len() * 8;
        return Ok(());
    }
    for byte in data {
        for n in 0..per_byte {
            let entry = if bits == 8 {
                *byte
            } else {
                byte << (4 * n) & 0xf0
            };
            let bit = 0x80 >> (*at & 7);
            if entry != 0
                && let Some(slot) = slots.get_mut(*at / 8)
            {
                // What grows nearer is there; what grows farther is not: no servent sends
                // distances beyond one any more.
                if entry & 0x80 != 0 {
                    *slot |= bit;
                } else {
                    *slot &= !bit;
                }
            }
            *at += 1;
        }
    }
    Ok(())
}
