//! Multi-head self-attention without the matrix of all scores: `softmax(q k^T) v` for a block of queries at a time
//! (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).
//!
//! Enters: queries, keys and values of all heads side by side, the queries already divided by the root of the head's
//! width. Leaves: the heads' results side by side.

use super::elementwise::Softmax;
use super::gemm::{Activation, PANEL_COLUMNS, Product};
use super::isa::Isa;
use super::layout::Map;

/// Scores kept at once, as values: 256 KiB, or one row where that is more.
const SCORE_VALUES: usize = 64 * 1024;

/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    /// Number of heads.
    pub(crate) heads: usize,
    /// Channels of one head.
    pub(crate) head_width: usize,
    /// Most tokens.
    pub(crate) tokens: usize,
}

/// The memory it works in.
#[derive(Debug)]
pub(crate) struct AttentionScratch {
    /// Keys of one head, packed: a column per token.
    keys: Vec<f32>,
    /// Values of one head, packed: a column per channel.
    values: Vec<f32>,
    /// The scores of a block of queries.
    scores: Vec<f32>,
    /// One per query of a block.
    inverse: Vec<f32>,
    /// Biases, which attention has none of.
    zeros: Vec<f32>,
}

impl Attention {
    /// Queries of a block.
    fn block(&self) -> usize {
        let width = self.tokens.next_multiple_of(PANEL_COLUMNS).max(1);
        (SCORE_VALUES / width).clamp(1, self.tokens.max(1))
    }

    /// Memory for one thread.
    pub(crate) fn scratch(&self) -> AttentionScratch {
        let columns = self.tokens.next_multiple_of(PANEL_COLUMNS);
        let channels = self.head_width.next_multiple_of(PANEL_COLUMNS);
        AttentionScratch {
            keys: vec![0.0; columns * self.head_width],
            values: vec![0.0; channels * self.tokens],
            scores: vec![0.0; self.block() * columns],
            inverse: vec![0.0; self.block()],
            zeros: vec![0.0; columns.max(channels)],
        }
    }

    /// Attends over `tokens` tokens. `qkv` holds for each token the queries, the keys and the values of all heads;
    /// `output` gets for each token the results of all heads.
    pub(crate) fn apply(
        &self,
        isa: Isa,
        scratch: &mut AttentionScratch,
        tokens: usize,
        qkv: &[f32],
        output: &mut [f32],
    ) {
        let (d, width) = (self.head_width, self.heads * self.head_width);
        assert!(tokens <= self.tokens, "tokens fit in the scratch memory");
        let columns = tokens.next_multiple_of(PANEL_COLUMNS);
        for head in 0..self.heads {
            let at = head * d;
            pack_keys(qkv, width, at, d, tokens, &mut scratch.keys);
            pack_values(qkv, width, at, d, tokens, &mut scratch.values);
            let scores = Product {
                inputs: d,
                outputs: columns,
                panels: &scratch.keys,
                bias: &scratch.zeros,
                activation: Activation::Linear,
            };
            let mix = Product {
                inputs: tokens,
                outputs: d,
                panels: &scratch.values,
                bias: &scratch.zeros,
                activation: Activation::Linear,
            };
            let mut start = 0;
            while start < tokens {
                let rows = self.block().min(tokens - start);
                let block = &mut scratch.scores[..rows * columns];
                let inverse = &mut scratch.inverse[..rows];
                let score_map = Map::new(rows, 1, columns);
                let queries = (&qkv[start * 3 * width + at..], &Map::new(rows, 1, 3 * width));
                scores.apply(isa, queries, None, (&mut *block, &score_map));
                let softmax = Softmax {
                    values: &mut *block,
                    width: columns,
                    used: tokens,
                    inverse: &mut *inverse,
                };
                // SAFETY: the product before checked that the instructions run here.
                unsafe { isa.run(softmax) };
                let target = &mut output[start * width + at..];
                mix.apply(
                    isa,
                    (&*block, &score_map),
                    None,
                    (&mut *target, &Map::new(rows, 1, width)),
                );
                for (row, &scale) in target.chunks_mut(width).zip(inverse.iter()) {
                    for value in &mut row[..d] {
                        *value *= scale;
                    }
                }
                start += rows;
            }
        }
    }
}

