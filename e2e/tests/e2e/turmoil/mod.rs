//! Long trouble under live clients: the operator killed again and again, its API server out of reach, the spec changed at
//! random. What is left to chance is printed, and can be replayed (see [`crate::support::chance`]).

mod kills;
mod random_walk;
mod unreachable;
