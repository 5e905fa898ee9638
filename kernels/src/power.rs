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
//! `H / 2 + min(H, W) / 8` transforms instead of `H + W`.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// The slope of one plane.
pub(crate) fn log_log_slope(plane: &[u16], height: usize, width: usize) -> f64 {
    let limit = height.min(width) / 8;
    let constant = plane.first().is_none_or(|first| plane.iter().all(|v| v == first));
    if limit < 4 || constant {
        return 0.0;
    }
    // Radii below `limit` reach column `limit - 1`; the mirrored half reaches one column further.
    let columns = limit + 1;
    let spectrum = low_columns(plane, height, width, columns);
    let mut power = vec![0.0f64; limit];
    let radius = |i: usize, j: usize| {
        let (i, j) = (i.min(height - 1 - i), j.min(width - 1 - j));
        // Exact: the root of a whole number below 2^52 never rounds up to the next whole number.
        ((i * i + j * j) as f64).sqrt() as usize + 1
    };
    // Other rows lie outside every annulus, mirrored or not; the height is at least eight times the limit.
    let rows = || (0..=limit).chain(height - limit - 1..height);
    for (j, column) in spectrum.chunks_exact(height).enumerate() {
        for i in rows() {
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
    }
    fit(&power)
}

/// Columns `0..columns` of the two-dimensional spectrum, column after column.
fn low_columns(plane: &[u16], height: usize, width: usize, columns: usize) -> Vec<Complex<f64>> {
    let mean = plane.iter().map(|&v| u64::from(v)).sum::<u64>() as f64 / plane.len() as f64;
    let mut planner = FftPlanner::<f64>::new();
    let across = planner.plan_fft_forward(width);
    let down = planner.plan_fft_forward(height);
    let mut scratch = vec![
        Complex::default();
        across
            .get_inplace_scratch_len()
            .max(down.get_inplace_scratch_len())
    ];
    let mut line = vec![Complex::default(); width];
    let mut spectrum = vec![Complex::default(); columns * height];
    let row = |y: usize| &plane[y * width..(y + 1) * width];
    for y in (0..height).step_by(2) {
        let pair = (y + 1 < height).then(|| row(y + 1));
        for (x, (z, &a)) in line.iter_mut().zip(row(y)).enumerate() {
            let b = pair.map_or(0.0, |r| f64::from(r[x]) - mean);
            *z = Complex::new(f64::from(a) - mean, b);
        }
        across.process_with_scratch(&mut line, &mut scratch);
        for j in 0..columns {
            // F = A + iB with A, B the spectra of the two real rows: split by conjugate symmetry.
            let (f, g) = (line[j], line[(width - j) % width].conj());
            spectrum[j * height + y] = (f + g) * 0.5;
            if pair.is_some() {
                let d = (f - g) * 0.5;
                spectrum[j * height + y + 1] = Complex::new(d.im, -d.re);
            }
        }
    }
    for column in spectrum.chunks_exact_mut(height) {
        down.process_with_scratch(column, &mut scratch);
    }
    spectrum
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
