//! Radial distribution of intensity in an object (CellProfiler MeasureObjectIntensityDistribution). Enters: an object
//! and its values in one channel. Leaves: three values per ring; NaN where the object is black all over.
//!
//! The centre is the first pixel, row by row, farthest from the edge. With `c` the distance from the centre through the
//! object (steps of 1 and of the root of 2) and `e` that to the edge, a pixel lies in ring
//! `floor(rings c / (c + e + 0.001))`. FracAtD is the part of the intensity in a ring, MeanFrac that over the part of
//! the pixels, RadialCV the coefficient of variation of the mean intensities of the ring's eight wedges.
//! Pixels that cannot be reached from the centre do not count.

use std::f64::consts::SQRT_2;

use crate::features::object::Object;

/// Names of what [`measure`] gives for each ring.
pub(crate) const NAMES: [&str; 3] = ["FracAtD", "MeanFrac", "RadialCV"];

/// Added to the sum of distances, so that an object of one pixel has a ring.
const OFFSET: f64 = 0.001;

/// Rings and wedges of the pixels of an object; the same for every channel.
pub(crate) struct Rings {
    /// Ring and wedge of each pixel, in the order of [`Object::pixels`]; `None` if unreached.
    places: Vec<Option<(usize, usize)>>,
    count: usize,
}

impl Rings {
    /// `squares` are the squared distances to the edge with nothing beyond the border of the image, laid out as the mask.
    pub(crate) fn of(object: &Object, squares: &[u32], count: usize) -> Self {
        let mut centre = (0, 0);
        let mut farthest = 0;
        for (y, x) in object.pixels() {
            let d = squares[object.place(y, x)];
            if d > farthest {
                (centre, farthest) = ((y, x), d);
            }
        }
        let from_centre = through(object, object.place(centre.0, centre.1));
        let places = object
            .pixels()
            .map(|(y, x)| {
                let at = object.place(y, x);
                let d = from_centre[at];
                let edge = f64::from(squares[at]).sqrt();
                let ring = (d / (d + edge + OFFSET) * count as f64) as usize;
                let (down, right) = (y.abs_diff(centre.0), x.abs_diff(centre.1));
                let wedge =
                    usize::from(y > centre.0) + 2 * usize::from(x > centre.1) + 4 * usize::from(down > right);
                d.is_finite().then_some((ring.min(count - 1), wedge))
            })
            .collect();
        Self { places, count }
    }

    /// Values of [`NAMES`], name after name, each from the innermost ring out.
    pub(crate) fn measure(&self, values: &[u16], out: &mut Vec<f64>) {
        let mut sums = vec![[0u64; 8]; self.count];
        let mut pixels = vec![[0u64; 8]; self.count];
        for (&v, place) in values.iter().zip(&self.places) {
            if let &Some((ring, wedge)) = place {
                sums[ring][wedge] += u64::from(v);
                pixels[ring][wedge] += 1;
            }
        }
        let total = |of: &[[u64; 8]]| of.iter().flatten().sum::<u64>() as f64;
        let (all, all_pixels) = (total(&sums), total(&pixels));
        let part = |ring: usize| total(&sums[ring..=ring]) / all;
        out.extend((0..self.count).map(part));
        out.extend(
            (0..self.count)
                .map(|ring| part(ring) / (total(&pixels[ring..=ring]) / all_pixels + f64::EPSILON)),
        );
        out.extend(
            sums.iter()
                .zip(&pixels)
                .map(|(sums, pixels)| variation(sums, pixels)),
        );
    }
}

/// Coefficient of variation (population) of the means of the wedges that have pixels; 0 of none.
fn variation(sums: &[u64; 8], pixels: &[u64; 8]) -> f64 {
    let means: Vec<f64> = sums
        .iter()
        .zip(pixels)
        .filter(|(_, n)| **n > 0)
        .map(|(&s, &n)| s as f64 / n as f64)
        .collect();
    if means.is_empty() {
        return 0.0;
    }
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|m| (m - mean) * (m - mean)).sum::<f64>() / n;
    variance.sqrt() / mean
}

/// Distances from place `start` of the mask through the object; infinite where it is not reached. Rows are swept down
/// and up until nothing changes, which for an object without deep bays is after one round.
fn through(object: &Object, start: usize) -> Vec<f64> {
    let wide = object.wide();
    let mut d = vec![f64::INFINITY; object.mask.len()];
    d[start] = 0.0;
    let mut changed = true;
    while changed {
        changed = false;
        let mut relax = |d: &mut [f64], at: usize, side: usize, straight: usize, corners: [usize; 2]| {
            let near = (d[side] + 1.0).min(d[straight] + 1.0);
            let best = near.min(d[corners[0]] + SQRT_2).min(d[corners[1]] + SQRT_2);
            if best < d[at] {
                d[at] = best;
                changed = true;
            }
        };
        // The frame stays infinite, since it is never visited.
        for span in &object.spans {
            for x in span.left..span.right {
                let at = object.place(span.y, x);
                relax(&mut d, at, at - 1, at - wide, [at - wide - 1, at - wide + 1]);
            }
        }
        for span in object.spans.iter().rev() {
            for x in (span.left..span.right).rev() {
                let at = object.place(span.y, x);
                relax(&mut d, at, at + 1, at + wide, [at + wide - 1, at + wide + 1]);
            }
        }
    }
    d
}
