//! Rows: pixels on the CPU path, read one row at a time through a chain of pending point-wise operations, so that
//! adjacent kernels are fused: the raw pixels are read once and no full-size intermediate is written.
//! Enters: a raw image or a tensor. Leaves: rows, or a materialised tensor. Fused and unfused give the same bits,
//! because each operation maps an f32 row to an f32 row either way.

use rayon::prelude::*;

use crate::flat_field::Illumination;
use crate::image::{RawImage, Tensor};
use crate::kernel::Shape;
use crate::order_statistics::RowOrder;
use crate::point::PointFn;
use crate::simd::{prefetch, vectorised};

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

/// A point-wise operation with its numbers.
struct RowOp {
    function: &'static PointFn,
    /// Four numbers for each plane.
    levels: Vec<[f32; 4]>,
    map: Option<Illumination>,
}

enum Base<'a> {
    Raw(&'a RawImage),
    Float(Tensor),
}

/// Pixels read through pending point-wise operations.
pub struct Rows<'a> {
    base: Base<'a>,
    ops: Vec<RowOp>,
    /// Order statistics found so far, as long as they hold.
    order: Option<RowOrder>,
}

impl<'a> Rows<'a> {
    /// Rows of a raw image: one item.
    pub fn raw(image: &'a RawImage) -> Self {
        Self {
            base: Base::Raw(image),
            ops: Vec::new(),
            order: None,
        }
    }

    /// Rows of a tensor.
    pub fn float(tensor: Tensor) -> Self {
        Self {
            base: Base::Float(tensor),
            ops: Vec::new(),
            order: None,
        }
    }

    /// Items, channels, height, width.
    pub fn shape(&self) -> Shape {
        match &self.base {
            Base::Raw(r) => [1, r.channels(), r.height(), r.width()],
            Base::Float(t) => t.shape(),
        }
    }

    /// Adds a point-wise operation with the numbers of each plane.
    pub(crate) fn then(
        mut self,
        function: &'static PointFn,
        levels: Vec<[f32; 4]>,
        map: Option<&Illumination>,
    ) -> Self {
        if !function.monotone || !self.without_nan(self.ops.len()) {
            self.order = None;
        }
        self.ops.push(RowOp {
            function,
            levels,
            map: map.cloned(),
        });
        self
    }

    /// The raw pixels, if nothing is pending before operation number `ops`.
    pub(crate) fn raw_before(&self, ops: usize) -> Option<&'a RawImage> {
        match &self.base {
            Base::Raw(r) if ops == 0 => Some(r),
            _ => None,
        }
    }

    /// Operations up to the last one that can change the order of pixels; what follows is monotone.
    pub(crate) fn ordering_ops(&self) -> usize {
        let changing = self
            .ops
            .iter()
            .rposition(|op| !op.function.monotone)
            .map_or(0, |i| i + 1);
        if self.without_nan(changing) {
            changing
        } else {
            self.ops.len()
        }
    }

    /// Whether there can be no NaN behind the first `ops` operations: each maps NaN to 0, and raw pixels have none.
    fn without_nan(&self, ops: usize) -> bool {
        ops > 0 || matches!(self.base, Base::Raw(_))
    }

    pub(crate) fn order(&self) -> Option<&RowOrder> {
        self.order.as_ref()
    }

    pub(crate) fn set_order(&mut self, order: RowOrder) {
        self.order = Some(order);
    }

    /// What the operations from number `from` on, which read no map, make of a value of one plane.
    pub(crate) fn later(&self, from: usize, plane: usize, value: f32) -> f32 {
        let mut one = [value];
        for op in &self.ops[from..] {
            (op.function.cpu)(&mut one, op.levels[plane], &[]);
        }
        one[0]
    }

    /// Reads `out.len()` pixels from `at`.
    pub(crate) fn read(&self, at: RowAt, out: &mut [f32]) {
        self.read_through(self.ops.len(), at, out);
    }

    /// Reads `out.len()` pixels from `at` as the first `ops` operations leave them.
    pub(crate) fn read_through<'s>(&'s self, ops: usize, at: RowAt, out: &mut [f32]) {
        let [_, channels, height, width] = self.shape();
        let plane = at.item * channels + at.channel;
        let inside = at.y * width + at.x;
        let start = plane * height * width + inside;
        let length = out.len();
        // Who reads this much of a row wants the same of the next one soon.
        let ahead = (length >= SWEEP).then_some(width);
        let map = |op: &'s RowOp| match &op.map {
            Some(map) => {
                let values = map.plane(at.channel);
                read_ahead(values, inside, length, ahead);
                &values[inside..inside + length]
            }
            None => &[],
        };
        let mut ops = self.ops[..ops].iter();
        match &self.base {
            Base::Raw(r) => {
                read_ahead(r.pixels(), start, length, ahead);
                let pixels = &r.pixels()[start..start + length];
                match ops
                    .as_slice()
                    .first()
                    .and_then(|op| Some((op, op.function.cpu_raw?)))
                {
                    Some((first, raw)) => {
                        raw(pixels, out, first.levels[plane], map(first));
                        ops.next();
                    }
                    None => widen(pixels, out),
                }
            }
            Base::Float(t) => out.copy_from_slice(&t.data()[start..start + length]),
        }
        for op in ops {
            (op.function.cpu)(out, op.levels[plane], map(op));
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
                ..
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

/// Pixels of a row from which on it is read as part of a sweep over the plane.
const SWEEP: usize = 64;

/// Asks for the `length` values that lie `ahead` of those from `at` on.
fn read_ahead<T>(values: &[T], at: usize, length: usize, ahead: Option<usize>) {
    if let Some(ahead) = ahead {
        let from = (at + ahead).min(values.len());
        prefetch(&values[from..(from + length).min(values.len())]);
    }
}

vectorised! {
    /// Raw integers to f32; exact.
    fn widen(pixels: &[u16], out: &mut [f32]) {
        for (o, &p) in out.iter_mut().zip(pixels) {
            *o = f32::from(p);
        }
    }
}
