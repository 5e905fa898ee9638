//! Under construction.

pub mod report;
pub mod results;
