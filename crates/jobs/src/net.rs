//! Master and workers as processes that speak TCP.
//!
//! Every connection begins with a handshake in which both ends prove that they know the cluster's
//! secret ([`auth`]) or, where strangers are let in, their keys ([`identity`]). Control (messages of the cores), data (map output, output files, side files,
//! input) and clients (submitting, asking) have connections of their own, so that bulk never holds
//! up a heartbeat.

pub mod auth;
pub mod client;
pub mod control;
pub mod data;
pub mod frame;
mod guest;
pub mod identity;
