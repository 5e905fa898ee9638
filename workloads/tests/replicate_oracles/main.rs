//! Aggregation, replicate reproducibility and multiplicity against reference outputs in `../shared/oracles`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "../common/oracles.rs"]
mod files;

mod aggregation;
mod measures;
mod multiplicity;
mod precision;
mod properties;
mod screen;
