//! Chord.

mod hostile;
mod model;
mod net;
mod ring;
mod storage;
mod textbook;
mod world;
mod zave;
