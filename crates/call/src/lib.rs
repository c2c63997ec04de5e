//! Calls: voices between two people, whoever sits between them.
//!
//! Sans-IO: sound, packets and *now* go in; packets, sound and the next deadline come out.
//!
//! ```text
//!  media   Opus, the sender, the receiver with its jitter buffer, the bit rate
//! ```

pub mod media;
