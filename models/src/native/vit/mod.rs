//! The vision transformer: patches of an image become tokens, blocks of attention and perceptrons work on them, and the
//! embedding is read off the last ones (Dosovitskiy et al. 2020, arXiv:2010.11929).
//!
//! Enters: the planes of one image, grey levels. Leaves: its embedding. What can be computed when the network is built
//! is: gains and shifts of layer norms, layer scales, the division of the queries and the replication of grey are folded
//! into the matrices next to them (`load.rs`).

mod check;
mod load;
mod positions;
#[cfg(test)]
mod tests;

pub(crate) use self::load::Block;
use super::attention::{Attention, AttentionScratch};
use super::elementwise::{HeadNorm, LayerNorm};
use super::gemm::PackedMatrix;
use super::isa::Isa;
use super::layout::Map;
use crate::card::Pooling;
use crate::prepare::Preparation;

/// A network ready to run.
#[derive(Debug)]
pub(crate) struct Vit {
    /// Channels of a token.
    pub(crate) width: usize,
    /// Channels inside the perceptrons.
    pub(crate) mlp_width: usize,
    /// Side of a patch.
    pub(crate) patch: usize,
    /// Rows and columns of patches.
    pub(crate) grid: (usize, usize),
    /// Planes of the image that meet in one token.
    pub(crate) planes_per_token: usize,
    /// Most channels of an image.
    pub(crate) most_channels: usize,
    pub(crate) preparation: Preparation,
    pub(crate) embed: PackedMatrix,
    /// Class and register tokens with their positions.
    pub(crate) prefix: Vec<f32>,
    /// The position of each patch.
    pub(crate) positions: Vec<f32>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) attention: Attention,
    pub(crate) norm_epsilon: f32,
    /// Gain and shift of the last layer norm.
    pub(crate) final_norm: Option<(Vec<f32>, Vec<f32>)>,
    pub(crate) pooling: Pooling,
}

/// The memory one thread needs.
#[derive(Debug)]
pub(crate) struct VitScratch {
    patches: Vec<f32>,
    /// The tokens, and the tokens after half a block.
    tokens: Vec<f32>,
    halfway: Vec<f32>,
    /// The tokens after a layer norm.
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    hidden: Vec<f32>,
    attention: AttentionScratch,
}

impl Vit {
    /// Tokens before the patches.
    fn prefix_tokens(&self) -> usize {
        self.prefix.len() / self.width
    }

