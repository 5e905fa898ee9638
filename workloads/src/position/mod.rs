//! What the place of a well on its plate does to its values, and how it is taken out (SCIENCE 5.1).
//!
//! Profiles or scalars with their [`WellPosition`](crate::words::WellPosition) enter; corrected values or a measure
//! of the effect leave. The flow is the file list: `edge` asks whether the rim differs, `bscore` takes rows and
//! columns out of one scalar of one plate, `well_mean` takes out what every position has in common over many plates.
//!
//! A correction that would remove biology is refused with the reason (too few plates of a position, a position that
//! always holds the same treatment); values that are not finite are refused with their well.

mod bscore;
mod edge;
mod error;
mod format;
mod well_mean;

pub use bscore::{BScore, b_scores};
pub use edge::{EdgeEffect, edge_effect};
pub use error::PositionError;
pub use format::plate_format;
pub use well_mean::{FEWEST_PLATES, WellPositionFitter, WellPositionMeans};
