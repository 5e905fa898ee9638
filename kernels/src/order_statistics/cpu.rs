//! CPU form: one histogram for raw integers. Floats are counted against brackets: a sample says between which two
//! values each rank must lie; one pass counts what is below each bracket and keeps what is inside, and the rank is
//! selected from what was kept. Where a bracket missed its rank, that plane is counted again in full. Either way the
//! result is the exact order statistic, whatever the sample and the number of threads.

use rayon::prelude::*;

use super::{Position, Split, ranks_of};
use crate::histogram::Histogram;
use crate::rows::{RowAt, Rows};
use crate::simd::{Between, sift, vectorised};

/// Planes of fewer pixels are sorted whole.
const SMALL: usize = 1 << 15;

/// Pixels that a sample has.
const SAMPLE: usize = 1 << 14;

/// Neighbouring pixels that the sample takes from each row.
const RUN: usize = 8;

/// Standard deviations between a rank and the ends of its bracket.
const DEVIATIONS: f64 = 3.5;

/// Rows per task.
const CHUNK: usize = 64;

/// Pixels of a row that are read at a time, so that they stay in the first-level cache.
const SEGMENT: usize = 512;

/// Order statistics of rows: for each plane, the values of `ranks` before operation number `from`.
pub(crate) struct RowOrder {
    from: usize,
    ranks: Vec<usize>,
    /// Per plane, in the order of `ranks`.
    values: Vec<Vec<f32>>,
}

/// Makes sure that the order statistics behind `percentiles` are known, and those of `ahead` with them.
pub(crate) fn prepare(rows: &mut Rows<'_>, percentiles: &[f64], ahead: &[f64]) {
    let [items, channels, height, width] = rows.shape();
    let count = height * width;
    let needed = ranks_of(percentiles, count);
    if rows
        .order()
        .is_some_and(|o| needed.iter().all(|r| o.ranks.contains(r)))
    {
        return;
    }
    let ranks = ranks_of(&[percentiles, ahead].concat(), count);
    let from = rows.ordering_ops();
    let values = (0..items * channels)
        .into_par_iter()
        .map(|plane| match rows.raw_before(from) {
            Some(raw) => {
                let histogram = Histogram::of(raw.plane(plane));
                histogram.nth_of(&ranks)
            }
            None => {
                let at = |y, x| RowAt {
                    item: plane / channels,
                    channel: plane % channels,
                    y,
                    x,
                };
                let read = |y, x, out: &mut [f32]| rows.read_through(from, at(y, x), out);
                select(&read, [height, width], &ranks)
                    .into_iter()
                    .map(value)
                    .collect()
            }
        })
        .collect();
    rows.set_order(RowOrder { from, ranks, values });
}

/// Percentile `q` of every plane; [`prepare`] must have found it.
pub(crate) fn percentile(rows: &Rows<'_>, q: f64) -> Vec<Split> {
    let [items, channels, height, width] = rows.shape();
    let at = Position::of(q, height * width);
    let Some(order) = rows.order() else {
        return vec![Split::new(f64::NAN); items * channels];
    };
    let index = |rank| order.ranks.iter().position(|r| *r == rank).unwrap_or_default();
    let (low, high) = (index(at.rank), index(at.next(height * width)));
    let of = |(plane, found): (usize, &Vec<f32>)| {
        let later = |v| rows.later(order.from, plane, v);
        Split::between(later(found[low]), later(found[high]), at.fraction)
    };
    order.values.iter().enumerate().map(of).collect()
}

/// Signed integer in the order of the floats; every NaN last, and -0 is 0.
#[inline(always)]
fn key(x: f32) -> i32 {
    let bits = (x + 0.0).to_bits() as i32;
    let k = bits ^ ((bits >> 31) & i32::MAX);
    if x.is_nan() { i32::MAX } else { k }
}

/// The float of a key; NaN for the key of NaN.
fn value(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) & i32::MAX)) as u32)
}

/// Keys between which one or more ranks must lie, both included.
#[derive(Debug, Clone, Copy)]
struct Bracket {
    lo: i32,
    hi: i32,
}

/// Keys of the given ranks (ascending) of a plane.
fn select(
    read: &(impl Fn(usize, usize, &mut [f32]) + Sync),
    [height, width]: [usize; 2],
    ranks: &[usize],
) -> Vec<i32> {
    if height * width < SMALL {
        return sorted(read, [height, width], ranks);
    }
    let brackets = brackets(sample(read, [height, width]), height * width, ranks);
    let sifted = (0..height.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let mut row = [0.0; SEGMENT];
            let mut sifted = Sifted::new(&brackets);
            for y in chunk * CHUNK..((chunk + 1) * CHUNK).min(height) {
                for x in (0..width).step_by(SEGMENT) {
                    let row = &mut row[..SEGMENT.min(width - x)];
                    read(y, x, row);
                    sift(row, sifted.ends, &mut sifted.middle, &mut sifted.kept);
                }
            }
            sifted
        })
        .reduce(|| Sifted::new(&brackets), Sifted::join);
    sifted
        .select(&brackets, ranks, height * width)
        .unwrap_or_else(|| sorted(read, [height, width], ranks))
}

