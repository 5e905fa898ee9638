//! Registration: how far one channel lies from another, by phase correlation.
//!
//! The normalised cross-power spectrum `F conj(G) / |F conj(G)|` of reference and moving plane is transformed back; its peak
//! lies at the offset that moves the second onto the first. The peak is then refined to `1 / upsampling` of a pixel by the
//! discrete Fourier sum in its neighbourhood.
//! Source: Kuglin and Hines 1975; Guizar-Sicairos, Thurman and Fienup, Opt. Lett. 33 (2008) 156, as scikit-image
//! `phase_cross_correlation`.
//! Enters: two planes. Leaves: an offset for [`crate::Translate`]. Fails on planes of different sizes.
//!
//! CPU only: it runs once per plate and channel on images of any size, and needs the phase of weak frequencies, which f32
//! transforms lose.

use rayon::prelude::*;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

use crate::error::KernelError;

/// Kernel name in messages.
const NAME: &str = "registration";

/// Largest refinement.
const MAX_UPSAMPLING: usize = 100;

/// Pixels around the whole peak in which the refined one is looked for.
const REGION: f64 = 1.5;

type Number = Complex<f64>;

/// Pixels down and to the right that move `moving` onto `reference`, both `height` x `width`, to `1 / upsampling` of a pixel
/// (1 to 100). Planes without any structure give 0.
///
/// # Errors
/// A plane of another size, an upsampling out of range.
pub fn phase_correlation(
    reference: &[u16],
    moving: &[u16],
    [height, width]: [usize; 2],
    upsampling: usize,
) -> Result<[f64; 2], KernelError> {
    for plane in [reference, moving] {
        KernelError::check_plane(plane, [height, width])?;
    }
    if upsampling == 0 || upsampling > MAX_UPSAMPLING {
        return Err(KernelError::Parameter {
            kernel: NAME,
            parameter: "upsampling",
            value: upsampling.to_string(),
            expected: "a pixel is divided into 1 to 100 parts",
        });
    }
    let [f, g] = [reference, moving].map(|plane| {
        let mut values: Vec<Number> = plane.iter().map(|&v| Complex::new(f64::from(v), 0.0)).collect();
        transform(&mut values, [height, width], false);
        values
    });
    let mut power: Vec<Number> = f.iter().zip(&g).map(|(a, b)| a * b.conj()).collect();
    // The mean has no phase, and beside it a constant plane has nothing but rounding.
    let mean = std::mem::take(&mut power[0]).norm();
    let most = power.iter().map(|p| p.norm()).fold(0.0, f64::max);
    if most <= mean * 1e-24 || most <= 0.0 {
        return Ok([0.0, 0.0]);
    }
    for p in &mut power {
        // Frequencies that only rounding fills have no phase either.
        let size = p.norm();
        *p = if size > most * 1e-12 {
            *p / size
        } else {
            Complex::default()
        };
    }
    let mut peaks = power.clone();
    transform(&mut peaks, [height, width], true);
    let at = position_of_largest(&peaks);
    let wrapped = |at: usize, length: usize| {
        if at > length / 2 {
            at as f64 - length as f64
        } else {
            at as f64
        }
    };
    let whole = [wrapped(at / width, height), wrapped(at % width, width)];
    if upsampling == 1 {
        return Ok(whole);
    }
    Ok(refined(&power, [height, width], whole, upsampling as f64))
}

/// The first of the largest.
fn position_of_largest(values: &[Number]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, v) in values.iter().enumerate() {
        if v.norm_sqr() > best.1 {
            best = (i, v.norm_sqr());
        }
    }
    best.0
}

