//! Samples from one thread to another, without a lock and without waiting.

use std::sync::atomic::{AtomicI16, AtomicUsize, Ordering};

/// A bounded queue of samples with one writer and one reader.
#[derive(Debug)]
pub struct Ring {
    samples: Box<[AtomicI16]>,
    /// Samples written and read so far; they wrap, which a length that is a power of two survives.
    written: AtomicUsize,
    read: AtomicUsize,
}

impl Ring {
    /// An empty ring for at least so many samples (a million at most).
    pub fn new(samples: usize) -> Self {
        let length = samples.clamp(1, 1 << 20).next_power_of_two();
        Self {
            samples: (0..length).map(|_| AtomicI16::new(0)).collect(),
            written: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
        }
    }

    /// Samples that wait.
    pub fn len(&self) -> usize {
        let read = self.read.load(Ordering::Acquire);
        self.written.load(Ordering::Acquire).wrapping_sub(read)
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, at: usize) -> Option<&AtomicI16> {
        self.samples.get(at & (self.samples.len() - 1))
    }

    /// Appends what there is room for; says how many samples there was none for. For the writer alone.
    pub fn write(&self, sound: impl IntoIterator<Item = i16>) -> usize {
        let start = self.written.load(Ordering::Relaxed);
        let waiting = start.wrapping_sub(self.read.load(Ordering::Acquire));
        let room = self.samples.len().saturating_sub(waiting);
        let (mut count, mut refused) = (0, 0);
        for sample in sound {
            match self.place(start.wrapping_add(count)) {
                Some(place) if count < room => {
                    place.store(sample, Ordering::Relaxed);
                    count += 1;
                }
                _ => refused += 1,
            }
        }
        self.written
            .store(start.wrapping_add(count), Ordering::Release);
        refused
    }

    /// Takes so many samples, or as many as there are; says how many. For the reader alone.
    pub fn read(&self, samples: usize, mut each: impl FnMut(i16)) -> usize {
        let start = self.read.load(Ordering::Relaxed);
        let waiting = self.written.load(Ordering::Acquire).wrapping_sub(start);
        let count = samples.min(waiting);
        for n in 0..count {
            if let Some(place) = self.place(start.wrapping_add(n)) {
                each(place.load(Ordering::Relaxed));
            }
        }
        self.read
            .store(start.wrapping_add(count), Ordering::Release);
        count
    }
}
