//! Estimation of the illumination function: how much light each place of the field receives.
//!
//! 1. [`MeanImage`]: the mean of the images of a plate and channel, streamed; sums of integers, so exact in any order.
//! 2. [`Smoothing`]: a wide median, a Gaussian or a polynomial surface, of filter size `s`; `sigma = s / 2.35`.
//! 3. [`rescaled`]: divided by its robust minimum, so that every value is 1 or more and division never brightens.
//!
//! [`BasicStack`] is the other way: BaSiC finds it, and a dark-field, from the images themselves instead of their mean.
//!
//! Source: CellProfiler CorrectIlluminationCalculate ("Regular, All"); Singh et al., J. Microscopy 256 (2014) 231.
//! Enters: raw images. Leaves: an [`Illumination`] for [`crate::FlatField`]. Fails on images of different shapes, on no image,
//! and on a filter size or reduction out of range.
//!
//! CPU only: it runs once per plate and channel, its median needs a histogram per pixel, which a GPU has no room for, and the
//! result must not depend on the device.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::blur::{self, Border};
use crate::error::KernelError;
use crate::flat_field::Illumination;
use crate::image::{InputShape, RawImage};

mod basic;
mod polynomial;
mod rank_median;
mod reduce;

pub use basic::{BasicSettings, BasicStack, Shading};
pub use rank_median::rank_median;
use rank_median::rank_median_at;
use reduce::Beyond;

/// Name in messages.
const NAME: &str = "illumination";

/// Full width at half maximum of a Gaussian over its standard deviation, as CellProfiler rounds it.
const FWHM: f64 = 2.35;

/// Share of the pixels that may lie below the robust minimum.
const ROBUST: f64 = 0.02;

/// Largest filter size, in pixels.
const MAX_SIZE: f64 = 2000.0;

/// How the mean image is smoothed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Smoothing {
    /// Not at all.
    None,
    /// Median of a disk of radius `floor(sigma + 0.5)`, on whole grey levels: what public Cell Painting pipelines use.
    Median,
    /// Gaussian; weights outside the image are left out.
    Gaussian,
    /// Least-squares surface of second order; needs no size.
    Polynomial,
}

/// How an illumination function is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IlluminationSettings {
    /// How the mean image is smoothed.
    pub smoothing: Smoothing,
    /// Filter size in pixels, at least 1. 200 is usual.
    pub size: f64,
    /// 1 is full resolution. Otherwise the median is found for every so many-th row and column (from all pixels of its
    /// disk), the Gaussian on means of so many rows and columns, and the result is interpolated.
    pub reduction: usize,
    /// Whether the result is divided by its robust minimum.
    pub rescale: bool,
}

impl Default for IlluminationSettings {
    /// Median of size 200 at every fourth row and column, rescaled.
    fn default() -> Self {
        Self {
            smoothing: Smoothing::Median,
            size: 200.0,
            reduction: 4,
            rescale: true,
        }
    }
}

impl IlluminationSettings {
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
        if !(1.0..=MAX_SIZE).contains(&self.size) {
            return bad(
                "size",
                self.size.to_string(),
                "a filter size lies in 1..=2000 pixels",
            );
        }
        if !(1..=64).contains(&self.reduction) {
            return bad(
                "reduction",
                self.reduction.to_string(),
                "a reduction lies in 1..=64",
            );
        }
        Ok(())
    }

    /// Smooths a plane of grey levels.
    fn smooth(&self, plane: &[f64], size: [usize; 2]) -> Vec<f64> {
        let (sigma, by) = (self.size / FWHM, self.reduction);
        match self.smoothing {
            Smoothing::None => plane.to_vec(),
            Smoothing::Polynomial => polynomial::surface(plane, size),
            Smoothing::Gaussian if by == 1 => blur::convolved(plane, size, sigma, Border::Normalised),
            Smoothing::Gaussian => {
                let (small, nodes) = reduce::means(plane, size, by);
                let small_size = [nodes[0].len(), nodes[1].len()];
                let smooth = blur::convolved(&small, small_size, sigma / by as f64, Border::Normalised);
                reduce::interpolated(&smooth, &nodes, size, Beyond::Constant)
            }
            Smoothing::Median => {
                let levels: Vec<u16> = plane.iter().map(|v| *v as u16).collect();
                let nodes = size.map(|length| reduce::every(length, by));
                let medians = rank_median_at(&levels, size, radius(sigma), &nodes);
                let medians: Vec<f64> = medians.into_iter().map(f64::from).collect();
                if by == 1 {
                    return medians;
                }
                let nodes = nodes.map(|n| n.into_iter().map(|at| at as f64).collect());
                reduce::interpolated(&medians, &nodes, size, Beyond::Constant)
            }
        }
    }
}

