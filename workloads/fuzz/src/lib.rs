//! What the targets feed their inputs to: whole stores whose metadata files are the input, and plate maps.

pub use reading::{layout, plate_map, workbook};

mod reading;
