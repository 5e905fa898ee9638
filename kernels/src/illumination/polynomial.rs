//! A surface of second order through the positive pixels, by least squares.

/// Terms: x, y, x^2, y^2, x y, 1.
const TERMS: usize = 6;

/// Largest grey level; CellProfiler clips the surface to its scale.
const LARGEST: f64 = 65535.0;

/// The least-squares surface on `x, y, x^2, y^2, x y, 1` through the pixels above 0, clipped to 0..=65535. Fewer positive
/// pixels than a surface needs leave the plane as it is.
pub(super) fn surface(plane: &[f64], [height, width]: [usize; 2]) -> Vec<f64> {
    // Coordinates from -1 to 1, so that the equations are well conditioned; the fitted surface is the same.
    let centred = |i: usize, n: usize| {
        if n > 1 {
            2.0 * i as f64 / (n - 1) as f64 - 1.0
        } else {
            0.0
        }
    };
    let terms = |i: usize| {
        let (y, x) = (centred(i / width, height), centred(i % width, width));
        [x, y, x * x, y * y, x * y, 1.0]
    };
    let mut equations = [[0.0; TERMS + 1]; TERMS];
    for (i, v) in plane.iter().enumerate().filter(|(_, v)| **v > 0.0) {
        let t = terms(i);
        for (row, a) in equations.iter_mut().zip(t) {
            row.iter_mut().zip(t).for_each(|(e, b)| *e += a * b);
            row[TERMS] += a * v;
        }
    }
    match solve(equations) {
        Some(c) => (0..plane.len())
            .map(|i| {
                terms(i)
                    .iter()
                    .zip(c)
                    .map(|(t, c)| t * c)
                    .sum::<f64>()
                    .clamp(0.0, LARGEST)
            })
            .collect(),
        None => plane.to_vec(),
    }
}

/// Gaussian elimination with the largest pivot; `None` for a singular system.
fn solve(mut rows: [[f64; TERMS + 1]; TERMS]) -> Option<[f64; TERMS]> {
    for k in 0..TERMS {
        let pivot = (k..TERMS).max_by(|a, b| rows[*a][k].abs().total_cmp(&rows[*b][k].abs()))?;
        rows.swap(k, pivot);
        let line = rows[k];
        if line[k].abs() < 1e-12 {
            return None;
        }
        for row in &mut rows[k + 1..] {
            let factor = row[k] / line[k];
            row.iter_mut().zip(line).for_each(|(r, l)| *r -= factor * l);
        }
    }
    let mut found = [0.0; TERMS];
    for k in (0..TERMS).rev() {
        let known: f64 = (k + 1..TERMS).map(|j| rows[k][j] * found[j]).sum();
        found[k] = (rows[k][TERMS] - known) / rows[k][k];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surface_of_second_order_is_found() {
        let size = [20, 30];
        let f = |i: usize| {
            let (y, x) = ((i / 30) as f64, (i % 30) as f64);
            500.0 + 3.0 * x - 2.0 * y - 0.1 * x * x + 0.05 * y * y + 0.02 * x * y
        };
        let mut plane: Vec<f64> = (0..600).map(f).collect();
        // Pixels without signal do not count.
        plane[77] = 0.0;
        plane[300] = -5.0;
        for (i, v) in surface(&plane, size).into_iter().enumerate() {
            assert!((v - f(i)).abs() < 1e-6, "{i}: {v} {}", f(i));
        }
        // A single row has no second direction.
        assert_eq!(surface(&[4.0, 5.0], [1, 2]), [4.0, 5.0]);
    }
}
