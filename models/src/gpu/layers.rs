//! The layers that both kinds of networks have, on the device: matrices, and what turns images into rows of patches.
//!
//! Enters: layers of the native engine, with all their folding. Leaves: the same on the device, and their dispatches.

use super::device::{Failed, Gpu, Vectors};
use super::plan::{Bound, Plan, groups_of};
use super::shaders::{self, Gemm, LANES, ROW, TILE_ROWS};
use crate::card::EpsilonPlace;
use crate::native::gemm::{Activation, PackedMatrix};
use crate::prepare::Preparation;

/// A matrix with its bias and activation.
pub(super) struct Matrix {
    inputs: usize,
    outputs: usize,
    /// Columns of a thread.
    columns: usize,
    activation: Activation,
    weights: Vectors,
    bias: wgpu::Buffer,
}

/// Where the rows of an item go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Rows of an item.
    pub(super) rows: usize,
    /// Rows between one item's first place and the next's.
    pub(super) places: usize,
    /// Places before the first row.
    pub(super) first: usize,
}

/// What is added to a product.
#[derive(Clone, Copy)]
pub(super) enum Residual<'a> {
    /// Nothing.
    None,
    /// The row of the same place.
    Same(&'a wgpu::Buffer),
    /// So many rows, again and again.
    Repeated(&'a wgpu::Buffer, usize),
}

/// Values rounded up to whole vectors of four.
pub(super) fn whole(values: usize) -> usize {
    values.next_multiple_of(4)
}

impl Matrix {
    pub(super) fn upload(gpu: &mut Gpu, packed: &PackedMatrix) -> Result<Self, Failed> {
        let (inputs, outputs) = (whole(packed.inputs()), packed.outputs());
        // Narrow products waste the fewest threads with one column each; wide ones fetch a row the more rarely, the more
        // columns a thread has.
        let columns = if outputs <= LANES {
            1
        } else if outputs.is_multiple_of(3 * LANES) {
            3
        } else {
            2
        };
        // In the order in which a workgroup fetches them.
        let mut weights = vec![0.0; outputs.next_multiple_of(LANES * columns) * inputs];
        for (output, values) in packed.rows().enumerate() {
            let (strip, lane) = (output / LANES, output % LANES);
            let (tile, n) = (strip / columns, strip % columns);
            let first = (tile * LANES / ROW + lane / ROW) * inputs / 4;
            for (input, value) in values.enumerate() {
                let vector = ((first + input / 4) * columns + n) * ROW + lane % ROW;
                weights[vector * 4 + input % 4] = value;
            }
        }
        Ok(Self {
            inputs,
            outputs,
            columns,
            activation: packed.activation(),
            weights: gpu.weights(&weights)?,
            bias: gpu.constant(packed.bias())?,
        })
    }

    /// Values of an input row, filled up to whole vectors.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// `output = activation(input * weights + bias) + residual` for `items` items.
    pub(super) fn record(
        &self,
        plan: &mut Plan,
        gpu: &mut Gpu,
        items: usize,
        place: Place,
        (input, residual, output): (&wgpu::Buffer, Residual<'_>, &wgpu::Buffer),
    ) -> Result<(), Failed> {
        let rows = items * place.rows;
        let (added, period) = match residual {
            Residual::None => (None, 0),
            Residual::Same(buffer) => (Some(buffer), 0),
            Residual::Repeated(buffer, rows) => (Some(buffer), rows),
        };
        let source = shaders::gemm(Gemm {
            columns: self.columns,
            activation: self.activation,
            residual: added.is_some(),
            subgroups: gpu.subgroups(),
            half: gpu.half(),
            images: gpu.images(),
        });
        let sizes = [
            rows,
            self.inputs / 4,
            self.outputs,
            place.rows,
            place.places,
            place.first,
            period,
        ];
        let mut bound = vec![
            Bound::Map(input, rows * self.inputs),
            Bound::Constant(&self.weights),
            Bound::Buffer(&self.bias),
        ];
        bound.extend(added.map(Bound::Buffer));
        bound.push(Bound::Buffer(output));
        // Groups that follow each other have the weights in common, which are the more.
        let groups = [
            rows.div_ceil(TILE_ROWS),
            self.outputs.div_ceil(LANES * self.columns),
            1,
        ];
        plan.dispatch(gpu, source, &sizes.map(|n| n as u32), &bound, groups)
    }
}

/// How an image is cut into patches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Planes of an image.
    pub(super) planes: usize,
    /// Planes that meet in one row.
    pub(super) members: usize,
    /// Rows and columns of a plane.
    pub(super) size: (usize, usize),
    /// Rows and columns of patches.
    pub(super) grid: (usize, usize),
    /// Side of a patch, and pixels from one to the next.
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Zeros before the first row and the first column.
    pub(super) padding: (usize, usize),
    /// Values of a row of patches.
    pub(super) row: usize,
}

impl Cut {
    /// Rows of patches of an item.
    pub(super) fn rows(&self) -> usize {
        self.planes / self.members * self.grid.0 * self.grid.1
    }

    /// Writes the normalised patches of `items` images in `pixels` to `output`.
    pub(super) fn record(
        &self,
        plan: &mut Plan,
        gpu: &mut Gpu,
        items: usize,
        preparation: &Preparation,
        (pixels, output): (&wgpu::Buffer, &wgpu::Buffer),
    ) -> Result<(), Failed> {
        let (statistics, count, per_item, scale) = match preparation {
            Preparation::Fixed { scale, planes } => {
                let values: Vec<f32> = planes
                    .iter()
                    .flat_map(|&(mean, std)| [0.0, mean, std, 0.0])
                    .collect();
                (gpu.constant(&values)?, planes.len(), 0, scale)
            }
            Preparation::Image {
                scale,
                epsilon,
                added_to,
            } => {
                let statistics = gpu.buffer(items * self.planes * 4)?;
                let source = shaders::plane_statistics(*added_to == EpsilonPlace::Variance);
                let parameters = [
                    (self.size.0 * self.size.1) as u32,
                    scale.to_bits(),
                    (*epsilon as f32).to_bits(),
                ];
                let groups = [items * self.planes, 1, 1];
                let bound = [pixels, &statistics].map(Bound::Buffer);
                plan.dispatch(gpu, source, &parameters, &bound, groups)?;
                (statistics, self.planes, self.planes, scale)
            }
        };
        let values = items * self.rows() * self.row;
        let sizes = [
            values,
            self.planes,
            self.size.0,
            self.size.1,
            self.grid.0,
            self.grid.1,
            self.planes / self.members,
            self.members,
            self.kernel,
            self.stride,
            self.padding.0,
            self.padding.1,
            self.row,
        ];
        let mut parameters: Vec<u32> = sizes.iter().map(|&n| n as u32).collect();
        parameters.extend([scale.to_bits(), count as u32, per_item as u32]);
        plan.dispatch(
            gpu,
            shaders::patches(),
            &parameters,
            &[pixels, &statistics, output].map(Bound::Buffer),
            groups_of(values),
        )
    }
}

/// Writes the mean of rows `first..first + count` of each item's `rows` rows to place `at` of its result.
pub(super) struct Mean<'a> {
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    /// Values of a result, and where the mean goes in it.
    pub(super) result: usize,
    pub(super) at: usize,
    /// Gains, then shifts.
    pub(super) affine: Option<&'a wgpu::Buffer>,
}

impl Mean<'_> {
    pub(super) fn record(
        &self,
        plan: &mut Plan,
        gpu: &mut Gpu,
        items: usize,
        (input, output): (&wgpu::Buffer, &wgpu::Buffer),
    ) -> Result<(), Failed> {
        let count = items * self.width;
        let sizes = [
            count,
            self.width,
            self.rows,
            self.first,
            self.count,
            self.result,
            self.at,
        ];
        let mut bound = vec![Bound::Buffer(input)];
        bound.extend(self.affine.map(Bound::Buffer));
        bound.push(Bound::Buffer(output));
        plan.dispatch(
            gpu,
            shaders::mean(self.affine.is_some()),
            &sizes.map(|n| n as u32),
            &bound,
            groups_of(count),
        )
    }
}
