//! The `shoal` program as its users meet it: real processes, real files, loopback sockets.
//!
//! No fixed ports and no sleeps: processes say where they listen, tests wait for what they say.

mod process;

mod call;
mod chat;
mod content_job;
mod dht;
mod false_supernode;
mod fetch_firewalled;
mod fetch_many;
mod fetch_on_the_way;
mod gnutella;
mod gnutella_files;
mod gnutella_shared;
mod hadoop;
mod hand_over;
mod help;
mod jobs;
mod jobs_faults;
mod jobs_scenarios;
mod letters;
mod library;
mod names;
mod names_attacks;
mod names_churn;
mod napster;
mod overlay;
mod people;
mod relay;
mod ring;
mod ring_attacks;
mod serve;
mod sim;
mod strangers;
mod supernode;
mod supernode_attacks;
mod supernode_children;
mod supernode_roles;
mod task;
mod torrent;
mod transfer;
