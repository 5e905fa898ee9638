//! Power log-log slope: how fast spectral power falls with spatial frequency; the common measure of blur.
//!
//! `P = |FFT2(x - mean)|^2`; pixel (i, j) of the spectrum has the radius `R = floor(sqrt(r2)) + 1` with `r2` the
//! least of `i'^2 + j'^2` over `i'` in {i, H-1-i}, `j'` in {j, W-1-j}; the power of each annulus k from 2 to
//! `floor(min(H, W) / 8) - 1` is summed, and the slope of `ln S(k)` on `ln k` is fitted by least squares. 0 for a
//! constant image or fewer than two annuli. Source: CellProfiler MeasureImageQuality and centrosome
//! `radial_power_spectrum`. The mirror at N-1 instead of N is theirs and is kept, so that numbers agree.
//! Dividing by a constant, which they do first, leaves the slope unchanged and is left out.
//!
//! CPU only. The work is a chain of small transforms of any length (1080, 2160 and odd crops), of which only a
//! sixteenth of the columns is needed; a shader for every length would need Bluestein's algorithm in f32, whose
//! rounding in the weak outer annuli of a blurred image moves the slope more than the tolerance of 1e-6.
//!
//! Two real rows go into one complex transform, and only the columns below the largest radius are transformed: about
//! `H / 2 + min(H, W) / 8` transforms instead of `H + W`. Rows and columns run in parallel; the power of each column is
//! summed by itself and columns are added in their order, so that the slope does not depend on the number of threads.

use std::sync::Arc;

use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use crate::error::KernelError;
use crate::image::RawImage;

/// Transforms per parallel task: they take a few microseconds each.
const TASK: usize = 16;

/// The slope of one plane.
pub(crate) fn log_log_slope(plane: &[u16], height: usize, width: usize) -> f64 {
    let constant = plane.first().is_none_or(|first| plane.iter().all(|v| v == first));
    if height.min(width) / 8 < 4 || constant {
        return 0.0;
    }
    fit(&annuli(plane, height, width))
}

/// The power log-log slope of channel `channel` of `image`; see [`crate::ChannelQuality::power_log_log_slope`].
///
/// # Errors
/// A channel the image does not have.
pub fn power_log_log_slope(image: &RawImage, channel: usize) -> Result<f64, KernelError> {
    let plane = checked(image, channel)?;
    Ok(log_log_slope(plane, image.height(), image.width()))
}

/// Spectral power of channel `channel` by radius, in squared grey levels: entry `k` is the sum over the annulus of
/// radius `k`, up to but not including an eighth of the shorter side; entries 0 and 1 are 0 and without meaning. Empty
/// for an image of fewer than 8 pixels on a side.
///
/// # Errors
/// A channel the image does not have.
pub fn radial_power(image: &RawImage, channel: usize) -> Result<Vec<f64>, KernelError> {
    let plane = checked(image, channel)?;
    let (height, width) = (image.height(), image.width());
    Ok(match height.min(width) / 8 {
        0 => Vec::new(),
        _ => annuli(plane, height, width),
    })
}

fn checked(image: &RawImage, channel: usize) -> Result<&[u16], KernelError> {
    if channel < image.channels() {
        return Ok(image.plane(channel));
    }
    Err(KernelError::Parameter {
        kernel: "power log-log slope",
        parameter: "channel",
        value: channel.to_string(),
        expected: "give a channel of the image, counted from 0",
    })
}

/// Power of each annulus, by its number: entries 0 and 1 are not used. The height and the width are at least 8.
fn annuli(plane: &[u16], height: usize, width: usize) -> Vec<f64> {
    let limit = height.min(width) / 8;
    // Radii below `limit` reach column `limit - 1`; the mirrored half reaches one column further.
    let columns = limit + 1;
    let rows = low_columns(plane, width, columns);
    let down = Transform::new(height);
    let of_columns: Vec<Vec<f64>> = (0..columns)
        .into_par_iter()
        .with_min_len(TASK)
        .map_init(
            || (down.scratch(), vec![Complex::default(); height]),
            |(scratch, column), j| {
                for (c, row) in column.iter_mut().zip(rows.chunks_exact(columns)) {
                    *c = row[j];
                }
                down.fft.process_with_scratch(column, scratch);
                column_power(column, j, width, limit)
            },
        )
        .collect();
    let mut power = vec![0.0f64; limit];
    for column in of_columns {
        for (sum, p) in power.iter_mut().zip(column).skip(2) {
            *sum += p;
        }
    }
    power
}

