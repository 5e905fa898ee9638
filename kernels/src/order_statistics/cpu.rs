//! CPU form: one histogram for raw integers. Floats are counted against brackets: a sample says between which two
//! values each rank must lie; one pass counts what is below each bracket and keeps what is inside, and the rank is
//! selected from what was kept. Where a bracket missed its rank, that plane is counted again in full. Either way the
//! result is the exact order statistic, whatever the sample and the number of threads.

use rayon::prelude::*;

use super::{Position, Split, ranks_of};
use crate::histogram::Histogram;
use crate::rows::{RowAt, Rows};
use crate::simd::vectorised;

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

/// Pixels that are looked at one by one if any of them lies in a bracket.
const BLOCK: usize = 16;

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
    let brackets = brackets(&sample(read, [height, width]), height * width, ranks);
    let sifted = (0..height.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let mut row = vec![0.0; width];
            let mut sifted = Sifted::new(&brackets);
            for y in chunk * CHUNK..((chunk + 1) * CHUNK).min(height) {
                read(y, 0, &mut row);
                sift(&row, &mut sifted);
            }
            sifted
        })
        .reduce(|| Sifted::new(&brackets), Sifted::join);
    sifted
        .select(&brackets, ranks, height * width)
        .unwrap_or_else(|| sorted(read, [height, width], ranks))
}

/// What one pass over a plane leaves: the keys inside brackets, and counts of those between.
struct Sifted {
    /// Keys up to this lie in a bracket: the end of the first, if it begins with the least key.
    low: i32,
    /// Keys from this on lie in a bracket: the beginning of the last, if it ends with the greatest key.
    high: i32,
    /// The same as floats: between them lies nothing to keep.
    floats: [f32; 2],
    /// The other brackets, and how many keys lie below each of them.
    middle: Vec<(Bracket, usize)>,
    /// The first `used` are what was kept; the rest is room.
    kept: Vec<i32>,
    used: usize,
}

impl Sifted {
    fn new(brackets: &[Bracket]) -> Self {
        let is_low = |b: &&Bracket| b.lo == i32::MIN;
        let is_high = |b: &&Bracket| b.hi == i32::MAX;
        let low = brackets.first().filter(is_low).map_or(i32::MIN, |b| b.hi);
        let high = brackets.last().filter(is_high).map_or(i32::MAX, |b| b.lo);
        // The least key belongs to no float, the greatest to NaN.
        let or = |v: f32, other: f32| if v.is_nan() { other } else { v };
        let beyond = if low == i32::MIN {
            f32::NEG_INFINITY
        } else {
            f32::INFINITY
        };
        Self {
            low,
            high,
            floats: [or(value(low), beyond), or(value(high), f32::INFINITY)],
            middle: brackets
                .iter()
                .filter(|b| !is_low(b) && !is_high(b))
                .map(|b| (*b, 0))
                .collect(),
            kept: Vec::new(),
            used: 0,
        }
    }

    /// Where the next block of keys goes; there is always room.
    #[inline(always)]
    fn room(&mut self) -> Option<&mut [i32; BLOCK]> {
        if self.kept.len() < self.used + BLOCK {
            self.kept.resize(2 * self.kept.len() + 64 * BLOCK, 0);
        }
        self.kept[self.used..].first_chunk_mut()
    }

    #[inline(always)]
    fn keeps(&self, k: i32) -> bool {
        (k <= self.low) | (k >= self.high) || self.middle.iter().any(|(b, _)| (b.lo..=b.hi).contains(&k))
    }

    fn join(mut self, other: Self) -> Self {
        self.kept.truncate(self.used);
        self.kept.extend_from_slice(&other.kept[..other.used]);
        self.used = self.kept.len();
        for (a, b) in self.middle.iter_mut().zip(other.middle) {
            a.1 += b.1;
        }
        self
    }

