//! The decomposition itself: images at working size enter, flat-field and dark-field of that size leave.
//!
//! Every image n is `b_n S + D + R_n`. Minimised is the weighted L1 norm of the residuals R plus `ls |DCT(S)|_1 + ld |DCT(D)|_1`,
//! by augmented Lagrangian steps: each variable in turn, then the multipliers Y, then a larger penalty mu. Then the weights
//! are made anew, small where the residual is large, and all is repeated until S stands still.
//! Source: Peng et al., Nature Communications 8 (2017) 14836; the steps and constants are those of basicpy 2.0.0's approximate
//! form. Sums run in a fixed order, so the result does not depend on the number of threads.

use rayon::prelude::*;

use super::BasicSettings;
use super::cosine::Cosine;
use crate::simd::vectorised;

/// First penalty, over the largest singular value of the images.
const FIRST_PENALTY: f64 = 12.5;
/// Growth of the penalty from step to step.
const GROWTH: f64 = 1.5;
/// Largest penalty over the first.
const LARGEST_PENALTY: f64 = 1e7;
/// Most steps between two makings of the weights.
const STEPS: usize = 500;
/// Most makings of the weights.
const ROUNDS: usize = 10;
/// What the model leaves unexplained, over the norm of the images, at which steps end.
const UNEXPLAINED: f64 = 1e-3;
/// Relative change of S from round to round at which rounds end.
const STILL: f64 = 1e-2;
/// Share of the dark-field's step that is taken.
const DARK_STEP: f64 = 10.0;
/// Sum of the frequencies of the mean image at which the smoothness is 0.5.
const FREQUENCIES: f64 = 400.0;
/// Keeps quotients finite.
const TINY: f64 = 1e-6;

/// Pixels that one task sums over all images.
const CHUNK: usize = 512;

/// What was found, at working size.
pub(super) struct Found {
    /// Mean 1.
    pub(super) flat: Vec<f64>,
    /// Grey levels.
    pub(super) dark: Vec<f64>,
    /// Whether the last round stood still before the steps or rounds ran out.
    pub(super) converged: bool,
}

/// `images` holds planes of `size`, one after the other, with a positive pixel among them.
pub(super) fn decompose(images: &[f32], size: [usize; 2], settings: &BasicSettings) -> Found {
    let mut fit = Fit::new(images, size, settings);
    let mut weights = vec![1.0f32; images.len()];
    let mut last: Option<Vec<f64>> = None;
    let mut rounds = 0;
    loop {
        let state = fit.steps(&weights);
        rounds += 1;
        let brightness = mean(&state.brightness);
        let flat_mean = mean(&state.flat);
        let dark: Vec<f64> = state
            .dark
            .iter()
            .zip(&state.flat)
            .map(|(d, s)| d + state.dark_share * s)
            .collect();
        let explained = state.flat.iter().zip(&state.dark_before);
        let mut flat: Vec<f64> = explained
            .zip(&dark)
            .map(|((s, before), d)| s * brightness + before - d)
            .collect();
        let level = mean(&flat);
        flat.iter_mut().for_each(|s| *s /= level);
        let change = last.replace(flat.clone()).map(|last| {
            let moved: f64 = flat.iter().zip(&last).map(|(a, b)| (a - b).abs()).sum();
            moved / last.iter().map(|s| s.abs()).sum::<f64>().max(TINY)
        });
        let still = change.is_some_and(|change| change <= STILL);
        if still || rounds == ROUNDS || level <= 0.0 {
            return Found {
                flat,
                dark,
                converged: still || state.converged,
            };
        }
        let levels = state.brightness.iter().map(|b| b * flat_mean);
        let offset = mean(&state.dark_before);
        let levels: Vec<f64> = levels.map(|level| level + offset + TINY).collect();
        reweigh(&mut weights, &fit.residuals, &levels, settings.epsilon);
    }
}

/// What the steps of one round end with.
struct State {
    /// The flat-field, in grey levels of an image of brightness 1.
    flat: Vec<f64>,
    /// Brightness of each image, about 1.
    brightness: Vec<f64>,
    /// The dark-field without its share of the flat-field, and that of the step before.
    dark: Vec<f64>,
    dark_before: Vec<f64>,
    dark_share: f64,
    converged: bool,
}

/// The images and the variables of their size.
struct Fit<'a> {
    images: &'a [f32],
    residuals: Vec<f32>,
    multipliers: Vec<f32>,
    cosine: Cosine,
    pixels: usize,
    first_penalty: f64,
    norm: f64,
    least: f64,
    smoothness: f64,
    dark_smoothness: Option<f64>,
}

