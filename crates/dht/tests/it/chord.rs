//! Chord.

mod model;
mod ring;
mod textbook;
mod world;
mod zave;
