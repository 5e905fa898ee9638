//! The vision transformer on the device.
//!
//! Enters: the native engine's network. Leaves: its plan for a number of images of so many channels.

use super::device::{Failed, Gpu};
use super::layers::{Cut, Matrix, Mean, Place, Residual, whole};
use super::plan::{Bound, Plan, groups_of, spread};
use super::shaders::{self, LANES};
use crate::card::Pooling;
use crate::native::vit::{Block as NativeBlock, Vit};
use crate::prepare::Preparation;

/// One block.
enum Block {
    Sequential {
        qkv: Matrix,
        proj: Matrix,
        fc1: Matrix,
        fc2: Matrix,
    },
    ParallelScaling {
        mlp_in: Matrix,
        qkv: Matrix,
        /// Gains, then shifts.
        query_norm: wgpu::Buffer,
        key_norm: wgpu::Buffer,
        proj: Matrix,
        mlp_out: Matrix,
    },
}

/// The network on the device.
pub(super) struct Transformer {
    width: usize,
    mlp_width: usize,
    patch: usize,
    grid: (usize, usize),
    planes_per_token: usize,
    heads: usize,
    preparation: Preparation,
    embed: Matrix,
    /// Class and register tokens with their positions.
    prefix: wgpu::Buffer,
    prefix_tokens: usize,
    positions: wgpu::Buffer,
    blocks: Vec<Block>,
    norm_epsilon: f32,
    /// Gains, then shifts.
    final_norm: Option<wgpu::Buffer>,
    pooling: Pooling,
}

/// The maps of a plan.
struct Maps {
    tokens: wgpu::Buffer,
    halfway: wgpu::Buffer,
    normed: wgpu::Buffer,
    qkv: wgpu::Buffer,
    attended: wgpu::Buffer,
    hidden: wgpu::Buffer,
}

impl Transformer {
    pub(super) fn upload(gpu: &mut Gpu, vit: &Vit) -> Result<Self, Failed> {
        let affine = |gpu: &mut Gpu, (gain, shift): &(Vec<f32>, Vec<f32>)| {
            gpu.constant(&[&gain[..], &shift[..]].concat())
        };
        let mut blocks = Vec::with_capacity(vit.blocks.len());
        for block in &vit.blocks {
            blocks.push(match block {
                NativeBlock::Sequential { qkv, proj, fc1, fc2 } => Block::Sequential {
                    qkv: Matrix::upload(gpu, qkv)?,
                    proj: Matrix::upload(gpu, proj)?,
                    fc1: Matrix::upload(gpu, fc1)?,
                    fc2: Matrix::upload(gpu, fc2)?,
                },
                NativeBlock::ParallelScaling {
                    mlp_in,
                    qkv,
                    query_norm,
                    key_norm,
                    proj,
                    mlp_out,
                } => Block::ParallelScaling {
                    mlp_in: Matrix::upload(gpu, mlp_in)?,
                    qkv: Matrix::upload(gpu, qkv)?,
                    query_norm: affine(gpu, query_norm)?,
                    key_norm: affine(gpu, key_norm)?,
                    proj: Matrix::upload(gpu, proj)?,
                    mlp_out: Matrix::upload(gpu, mlp_out)?,
                },
            });
        }
        let final_norm = match &vit.final_norm {
            Some(norm) => Some(affine(gpu, norm)?),
            None => None,
        };
        Ok(Self {
            width: vit.width,
            mlp_width: vit.mlp_width,
            patch: vit.patch,
            grid: vit.grid,
            planes_per_token: vit.planes_per_token,
            heads: vit.attention.heads,
            preparation: vit.preparation.clone(),
            embed: Matrix::upload(gpu, &vit.embed)?,
            prefix: gpu.constant(&vit.prefix)?,
            prefix_tokens: vit.prefix.len() / vit.width,
            positions: gpu.constant(&vit.positions)?,
            blocks,
            norm_epsilon: vit.norm_epsilon,
            final_norm,
            pooling: vit.pooling,
        })
    }

