//! From light to counts: defocus, vignetting, camera offset, shot and read noise, digitisation.
//!
//! A plane of light (1 is the camera's full scale) enters, counts leave, nothing fails.

use super::random::mix;
use super::settings::SimulationSettings;

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
    let mut counts = Vec::with_capacity(light.len());
    for (y, (row, &lost)) in light.chunks_exact(columns).zip(&vignette.rows).enumerate() {
        let row_key = mix(key ^ (y as u64 + 1));
        counts.extend(
            row.iter()
                .zip(&vignette.columns)
                .enumerate()
                .map(|(x, (&value, &also_lost))| {
                    let electrons = value.clamp(0.0, 1.0) * (1.0 - lost - also_lost) * FULL_WELL;
                    let sigma = strength * (electrons + READ_NOISE * READ_NOISE).sqrt();
                    let read = electrons + sigma * noise(row_key, x as u64);
                    // A cast from float saturates; the camera does too.
                    ((read * (1.0 / FULL_WELL) + OFFSET) * full + 0.5).clamp(0.0, full) as u16
                }),
        );
    }
    counts
}

/// Nearly normal noise of deviation 1: the sum of the four 16-bit quarters of one hash (Irwin-Hall).
fn noise(key: u64, at: u64) -> f32 {
    let hash = mix(key.wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let sum = (hash & 0xffff) + (hash >> 16 & 0xffff) + (hash >> 32 & 0xffff) + (hash >> 48);
    // Mean 2 * 65535; deviation 65536 * sqrt(4 / 12).
    (sum as f32 - 131_070.0) * (1.732_050_8 / 65_536.0)
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
        let draws: Vec<f64> = (0..40_000).map(|i| f64::from(noise(7, i))).collect();
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
