//! The machine in a virtual swarm.
