//! Napster as OpenNap speaks it: a central directory of who shares what.
//!
//! The messages' framing ([`frame`]), numbers ([`kind`]) and data ([`fields`], [`file`],
//! [`query`]), and the index that finds files ([`index::Index`]). No hub or client uses them yet.

pub mod fields;
pub mod file;
pub mod frame;
pub mod index;
pub mod kind;
pub mod query;
pub mod words;
