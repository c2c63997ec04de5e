//! The simulator: the real protocol cores in virtual time, on links with faults, from a seed.
