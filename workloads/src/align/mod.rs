//! Alignment: wells of many plates in one space, where a technical difference weighs no more than the noise of the
//! controls (SCIENCE 5.2 to 5.4).
//!
//! Rows of features, with the control wells of each plate, enter; aligned rows leave. Every reduction is in `f64`; the
//! same rows in the same order give the same bytes on any number of threads. It fails on rows that cannot be aligned
//! (too few controls, columns that do not vary, values that are not finite), and says which plate, well and column.
//!
//! [`Step`] has the steps, [`fit()`] fits them over plates in one or more passes, [`FittedTransform`] applies them to
//! these and to later plates and is what is saved. [`harmony`] is apart: it moves the wells it is given, and keeps
//! nothing.

pub(crate) mod clusters;
mod error;
mod fit;
pub mod harmony;
mod held_out;
pub mod moments;
pub mod pca;
mod saved;
pub mod shrink;
pub mod sphere;
mod step;
mod transform;
pub mod tvn;

pub use error::AlignError;
pub use fit::{Fitter, fit};
pub use saved::SavedError;
pub use step::{PlateRows, ScaleMethod, Step};
pub use transform::{FittedPlate, FittedStep, FittedTransform, Projection};