    /// The keys of the ranks, or `None` if one lies outside its bracket.
    fn select(mut self, brackets: &[Bracket], ranks: &[usize], count: usize) -> Option<Vec<i32>> {
        let mut found = Vec::with_capacity(ranks.len());
        let mut rest = &mut self.kept[..self.used];
        let mut ranks = ranks.iter().peekable();
        for bracket in brackets {
            let end = partition(rest, bracket.hi);
            let (inside, next) = rest.split_at_mut(end);
            rest = next;
            let below = match self.middle.iter().find(|(b, _)| b.lo == bracket.lo) {
                Some((_, below)) => *below,
                None if bracket.lo == i32::MIN => 0,
                None => count - inside.len(),
            };
            while let Some(rank) = ranks.next_if(|rank| **rank < below + inside.len()) {
                found.push(*inside.select_nth_unstable(rank.checked_sub(below)?).1);
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

/// Sorted keys of runs of neighbours, spread over the rows, each at another place.
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
    keys.sort_unstable();
    keys
}

/// Brackets around each rank, wide enough that missing it is very unlikely; overlapping ones made one.
fn brackets(sample: &[i32], count: usize, ranks: &[usize]) -> Vec<Bracket> {
    let size = sample.len() as f64;
    let mut brackets: Vec<Bracket> = Vec::new();
    for &rank in ranks {
        let p = (rank as f64 + 0.5) / count as f64;
        // Neighbours are alike: a run is worth about one pixel, so the deviation is that of `size / RUN` pixels.
        let margin = DEVIATIONS * (size * p * (1.0 - p) * RUN as f64).sqrt() + 2.0 * RUN as f64;
        let at = |rank: f64, outside| match (rank >= 0.0).then(|| sample.get(rank as usize)).flatten() {
            Some(key) => *key,
            None => outside,
        };
        let next = Bracket {
            lo: at((size * p - margin).floor(), i32::MIN),
            hi: at((size * p + margin).ceil(), i32::MAX),
        };
        match brackets.last_mut() {
            Some(last) if next.lo <= last.hi => last.hi = last.hi.max(next.hi),
            _ => brackets.push(next),
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

    /// Keeps what lies in brackets and counts what lies below those in the middle.
    fn sift(row: &[f32], sifted: &mut Sifted) {
        let blocks = row.chunks_exact(BLOCK);
        let rest = blocks.remainder();
        for block in blocks {
            if let Some(block) = block.first_chunk() {
                sift_block(block, sifted);
            }
        }
        for &v in rest {
            let k = key(v);
            for (bracket, below) in &mut sifted.middle {
                *below += usize::from(k < bracket.lo);
            }
            if sifted.keeps(k)
                && let Some(room) = sifted.room()
            {
                room[0] = k;
                sifted.used += 1;
            }
        }
    }
}

#[inline(always)]
fn sift_block(block: &[f32; BLOCK], sifted: &mut Sifted) {
    let (low, high) = (sifted.low, sifted.high);
    if sifted.middle.is_empty() {
        // Most blocks have nothing to keep. NaN is not below the end, so it may be.
        let [low, high] = sifted.floats;
        let mut any = 0u32;
        for v in block {
            any |= u32::from(*v <= low) | (1 - u32::from(*v < high));
        }
        if any == 0 {
            return;
        }
    }
    // Loops, since `map` of arrays is not inlined and would lose the vector instructions.
    let (mut keys, mut inside) = ([0i32; BLOCK], [0u32; BLOCK]);
    for ((k, i), v) in keys.iter_mut().zip(&mut inside).zip(block) {
        *k = key(*v);
        *i = u32::from(*k <= low) | u32::from(*k >= high);
    }
    for (bracket, below) in &mut sifted.middle {
        let mut less = 0u32;
        for (k, i) in keys.iter().zip(&mut inside) {
            less += u32::from(*k < bracket.lo);
            *i |= u32::from(*k >= bracket.lo) & u32::from(*k <= bracket.hi);
        }
        *below += less as usize;
    }
    let mut any = 0;
    for i in &inside {
        any |= i;
    }
    if any != 0
        && let Some(room) = sifted.room()
    {
        // Without branches: each key is written, and the place moves on if it is kept.
        let mut count = 0;
        for (k, i) in keys.iter().zip(&inside) {
            room[count % BLOCK] = *k;
            count += *i as usize;
        }
        sifted.used += count;
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
