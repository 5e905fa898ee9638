//! Smoothing at reduced resolution: where it is known, and bilinear interpolation in between.

/// Means of `by` x `by` pixels, fewer at the right and lower border, and the rows and columns of their centres.
pub(super) fn means(plane: &[f64], [height, width]: [usize; 2], by: usize) -> (Vec<f64>, [Vec<f64>; 2]) {
    let (rows, columns) = (height.div_ceil(by), width.div_ceil(by));
    let mut sums = vec![0.0; rows * columns];
    for (y, row) in plane.chunks_exact(width).enumerate() {
        for (sum, part) in sums[y / by * columns..].iter_mut().zip(row.chunks(by)) {
            *sum += part.iter().sum::<f64>();
        }
    }
    let size = |at: usize, length: usize| by.min(length - at * by);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum /= (size(i / columns, height) * size(i % columns, width)) as f64;
    }
    (sums, centres([height, width], by))
}

/// The rows and columns of the centres of blocks of `by` x `by` pixels, fewer at the right and lower border.
pub(super) fn centres(size: [usize; 2], by: usize) -> [Vec<f64>; 2] {
    let block = |from: usize, length: usize| from as f64 + (by.min(length - from) - 1) as f64 / 2.0;
    size.map(|length| (0..length).step_by(by).map(|from| block(from, length)).collect())
}

/// What lies beyond the outermost nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// The value of the outermost.
    Constant,
    /// The line through the outermost two.
    Line,
}

/// Every `by`-th of `length`, and the last.
pub(super) fn every(length: usize, by: usize) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..length).step_by(by).collect();
    if nodes.last().is_some_and(|last| last + 1 < length) {
        nodes.push(length - 1);
    }
    nodes
}

/// The plane of `height` x `width` through the values at the given rows and columns.
pub(super) fn interpolated(
    values: &[f64],
    nodes: &[Vec<f64>; 2],
    [height, width]: [usize; 2],
    beyond: Beyond,
) -> Vec<f64> {
    let across = between(&nodes[1], width, beyond);
    let columns = nodes[1].len();
    let mut out = Vec::with_capacity(height * width);
    for (above, below, down) in between(&nodes[0], height, beyond) {
        let row: Vec<f64> = values[above * columns..(above + 1) * columns]
            .iter()
            .zip(&values[below * columns..(below + 1) * columns])
            .map(|(a, b)| a + (b - a) * down)
            .collect();
        out.extend(
            across
                .iter()
                .map(|(left, right, share)| row[*left] + (row[*right] - row[*left]) * share),
        );
    }
    out
}

/// For each pixel of an axis the two nodes between which it lies, and the share of the second.
fn between(nodes: &[f64], length: usize, beyond: Beyond) -> Vec<(usize, usize, f64)> {
    let last = nodes.len() - 1;
    (0..length)
        .map(|i| {
            let mut next = nodes.partition_point(|n| *n <= i as f64);
            if beyond == Beyond::Line && last > 0 {
                next = next.clamp(1, last);
            }
            if next == 0 || next > last {
                let end = next.min(last);
                return (end, end, 0.0);
            }
            let (from, to) = (nodes[next - 1], nodes[next]);
            (next - 1, next, (i as f64 - from) / (to - from))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_survive_reduction() {
        let size @ [height, width] = [33, 50];
        let ramp = |y: f64, x: f64| 3.0 * y + x;
        let plane: Vec<f64> = (0..height * width)
            .map(|i| ramp((i / width) as f64, (i % width) as f64))
            .collect();
        let (small, nodes) = means(&plane, size, 4);
        assert_eq!([nodes[0].len(), nodes[1].len()], [9, 13]);
        let at = size.map(|length| every(length, 4));
        assert_eq!((at[0].last(), at[1].last()), (Some(&32), Some(&49)));
        let sampled = at[0]
            .iter()
            .flat_map(|y| at[1].iter().map(|x| ramp(*y as f64, *x as f64)))
            .collect();
        let at = at.map(|nodes| nodes.into_iter().map(|n| n as f64).collect());
        let lines = interpolated(&small, &nodes, size, Beyond::Line);
        assert!(lines.iter().zip(&plane).all(|(a, b)| (a - b).abs() < 1e-9));
        for (values, nodes, border) in [(small, nodes, 2), (sampled, at, 0)] {
            let back = interpolated(&values, &nodes, size, Beyond::Constant);
            for y in border..height - border {
                for x in border..width - border {
                    assert!(
                        (back[y * width + x] - plane[y * width + x]).abs() < 1e-9,
                        "{y} {x}"
                    );
                }
            }
        }
        for beyond in [Beyond::Constant, Beyond::Line] {
            let one = interpolated(&[7.0], &[vec![0.0], vec![0.0]], [2, 3], beyond);
            assert_eq!(one, [7.0; 6]);
        }
    }
}
