//! Rows: pixels on the CPU path, read one row at a time through a chain of pending point-wise operations, so that
//! adjacent kernels are fused: the raw pixels are read once and no full-size intermediate is written.
//! Enters: a raw image or a tensor. Leaves: rows, or a materialised tensor. Fused and unfused give the same bits,
//! because each operation maps an f32 row to an f32 row either way.

use rayon::prelude::*;

use crate::image::{RawImage, Tensor};
use crate::kernel::Shape;

/// Where a row segment lies.
#[derive(Debug, Clone, Copy)]
pub struct RowAt {
    /// Item.
    pub item: usize,
    /// Channel.
    pub channel: usize,
    /// Row.
    pub y: usize,
    /// First column.
    pub x: usize,
}

type Apply<'a> = Box<dyn Fn(RowAt, &mut [f32]) + Send + Sync + 'a>;

struct RowOp<'a> {
    apply: Apply<'a>,
    /// Non-decreasing and the same for every pixel of a plane, so that the k-th smallest value of the output is
    /// the operation applied to the k-th smallest value of the input.
    monotone: bool,
}

enum Base<'a> {
    Raw(&'a RawImage),
    Float(Tensor),
}

/// Pixels read through pending point-wise operations.
pub struct Rows<'a> {
    base: Base<'a>,
    ops: Vec<RowOp<'a>>,
}

impl<'a> Rows<'a> {
    /// Rows of a raw image: one item.
    pub fn raw(image: &'a RawImage) -> Self {
        Self {
            base: Base::Raw(image),
            ops: Vec::new(),
        }
    }

    /// Rows of a tensor.
    pub fn float(tensor: Tensor) -> Self {
        Self {
            base: Base::Float(tensor),
            ops: Vec::new(),
        }
    }

    /// Items, channels, height, width.
    pub fn shape(&self) -> Shape {
        match &self.base {
            Base::Raw(r) => [1, r.channels(), r.height(), r.width()],
            Base::Float(t) => t.shape(),
        }
    }

    /// Adds a point-wise operation. `monotone`: non-decreasing and the same for every pixel of a plane.
    pub(crate) fn then(
        mut self,
        monotone: bool,
        apply: impl Fn(RowAt, &mut [f32]) + Send + Sync + 'a,
    ) -> Self {
        self.ops.push(RowOp {
            apply: Box::new(apply),
            monotone,
        });
        self
    }

    /// The raw pixels, if the k-th smallest output is the pending operations applied to the k-th smallest raw
    /// pixel.
    pub(crate) fn ordered_raw(&self) -> Option<&'a RawImage> {
        match &self.base {
            Base::Raw(r) if self.ops.iter().all(|op| op.monotone) => Some(r),
            _ => None,
        }
    }

    /// Applies the pending operations to values of one plane, in place.
    pub(crate) fn apply(&self, at: RowAt, values: &mut [f32]) {
        for op in &self.ops {
            (op.apply)(at, values);
        }
    }

    /// Reads `out.len()` pixels from `at`.
    pub(crate) fn read(&self, at: RowAt, out: &mut [f32]) {
        let [_, channels, height, width] = self.shape();
        let start = ((at.item * channels + at.channel) * height + at.y) * width + at.x;
        match &self.base {
            Base::Raw(r) => {
                for (o, &p) in out.iter_mut().zip(&r.pixels()[start..]) {
                    *o = f32::from(p);
                }
            }
            Base::Float(t) => out.copy_from_slice(&t.data()[start..start + out.len()]),
        }
        self.apply(at, out);
    }

    /// The values of one plane, if they are stored as they are.
    pub(crate) fn stored_plane(&self, item: usize, channel: usize) -> Option<&[f32]> {
        match &self.base {
            Base::Float(t) if self.ops.is_empty() => Some(t.plane(item, channel)),
            _ => None,
        }
    }

    /// Runs the pending operations over all pixels, in parallel over rows.
    pub fn materialise(self) -> Tensor {
        let shape = self.shape();
        let [_, channels, height, width] = shape;
        let this = match self {
            Rows {
                base: Base::Float(t),
                ops,
            } if ops.is_empty() => return t,
            other => other,
        };
        let mut data = vec![0.0f32; shape.iter().product()];
        data.par_chunks_mut(width)
            .with_min_len(32)
            .enumerate()
            .for_each(|(row, out)| {
                let plane = row / height;
                let at = RowAt {
                    item: plane / channels,
                    channel: plane % channels,
                    y: row % height,
                    x: 0,
                };
                this.read(at, out);
            });
        Tensor::from_parts(shape, data)
    }
}
