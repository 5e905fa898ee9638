//! `tile`: crops of a field of view. A copy, so it is exact.
//!
//! `grid` cuts `floor(H/h) * floor(W/w)` non-overlapping crops, the grid centred in the field (the spare border is
//! split, the odd pixel going to the bottom and right), crops row by row; `centre` cuts one crop; `offset` cuts one
//! crop at the given place. Enters: n items. Leaves: n times the number of crops, the crops of item 0 first. Fails
//! if a crop does not fit into the field.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::{Plan, groups_for};
use crate::registry::Step;
use crate::rows::Rows;

mod cpu;

pub(crate) const NAME: &str = "tile";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Where the crops lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Placement {
    /// All crops of a centred grid.
    Grid,
    /// One crop in the middle.
    Centre,
    /// One crop whose top left pixel is (`y`, `x`).
    Offset {
        /// Row of the top left pixel.
        y: usize,
        /// Column of the top left pixel.
        x: usize,
    },
}

/// Parameters of `tile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tile {
    /// Rows of a crop.
    pub height: usize,
    /// Columns of a crop.
    pub width: usize,
    /// Where the crops lie.
    pub placement: Placement,
}

/// Crops of one item, resolved against a field size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) y: usize,
    pub(crate) x: usize,
}

impl Tile {
    pub(crate) fn layout(&self, height: usize, width: usize) -> Layout {
        match self.placement {
            Placement::Offset { y, x } => Layout {
                rows: 1,
                columns: 1,
                y,
                x,
            },
            Placement::Centre => Layout {
                rows: 1,
                columns: 1,
                y: (height - self.height) / 2,
                x: (width - self.width) / 2,
            },
            Placement::Grid => {
                let (rows, columns) = (height / self.height, width / self.width);
                Layout {
                    rows,
                    columns,
                    y: (height - rows * self.height) / 2,
                    x: (width - columns * self.width) / 2,
                }
            }
        }
    }
}

impl Kernel for Tile {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        let [items, channels, height, width] = input;
        for (parameter, v) in [("height", self.height), ("width", self.width)] {
            if v == 0 {
                return Err(KernelError::Parameter {
                    kernel: NAME,
                    parameter,
                    value: "0".into(),
                    expected: "a crop has at least 1 pixel",
                });
            }
        }
        let (y, x) = match self.placement {
            Placement::Offset { y, x } => (y, x),
            Placement::Grid | Placement::Centre => (0, 0),
        };
        let needed = [y.saturating_add(self.height), x.saturating_add(self.width)];
        if needed[0] > height || needed[1] > width {
            return Err(KernelError::Shape {
                kernel: NAME,
                parameter: "the crop",
                input,
                needed: needed.to_vec(),
            });
        }
        let layout = self.layout(height, width);
        Ok([
            items * layout.rows * layout.columns,
            channels,
            self.height,
            self.width,
        ])
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        cpu::tile(self, input)
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let [items, channels, height, width] = input.shape();
        let layout = self.layout(height, width);
        let crops = layout.rows * layout.columns;
        let shape = [items * crops, channels, self.height, self.width];
        let out = plan.buffer(NAME, shape.iter().product());
        let params = [
            channels,
            width,
            self.height,
            self.width,
            crops,
            layout.columns,
            layout.y,
            layout.x,
        ];
        let mut dispatch = input.dispatch(NAME, WGSL, "tile", params.map(|v| v as u32).to_vec());
        dispatch.writes = vec![(1, out)];
        dispatch.groups = [
            groups_for(self.height * self.width),
            (shape[0] * channels) as u32,
            1,
        ];
        plan.dispatch(dispatch);
        Pixels::float(out, shape)
    }
    fn channel(&self, _c: usize) -> Option<Step> {
        Some((*self).into())
    }
}
