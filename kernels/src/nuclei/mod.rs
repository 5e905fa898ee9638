//! Nuclei: where they are in a field of view. Enters: one channel of a raw image and checked [`NucleiSettings`].
//! Leaves: a [`LabelImage`], the threshold and how it was found. Features of the objects are in [`crate::features`].
//!
//! On the CPU only. Thresholds need counts of the whole field first, labelling and the watershed are sequences of
//! dependent steps over a small part of the pixels, and the field is needed on the CPU for its features anyway; a shader
//! would save the smoothing alone, and pay for it by reading the image back.

mod components;
pub(crate) mod distance;
mod error;
mod labels;
mod markers;
mod mask;
mod segment;
mod settings;
mod smooth;
mod threshold;
mod watershed;

pub use error::ObjectError;
pub use labels::{LabelImage, ObjectBox};
pub use segment::{Segmentation, segment};
pub use settings::{DIM_CONTRAST, Declump, NucleiSettings, ThresholdMethod};
