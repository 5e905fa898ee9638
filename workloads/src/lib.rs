//! The words of the field, the checked screen definition, and the mathematics that turns profiles into
//! comparisons.
//!
//! Pure and blocking: nothing here reads a file, a clock, an environment variable or a network. Text comes in
//! (a screen file, a plate map), checked types and numbers go out. `pipeline` does the reading and writing.

pub mod aggregate;
pub mod align;
mod canonical;
pub mod columns;
pub mod compare;
pub mod head;
pub mod layout;
pub mod linalg;
pub mod matrix;
pub mod monitor;
mod names;
pub mod plate_map;
pub mod position;
pub mod profile;
mod random;
pub mod relate;
pub mod replicate;
pub mod screen;
pub mod select;
pub mod signature;
pub mod simulate;
mod slots;
pub mod words;
