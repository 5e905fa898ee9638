//! The orthonormal cosine transform of a plane, type II and its inverse, as products with a matrix: planes are at most a few
//! hundred pixels wide here, and every size is treated alike.

use rayon::prelude::*;

/// Transforms planes of one size.
pub(super) struct Cosine {
    rows: Vec<f64>,
    columns: Vec<f64>,
    size: [usize; 2],
}

impl Cosine {
    pub(super) fn new(size: [usize; 2]) -> Self {
        let [rows, columns] = size.map(matrix);
        Self { rows, columns, size }
    }

    /// Frequencies of `plane`; the first is its sum over the root of the number of pixels.
    pub(super) fn forward(&self, plane: &[f64]) -> Vec<f64> {
        self.both(plane, false)
    }

    /// The plane of these frequencies.
    pub(super) fn inverse(&self, frequencies: &[f64]) -> Vec<f64> {
        self.both(frequencies, true)
    }

    /// Along rows, then along columns: the second product is that of the turned plane, so that both read rows.
    fn both(&self, plane: &[f64], back: bool) -> Vec<f64> {
        let [height, width] = self.size;
        let across = product(plane, width, &self.columns, back);
        let turned = turned(&across, self.size);
        let down = product(&turned, height, &self.rows, back);
        self::turned(&down, [width, height])
    }
}

/// `matrix[k * n + i] = c(k) cos(pi (2 i + 1) k / (2 n))`, where c makes its rows orthonormal.
fn matrix(n: usize) -> Vec<f64> {
    let value = |at: usize| {
        let (k, i) = (at / n, at % n);
        let scale = if k == 0 { 1.0 } else { 2.0 } / n as f64;
        scale.sqrt() * (std::f64::consts::PI * (2 * i + 1) as f64 * k as f64 / (2 * n) as f64).cos()
    };
    (0..n * n).map(value).collect()
}

/// Every row of `plane`, `n` values long, times the matrix or, `back`, times its transpose.
fn product(plane: &[f64], n: usize, matrix: &[f64], back: bool) -> Vec<f64> {
    let mut out = vec![0.0; plane.len()];
    out.par_chunks_mut(n)
        .zip(plane.par_chunks(n))
        .with_min_len(16)
        .for_each(|(out, row)| {
            if back {
                for (line, value) in matrix.chunks_exact(n).zip(row) {
                    out.iter_mut().zip(line).for_each(|(o, m)| *o += m * value);
                }
            } else {
                for (o, line) in out.iter_mut().zip(matrix.chunks_exact(n)) {
                    *o = dot(line, row);
                }
            }
        });
    out
}

/// Eight sums side by side, so that the compiler may use wide vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn turned(plane: &[f64], [height, width]: [usize; 2]) -> Vec<f64> {
    (0..plane.len())
        .map(|i| plane[i % height * width + i / height])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_scipy_and_come_back() {
        let size @ [height, width] = [9, 20];
        let plane: Vec<f64> = (0..height * width).map(|i| ((i * i) % 37) as f64).collect();
        let cosine = Cosine::new(size);
        let frequencies = cosine.forward(&plane);
        let mean = plane.iter().sum::<f64>() / plane.len() as f64;
        assert!((frequencies[0] - mean * (plane.len() as f64).sqrt()).abs() < 1e-9);
        let energy = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
        assert!((energy(&frequencies) / energy(&plane) - 1.0).abs() < 1e-12);
        for (a, b) in cosine.inverse(&frequencies).iter().zip(&plane) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
        // scipy.fft.dctn([[1, 2, 4], [0, 3, 5]], norm="ortho")
        let expected = [6.123_724_36, -4.0, 0.0, -0.408_248_29, 1.0, 0.577_350_27];
        let found = Cosine::new([2, 3]).forward(&[1.0, 2.0, 4.0, 0.0, 3.0, 5.0]);
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-8, "{found:?}");
        }
    }
}