    /// Patches of one plane.
    fn plane_patches(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    /// Memory for one thread.
    pub(crate) fn scratch(&self) -> VitScratch {
        let patches = self.plane_patches() * (self.most_channels / self.planes_per_token);
        let tokens = self.prefix_tokens() + patches;
        VitScratch {
            patches: vec![0.0; self.plane_patches() * self.embed.inputs()],
            tokens: vec![0.0; tokens * self.width],
            halfway: vec![0.0; tokens * self.width],
            normed: vec![0.0; tokens * self.width],
            qkv: vec![0.0; tokens * 3 * self.width],
            attended: vec![0.0; tokens * self.width],
            hidden: vec![0.0; tokens * self.mlp_width],
            attention: self.attention.scratch(),
        }
    }

    /// Runs the network on the planes of one image; `result` takes the embedding.
    pub(crate) fn run(
        &self,
        isa: Isa,
        scratch: &mut VitScratch,
        image: &[f32],
        channels: usize,
        result: &mut [f32],
    ) {
        assert!(isa.runs_here(), "the instruction set was detected");
        assert!(
            channels <= self.most_channels,
            "channels fit in the scratch memory"
        );
        let groups = channels / self.planes_per_token;
        let tokens = self.prefix_tokens() + groups * self.plane_patches();
        self.embed_patches(isa, scratch, image, channels);
        for block in &self.blocks {
            self.block(isa, scratch, tokens, block);
        }
        self.pool(isa, scratch, tokens, groups, result);
    }

    /// The tokens of the image, with their positions.
    fn embed_patches(&self, isa: Isa, scratch: &mut VitScratch, image: &[f32], channels: usize) {
        let (d, patch) = (self.width, self.patch);
        scratch.tokens[..self.prefix.len()].copy_from_slice(&self.prefix);
        let (grid_height, grid_width) = self.grid;
        let row_pixels = grid_width * patch;
        let plane_pixels = grid_height * patch * row_pixels;
        let inputs = self.embed.inputs();
        let count = self.plane_patches();
        let (patch_map, token_map) = (Map::new(count, 1, inputs), Map::new(count, 1, d));
        let planes: Vec<&[f32]> = image.chunks_exact(plane_pixels).take(channels).collect();
        for (group, members) in planes.chunks_exact(self.planes_per_token).enumerate() {
            for (member, plane) in members.iter().enumerate() {
                let level = self
                    .preparation
                    .level(plane, group * self.planes_per_token + member);
                for (y, row) in plane.chunks_exact(row_pixels).enumerate() {
                    let at = member * patch * patch + y % patch * patch;
                    for (x, pixels) in row.chunks_exact(patch).enumerate() {
                        let start = (y / patch * grid_width + x) * inputs + at;
                        for (to, &from) in scratch.patches[start..start + patch].iter_mut().zip(pixels) {
                            *to = level.of(from);
                        }
                    }
                }
            }
            let start = self.prefix.len() + group * count * d;
            self.embed.apply(
                isa,
                (&scratch.patches, &patch_map),
                Some((&self.positions, &token_map)),
                (&mut scratch.tokens[start..start + count * d], &token_map),
            );
        }
    }

    /// One block, in place on the tokens.
    fn block(&self, isa: Isa, s: &mut VitScratch, tokens: usize, block: &Block) {
        let d = self.width;
        let values = tokens * d;
        let (map, hidden_map, qkv_map) = (
            Map::new(tokens, 1, d),
            Map::new(tokens, 1, self.mlp_width),
            Map::new(tokens, 1, 3 * d),
        );
        self.norm(isa, &s.tokens[..values], &mut s.normed[..values]);
        match block {
            Block::Sequential { qkv, proj, fc1, fc2 } => {
                qkv.apply(isa, (&s.normed, &map), None, (&mut s.qkv, &qkv_map));
                self.attention
                    .apply(isa, &mut s.attention, tokens, &s.qkv, &mut s.attended);
                proj.apply(
                    isa,
                    (&s.attended, &map),
                    Some((&s.tokens, &map)),
                    (&mut s.halfway, &map),
                );
                self.norm(isa, &s.halfway[..values], &mut s.normed[..values]);
                fc1.apply(isa, (&s.normed, &map), None, (&mut s.hidden, &hidden_map));
                fc2.apply(
                    isa,
                    (&s.hidden, &hidden_map),
                    Some((&s.halfway, &map)),
                    (&mut s.tokens, &map),
                );
            }
            Block::ParallelScaling {
                mlp_in,
                qkv,
                query_norm,
                key_norm,
                proj,
                mlp_out,
            } => {
                qkv.apply(isa, (&s.normed, &map), None, (&mut s.qkv, &qkv_map));
                for (start, (gain, shift)) in [(0, query_norm), (d, key_norm)] {
                    let norm = HeadNorm {
                        values: &mut s.qkv[start..tokens * 3 * d],
                        stride: 3 * d,
                        heads: self.attention.heads,
                        gain,
                        shift,
                        epsilon: self.norm_epsilon,
                    };
                    // SAFETY: `run` checked that the instructions run here.
                    unsafe { isa.run(norm) };
                }
                self.attention
                    .apply(isa, &mut s.attention, tokens, &s.qkv, &mut s.attended);
                proj.apply(
                    isa,
                    (&s.attended, &map),
                    Some((&s.tokens, &map)),
                    (&mut s.halfway, &map),
                );
                mlp_in.apply(isa, (&s.normed, &map), None, (&mut s.hidden, &hidden_map));
                mlp_out.apply(
                    isa,
                    (&s.hidden, &hidden_map),
                    Some((&s.halfway, &map)),
                    (&mut s.tokens, &map),
                );
            }
        }
    }

    fn norm(&self, isa: Isa, input: &[f32], output: &mut [f32]) {
        let norm = LayerNorm {
            input,
            output,
            width: self.width,
            epsilon: self.norm_epsilon,
        };
        // SAFETY: `run` checked that the instructions run here.
        unsafe { isa.run(norm) };
    }

    /// Reads the embedding off the last tokens.
    fn pool(&self, isa: Isa, s: &mut VitScratch, tokens: usize, groups: usize, result: &mut [f32]) {
        let d = self.width;
        let last = if self.final_norm.is_some() {
            self.norm(isa, &s.tokens[..tokens * d], &mut s.normed[..tokens * d]);
            &s.normed[..tokens * d]
        } else {
            &s.tokens[..tokens * d]
        };
        let class = &last[..d];
        let patches = &last[self.prefix.len()..];
        match self.pooling {
            Pooling::ClassToken => result.copy_from_slice(class),
            Pooling::ClassTokenAndPatchMean => {
                let (first, second) = result.split_at_mut(d);
                first.copy_from_slice(class);
                mean(patches, second);
            }
            Pooling::PatchMeanPerChannel => {
                let per_group = patches.len() / groups.max(1);
                for (group, to) in patches.chunks_exact(per_group).zip(result.chunks_exact_mut(d)) {
                    mean(group, to);
                }
            }
            // `check.rs` refuses the pooling of feature maps and of heads.
            Pooling::PatchMean | Pooling::GlobalMean | Pooling::Head => mean(patches, result),
        }
        // Gain and shift go through a mean.
        if let Some((gain, shift)) = &self.final_norm {
            for part in result.chunks_exact_mut(d) {
                for (value, (g, b)) in part.iter_mut().zip(gain.iter().zip(shift)) {
                    *value = *value * g + b;
                }
            }
        }
    }
}

/// The mean of rows, summed in their order.
fn mean(rows: &[f32], to: &mut [f32]) {
    to.fill(0.0);
    for row in rows.chunks_exact(to.len()) {
        for (sum, value) in to.iter_mut().zip(row) {
            *sum += value;
        }
    }
    let count = (rows.len() / to.len().max(1)).max(1) as f32;
    for sum in to {
        *sum /= count;
    }
}
