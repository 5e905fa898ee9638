//! Ranks of some cosines among the cosines of all pairs, without keeping those.
//!
//! Directions enter, exact counts leave; nothing fails. All pairs are walked through in tiles: memory is one tile for
//! each thread, whatever their number. A pair's cosine is that of its tile, so it has the same bits as a query and as
//! a member of the null.
//!
//! Cosines are binned in 200,000 bins, and bins that hold a query are resolved to the last bit, so that a rank costs
//! what a histogram's costs but has no error.

use rayon::prelude::*;

use super::Perturbations;
use crate::signature::vectors::products;

/// Rows of a tile.
const TILE: usize = 256;
/// Bins of [-1, 1].
const BINS: usize = 200_000;

/// How many null values lie below a query, and how many not above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Null values below (`searchsorted`, side left).
    pub left: u64,
    /// Null values at or below (`searchsorted`, side right).
    pub right: u64,
    /// Null values.
    pub null: u64,
}

impl Rank {
    /// Share of the null below, 0 to 1.
    pub fn left_share(&self) -> f64 {
        self.left as f64 / self.null as f64
    }

    /// Share of the null at or below, 0 to 1.
    pub fn right_share(&self) -> f64 {
        self.right as f64 / self.null as f64
    }
}

/// Which pairs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// All.
    All,
    /// Those on no common plate: a shared plate makes profiles alike (SCIENCE 7).
    CrossPlate,
}

/// Cosines of the named pairs, in their order; `(a, b)` and `(b, a)` are one pair.
pub fn pair_cosines(perturbations: &Perturbations, pairs: &[(usize, usize)]) -> Vec<f64> {
    // By tile, so that each is computed once.
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    let tile = |pair: usize| {
        let (a, b) = pairs[pair];
        (a.min(b) / TILE, a.max(b) / TILE)
    };
    order.sort_by_key(|&pair| tile(pair));
    let groups: Vec<&[usize]> = order.chunk_by(|&a, &b| tile(a) == tile(b)).collect();
    let found: Vec<Vec<(usize, f64)>> = groups
        .par_iter()
        .map_init(Vec::new, |buffer, group| {
            let (i, j) = tile(group[0]);
            cosines_of_tile(perturbations, i, j, buffer);
            let rows = rows_of_tile(perturbations, i);
            let read = |&pair: &usize| {
                let (a, b) = pairs[pair];
                let (low, high) = (a.min(b) - i * TILE, a.max(b) - j * TILE);
                (pair, buffer[high * rows + low])
            };
            group.iter().map(read).collect()
        })
        .collect();
    let mut cosines = vec![f64::NAN; pairs.len()];
    for (pair, cosine) in found.into_iter().flatten() {
        cosines[pair] = cosine;
    }
    cosines
}

/// Ranks of `queries` among the cosines of all pairs, or of those on no common plate.
pub fn ranks(perturbations: &Perturbations, queries: &[f64], pairs: Pairs) -> Vec<Rank> {
    let mut values: Vec<f64> = queries.iter().copied().filter(|value| !value.is_nan()).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    let counter = Counter::new(values);
    let tiles = perturbations.len().div_ceil(TILE);
    let counts = (0..tiles)
        .into_par_iter()
        .flat_map_iter(|i| (i..tiles).map(move |j| (i, j)))
        .fold(
            || (counter.counts(), Vec::new()),
            |(mut counts, mut buffer), (i, j)| {
                cosines_of_tile(perturbations, i, j, &mut buffer);
                let rows = rows_of_tile(perturbations, i);
                for (b, column) in buffer.chunks_exact(rows).enumerate() {
                    let b = j * TILE + b;
                    // The upper triangle: rows before the column.
                    let count = (b - i * TILE).min(rows);
                    for (a, &cosine) in column[..count].iter().enumerate() {
                        if pairs == Pairs::All || !perturbations.share_a_plate(i * TILE + a, b) {
                            counter.add(&mut counts, cosine);
                        }
                    }
                }
                (counts, buffer)
            },
        )
        .map(|(counts, _)| counts)
        .reduce(|| counter.counts(), Counts::plus);
    let ranks = counter.ranks(&counts);
    queries
        .iter()
        .map(
            |query| match counter.values.binary_search_by(|value| value.total_cmp(query)) {
                Ok(place) => ranks[place],
                Err(_) => Rank {
                    left: 0,
                    right: 0,
                    null: 0,
                },
            },
        )
        .collect()
}

fn rows_of_tile(perturbations: &Perturbations, tile: usize) -> usize {
    (perturbations.len() - tile * TILE).min(TILE)
}

/// `out[b * rows + a]`: cosine of row `a` of tile `i` and row `b` of tile `j`, within [-1, 1]; never -0.
fn cosines_of_tile(perturbations: &Perturbations, i: usize, j: usize, out: &mut Vec<f64>) {
    let directions = perturbations.directions();
    let width = directions.width();
    let rows = |tile: usize| {
        let first = tile * TILE * width;
        &directions.as_slice()[first..first + rows_of_tile(perturbations, tile) * width]
    };
    let (a, b) = (rows(i), rows(j));
    out.clear();
    out.resize(a.len() / width * (b.len() / width), 0.0);
    products(a, b, width, out);
    out.iter_mut()
        .for_each(|cosine| *cosine = cosine.clamp(-1.0, 1.0) + 0.0);
}

/// Counts null values between sorted queries.
struct Counter {
    values: Vec<f64>,
    /// `first[bin]`: the first query at or beyond the bin.
    first: Vec<u32>,
}

struct Counts {
    /// Null values beyond the query before and at or below this one; the last: beyond all.
    up_to: Vec<u64>,
    /// Null values equal to the query.
    equal: Vec<u64>,
}

impl Counts {
    fn plus(mut self, other: Self) -> Self {
        for (own, others) in [(&mut self.up_to, other.up_to), (&mut self.equal, other.equal)] {
            own.iter_mut().zip(others).for_each(|(own, other)| *own += other);
        }
        self
    }
}

fn bin(cosine: f64) -> usize {
    (((cosine + 1.0) * (BINS as f64 / 2.0)) as usize).min(BINS - 1)
}

impl Counter {
    /// `values` ascending and distinct, in [-1, 1].
    fn new(values: Vec<f64>) -> Self {
        let mut first = vec![0u32; BINS + 1];
        for &value in &values {
            first[bin(value) + 1] += 1;
        }
        for bin in 0..BINS {
            first[bin + 1] += first[bin];
        }
        Self { values, first }
    }

    fn counts(&self) -> Counts {
        Counts {
            up_to: vec![0; self.values.len() + 1],
            equal: vec![0; self.values.len()],
        }
    }

    fn add(&self, counts: &mut Counts, cosine: f64) {
        let bin = bin(cosine);
        let (first, end) = (self.first[bin] as usize, self.first[bin + 1] as usize);
        let place = first + self.values[first..end].partition_point(|&value| value < cosine);
        counts.up_to[place] += 1;
        if place < end && self.values[place] == cosine {
            counts.equal[place] += 1;
        }
    }

    fn ranks(&self, counts: &Counts) -> Vec<Rank> {
        let null = counts.up_to.iter().sum();
        let mut right = 0;
        counts
            .up_to
            .iter()
            .zip(&counts.equal)
            .map(|(up_to, equal)| {
                right += up_to;
                Rank {
                    left: right - equal,
                    right,
                    null,
                }
            })
            .collect()
    }
}
