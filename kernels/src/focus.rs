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
    // First row or column of each block: the least i with floor(i m / H) = block.
    let edge = |b: usize, length: usize, blocks: usize| (b * length).div_ceil(blocks);
    // Column sums over the rows of one block row first: long loops that vectorise.
    let mut sums = vec![0u64; width];
    let mut squares = vec![0u64; width];
    for (band, line) in blocks.chunks_exact_mut(n).enumerate() {
        sums.fill(0);
        squares.fill(0);
        let (top, bottom) = (edge(band, height, m), edge(band + 1, height, m));
        for row in plane[top * width..bottom * width].chunks_exact(width) {
            for ((sum, square), &v) in sums.iter_mut().zip(&mut squares).zip(row) {
                *sum += u64::from(v);
                *square += u64::from(u32::from(v) * u32::from(v));
            }
        }
        for (b, block) in line.iter_mut().enumerate() {
            let (left, right) = (edge(b, width, n), edge(b + 1, width, n));
            block.count = ((bottom - top) * (right - left)) as u64;
            block.sum = sums[left..right].iter().sum();
            block.squares = squares[left..right].iter().sum();
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