/// Radius of the median's disk.
fn radius(sigma: f64) -> usize {
    ((sigma + 0.5).floor() as usize).max(1)
}

/// CellProfiler's automatic filter size: a fortieth of the larger side, at most 30 pixels.
pub fn automatic_size(height: usize, width: usize) -> f64 {
    (height.max(width) as f64 / 40.0).clamp(1.0, 30.0)
}

/// Filter size for objects of a width in pixels.
pub fn size_for_objects(width: f64) -> f64 {
    FWHM * width / 3.5
}

/// The running sum of images of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeanImage {
    shape: InputShape,
    sums: Vec<u64>,
    images: u64,
}

impl MeanImage {
    /// Nothing yet, for images of `shape`.
    pub fn new(shape: InputShape) -> Self {
        Self {
            shape,
            sums: vec![0; shape.channels * shape.height * shape.width],
            images: 0,
        }
    }

    /// Adds an image.
    ///
    /// # Errors
    /// The image has another shape.
    pub fn add(&mut self, image: &RawImage) -> Result<(), KernelError> {
        self.check(image.shape())?;
        self.sums
            .par_chunks_mut(1 << 14)
            .zip(image.pixels().par_chunks(1 << 14))
            .for_each(|(sums, pixels)| sums.iter_mut().zip(pixels).for_each(|(s, p)| *s += u64::from(*p)));
        self.images += 1;
        Ok(())
    }

    /// Adds the images of another; the order does not matter.
    ///
    /// # Errors
    /// They have another shape.
    pub fn merge(&mut self, other: &Self) -> Result<(), KernelError> {
        self.check(other.shape)?;
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a += b);
        self.images += other.images;
        Ok(())
    }

    fn check(&self, got: InputShape) -> Result<(), KernelError> {
        if got == self.shape {
            return Ok(());
        }
        Err(KernelError::Input {
            expected: self.shape,
            got,
        })
    }

    /// Images added.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// The mean of channel `c` in grey levels; an index past the last channel gives nothing, no image gives zeros.
    pub fn plane(&self, c: usize) -> Vec<f64> {
        let length = self.shape.height * self.shape.width;
        let sums = self.sums.chunks(length).nth(c).unwrap_or_default();
        sums.iter()
            .map(|s| *s as f64 / self.images.max(1) as f64)
            .collect()
    }

    /// The illumination function of every channel.
    ///
    /// # Errors
    /// No image was added, or a parameter is out of range.
    pub fn illumination(&self, settings: &IlluminationSettings) -> Result<Illumination, KernelError> {
        settings.check()?;
        if self.images == 0 {
            return Err(KernelError::Parameter {
                kernel: NAME,
                parameter: "images",
                value: "0".into(),
                expected: "add at least one image",
            });
        }
        let InputShape {
            channels,
            height,
            width,
        } = self.shape;
        if let Some(dark) = (0..channels).find(|c| self.plane(*c).iter().all(|v| *v <= 0.0)) {
            return Err(KernelError::Parameter {
                kernel: NAME,
                parameter: "images",
                value: format!("zeros in channel {dark}"),
                expected: "leave this channel out, or check that its images hold light",
            });
        }
        let planes = (0..channels).map(|c| {
            let smooth = settings.smooth(&self.plane(c), [height, width]);
            if settings.rescale {
                rescaled(smooth)
            } else {
                smooth
            }
        });
        let values = planes.flatten().map(|v| v as f32).collect();
        Illumination::new(channels, height, width, values)
    }
}