impl<'a> Fit<'a> {
    fn new(images: &'a [f32], size: [usize; 2], settings: &BasicSettings) -> Self {
        let pixels = size[0] * size[1];
        let cosine = Cosine::new(size);
        let mut average = over_images(pixels, images.len() / pixels, |n, at, sums| {
            add(sums, &images[n * pixels + at..][..sums.len()]);
        });
        let level = mean(&average);
        average.iter_mut().for_each(|v| *v /= level);
        let frequencies: f64 = cosine.forward(&average).iter().map(|v| v.abs()).sum();
        let smoothness = settings
            .smoothness_flat
            .unwrap_or(0.5 * frequencies / FREQUENCIES);
        let squares: Vec<f64> = images.par_chunks(pixels).map(|row| dot(row, row)).collect();
        let dark_smoothness = settings.smoothness_dark.unwrap_or(0.1 * smoothness);
        Self {
            images,
            residuals: vec![0.0; images.len()],
            multipliers: vec![0.0; images.len()],
            cosine,
            pixels,
            first_penalty: FIRST_PENALTY / largest_singular_value(images, pixels, average),
            norm: squares.iter().sum::<f64>().sqrt(),
            least: f64::from(images.iter().copied().fold(f32::INFINITY, f32::min)),
            smoothness,
            dark_smoothness: settings.dark_field.then_some(dark_smoothness),
        }
    }

    fn steps(&mut self, weights: &[f32]) -> State {
        let pixels = self.pixels;
        self.residuals.fill(0.0);
        self.multipliers.fill(0.0);
        let sums: Vec<f64> = self.images.par_chunks(pixels).map(sum).collect();
        let mut state = State {
            flat: vec![1.0; pixels],
            brightness: over_mean(&sums),
            dark: vec![0.0; pixels],
            dark_before: vec![0.0; pixels],
            dark_share: 0.0,
            converged: false,
        };
        let mut frequencies = self.cosine.forward(&state.flat);
        let mut penalty = self.first_penalty;
        for _ in 0..STEPS {
            let unexplained = self.unexplained(&state, penalty);
            let step = self.cosine.forward(&unexplained);
            frequencies.iter_mut().zip(step).for_each(|(f, s)| *f += s);
            shrink(&mut frequencies, self.smoothness / penalty);
            state.flat = self.cosine.inverse(&frequencies);
            let sums = self.residual_step(&state, weights, penalty);
            state.brightness = over_mean(&sums);
            state.brightness.iter_mut().for_each(|b| *b = b.max(0.0));
            state.dark_before.clone_from(&state.dark);
            if let Some(smoothness) = self.dark_smoothness {
                self.dark_step(&mut state, &sums, smoothness / (DARK_STEP * penalty));
            }
            let left = self.multiplier_step(&state, penalty);
            penalty = (penalty * GROWTH).min(self.first_penalty * LARGEST_PENALTY);
            if left.sqrt() / self.norm <= UNEXPLAINED {
                state.converged = true;
                break;
            }
        }
        state
    }

    /// Per pixel the mean over the images of what neither model nor residual holds, with the multipliers.
    fn unexplained(&self, state: &State, penalty: f64) -> Vec<f64> {
        let (flat, dark) = (floats(&state.flat), floats(&state.dark));
        over_images(self.pixels, state.brightness.len(), |n, at, sums| {
            let here = at..at + sums.len();
            let all = n * self.pixels + at..n * self.pixels + at + sums.len();
            add_unexplained(
                sums,
                [
                    &self.images[all.clone()],
                    &self.residuals[all.clone()],
                    &self.multipliers[all],
                ],
                [&flat[here.clone()], &dark[here]],
                [state.brightness[n] as f32, (1.0 / penalty) as f32],
            );
        })
    }

    /// The residuals, and per image the sum of what they leave.
    fn residual_step(&mut self, state: &State, weights: &[f32], penalty: f64) -> Vec<f64> {
        let (flat, dark) = (floats(&state.flat), floats(&state.dark));
        let pixels = self.pixels;
        self.residuals
            .par_chunks_mut(pixels)
            .zip(self.images.par_chunks(pixels))
            .zip(
                self.multipliers
                    .par_chunks(pixels)
                    .zip(weights.par_chunks(pixels)),
            )
            .zip(&state.brightness)
            .map(|(((residual, image), (multiplier, weight)), b)| {
                let numbers = [*b as f32, (1.0 / penalty) as f32];
                shrunk(residual, [image, multiplier, weight], [&flat, &dark], numbers);
                sum(image) - sum(residual)
            })
            .collect()
    }

