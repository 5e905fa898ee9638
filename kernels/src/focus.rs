//! Local focus score: how unevenly sharp the blocks of an image are.
//!
//! Blocks: `m = ceil(H / s)`, `n = ceil(W / s)`, pixel (i, j) in block (floor(i m / H), floor(j n / W)). Per block with
//! a mean other than 0, `v = sum (x - mean)^2 / (count mean)`; the score is `Var(v) / median(v)`, population variance,
//! 0 if the median is not positive; `x = I / 65535`. Source: CellProfiler MeasureImageQuality, LocalFocusScore.
//! Block sums are integers, so the score is exact up to the last divisions.

use crate::quality::SCALE;

/// Sums of one block.
#[derive(Clone, Copy, Default)]
struct Block {
    count: u64,
    sum: u64,
    squares: u64,
}

/// The score at block size `size` pixels.
pub(crate) fn local_score(plane: &[u16], height: usize, width: usize, size: usize) -> f64 {
    let (m, n) = (height.div_ceil(size), width.div_ceil(size));
    let mut blocks = vec![Block::default(); m * n];
    // First column of each block: the least j with floor(j n / W) = block.
    let edges: Vec<usize> = (0..=n).map(|b| (b * width).div_ceil(n)).collect();
    for (i, row) in plane.chunks_exact(width).enumerate() {
        let line = &mut blocks[(i * m / height) * n..][..n];
        for (block, edge) in line.iter_mut().zip(edges.windows(2)) {
            let part = &row[edge[0]..edge[1]];
            block.count += part.len() as u64;
            for &v in part {
                block.sum += u64::from(v);
                block.squares += u64::from(v) * u64::from(v);
            }
        }
    }
    let mut scores: Vec<f64> = blocks
        .iter()
        .filter(|b| b.sum > 0)
        .map(|b| {
            let (count, sum) = (u128::from(b.count), u128::from(b.sum));
            // n * squares - sum^2 over n * sum: the variance over the mean, in grey levels.
            (count * u128::from(b.squares) - sum * sum) as f64 / (count * sum) as f64 / SCALE
        })
        .collect();
    scores.sort_by(f64::total_cmp);
    let Some(last) = scores.len().checked_sub(1) else {
        return 0.0;
    };
    let median = (scores[last / 2] + scores[last.div_ceil(2)]) / 2.0;
    if median <= 0.0 {
        return 0.0;
    }
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    scores.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / scores.len() as f64 / median
}