    fn patches(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    fn tokens(&self, channels: usize) -> usize {
        self.prefix_tokens + channels / self.planes_per_token * self.patches()
    }

    /// Values of the largest buffer of one image of `channels`.
    pub(super) fn largest(&self, channels: usize) -> usize {
        let patches = channels / self.planes_per_token * self.patches() * self.embed.inputs();
        let pixels = channels * self.patches() * self.patch * self.patch;
        let widest = (3 * self.width).max(self.mlp_width);
        patches.max(pixels).max(self.tokens(channels) * widest)
    }

    /// The plan for `items` images of `channels`, and the buffer that takes their pixels.
    pub(super) fn plan(
        &self,
        gpu: &mut Gpu,
        items: usize,
        channels: usize,
    ) -> Result<(Plan, wgpu::Buffer), Failed> {
        let (d, tokens) = (self.width, self.tokens(channels));
        let groups = channels / self.planes_per_token;
        let cut = Cut {
            planes: channels,
            members: self.planes_per_token,
            size: (self.grid.0 * self.patch, self.grid.1 * self.patch),
            grid: self.grid,
            kernel: self.patch,
            stride: self.patch,
            padding: (0, 0),
            row: whole(self.embed.inputs()),
        };
        let parts = self.parts(groups);
        let rows = items * tokens;
        let pixels = gpu.buffer(items * channels * cut.size.0 * cut.size.1)?;
        let patches = gpu.buffer(items * cut.rows() * cut.row)?;
        let output = gpu.buffer(items * parts.len() * d)?;
        let maps = Maps {
            tokens: gpu.buffer(rows * d)?,
            halfway: gpu.buffer(rows * d)?,
            normed: gpu.buffer(rows * d)?,
            qkv: gpu.buffer(rows * 3 * d)?,
            attended: gpu.buffer(rows * d)?,
            hidden: gpu.buffer(rows * self.mlp_width)?,
        };
        let mut plan = Plan::new(output.clone(), items * parts.len() * d);
        if self.prefix_tokens > 0 {
            for item in 0..items {
                plan.copy(
                    &self.prefix,
                    &maps.tokens,
                    item * tokens * d,
                    self.prefix_tokens * d,
                );
            }
        }
        cut.record(&mut plan, gpu, items, &self.preparation, (&pixels, &patches))?;
        let place = Place {
            rows: cut.rows(),
            places: tokens,
            first: self.prefix_tokens,
        };
        let positions = Residual::Repeated(&self.positions, self.patches());
        self.embed
            .record(&mut plan, gpu, items, place, (&patches, positions, &maps.tokens))?;
        for block in &self.blocks {
            self.block(&mut plan, gpu, (items, tokens), block, &maps)?;
        }
        let last = if self.final_norm.is_some() {
            self.norm(&mut plan, gpu, rows, (&maps.tokens, &maps.normed))?;
            &maps.normed
        } else {
            &maps.tokens
        };
        for (part, &(first, count)) in parts.iter().enumerate() {
            let mean = Mean {
                width: d,
                rows: tokens,
                first,
                count,
                result: parts.len() * d,
                at: part * d,
                affine: self.final_norm.as_ref(),
            };
            mean.record(&mut plan, gpu, items, (last, &output))?;
        }
        Ok((plan, pixels))
    }

    /// The tokens whose means are the parts of an embedding: the first one, and how many.
    fn parts(&self, groups: usize) -> Vec<(usize, usize)> {
        let (first, patches) = (self.prefix_tokens, self.patches());
        match self.pooling {
            Pooling::ClassToken => vec![(0, 1)],
            Pooling::ClassTokenAndPatchMean => vec![(0, 1), (first, groups * patches)],
            Pooling::PatchMeanPerChannel => (0..groups)
                .map(|group| (first + group * patches, patches))
                .collect(),
            Pooling::PatchMean | Pooling::GlobalMean | Pooling::Head => vec![(first, groups * patches)],
        }
    }

    fn norm(
        &self,
        plan: &mut Plan,
        gpu: &mut Gpu,
        rows: usize,
        (input, output): (&wgpu::Buffer, &wgpu::Buffer),
    ) -> Result<(), Failed> {
        let parameters = [rows as u32, (self.width / 4) as u32, self.norm_epsilon.to_bits()];
        let bound = [Bound::Map(input, rows * self.width), Bound::Buffer(output)];
        let source = shaders::layer_norm(gpu.images());
        plan.dispatch(gpu, source, &parameters, &bound, spread(rows))
    }

    fn attend(
        &self,
        plan: &mut Plan,
        gpu: &mut Gpu,
        (items, tokens): (usize, usize),
        maps: &Maps,
    ) -> Result<(), Failed> {
        let quads = self.width / self.heads / 4;
        let parameters = [tokens, self.width / 4, quads].map(|n| n as u32);
        let groups = [tokens.div_ceil(LANES), self.heads, items];
        let source = shaders::attention(quads, gpu.subgroups(), gpu.images());
        let bound = [
            Bound::Map(&maps.qkv, items * tokens * 3 * self.width),
            Bound::Buffer(&maps.attended),
        ];
        plan.dispatch(gpu, source, &parameters, &bound, groups)
    }

    /// One block, from the tokens to the tokens.
    fn block(
        &self,
        plan: &mut Plan,
        gpu: &mut Gpu,
        (items, tokens): (usize, usize),
        block: &Block,
        m: &Maps,
    ) -> Result<(), Failed> {
        let rows = items * tokens;
        let place = Place {
            rows: tokens,
            places: tokens,
            first: 0,
        };
        self.norm(plan, gpu, rows, (&m.tokens, &m.normed))?;
        let (first, second, input) = match block {
            Block::Sequential { qkv, proj, fc1, fc2 } => {
                qkv.record(plan, gpu, items, place, (&m.normed, Residual::None, &m.qkv))?;
                self.attend(plan, gpu, (items, tokens), m)?;
                let before = Residual::Same(&m.tokens);
                proj.record(plan, gpu, items, place, (&m.attended, before, &m.halfway))?;
                // What was attended to is used up.
                self.norm(plan, gpu, rows, (&m.halfway, &m.attended))?;
                (fc1, fc2, &m.attended)
            }
            Block::ParallelScaling {
                mlp_in,
                qkv,
                query_norm,
                key_norm,
                proj,
                mlp_out,
            } => {
                qkv.record(plan, gpu, items, place, (&m.normed, Residual::None, &m.qkv))?;
                for (part, affine) in [(0, query_norm), (1, key_norm)] {
                    let (width, count) = (self.width / 4, rows * self.heads);
                    let sizes = [count, self.heads, width / self.heads, 3 * width, part * width];
                    let mut parameters: Vec<u32> = sizes.iter().map(|&n| n as u32).collect();
                    parameters.push(self.norm_epsilon.to_bits());
                    let bound = [affine, &m.qkv].map(Bound::Buffer);
                    plan.dispatch(gpu, shaders::head_norm(), &parameters, &bound, groups_of(count))?;
                }
                self.attend(plan, gpu, (items, tokens), m)?;
                let before = Residual::Same(&m.tokens);
                proj.record(plan, gpu, items, place, (&m.attended, before, &m.halfway))?;
                (mlp_in, mlp_out, &m.normed)
            }
        };
        first.record(plan, gpu, items, place, (input, Residual::None, &m.hidden))?;
        let before = Residual::Same(&m.halfway);
        second.record(plan, gpu, items, place, (&m.hidden, before, &m.tokens))
    }
}