/// CellProfiler's rescaling: with `m` the value of rank `floor(0.02 n)` among the n positive ones, `max(v, m) / m`. Without a
/// positive value, 1 everywhere.
pub fn rescaled(mut values: Vec<f64>) -> Vec<f64> {
    let mut positive: Vec<f64> = values.iter().copied().filter(|v| *v > 0.0).collect();
    let rank = (positive.len() as f64 * ROBUST) as usize;
    if positive.is_empty() {
        values.fill(1.0);
        return values;
    }
    let least = *positive.select_nth_unstable_by(rank, f64::total_cmp).1;
    values.iter_mut().for_each(|v| *v = v.max(least) / least);
    values
}

/// CellProfiler's background estimate of one image ("Background, Each"): each of about `height / block` x `width / block`
/// blocks holds its least value; smoothed by a Gaussian of filter size `size`, in grey levels, to be subtracted.
///
/// # Errors
/// A plane of another size, a block of 0, a filter size out of range.
pub fn block_background(
    plane: &[u16],
    [height, width]: [usize; 2],
    block: usize,
    size: f64,
) -> Result<Vec<f64>, KernelError> {
    KernelError::check_plane(plane, [height, width])?;
    if block == 0 {
        return Err(KernelError::Parameter {
            kernel: NAME,
            parameter: "block",
            value: "0".into(),
            expected: "a block has at least 1 pixel",
        });
    }
    let settings = IlluminationSettings {
        smoothing: Smoothing::Gaussian,
        size,
        reduction: 1,
        rescale: false,
    };
    settings.check()?;
    let (rows, columns) = ((height / block).max(1), (width / block).max(1));
    let block_of = |i: usize| i / width * rows / height * columns + i % width * columns / width;
    let mut least = vec![u16::MAX; rows * columns];
    for (i, &v) in plane.iter().enumerate() {
        let b = &mut least[block_of(i)];
        *b = v.min(*b);
    }
    let minima: Vec<f64> = (0..plane.len()).map(|i| f64::from(least[block_of(i)])).collect();
    Ok(settings.smooth(&minima, [height, width]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rescaling() {
        assert_eq!(automatic_size(2160, 2160), 30.0);
        assert_eq!(automatic_size(512, 400), 12.8);
        assert_eq!(radius(200.0 / FWHM), 85);
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        let out = rescaled(values);
        // 100 positive values; rank 2 is the value 3.
        assert_eq!((out[0], out[2], out[3], out[6]), (1.0, 1.0, 1.0, 2.0));
        assert_eq!(rescaled(vec![0.0, -1.0]), [1.0, 1.0]);
    }

    #[test]
    fn streaming_is_independent_of_order_and_bad_input_is_named() {
        let image = |v: u16| RawImage::new(1, 2, 3, (0..6).map(|i| v + i).collect(), 65535).unwrap();
        let shape = image(0).shape();
        let mut all = MeanImage::new(shape);
        let (mut left, mut right) = (all.clone(), all.clone());
        for v in [5, 60000, 17] {
            all.add(&image(v)).unwrap();
        }
        left.add(&image(17)).unwrap();
        right.add(&image(60000)).unwrap();
        right.add(&image(5)).unwrap();
        left.merge(&right).unwrap();
        assert_eq!(left, all);
        assert_eq!(all.images(), 3);
        let other = RawImage::new(1, 3, 2, vec![0; 6], 1).unwrap();
        assert!(all.add(&other).unwrap_err().to_string().contains("3 x 2"));
        let message = MeanImage::new(shape)
            .illumination(&IlluminationSettings::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains("images"), "{message}");
        for (settings, word) in [
            (
                IlluminationSettings {
                    size: f64::NAN,
                    ..Default::default()
                },
                "NaN",
            ),
            (
                IlluminationSettings {
                    reduction: 0,
                    ..Default::default()
                },
                "reduction",
            ),
        ] {
            let message = all.illumination(&settings).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
