//! Napster as OpenNap speaks it: a central directory of who shares what.
//!
//! [`hub::Hub`] is the directory, a machine without sockets; [`index::Index`] finds files in it.
//! `docs/protocols/napster.md` says what is spoken how, and why.

pub mod fields;
pub mod file;
pub mod frame;
pub mod index;
pub mod kind;
pub mod query;
pub mod words;
