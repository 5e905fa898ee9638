//! Gaussian smoothing of small float images. Enters: a plane. Leaves: `G * x`, separable, cut off at 4 standard
//! deviations, borders reflected with the edge pixel repeated, as scipy's `gaussian_filter` does. Cannot fail.

use rayon::prelude::*;

/// Rows that share one pass over their neighbours.
const BAND: usize = 32;

/// Half a Gaussian: the weight of the centre and of each pixel further out; the whole sums to 1.
pub(crate) fn half_gaussian(sigma: f64) -> Vec<f32> {
    let radius = (4.0 * sigma + 0.5) as usize;
    let weight = |x: usize| (-0.5 * (x as f64 / sigma).powi(2)).exp();
    let total = 1.0 + 2.0 * (1..=radius).map(weight).sum::<f64>();
    (0..=radius)
        .map(|x| if x == 0 { 1.0 / total } else { weight(x) / total } as f32)
        .collect()
}

/// The pixel that stands for pixel `i` of a line of `len`: reflected, the edge pixel repeated.
fn reflect(i: isize, len: usize) -> usize {
    let period = 2 * len as isize;
    let i = i.rem_euclid(period);
    if i < len as isize {
        i as usize
    } else {
        (period - 1 - i) as usize
    }
}

/// Smooths an image of `height * width` whose row `y` is written into a buffer by `read`, and hands each smoothed row
/// to `write` with its place in the output, which holds `width` values per row. Parallel over bands of rows; the result
/// does not depend on the bands.
pub(crate) fn gaussian<T: Send>(
    (height, width): (usize, usize),
    half: &[f32],
    read: impl Fn(usize, &mut [f32]) + Sync,
    write: impl Fn(&[f32], &mut [T]) + Sync,
    out: &mut [T],
) {
    out.par_chunks_mut(width * BAND)
        .enumerate()
        .for_each(|(band, out)| {
            gaussian_band((height, width), half, band * BAND, &read, &write, out);
        });
}

/// As [`gaussian`], in this thread.
pub(crate) fn gaussian_here(
    (height, width): (usize, usize),
    half: &[f32],
    read: impl Fn(usize, &mut [f32]),
    out: &mut [f32],
) {
    let copy = |from: &[f32], to: &mut [f32]| to.copy_from_slice(from);
    gaussian_band((height, width), half, 0, &read, &copy, out);
}

/// Rows `top..` of the image, as many as `out` holds.
fn gaussian_band<T>(
    (height, width): (usize, usize),
    half: &[f32],
    top: usize,
    read: &impl Fn(usize, &mut [f32]),
    write: &impl Fn(&[f32], &mut [T]),
    out: &mut [T],
) {
    let radius = half.len().saturating_sub(1);
    let rows = out.len() / width;
    // The rows of the band and those around it, each read once.
    let mut lines = vec![0.0f32; (rows + 2 * radius) * width];
    for (i, line) in lines.chunks_exact_mut(width).enumerate() {
        read(reflect((top + i) as isize - radius as isize, height), line);
    }
    let mut wide = vec![0.0f32; width + 2 * radius];
    let mut result = vec![0.0f32; width];
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let line = |i: usize| &lines[i * width..(i + 1) * width];
        let centre = y + radius;
        down(&mut wide[radius..radius + width], half, centre, line);
        for k in 0..radius {
            wide[k] = wide[radius + reflect(k as isize - radius as isize, width)];
            wide[radius + width + k] = wide[radius + reflect((width + k) as isize, width)];
        }
        across(&mut result, half, &wide);
        write(&result, out);
    }
}

/// Weighted sum of the lines around line `centre`.
fn down<'a>(out: &mut [f32], half: &[f32], centre: usize, line: impl Fn(usize) -> &'a [f32]) {
    let w = half.first().copied().unwrap_or(1.0);
    for (o, v) in out.iter_mut().zip(line(centre)) {
        *o = w * v;
    }
    for (k, &w) in half.iter().enumerate().skip(1) {
        for ((o, a), b) in out.iter_mut().zip(line(centre - k)).zip(line(centre + k)) {
            *o += w * (a + b);
        }
    }
}

/// Weighted sum of the values around each of the middle values of `wide`.
fn across(out: &mut [f32], half: &[f32], wide: &[f32]) {
    let (radius, width) = (half.len().saturating_sub(1), out.len());
    let w = half.first().copied().unwrap_or(1.0);
    for (o, v) in out.iter_mut().zip(&wide[radius..]) {
        *o = w * v;
    }
    for (k, &w) in half.iter().enumerate().skip(1) {
        let (left, right) = (&wide[radius - k..][..width], &wide[radius + k..][..width]);
        for ((o, a), b) in out.iter_mut().zip(left).zip(right) {
            *o += w * (a + b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smooth(height: usize, width: usize, sigma: f64, pixels: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; pixels.len()];
        let half = half_gaussian(sigma);
        let read = |y: usize, line: &mut [f32]| line.copy_from_slice(&pixels[y * width..(y + 1) * width]);
        gaussian_here((height, width), &half, read, &mut out);
        let mut bands = vec![0.0; pixels.len()];
        let copy = |from: &[f32], to: &mut [f32]| to.copy_from_slice(from);
        gaussian((height, width), &half, read, copy, &mut bands);
        assert_eq!(out, bands, "bands change the result");
        out
    }

    #[test]
    fn a_constant_stays_and_a_point_becomes_a_gaussian() {
        for (h, w) in [(1, 1), (1, 7), (5, 1), (70, 3)] {
            for v in smooth(h, w, 1.7, &vec![3.0; h * w]) {
                assert!((v - 3.0).abs() < 1e-5, "{h} x {w}: {v}");
            }
        }
        let mut point = vec![0.0; 81];
        point[40] = 1.0;
        let out = smooth(9, 9, 1.0, &point);
        let g = |x: f32| (-0.5 * x * x).exp();
        let total: f32 = (-4..=4).map(|x| g(x as f32)).sum();
        assert!((out[40] - 1.0 / (total * total)).abs() < 1e-6);
        assert!((out[42] - g(2.0) / (total * total)).abs() < 1e-6);
        assert_eq!(out[42], out[38]);
        assert!((out.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}
