//! BaSiC: flat-field and dark-field of a channel from many images, as what they have in common.
//!
//! `image_n(x) = b_n S(x) + D(x) + R_n(x)`: S and D are smooth (few cosine frequencies), the residuals R are few and strong, as
//! cells are. Corrected is `(image - D) / S`. It needs fewer images than a mean image does, and sparse images above all.
//! Source: Peng et al., Nature Communications 8 (2017) 14836.
//! Enters: raw images of one shape. Leaves: a [`Shading`]. Fails on images of different shapes, on fewer than two, on too many,
//! on images of nothing but zeros, and where what is found is no flat-field.
//!
//! Images are reduced to the working size by means of whole blocks when they are added, and what is found is interpolated
//! between the blocks' centres. basicpy reduces by antialiased bilinear interpolation to a square instead; the decomposition is
//! the same.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::reduce::{self, Beyond};
use crate::error::KernelError;
use crate::flat_field::Illumination;
use crate::image::{InputShape, RawImage};

mod cosine;
mod solve;

/// Name in messages.
const NAME: &str = "basic";

/// Most images: at the usual working size, of one channel, 256 MiB of them, and four times that while it is decomposed.
const MAX_IMAGES: usize = 4096;

/// How BaSiC estimates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BasicSettings {
    /// Largest side, in pixels, at which the decomposition is made; 8 to 512.
    pub working_size: usize,
    /// Weight of the flat-field's frequencies, above 0; found from the mean image where it is not given.
    pub smoothness_flat: Option<f64>,
    /// Whether there is a dark-field. It needs images of differing brightness.
    pub dark_field: bool,
    /// Weight of the dark-field's frequencies and levels, above 0; a tenth of the flat-field's where it is not given.
    pub smoothness_dark: Option<f64>,
    /// Residual, over the level of its image, that halves a pixel's weight; above 0, at most 10.
    pub epsilon: f64,
}

impl Default for BasicSettings {
    /// basicpy's: size 128, no dark-field, smoothness found, epsilon 0.1.
    fn default() -> Self {
        Self {
            working_size: 128,
            smoothness_flat: None,
            dark_field: false,
            smoothness_dark: None,
            epsilon: 0.1,
        }
    }
}

impl BasicSettings {
    /// Fails on a parameter out of range.
    ///
    /// # Errors
    /// Names the parameter and the value.
    pub fn check(&self) -> Result<(), KernelError> {
        let bad = |parameter, value: String, expected| {
            Err(KernelError::Parameter {
                kernel: NAME,
                parameter,
                value,
                expected,
            })
        };
        if !(8..=512).contains(&self.working_size) {
            let expected = "a working size lies in 8..=512 pixels";
            return bad("working_size", self.working_size.to_string(), expected);
        }
        for (name, value) in [
            ("smoothness_flat", self.smoothness_flat),
            ("smoothness_dark", self.smoothness_dark),
        ] {
            if let Some(value) = value
                && !(value > 0.0 && value <= 1e6)
            {
                return bad(name, value.to_string(), "a smoothness lies above 0, up to 1e6");
            }
        }
        if !(self.epsilon > 0.0 && self.epsilon <= 10.0) {
            return bad(
                "epsilon",
                self.epsilon.to_string(),
                "epsilon lies above 0, up to 10",
            );
        }
        Ok(())
    }
}

/// Flat-field and dark-field of every channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Shading {
    /// What images are divided by; its mean at working size is 1.
    pub flat_field: Illumination,
    /// What is subtracted before, in grey levels; none unless it was asked for.
    pub dark_field: Option<Illumination>,
    /// Channels whose decomposition had not come to rest after the most rounds. Their fields may serve, but look at them.
    pub unsettled: Vec<usize>,
}

/// Images at working size.
#[derive(Debug, Clone)]
pub struct BasicStack {
    settings: BasicSettings,
    shape: InputShape,
    /// Rows and columns of a block.
    block: usize,
    /// Per channel, the images one after the other.
    channels: Vec<Vec<f32>>,
    images: usize,
}

impl BasicStack {
    /// Nothing yet, for images of `shape`.
    ///
    /// # Errors
    /// A parameter out of range.
    pub fn new(settings: BasicSettings, shape: InputShape) -> Result<Self, KernelError> {
        settings.check()?;
        Ok(Self {
            settings,
            shape,
            block: shape
                .height
                .max(shape.width)
                .div_ceil(settings.working_size)
                .max(1),
            channels: vec![Vec::new(); shape.channels],
            images: 0,
        })
    }

    /// Adds an image.
    ///
    /// # Errors
    /// It has another shape, or there are 4096 already.
    pub fn add(&mut self, image: &RawImage) -> Result<(), KernelError> {
        if image.shape() != self.shape {
            return Err(KernelError::Input {
                expected: self.shape,
                got: image.shape(),
            });
        }
        if self.images == MAX_IMAGES {
            return Err(bad_images(
                (MAX_IMAGES + 1).to_string(),
                "at most 4096 images are decomposed at once; take every so many-th",
            ));
        }
        let (size, block) = ([self.shape.height, self.shape.width], self.block);
        self.channels.par_iter_mut().enumerate().for_each(|(c, stack)| {
            let plane: Vec<f64> = image.plane(c).iter().map(|v| f64::from(*v)).collect();
            let (small, _) = reduce::means(&plane, size, block);
            stack.extend(small.into_iter().map(|v| v as f32));
        });
        self.images += 1;
        Ok(())
    }

    /// Images added.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The decomposition of every channel.
    ///
    /// # Errors
    /// Fewer than two images, a channel of zeros, a flat-field that is not above 0 everywhere.
    pub fn shading(&self) -> Result<Shading, KernelError> {
        if self.images < 2 {
            return Err(bad_images(
                self.images.to_string(),
                "add at least two images; some dozens of different places give good fields",
            ));
        }
        let InputShape {
            channels,
            height,
            width,
        } = self.shape;
        let (mut flat, mut dark, mut unsettled) = (Vec::new(), Vec::new(), Vec::new());
        let nodes = reduce::centres([height, width], self.block);
        let small = [nodes[0].len(), nodes[1].len()];
        for (c, stack) in self.channels.iter().enumerate() {
            if stack.iter().all(|v| *v <= 0.0) {
                return Err(bad_images(
                    format!("zeros in channel {c}"),
                    "leave this channel out, or check that its images hold light",
                ));
            }
            let found = solve::decompose(stack, small, &self.settings);
            let whole = |plane: &[f64]| {
                let plane = reduce::interpolated(plane, &nodes, [height, width], Beyond::Line);
                plane.into_iter().map(|v| v as f32).collect::<Vec<f32>>()
            };
            let plane = whole(&found.flat);
            // What is not above 0 is not finite either.
            if let Some(v) = plane.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
                return Err(bad_images(
                    format!("a flat-field of {v} in channel {c}"),
                    "add more images, of other places; with a dark-field, images of differing brightness, or give smoothness_dark",
                ));
            }
            flat.extend(plane);
            if self.settings.dark_field {
                dark.extend(whole(&found.dark));
            }
            if !found.converged {
                unsettled.push(c);
            }
        }
        let made = |values| Illumination::new(channels, height, width, values);
        Ok(Shading {
            flat_field: made(flat)?,
            dark_field: self.settings.dark_field.then(|| made(dark)).transpose()?,
            unsettled,
        })
    }
}

fn bad_images(value: String, expected: &'static str) -> KernelError {
    KernelError::Parameter {
        kernel: NAME,
        parameter: "images",
        value,
        expected,
    }
}
