//! CPU form: one histogram for raw integers, two radix passes for floats, parallel over planes.

use rayon::prelude::*;

use super::{BINS, Position, Split};
use crate::histogram::Histogram;
use crate::rows::{RowAt, Rows};

/// Two percentiles (0 to 100) of every plane, and the rows to go on with. Rows whose pending operations do not
/// preserve order are materialised first.
pub(crate) fn percentiles<'a>(rows: Rows<'a>, q: [f64; 2]) -> (Rows<'a>, Vec<[Split; 2]>) {
    let [items, channels, height, width] = rows.shape();
    let plane = height * width;
    let at = q.map(|q| Position::of(q, plane));
    let split = |v: [f32; 4]| {
        [
            Split::between(v[0], v[1], at[0].fraction),
            Split::between(v[2], v[3], at[1].fraction),
        ]
    };
    let ranks = [at[0].rank, at[0].next(plane), at[1].rank, at[1].next(plane)];
    if let Some(raw) = rows.ordered_raw() {
        let found = (0..channels)
            .into_par_iter()
            .map(|c| {
                let histogram = Histogram::of(raw.plane(c));
                let mut values = ranks.map(|r| f32::from(histogram.nth(r as u64).unwrap_or_default()));
                rows.apply(
                    RowAt {
                        item: 0,
                        channel: c,
                        y: 0,
                        x: 0,
                    },
                    &mut values,
                );
                split(values)
            })
            .collect();
        return (rows, found);
    }
    let rows = Rows::float(rows.materialise());
    let found = (0..items * channels)
        .into_par_iter()
        .map(|p| {
            split(select(
                rows.stored_plane(p / channels, p % channels).unwrap_or_default(),
                ranks,
            ))
        })
        .collect();
    (rows, found)
}

/// Unsigned integer in the order of the floats; every NaN last.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        u32::MAX
    } else if bits & 0x8000_0000 != 0 {
        !bits
    } else {
        bits | 0x8000_0000
    }
}

fn value(key: u32) -> f32 {
    f32::from_bits(if key & 0x8000_0000 != 0 {
        key & 0x7fff_ffff
    } else {
        !key
    })
}

/// The bin that holds `rank`, and the rank inside it.
fn find(bins: &[u32], mut rank: usize) -> (usize, usize) {
    for (i, &n) in bins.iter().enumerate() {
        if rank < n as usize {
            return (i, rank);
        }
        rank -= n as usize;
    }
    (bins.len().saturating_sub(1), 0)
}

/// The values of the four ranks.
fn select(values: &[f32], ranks: [usize; 4]) -> [f32; 4] {
    let mut bins = vec![0u32; BINS];
    for &v in values {
        bins[(key(v) >> 16) as usize] += 1;
    }
    let upper = ranks.map(|r| find(&bins, r));
    let mut out = [0.0; 4];
    let mut done: Option<usize> = None;
    for (slot, &(bucket, rank)) in upper.iter().enumerate() {
        if done != Some(bucket) {
            bins.fill(0);
            for &v in values {
                let k = key(v);
                if (k >> 16) as usize == bucket {
                    bins[(k & 0xffff) as usize] += 1;
                }
            }
            done = Some(bucket);
        }
        out[slot] = value(((bucket as u32) << 16) | find(&bins, rank).0 as u32);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn select_equals_sorting() {
        let values = [
            3.5f32,
            -1.0,
            f32::INFINITY,
            0.0,
            7.25,
            -1.0,
            1e-40,
            f32::NEG_INFINITY,
            3.5000002,
        ];
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        for (k, v) in sorted.iter().enumerate() {
            assert_eq!(select(&values, [k; 4]), [*v; 4]);
        }
        assert!(select(&[1.0, f32::NAN], [1; 4])[0].is_nan());
    }
}
