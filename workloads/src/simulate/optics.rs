//! From light to counts: defocus, vignetting, camera offset, shot and read noise, digitisation.
//!
//! A plane of light (1 is the camera's full scale) enters, counts leave, nothing fails.

use super::settings::SimulationSettings;
use crate::random::mix;

/// Electrons at full scale: shot noise is the square root of the electrons.
const FULL_WELL: f32 = 15_000.0;
/// Read noise in electrons.
const READ_NOISE: f32 = 6.0;
/// Camera offset as a fraction of full scale, so that noise around black is not cut off.
const OFFSET: f32 = 0.0025;

/// What the microscope loses towards the corners: `1 - rows[y] - columns[x]`.
#[derive(Debug)]
pub(super) struct Vignette {
    rows: Vec<f32>,
    columns: Vec<f32>,
}

impl Vignette {
    /// A paraboloid: nothing lost at the centre, `strength` in the corners.
    pub(super) fn new(settings: &SimulationSettings) -> Self {
        let strength = settings.artefacts.vignetting as f32;
        let half = |size: u32| -> Vec<f32> {
            (0..size)
                .map(|i| {
                    let from_centre = (2.0 * i as f32 + 1.0) / size as f32 - 1.0;
                    0.5 * strength * from_centre * from_centre
                })
                .collect()
        };
        Self {
            rows: half(settings.height),
            columns: half(settings.width),
        }
    }
}

/// Expose and read out one plane. `key` names the noise.
pub(super) fn expose(
    settings: &SimulationSettings,
    vignette: &Vignette,
    light: &[f32],
    key: u64,
) -> Vec<u16> {
    let full = ((1u32 << settings.bit_depth) - 1) as f32;
    let strength = settings.artefacts.noise as f32;
    let columns = vignette.columns.len();
    let mut counts = vec![0; light.len()];
    let mut noise = vec![0.0; columns];
    let lines = light.chunks_exact(columns).zip(counts.chunks_exact_mut(columns));
    for (y, ((from, to), &lost)) in lines.zip(&vignette.rows).enumerate() {
        fill_noise(&mut noise, mix(key ^ (y as u64 + 1)));
        // No branch and no cast that checks, so that the loop vectorises: it visits every pixel of a plate.
        for (((&light, &also_lost), &noise), count) in from.iter().zip(&vignette.columns).zip(&noise).zip(to)
        {
            let electrons = light.clamp(0.0, 1.0) * (1.0 - lost - also_lost) * FULL_WELL;
            let sigma = strength * (electrons + READ_NOISE * READ_NOISE).sqrt();
            let read = ((electrons + sigma * noise) * (1.0 / FULL_WELL) + OFFSET) * full;
            // Adding 2^23 rounds to an integer that is then the low bits of the number.
            *count = (read.clamp(0.0, full) + 8_388_608.0).to_bits() as u16;
        }
    }
    counts
}

/// Nearly normal noise of mean 0 and deviation 1, never beyond 3.46: sums of four bytes (Irwin-Hall), two from
/// each hash.
fn fill_noise(row: &mut [f32], key: u64) {
    // Four bytes have mean 510 and variance 4 (256^2 - 1) / 12 = 21845.
    const SCALE: f32 = 1.0 / 147.800_54;
    const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    for (at, pair) in row.chunks_mut(2).enumerate() {
        let hash = mix(key.wrapping_add((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        // Four sums of two bytes, then two of four: in the lanes of bits 0 to 15 and 32 to 47.
        let twos = (hash & BYTES) + (hash >> 8 & BYTES);
        let fours = twos + (twos >> 16);
        let sums = [fours as u16, (fours >> 32) as u16];
        for (out, sum) in pair.iter_mut().zip(sums) {
            *out = (f32::from(sum) - 510.0) * SCALE;
        }
    }
}

/// Defocus: three box averages along rows and columns, close to a Gaussian. Edges repeat.
pub(super) fn blur(plane: &mut [f32], width: usize, radius: usize) {
    let height = plane.len() / width;
    let mut line = Vec::new();
    for _ in 0..3 {
        for row in plane.chunks_exact_mut(width) {
            line.clear();
            line.extend_from_slice(row);
            box_line(&line, row, radius);
        }
        let mut column = vec![0.0; height];
        for x in 0..width {
            line.clear();
            line.extend((0..height).map(|y| plane[y * width + x]));
            box_line(&line, &mut column, radius);
            for (y, &value) in column.iter().enumerate() {
                plane[y * width + x] = value;
            }
        }
    }
}

fn box_line(from: &[f32], to: &mut [f32], radius: usize) {
    let last = from.len() - 1;
    let scale = 1.0 / (2 * radius + 1) as f32;
    // The running sum starts centred on pixel 0, where everything before it repeats pixel 0.
    let mut sum = from[0] * (radius + 1) as f32 + (1..=radius).map(|i| from[i.min(last)]).sum::<f32>();
    for (i, out) in to.iter_mut().enumerate() {
        *out = sum * scale;
        sum += from[(i + radius + 1).min(last)] - from[i.saturating_sub(radius)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_nought_and_deviation_one() {
        let mut row = vec![0.0; 40_000];
        fill_noise(&mut row, 7);
        let draws: Vec<f64> = row.into_iter().map(f64::from).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 40_000.0;
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03,
            "{mean} {variance}"
        );
    }

    #[test]
    fn defocus_spreads_a_point_and_keeps_its_light() {
        let (width, height) = (41, 31);
        let mut plane = vec![0.0; width * height];
        plane[15 * width + 20] = 1.0;
        blur(&mut plane, width, 2);
        assert!((plane.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!(plane[15 * width + 20] < 0.1 && plane[15 * width + 22] > 0.01);
        assert!(
            (plane[14 * width + 20] - plane[15 * width + 19]).abs() < 1e-6,
            "round"
        );
    }
}
