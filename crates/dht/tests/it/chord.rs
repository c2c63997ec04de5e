//! Chord.

mod ring;
mod textbook;
mod world;
