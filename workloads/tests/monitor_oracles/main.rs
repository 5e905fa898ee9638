//! Position effects and drift: reference outputs of `../shared/oracles`, properties, and bad input.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "../common/oracles.rs"]
mod files;
#[path = "../common/noise.rs"]
mod noise;

mod drift;
mod monitoring;
mod position;
