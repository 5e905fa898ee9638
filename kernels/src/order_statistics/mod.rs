//! Order statistics of planes: exact percentiles, shared by `percentile_scale` and `background`.
//!
//! Percentile `q` of n values is `v[k] + (v[k+1] - v[k]) f` with `k + f = (n - 1) q / 100` (numpy's default, type 7).
//! Values are ranked by the IEEE total order with every NaN above +infinity. Both forms count the upper 16 bits of
//! the order-preserving integer key, then the lower 16 bits inside the bucket that holds the rank; raw integers
//! need one histogram only. Exact, so both give the same bits.

use crate::plan::{BufferId, Dispatch, Plan, groups_for};

mod cpu;

pub(crate) use cpu::percentiles;

pub(crate) const NAME: &str = "order_statistics";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// A value as a stored f32 plus a small remainder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Split {
    pub(crate) stored: f32,
    pub(crate) rest: f32,
}

impl Split {
    pub(crate) fn new(value: f64) -> Self {
        let stored = value as f32;
        Self {
            stored,
            rest: (value - f64::from(stored)) as f32,
        }
    }

    /// Interpolates between two neighbours of the sorted values.
    pub(crate) fn between(low: f32, high: f32, fraction: f32) -> Self {
        Self {
            stored: low,
            rest: if fraction > 0.0 {
                (high - low) * fraction
            } else {
                0.0
            },
        }
    }
}

/// Rank and fraction of a percentile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) rank: usize,
    pub(crate) fraction: f32,
}

impl Position {
    /// Position of percentile `q` (0 to 100) among `count` sorted values.
    pub(crate) fn of(q: f64, count: usize) -> Self {
        let last = count.saturating_sub(1);
        let at = last as f64 * (q / 100.0);
        let rank = (at.floor() as usize).min(last);
        Self {
            rank,
            fraction: (at - rank as f64) as f32,
        }
    }

    /// Rank of the upper neighbour.
    pub(crate) fn next(self, count: usize) -> usize {
        (self.rank + 1).min(count.saturating_sub(1))
    }
}

/// Bins of one radix pass.
const BINS: usize = 1 << 16;

/// Dispatches that leave, per plane, two percentiles as stored value and remainder (4 floats).
pub(crate) fn plan(
    plan: &mut Plan,
    input: BufferId,
    planes: usize,
    plane: usize,
    at: [Position; 2],
) -> BufferId {
    let upper = plan.buffer(NAME, planes * BINS);
    let lower = plan.buffer(NAME, planes * 4 * BINS);
    let state = plan.buffer(NAME, planes * 8);
    let out = plan.buffer(NAME, planes * 4);
    plan.clear(upper);
    plan.clear(lower);
    let params = vec![
        plane as u32,
        at[0].fraction.to_bits(),
        at[1].fraction.to_bits(),
        0,
        at[0].rank as u32,
        at[0].next(plane) as u32,
        at[1].rank as u32,
        at[1].next(plane) as u32,
    ];
    let per_pixel = [groups_for(plane).min(256), planes as u32, 1];
    let mut step = |entry, bindings: &[(u32, BufferId)], groups| {
        plan.dispatch(Dispatch {
            kernel: NAME,
            source: WGSL,
            entry,
            // The last selection reads no parameters.
            params: if entry == "select_lower" {
                Vec::new()
            } else {
                params.clone()
            },
            bindings: bindings.to_vec(),
            groups,
        });
    };
    step("count_upper", &[(1, input), (2, upper)], per_pixel);
    step("select_upper", &[(2, upper), (4, state)], [1, planes as u32, 4]);
    step("count_lower", &[(1, input), (3, lower), (4, state)], per_pixel);
    step("select_lower", &[(3, lower), (4, state)], [1, planes as u32, 4]);
    step("interpolate", &[(4, state), (5, out)], [1, planes as u32, 1]);
    out
}
