//! Granularity of objects in one channel (CellProfiler MeasureGranularity): how much of the light goes with each size of
//! bright spot. Enters: a plane, its labels, settings. Leaves: a spectrum per object, in percent of its mean intensity.
//!
//! The field is sampled at a part of its pixels, its background (an opening by a disc, found at a part of those) is
//! subtracted, and step by step the sampled field is eroded by the cross of 3 x 3 pixels and reconstructed under the
//! field: what is lost on the way from step k - 1 to step k, brought back to the size of the field, is `G_k = 100
//! (mean_{k-1} - mean_k) / mean`, with `mean_0 = mean` that of the object in the raw field. 0 of a black object, NaN if
//! fewer than two rows or columns are left to sample. Sources: Ravkin and Temov 1988; CellProfiler; cp_measure 0.3.0.
//!
//! Bringing a field back to size and taking its mean over an object is one weighted sum over the few sampled pixels
//! around the object; its weights are found once. All steps reconstruct under the same field, so one tree of its components
//! serves them all; the erosions follow one another, the reconstructions run in parallel.

use rayon::prelude::*;

use crate::features::reconstruct::{ComponentTree, erode_cross, open_disc};
use crate::features::settings::Granularity;
use crate::nuclei::{LabelImage, ObjectBox};

/// Steps whose fields are held at a time.
const STEPS: usize = 4;

/// A field of floats.
struct Field {
    height: usize,
    width: usize,
    pixels: Vec<f32>,
}

impl Field {
    /// Samples `height * width` values at rows `y * down` and columns `x * right`, bilinear, clamped at the border.
    fn sample(
        (from_height, from_width): (usize, usize),
        read: impl Fn(usize, usize) -> f32,
        (height, width): (usize, usize),
        (down, right): (f64, f64),
    ) -> Self {
        let mut pixels = Vec::with_capacity(height * width);
        let columns: Vec<(usize, usize, f32)> = (0..width).map(|x| between(x, right, from_width)).collect();
        for y in 0..height {
            let (y0, y1, wy) = between(y, down, from_height);
            pixels.extend(columns.iter().map(|&(x0, x1, wx)| {
                // Places that fall on a pixel take its value as it is.
                let along = |y: usize| {
                    if wx == 0.0 {
                        read(y, x0)
                    } else {
                        read(y, x0) * (1.0 - wx) + read(y, x1) * wx
                    }
                };
                if wy == 0.0 {
                    along(y0)
                } else {
                    along(y0) * (1.0 - wy) + along(y1) * wy
                }
            }));
        }
        Self {
            height,
            width,
            pixels,
        }
    }

    fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    fn at(&self, y: usize, x: usize) -> f32 {
        self.pixels[y * self.width + x]
    }
}

/// The two pixels around place `i * step` and the weight of the second.
fn between(i: usize, step: f64, len: usize) -> (usize, usize, f32) {
    let at = (i as f64 * step).clamp(0.0, (len - 1) as f64);
    let low = at.floor() as usize;
    (low, (low + 1).min(len - 1), (at - low as f64) as f32)
}

/// Weights of the sampled pixels around an object; they sum to 1.
struct Weights {
    top: usize,
    left: usize,
    width: usize,
    weights: Vec<f64>,
}

impl Weights {
    fn of(labels: &LabelImage, index: usize, bounds: &ObjectBox, field: &Field) -> Self {
        let scale = |to: usize, from: usize| {
            if from > 1 {
                (to - 1) as f64 / (from - 1) as f64
            } else {
                0.0
            }
        };
        let (down, right) = (
            scale(field.height, labels.height()),
            scale(field.width, labels.width()),
        );
        let (top, left) = (
            between(bounds.top, down, field.height).0,
            between(bounds.left, right, field.width).0,
        );
        let bottom = between(bounds.bottom - 1, down, field.height).1;
        let width = between(bounds.right - 1, right, field.width).1 + 1 - left;
        let mut weights = vec![0.0; (bottom + 1 - top) * width];
        let each = 1.0 / bounds.area as f64;
        for y in bounds.top..bounds.bottom {
            let (y0, y1, wy) = between(y, down, field.height);
            let row = &labels.labels()[y * labels.width()..][bounds.left..bounds.right];
            for (x, _) in row.iter().enumerate().filter(|(_, l)| **l as usize == index + 1) {
                let (x0, x1, wx) = between(bounds.left + x, right, field.width);
                let (wy, wx) = (f64::from(wy), f64::from(wx));
                for (y, w) in [(y0, 1.0 - wy), (y1, wy)] {
                    weights[(y - top) * width + x0 - left] += w * (1.0 - wx) * each;
                    weights[(y - top) * width + x1 - left] += w * wx * each;
                }
            }
        }
        Self {
            top,
            left,
            width,
            weights,
        }
    }