/// What one pass over a plane leaves: the values inside brackets, and counts of those between.
struct Sifted {
    /// The end of the first bracket, if it begins with the least key: values up to this lie in it. The beginning of the last,
    /// if it ends with the greatest key: values from this on lie in it.
    ends: [f32; 2],
    /// The other brackets, and how many values lie below each of them.
    middle: Vec<Between>,
    kept: Vec<f32>,
}

impl Sifted {
    fn new(brackets: &[Bracket]) -> Self {
        let is_low = |b: &&Bracket| b.lo == i32::MIN;
        let is_high = |b: &&Bracket| b.hi == i32::MAX;
        // Nothing is below NaN. What is kept above the last bracket does no harm.
        let low = brackets.first().filter(is_low).map_or(f32::NAN, |b| match b.hi {
            i32::MAX => f32::INFINITY,
            hi => value(hi),
        });
        let high = brackets
            .last()
            .filter(is_high)
            .map_or(f32::INFINITY, |b| match b.lo {
                i32::MIN | i32::MAX => f32::INFINITY,
                lo => value(lo),
            });
        let between = |b: &Bracket| Between {
            lo: value(b.lo),
            hi: value(b.hi),
            below: 0,
        };
        Self {
            ends: [low, high],
            middle: brackets
                .iter()
                .filter(|b| !is_low(b) && !is_high(b))
                .map(between)
                .collect(),
            kept: Vec::new(),
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.kept.extend_from_slice(&other.kept);
        for (a, b) in self.middle.iter_mut().zip(other.middle) {
            a.below += b.below;
        }
        self
    }

    /// The keys of the ranks, or `None` if one lies outside its bracket.
    fn select(self, brackets: &[Bracket], ranks: &[usize], count: usize) -> Option<Vec<i32>> {
        let mut found = Vec::with_capacity(ranks.len());
        let mut keys = vec![0; self.kept.len()];
        to_keys(&self.kept, &mut keys);
        let mut rest = &mut keys[..];
        let mut middle = self.middle.iter();
        let mut ranks = ranks.iter().peekable();
        for bracket in brackets {
            let end = partition(rest, bracket.hi);
            let (inside, next) = rest.split_at_mut(end);
            rest = next;
            let below = if bracket.lo == i32::MIN {
                0
            } else if bracket.hi == i32::MAX {
                count - inside.len()
            } else {
                middle.next()?.below
            };
            // Each rank is looked for above the one before.
            let (mut inside, mut below) = (inside, below);
            while let Some(&rank) = ranks.next_if(|rank| **rank < below + inside.len()) {
                let at = rank.checked_sub(below)?;
                found.push(*inside.select_nth_unstable(at).1);
                inside = &mut inside[at..];
                below = rank;
            }
        }
        ranks.next().is_none().then_some(found)
    }
}

/// Moves keys up to `hi` to the front and says how many there are.
fn partition(keys: &mut [i32], hi: i32) -> usize {
    let mut end = 0;
    for i in 0..keys.len() {
        if keys[i] <= hi {
            keys.swap(i, end);
            end += 1;
        }
    }
    end
}

/// All keys, selected one rank after the other.
fn sorted(
    read: &impl Fn(usize, usize, &mut [f32]),
    [height, width]: [usize; 2],
    ranks: &[usize],
) -> Vec<i32> {
    let mut row = vec![0.0; width];
    let mut keys = vec![0; height * width];
    for (y, keys) in keys.chunks_exact_mut(width).enumerate() {
        read(y, 0, &mut row);
        to_keys(&row, keys);
    }
    ranks
        .iter()
        .map(|&rank| *keys.select_nth_unstable(rank).1)
        .collect()
}

/// Keys of runs of neighbours, spread over the rows, each at another place.
fn sample(read: &impl Fn(usize, usize, &mut [f32]), [height, width]: [usize; 2]) -> Vec<i32> {
    let run = RUN.min(width);
    let runs = SAMPLE / run;
    let mut row = [0.0; RUN];
    let mut keys = vec![0; runs * run];
    for (i, keys) in keys.chunks_exact_mut(run).enumerate() {
        // The golden ratio spreads the runs evenly, without a period of its own.
        let part = (i as u64 * 0x9e37_79b9) & 0xffff_ffff;
        let x = (part * (width - run + 1) as u64) >> 32;
        read(i * height / runs, x as usize, &mut row[..run]);
        to_keys(&row[..run], keys);
    }
    keys
}

/// Brackets around each rank, wide enough that missing it is very unlikely; overlapping ones made one.
fn brackets(mut sample: Vec<i32>, count: usize, ranks: &[usize]) -> Vec<Bracket> {
    let size = sample.len();
    // Places in the sorted sample between which each rank must lie, as far as the sample goes.
    let mut places: Vec<[Option<usize>; 2]> = Vec::new();
    for &rank in ranks {
        let p = (rank as f64 + 0.5) / count as f64;
        let middle = size as f64 * p;
        // Neighbours are alike: a run is worth about one pixel, so the deviation is that of `size / RUN` pixels.
        let margin = DEVIATIONS * (middle * (1.0 - p) * RUN as f64).sqrt() + 2.0 * RUN as f64;
        let [lo, hi] = [(middle - margin).floor(), (middle + margin).ceil()];
        let next = [
            (lo >= 0.0).then_some(lo as usize),
            Some(hi as usize).filter(|hi| *hi < size),
        ];
        match places.last_mut() {
            // None is less than any place, and above all as an end.
            Some(last) if last[1].is_none() || next[0] <= last[1] => last[1] = next[1],
            _ => places.push(next),
        }
    }
    let mut from = 0;
    let mut key = |place: Option<usize>| {
        place.map(|place| {
            let key = *sample[from..].select_nth_unstable(place - from).1;
            from = place;
            key
        })
    };
    let mut brackets: Vec<Bracket> = Vec::new();
    for [lo, hi] in places {
        let (lo, hi) = (key(lo).unwrap_or(i32::MIN), key(hi).unwrap_or(i32::MAX));
        match brackets.last_mut() {
            Some(last) if lo <= last.hi => last.hi = last.hi.max(hi),
            _ => brackets.push(Bracket { lo, hi }),
        }
    }
    brackets
}

vectorised! {
    fn to_keys(row: &[f32], keys: &mut [i32]) {
        for (k, &v) in keys.iter_mut().zip(row) {
            *k = key(v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f32], width: usize) {
        let mut keys: Vec<i32> = values.iter().map(|v| key(*v)).collect();
        keys.sort_unstable();
        let last = values.len() - 1;
        let mut ranks = vec![0, 1, last / 100, last / 2, last / 2 + 1, last - last / 1000, last];
        ranks.iter_mut().for_each(|r| *r = (*r).min(last));
        ranks.sort_unstable();
        ranks.dedup();
        let read = |y: usize, x: usize, out: &mut [f32]| {
            let at = y * width + x;
            out.copy_from_slice(&values[at..at + out.len()]);
        };
        let found = select(&read, [values.len() / width, width], &ranks);
        let expected: Vec<i32> = ranks.iter().map(|r| keys[*r]).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn selection_equals_sorting() {
        let special = [
            3.5f32,
            -1.0,
            f32::INFINITY,
            0.0,
            -0.0,
            7.25,
            1e-40,
            f32::NEG_INFINITY,
            f32::NAN,
            3.5000002,
        ];
        check(&special, 5);
        let mut state = 3u64;
        let mut noise = |n: usize, f: &dyn Fn(u64) -> f32| -> Vec<f32> {
            let mut next = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state >> 40
            };
            (0..n).map(|_| f(next())).collect()
        };
        // Above SMALL: brackets from a sample.
        check(&noise(300 * 257, &|v| v as f32 / 7.0 - 1e6), 257);
        check(
            &noise(300 * 257, &|v| if v % 9 == 0 { f32::NAN } else { v as f32 }),
            257,
        );
        check(&noise(70_000, &|v| v as f32), 1);
        check(&noise(70_000, &|v| v as f32), 70_000);
        check(&vec![5.0; 300 * 257], 257);
        // What the sample cannot see: the extremes lie where it does not look.
        let mut hidden = noise(300 * 257, &|v| (v % 3) as f32);
        hidden.iter_mut().skip(100).step_by(7000).for_each(|v| *v = 1e9);
        check(&hidden, 257);
    }

    #[test]
    fn keys_are_in_the_order_of_floats() {
        for v in [0.0f32, 1.5, -1.5, f32::INFINITY, f32::NEG_INFINITY, 1e-42] {
            assert_eq!(value(key(v)).to_bits(), v.to_bits());
        }
        assert!(value(key(f32::NAN)).is_nan());
        assert!(key(-0.0) == key(0.0) && key(f32::INFINITY) < key(f32::NAN));
    }
}