    /// The multipliers, and the square of what is unexplained.
    fn multiplier_step(&mut self, state: &State, penalty: f64) -> f64 {
        // The dark-field of the step before, as in the form that this one follows.
        let (flat, dark) = (floats(&state.flat), floats(&state.dark_before));
        let pixels = self.pixels;
        let squares: Vec<f64> = self
            .multipliers
            .par_chunks_mut(pixels)
            .zip(
                self.images
                    .par_chunks(pixels)
                    .zip(self.residuals.par_chunks(pixels)),
            )
            .zip(&state.brightness)
            .map(|((multiplier, (image, residual)), b)| {
                let mut left = vec![0.0; pixels];
                unexplained_row(&mut left, [image, residual], [&flat, &dark], *b as f32);
                multiplier
                    .iter_mut()
                    .zip(&left)
                    .for_each(|(y, v)| *y += penalty as f32 * v);
                dot(&left, &left)
            })
            .collect();
        squares.iter().sum()
    }

    /// The dark-field, from the images darker than the mean: what they have in common that does not grow with brightness.
    fn dark_step(&self, state: &mut State, sums: &[f64], threshold: f64) {
        let pixels = self.pixels;
        let level = mean(sums) / pixels as f64;
        let flat_mean = mean(&state.flat);
        let dim: Vec<usize> = (0..sums.len()).filter(|n| state.brightness[*n] < 1.0).collect();
        if dim.is_empty() {
            return;
        }
        let left = |n: usize| {
            let at = n * pixels;
            self.images[at..at + pixels]
                .iter()
                .zip(&self.residuals[at..at + pixels])
                .map(|(i, r)| f64::from(i - r))
        };
        // How much brighter each image is where the flat-field is: slope over brightness gives the share of the flat-field
        // in the dark-field.
        let bright = state.flat.iter().filter(|s| **s >= flat_mean).count();
        state.dark_share = 0.0;
        if bright < pixels {
            let contrasts: Vec<f64> = dim
                .par_iter()
                .map(|n| {
                    let (mut inside, mut outside) = (0.0, 0.0);
                    for (v, s) in left(*n).zip(&state.flat) {
                        if *s >= flat_mean {
                            inside += v;
                        } else {
                            outside += v;
                        }
                    }
                    (inside / bright as f64 - outside / (pixels - bright) as f64) / (level + TINY)
                })
                .collect();
            let sums = dim.iter().zip(&contrasts).fold([0.0; 4], |t, (n, c)| {
                let b = state.brightness[*n];
                [t[0] + b * b, t[1] + b, t[2] + c, t[3] + b * c]
            });
            let divisor = sums[1] * sums[2] - dim.len() as f64 * sums[3];
            if divisor != 0.0 {
                let share = (sums[0] * sums[2] - sums[1] * sums[3]) / divisor;
                state.dark_share = share.max(0.0).min(self.least / flat_mean);
            }
        }
        let mut offset = over_images(pixels, dim.len(), |k, at, sums| {
            let all = dim[k] * pixels + at..dim[k] * pixels + at + sums.len();
            let (images, residuals) = (&self.images[all.clone()], &self.residuals[all]);
            for ((sum, i), r) in sums.iter_mut().zip(images).zip(residuals) {
                *sum += f64::from(i - r);
            }
        });
        let brightness = dim.iter().map(|n| state.brightness[*n]).sum::<f64>() / dim.len() as f64;
        for (o, s) in offset.iter_mut().zip(&state.flat) {
            *o -= brightness * s;
        }
        let middle = mean(&offset);
        let share = |s: f64| state.dark_share * (flat_mean - s);
        for (o, s) in offset.iter_mut().zip(&state.flat) {
            *o -= middle + share(*s);
        }
        let mut frequencies = self.cosine.forward(&offset);
        shrink(&mut frequencies, threshold);
        let mut dark = self.cosine.inverse(&frequencies);
        shrink(&mut dark, threshold);
        for (d, s) in dark.iter_mut().zip(&state.flat) {
            *d += share(*s);
        }
        state.dark = dark;
    }
}

