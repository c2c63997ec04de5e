//! The simulator: the real protocol cores in virtual time, on links with faults, from a seed.
//!
//! A [`World`] holds the nodes ([`Process`]es), the network between them and one queue of events.
//! Nothing in it reads a clock or an unseeded number, so a seed replays a run to the last bit, and
//! the running [`World::digest`] proves it. Checkers and experiments stand outside: they schedule
//! what is to happen, hear what nodes tell, and look into nodes as no node could.
//!
//! `docs/simulator.md` shows how to write an experiment.

pub mod churn;
pub mod clock;
pub mod digest;
pub mod disk;
pub mod experiment;
pub mod fault;
pub mod faults;
pub mod gossip;
pub mod link;
pub mod mainline;
pub mod mapreduce;
pub mod nat;
pub mod overlay;
pub mod queue;
pub mod reach;
pub mod report;
pub mod search;
pub mod space;
pub mod stats;
pub mod swarm;
pub mod world;

pub use churn::Sessions;
pub use digest::Digest;
pub use disk::Disk;
pub use experiment::{Experiment, Host};
pub use link::{Delay, Links, Rate};
pub use queue::Queue;
pub use report::{Plot, Report, Series};
pub use space::{Direct, Space};
pub use stats::Summary;
pub use world::{Context, Process, Step, World};

use shoal_base::Rng;

/// The random stream of part `index` of a run: drawn from the seed and the index alone, so that
/// one more node changes nobody else's luck.
pub fn rng_for(seed: u64, index: u64) -> Rng {
    Rng::from_seed(digest::mix(seed, index))
}
