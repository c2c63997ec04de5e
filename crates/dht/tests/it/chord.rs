//! Chord.

mod attacks;
mod certified;
mod hostile;
mod model;
mod net;
mod partition;
mod ring;
mod storage;
mod textbook;
mod world;
mod zave;