/// Weights of the residuals: less where they are large beside what the model gives their image; their mean is 1.
fn reweigh(weights: &mut [f32], residuals: &[f32], levels: &[f64], epsilon: f64) {
    let pixels = weights.len() / levels.len();
    let sums: Vec<f64> = weights
        .par_chunks_mut(pixels)
        .zip(residuals.par_chunks(pixels))
        .zip(levels)
        .map(|((weights, residuals), level)| {
            for (w, r) in weights.iter_mut().zip(residuals) {
                *w = 1.0 / ((r / *level as f32).abs() + epsilon as f32);
            }
            sum(weights)
        })
        .collect();
    let scale = (weights.len() as f64 / sums.iter().sum::<f64>()) as f32;
    weights
        .par_iter_mut()
        .with_min_len(1 << 14)
        .for_each(|w| *w *= scale);
}

/// The largest singular value of the images as rows of a matrix: powers of the matrix from the mean image on.
fn largest_singular_value(images: &[f32], pixels: usize, start: Vec<f64>) -> f64 {
    let mut vector = floats(&start);
    let mut value = 0.0;
    for _ in 0..50 {
        let length = dot(&vector, &vector).sqrt() as f32;
        vector.iter_mut().for_each(|v| *v /= length);
        let products: Vec<f64> = images.par_chunks(pixels).map(|row| dot(row, &vector)).collect();
        let before = std::mem::replace(&mut value, products.iter().map(|p| p * p).sum::<f64>().sqrt());
        if (value - before).abs() <= 1e-6 * value {
            break;
        }
        let back = over_images(pixels, products.len(), |n, at, sums| {
            let row = &images[n * pixels + at..][..sums.len()];
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += products[n] * f64::from(*v);
            }
        });
        vector = floats(&back);
    }
    value
}

/// Means over `count` images per pixel: `one(n, first, sums)` adds image n to the sums of the pixels from `first` on.
fn over_images(pixels: usize, count: usize, one: impl Fn(usize, usize, &mut [f64]) + Sync) -> Vec<f64> {
    let mut means = vec![0.0; pixels];
    means.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, sums)| {
        (0..count).for_each(|n| one(n, chunk * CHUNK, sums));
        sums.iter_mut().for_each(|v| *v /= count as f64);
    });
    means
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Values over their mean.
fn over_mean(values: &[f64]) -> Vec<f64> {
    let mean = mean(values);
    values.iter().map(|v| v / mean).collect()
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// Every value nearer to 0 by `by`, and not beyond it.
fn shrink(values: &mut [f64], by: f64) {
    for v in values {
        *v = (v.abs() - by).max(0.0).copysign(*v);
    }
}

vectorised! {
    fn add(sums: &mut [f64], row: &[f32]) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
    }

    /// Eight sums side by side.
    fn sum(row: &[f32]) -> f64 {
        let mut sums = [0.0f64; 8];
        let chunks = row.chunks_exact(8);
        let rest: f64 = chunks.remainder().iter().map(|v| f64::from(*v)).sum();
        for chunk in chunks {
            sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        sums.iter().sum::<f64>() + rest
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        let mut sums = [0.0f64; 8];
        let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
        let rest = a.remainder().iter().zip(b.remainder());
        let rest: f64 = rest.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        for (a, b) in a.zip(b) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += f64::from(*a) * f64::from(*b);
            }
        }
        sums.iter().sum::<f64>() + rest
    }

    fn add_unexplained(sums: &mut [f64], rows: [&[f32]; 3], planes: [&[f32]; 2], numbers: [f32; 2]) {
        let [images, residuals, multipliers] = rows;
        let [b, over] = numbers;
        let rows = images.iter().zip(residuals).zip(multipliers);
        let planes = planes[0].iter().zip(planes[1]);
        for ((sum, ((i, r), y)), (s, d)) in sums.iter_mut().zip(rows).zip(planes) {
            *sum += f64::from(i - r - (s * b + d) + y * over);
        }
    }

    fn shrunk(residuals: &mut [f32], rows: [&[f32]; 3], planes: [&[f32]; 2], numbers: [f32; 2]) {
        let [images, multipliers, weights] = rows;
        let [b, over] = numbers;
        let rows = images.iter().zip(multipliers).zip(weights);
        let planes = planes[0].iter().zip(planes[1]);
        for ((r, ((i, y), w)), (s, d)) in residuals.iter_mut().zip(rows).zip(planes) {
            let v = i - (s * b + d) + y * over;
            *r = (v.abs() - w * over).max(0.0).copysign(v);
        }
    }

    fn unexplained_row(left: &mut [f32], rows: [&[f32]; 2], planes: [&[f32]; 2], b: f32) {
        let rows = rows[0].iter().zip(rows[1]);
        let planes = planes[0].iter().zip(planes[1]);
        for ((v, (i, r)), (s, d)) in left.iter_mut().zip(rows).zip(planes) {
            *v = i - (s * b + d) - r;
        }
    }
}