/// Packs the keys of one head as the weights of a product: panels of 16 tokens, channel by channel.
fn pack_keys(qkv: &[f32], width: usize, head_at: usize, d: usize, tokens: usize, keys: &mut [f32]) {
    for (panel, packed) in keys
        .chunks_exact_mut(PANEL_COLUMNS * d)
        .enumerate()
        .take(tokens.div_ceil(PANEL_COLUMNS))
    {
        let first = panel * PANEL_COLUMNS;
        let used = PANEL_COLUMNS.min(tokens - first);
        for lane in 0..PANEL_COLUMNS {
            if lane < used {
                let from = (first + lane) * 3 * width + width + head_at;
                for (channel, &value) in qkv[from..from + d].iter().enumerate() {
                    packed[channel * PANEL_COLUMNS + lane] = value;
                }
            } else {
                // A scratch used before holds another image's keys here.
                for channel in 0..d {
                    packed[channel * PANEL_COLUMNS + lane] = 0.0;
                }
            }
        }
    }
}

/// Packs the values of one head as the weights of a product: panels of 16 channels, token by token.
fn pack_values(qkv: &[f32], width: usize, head_at: usize, d: usize, tokens: usize, values: &mut [f32]) {
    for panel in 0..d.div_ceil(PANEL_COLUMNS) {
        let first = panel * PANEL_COLUMNS;
        let used = PANEL_COLUMNS.min(d - first);
        let packed = &mut values[first * tokens..][..PANEL_COLUMNS * tokens];
        for (token, row) in packed.chunks_exact_mut(PANEL_COLUMNS).enumerate() {
            let from = token * 3 * width + 2 * width + head_at + first;
            row[..used].copy_from_slice(&qkv[from..from + used]);
            row[used..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attention as the paper writes it, in f64.
    fn plain(heads: usize, d: usize, tokens: usize, qkv: &[f32]) -> Vec<f64> {
        let width = heads * d;
        let at = |token: usize, part: usize, channel: usize| {
            f64::from(qkv[token * 3 * width + part * width + channel])
        };
        let mut output = vec![0.0; tokens * width];
        for head in 0..heads {
            let channels = head * d..(head + 1) * d;
            for query in 0..tokens {
                let score =
                    |key: usize| -> f64 { channels.clone().map(|c| at(query, 0, c) * at(key, 1, c)).sum() };
                let scores: Vec<f64> = (0..tokens).map(score).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for c in channels.clone() {
                    let mixed: f64 = weights.iter().enumerate().map(|(key, w)| w * at(key, 2, c)).sum();
                    output[query * width + c] = mixed / sum;
                }
            }
        }
        output
    }

    #[test]
    fn blocks_of_queries_give_what_the_whole_matrix_gives() {
        // Of one token, of sizes that fill no panel, and of so many that queries come in many blocks. All in the scratch
        // memory of the largest, so that what a larger image left must not show.
        for (heads, d, sizes) in [
            (2, 20, &[700, 1, 37][..]),
            (3, 16, &[48, 47, 197]),
            (1, 7, &[5, 300]),
        ] {
            let most = *sizes.iter().max().unwrap();
            let attention = Attention {
                heads,
                head_width: d,
                tokens: most,
            };
            for isa in Isa::available() {
                let mut scratch = attention.scratch();
                for &tokens in sizes {
                    let width = heads * d;
                    let qkv: Vec<f32> = (0..tokens * 3 * width)
                        .map(|i| (i * 7919 % 1013) as f32 / 506.0 - 1.0)
                        .collect();
                    let mut output = vec![f32::NAN; most * width];
                    attention.apply(isa, &mut scratch, tokens, &qkv, &mut output);
                    let expected = plain(heads, d, tokens, &qkv);
                    let worst = output
                        .iter()
                        .zip(&expected)
                        .map(|(a, b)| (f64::from(*a) - b).abs())
                        .fold(0.0, f64::max);
                    assert!(worst < 1e-5, "{isa:?}, {heads} x {d}, {tokens} tokens: {worst}");
                    assert!(output[tokens * width..].iter().all(|v| v.is_nan()));
                }
            }
        }
    }
}
