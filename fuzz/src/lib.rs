//! Fuzz targets: foreign bytes into the rooms that read them, and sequences of events into `session`.
//!
//! Each target is a test, so that the stable toolchain runs it: `cargo test --lib NAME` for a second, or for as long as
//! BOLERO_RANDOM_TEST_TIME_MS says. A failure prints the smallest input that it could find, and a
//! BOLERO_RANDOM_SEED that repeats it; a case that is found becomes a unit test of its room. `cargo bolero` takes the
//! same targets for coverage-guided runs where a nightly toolchain is at hand.

#[cfg(test)]
mod auth;
#[cfg(test)]
#[path = "../../tests/sequences/peer.rs"]
mod peer;
#[cfg(test)]
#[path = "../../tests/sequences/rig.rs"]
mod rig;
#[cfg(test)]
mod session;
#[cfg(test)]
mod sql;
#[cfg(test)]
mod wire;
