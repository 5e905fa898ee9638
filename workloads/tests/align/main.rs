//! Alignment on made-up screens: what is saved and applied later, what must not matter, what is refused.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod harmony;
mod properties;
mod screen;
mod transform;
