//! People: where somebody is, letters that nobody else reads, boxes that keep them, chat and presence;
//! and calls, voices between two people, whoever sits between them.
//!
//! Sans-IO: messages, sound, packets and *now* go in; messages, sound, effects and the next deadline
//! come out.
//!
//! ```text
//!  record   a name's homes, signed: what the ring of supernodes keeps under the name
//!  seal     letters to one recipient, by RFC 9180 and a signature
//!  mailbox  a supernode's boxes of sealed letters, and what is said to it
//!  chat     one end: texts in order and once, receipts, buddies and their presence
//!  media    Opus, the sender, the receiver with its jitter buffer, the bit rate
//! ```

pub mod chat;
pub mod mailbox;
pub mod media;
pub mod record;
pub mod seal;
