//! Alignment: wells of many plates in one space, where a technical difference weighs no more than the noise of the
//! controls (SCIENCE 5.2 to 5.4).
//!
//! Rows of features, with the control wells of each plate, enter; aligned rows leave. Every reduction is in `f64`; the
//! same rows in the same order give the same bytes on any number of threads. It fails on rows that cannot be aligned
//! (too few controls, columns that do not vary, values that are not finite), and says which plate, well and column.

mod error;
pub mod moments;
pub mod pca;
pub mod shrink;
pub mod sphere;

pub use error::AlignError;