    /// The mean over the object of `pixels` brought back to the size of the labels.
    fn mean(&self, pixels: &[f32], width: usize) -> f64 {
        let mut sum = 0.0;
        for (y, weights) in self.weights.chunks_exact(self.width).enumerate() {
            let row = &pixels[(self.top + y) * width + self.left..][..self.width];
            sum += row
                .iter()
                .zip(weights)
                .map(|(&v, w)| f64::from(v) * w)
                .sum::<f64>();
        }
        sum
    }
}

/// The spectrum of each object, object after object.
pub(crate) fn spectra(plane: &[u16], labels: &LabelImage, settings: &Granularity) -> Vec<Vec<f64>> {
    let (height, width) = (labels.height(), labels.width());
    let part = |n: usize, by: f64| (n as f64 * by) as usize;
    let size = (part(height, settings.subsample), part(width, settings.subsample));
    let empty = || vec![vec![f64::NAN; settings.length]; labels.count()];
    if size.0 < 2 || size.1 < 2 {
        return empty();
    }
    let read = |y: usize, x: usize| f32::from(plane[y * width + x]);
    let step = 1.0 / settings.subsample;
    let mut field = Field::sample((height, width), read, size, (step, step));
    subtract_background(&mut field, settings);

    let means: Vec<(Weights, f64)> = labels
        .boxes()
        .par_iter()
        .enumerate()
        .map(|(index, bounds)| {
            let sum: u64 = (bounds.top..bounds.bottom)
                .map(|y| {
                    let here = y * width + bounds.left..y * width + bounds.right;
                    let pixels = plane[here.clone()].iter().zip(&labels.labels()[here]);
                    pixels
                        .filter(|(_, l)| **l as usize == index + 1)
                        .map(|(v, _)| u64::from(*v))
                        .sum::<u64>()
                })
                .sum();
            (
                Weights::of(labels, index, bounds, &field),
                sum as f64 / bounds.area as f64,
            )
        })
        .collect();
    let mut spectra = vec![Vec::with_capacity(settings.length); labels.count()];
    let mut last: Vec<f64> = means.iter().map(|(_, mean)| *mean).collect();
    let tree = ComponentTree::of(&field.pixels, field.height, field.width);
    let mut eroded = field.pixels.clone();
    let mut left = settings.length;
    while left > 0 {
        let mut steps: Vec<Vec<f32>> = Vec::new();
        for _ in 0..left.min(STEPS) {
            let mut next = vec![0.0; eroded.len()];
            erode_cross(&eroded, field.height, field.width, &mut next);
            steps.push(next.clone());
            eroded = next;
        }
        left -= steps.len();
        steps
            .par_iter_mut()
            .for_each(|step| tree.reconstruct(&field.pixels, step));
        spectra
            .par_iter_mut()
            .zip(&mut last)
            .zip(&means)
            .for_each(|((spectrum, last), (weights, start))| {
                for step in &steps {
                    let mean = weights.mean(step, field.width);
                    spectrum.push(if *start > 0.0 {
                        100.0 * (*last - mean) / start
                    } else {
                        0.0
                    });
                    *last = mean;
                }
            });
    }
    spectra
}

/// Subtracts the opening by a disc, found on a part of the pixels; what is below 0 becomes 0.
fn subtract_background(field: &mut Field, settings: &Granularity) {
    let by = settings.background_subsample;
    let part = |n: usize| n as f64 * by;
    let size = (
        part(field.height).ceil() as usize,
        part(field.width).ceil() as usize,
    );
    let (size, step) = if by < 1.0 {
        (size, 1.0 / by)
    } else {
        (field.size(), 1.0)
    };
    let mut coarse = Field::sample(field.size(), |y, x| field.at(y, x), size, (step, step));
    coarse.pixels = open_disc(&coarse.pixels, coarse.height, coarse.width, settings.radius);
    // The peer counts from the exact, not whole, size of the coarse field.
    let back = |n: usize| {
        if by < 1.0 {
            (part(n) - 1.0) / (n - 1) as f64
        } else {
            1.0
        }
    };
    let steps = (back(field.height), back(field.width));
    let background = Field::sample(coarse.size(), |y, x| coarse.at(y, x), field.size(), steps);
    for (v, b) in field.pixels.iter_mut().zip(&background.pixels) {
        *v = (*v - b).max(0.0);
    }
}
