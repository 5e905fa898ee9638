//! Order statistics of planes: exact percentiles, shared by `percentile_scale` and `background`.
//!
//! Percentile `q` of n values is `v[k] + (v[k+1] - v[k]) f` with `k + f = (n - 1) q / 100` (numpy's default, type 7).
//! Values are ranked by the IEEE total order with every NaN above +infinity. What follows the last operation that can
//! change the order of pixels is monotone, so ranks are found once for a whole chain: the k-th smallest value behind it
//! is the chain of the k-th smallest before it. Raw integers need one histogram; on a GPU floats are counted by the
//! upper 16 bits of an order-preserving integer key, then by the lower 16 bits inside the bucket that holds the rank;
//! on the CPU brackets from a sample make one pass do (`cpu.rs`). All exact, so all give the same bits.

use crate::pixels::Pixels;
use crate::plan::{BufferId, Dispatch, Plan, groups_for};

mod cpu;

pub(crate) use cpu::{RowOrder, percentile, prepare as prepare_rows};

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

/// The ranks behind percentiles of `count` values, ascending, each once.
fn ranks_of(percentiles: &[f64], count: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = percentiles
        .iter()
        .map(|q| Position::of(*q, count))
        .flat_map(|at| [at.rank, at.next(count)])
        .collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

/// Bins of one radix pass.
const BINS: usize = 1 << 16;

/// Planes of fewer pixels are counted without brackets.
const SMALL: usize = 1 << 15;

/// Room for the keys inside brackets: this part of a plane. Where more are inside, as where many pixels are alike, all pixels
/// of the plane are counted.
const ROOM: usize = 8;

/// Words that a shader keeps of a plane: `State` in kernel.wgsl.
const STATE: usize = 34;

/// Ranks found in one go on a GPU.
const MAX_RANKS: usize = 8;

/// Planes times ranks up to which ranks of later steps are found with those of this one: 64 MiB of bins.
const MAX_COUNTED: usize = 256;

/// Order statistics on a GPU: for each plane, the values of `ranks` before operation number `from`.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    values: BufferId,
    from: usize,
    ranks: Vec<usize>,
}

/// Makes sure that the order statistics behind `percentiles` are known; those of `ahead` come with them if the device
/// can find all of them at once.
pub(crate) fn prepare(plan: &mut Plan, pixels: &mut Pixels, percentiles: &[f64], ahead: &[f64]) {
    let count = pixels.plane_len();
    let needed = ranks_of(percentiles, count);
    if pixels
        .order()
        .is_some_and(|o| needed.iter().all(|r| o.ranks.contains(r)))
    {
        return;
    }
    let all = ranks_of(&[percentiles, ahead].concat(), count);
    // Counting below the key takes 65,536 bins for each plane and rank.
    let fits = all.len() <= MAX_RANKS && all.len() * pixels.planes() <= MAX_COUNTED;
    let ranks = if fits { all } else { needed };
    let changing = pixels
        .ops()
        .iter()
        .rposition(|f| !f.monotone)
        .map_or(0, |i| i + 1);
    // A plane with NaN loses its order to the first operation, which maps NaN to 0.
    let from = if pixels.prefix(changing).without_nan() {
        changing
    } else {
        pixels.ops().len()
    };
    let values = find(plan, pixels.prefix(from), &ranks);
    pixels.set_order(Order { values, from, ranks });
}

/// Workgroups in x of a dispatch that counts the pixels of a plane: enough to fill a large GPU, few enough that what each
/// adds to the tallies costs little.
const MAX_COUNTING: u32 = 128;

/// Dispatches that leave, per plane, the values of `ranks`.
fn find(plan: &mut Plan, pixels: Pixels, ranks: &[usize]) -> BufferId {
    let (planes, plane, count) = (pixels.planes(), pixels.plane_len(), ranks.len());
    let values = plan.buffer(NAME, planes * count);
    let upper = plan.buffer(NAME, planes * BINS);
    plan.clear(upper);
    let room = if plane < SMALL { 0 } else { plane / ROOM };
    let mut params = [plane, planes, count, room].map(|v| v as u32).to_vec();
    params.extend(ranks.iter().map(|r| *r as u32));
    params.resize(4 + MAX_RANKS, 0);
    let counting = [groups_for(plane).min(MAX_COUNTING), planes as u32, 1];
    let each_rank = [1, planes as u32, count as u32];
    let each_plane = [1, planes as u32, 1];
    let step = |plan: &mut Plan, entry, groups, pixels: Option<&Pixels>, writes| {
        plan.dispatch(Dispatch {
            kernel: NAME,
            source: WGSL,
            entry,
            params: params.clone(),
            groups,
            pixels: pixels.cloned(),
            pixels_rarely: entry != "count_whole" && entry != "sift" && room > 0,
            later: None,
            reads: vec![],
            writes,
        });
    };
    let all = Some(&pixels);
    if pixels.is_packed() && pixels.ops().is_empty() {
        step(plan, "count_whole", counting, all, vec![(1, upper)]);
        step(
            plan,
            "select_whole",
            each_rank,
            None,
            vec![(1, upper), (4, values)],
        );
        return values;
    }
    let lower = plan.buffer(NAME, planes * count * BINS);
    let state = plan.buffer(NAME, planes * STATE);
    let kept = plan.buffer(NAME, planes * room);
    plan.clear(lower);
    if room > 0 {
        step(plan, "sample", each_plane, all, vec![(3, state)]);
        step(plan, "sift", counting, all, vec![(3, state), (7, kept)]);
    }
    step(plan, "settle", [groups_for(planes), 1, 1], None, vec![(3, state)]);
    let counted = vec![(1, upper), (3, state), (7, kept)];
    step(plan, "count_upper", counting, all, counted);
    step(
        plan,
        "select_upper",
        each_rank,
        None,
        vec![(1, upper), (3, state)],
    );
    let counted = vec![(2, lower), (3, state), (7, kept)];
    step(plan, "count_lower", counting, all, counted);
    let selected = vec![(2, lower), (3, state), (4, values)];
    step(plan, "select_lower", each_rank, None, selected);
    values
}

/// A dispatch that turns percentiles of `pixels` into the four numbers of an operation, one slot per plane:
/// `one_level` leaves (stored, rest, 0, 0), `range_levels` (low, rest, 1 / span, scale).
pub(crate) fn levels(
    plan: &mut Plan,
    pixels: &Pixels,
    (entry, percentiles): (&'static str, [f64; 2]),
    numbers: [f32; 2],
    (slots, slot): (BufferId, usize),
) {
    let Some(order) = pixels.order() else { return };
    let count = pixels.plane_len();
    let index = |rank| order.ranks.iter().position(|r| *r == rank).unwrap_or(0) as u32;
    let at = percentiles.map(|q| Position::of(q, count));
    plan.dispatch(Dispatch {
        kernel: NAME,
        source: WGSL,
        entry,
        params: vec![
            count as u32,
            pixels.planes() as u32,
            order.ranks.len() as u32,
            slot as u32,
            index(at[0].rank),
            index(at[0].next(count)),
            index(at[1].rank),
            index(at[1].next(count)),
            at[0].fraction.to_bits(),
            at[1].fraction.to_bits(),
            numbers[0].to_bits(),
            numbers[1].to_bits(),
        ],
        pixels: None,
        pixels_rarely: false,
        later: Some((pixels.clone(), order.from)),
        reads: vec![(5, order.values)],
        writes: vec![(6, slots)],
        groups: [groups_for(pixels.planes()), 1, 1],
    });
}