/// The peak on a grid of `1 / upsampling` pixels around `whole`: two products with short Fourier matrices.
fn refined(power: &[Number], [height, width]: [usize; 2], whole: [f64; 2], upsampling: f64) -> [f64; 2] {
    let size = (REGION * upsampling).ceil() as usize;
    let middle = (size / 2) as f64;
    let offset = |axis: usize, i: usize| whole[axis] + (i as f64 - middle) / upsampling;
    let waves = |axis: usize, i: usize, length: usize| -> Vec<Number> {
        (0..length)
            .map(|k| {
                let frequency = if k > length / 2 {
                    k as f64 - length as f64
                } else {
                    k as f64
                };
                Complex::cis(std::f64::consts::TAU * frequency * offset(axis, i) / length as f64)
            })
            .collect()
    };
    let across: Vec<Vec<Number>> = (0..size).map(|i| waves(1, i, width)).collect();
    let lines: Vec<Vec<Number>> = power
        .par_chunks(width)
        .map(|row| {
            across
                .iter()
                .map(|wave| row.iter().zip(wave).map(|(p, w)| p * w).sum())
                .collect()
        })
        .collect();
    let mut best = ([0.0, 0.0], f64::NEG_INFINITY);
    for i in 0..size {
        let down = waves(0, i, height);
        for j in 0..size {
            let sum: Number = lines.iter().zip(&down).map(|(line, w)| line[j] * w).sum();
            if sum.norm_sqr() > best.1 {
                best = ([offset(0, i), offset(1, j)], sum.norm_sqr());
            }
        }
    }
    best.0
}

/// The two-dimensional transform in place, unnormalised: rows, then columns.
fn transform(values: &mut [Number], [height, width]: [usize; 2], backwards: bool) {
    let mut planner = FftPlanner::<f64>::new();
    let mut plan = |length| {
        if backwards {
            planner.plan_fft_inverse(length)
        } else {
            planner.plan_fft_forward(length)
        }
    };
    let (across, down) = (plan(width), plan(height));
    values.par_chunks_mut(width).for_each(|row| across.process(row));
    let columns: Vec<Vec<Number>> = (0..width)
        .into_par_iter()
        .map(|x| {
            let mut column: Vec<Number> = values.iter().skip(x).step_by(width).copied().collect();
            down.process(&mut column);
            column
        })
        .collect();
    values.par_chunks_mut(width).enumerate().for_each(|(y, row)| {
        for (v, column) in row.iter_mut().zip(&columns) {
            *v = column[y];
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth blobs at fixed places, moved by (dy, dx), on a periodic field.
    fn field(height: usize, width: usize, [dy, dx]: [f64; 2]) -> Vec<u16> {
        let wrapped = |d: f64, n: usize| (d + 1.5 * n as f64).rem_euclid(n as f64) - n as f64 / 2.0;
        let mut state = 9u64;
        let mut next = |n: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let blobs: Vec<(f64, f64)> = (0..25)
            .map(|_| (next(height) as f64 + dy, next(width) as f64 + dx))
            .collect();
        (0..height * width)
            .map(|i| {
                let (y, x) = ((i / width) as f64, (i % width) as f64);
                let sum: f64 = blobs
                    .iter()
                    .map(|(by, bx)| {
                        let r2 = wrapped(y - by, height).powi(2) + wrapped(x - bx, width).powi(2);
                        4000.0 * (-r2 / 8.0).exp()
                    })
                    .sum();
                (300.0 + sum).round() as u16
            })
            .collect()
    }

    #[test]
    fn whole_and_broken_offsets_are_found() {
        for (height, width) in [(64, 80), (61, 45)] {
            let reference = field(height, width, [0.0, 0.0]);
            for [dy, dx] in [[0.0, 0.0], [3.0, -5.0], [-20.0, 11.0], [0.3, -1.7], [-2.5, 0.1]] {
                let moving = field(height, width, [-dy, -dx]);
                let found = phase_correlation(&reference, &moving, [height, width], 20).unwrap();
                let gap = (found[0] - dy).abs().max((found[1] - dx).abs());
                assert!(gap <= 0.1, "{height} x {width}: {found:?} for {dy} {dx}");
                let whole = phase_correlation(&reference, &moving, [height, width], 1).unwrap();
                assert!(
                    (whole[0] - dy).abs() <= 0.5 && (whole[1] - dx).abs() <= 0.5,
                    "{whole:?} for {dy} {dx}"
                );
            }
        }
    }

    #[test]
    fn planes_without_structure_and_bad_input() {
        assert_eq!(
            phase_correlation(&[5; 12], &[9; 12], [3, 4], 10).unwrap(),
            [0.0, 0.0]
        );
        let message = phase_correlation(&[5; 12], &[9; 11], [3, 4], 10)
            .unwrap_err()
            .to_string();
        assert!(message.contains("12") && message.contains("11"), "{message}");
        let message = phase_correlation(&[5; 12], &[9; 12], [3, 4], 0)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("upsampling") && message.contains('0'),
            "{message}"
        );
    }
}