/// Power that column `j` of the spectrum and its mirror give to each annulus.
fn column_power(column: &[Complex<f64>], j: usize, width: usize, limit: usize) -> Vec<f64> {
    let height = column.len();
    let mut power = vec![0.0f64; limit];
    let radius = |i: usize, j: usize| {
        let (i, j) = (i.min(height - 1 - i), j.min(width - 1 - j));
        // Exact: the root of a whole number below 2^52 never rounds up to the next whole number.
        ((i * i + j * j) as f64).sqrt() as usize + 1
    };
    // Other rows lie outside every annulus, mirrored or not; the height is at least eight times the limit.
    for i in (0..=limit).chain(height - limit - 1..height) {
        let p = column[i].norm_sqr();
        let mut add = |k: usize| {
            if let Some(sum) = power.get_mut(k) {
                *sum += p;
            }
        };
        add(radius(i, j));
        // The conjugate pixel has the same power. Column 0 holds its own conjugates.
        if j > 0 {
            add(radius((height - i) % height, width - j));
        }
    }
    power
}

/// A transform of one length.
struct Transform {
    fft: Arc<dyn Fft<f64>>,
}

impl Transform {
    fn new(length: usize) -> Self {
        let fft = FftPlanner::new().plan_fft_forward(length);
        Self { fft }
    }

    fn scratch(&self) -> Vec<Complex<f64>> {
        vec![Complex::default(); self.fft.get_inplace_scratch_len()]
    }
}

/// Columns `0..columns` of the spectra of all rows, row after row.
fn low_columns(plane: &[u16], width: usize, columns: usize) -> Vec<Complex<f64>> {
    let mean = plane.iter().map(|&v| u64::from(v)).sum::<u64>() as f64 / plane.len() as f64;
    let across = Transform::new(width);
    let mut spectra = vec![Complex::default(); plane.len() / width * columns];
    spectra
        .par_chunks_mut(2 * columns)
        .zip(plane.par_chunks(2 * width))
        .with_min_len(TASK)
        .for_each_init(
            || (across.scratch(), vec![Complex::default(); width]),
            |(scratch, line), (out, rows)| {
                let (first, second) = rows.split_at(width);
                for (z, &a) in line.iter_mut().zip(first) {
                    *z = Complex::new(f64::from(a) - mean, 0.0);
                }
                // Of an odd number of rows, the last is alone.
                for (z, &b) in line.iter_mut().zip(second) {
                    z.im = f64::from(b) - mean;
                }
                across.fft.process_with_scratch(line, scratch);
                let (first, second) = out.split_at_mut(columns);
                // F = A + iB with A, B the spectra of the two real rows: split by conjugate symmetry.
                let split = |j: usize| (line[j], line[(width - j) % width].conj());
                for (j, a) in first.iter_mut().enumerate() {
                    let (f, g) = split(j);
                    *a = (f + g) * 0.5;
                }
                for (j, b) in second.iter_mut().enumerate() {
                    let (f, g) = split(j);
                    let d = (f - g) * 0.5;
                    *b = Complex::new(d.im, -d.re);
                }
            },
        );
    spectra
}

/// Least-squares slope of `ln power` on `ln k` for k from 2; annuli without power are left out.
fn fit(power: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> = power
        .iter()
        .enumerate()
        .skip(2)
        .filter(|(_, p)| p.is_finite() && **p > 0.0)
        .map(|(k, p)| ((k as f64).ln(), p.ln()))
        .collect();
    if points.len() < 2 {
        return 0.0;
    }
    let n = points.len() as f64;
    let (mx, my) = points
        .iter()
        .fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
    let (sxy, sxx) = points.iter().fold((0.0, 0.0), |(a, b), (x, y)| {
        (a + (x - mx) * (y - my), b + (x - mx) * (x - mx))
    });
    if sxx > 0.0 { sxy / sxx } else { 0.0 }
}
