//! `histogram`: exact counts of 16-bit pixels, mergeable over images (a plate's controls), with percentiles.
//! Enters: planes of raw pixels. Leaves: 65,536 counts per plane. Percentiles fail outside 0 to 100 and on an empty
//! histogram. Counting is integer arithmetic: both forms are exact.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::image::RawImage;
use crate::kernel::Measure;
use crate::plan::{BufferId, Dispatch, Plan, groups_for};

mod cpu;

pub(crate) const NAME: &str = "histogram";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

const BINS: usize = 1 << 16;

/// Exact counts of 16-bit values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Count of each value from 0; trailing zeros are left out.
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts of `pixels`.
    pub fn of(pixels: &[u16]) -> Self {
        Self::from_counts(&cpu::count(pixels))
    }

    fn from_counts(counts: &[u32]) -> Self {
        let used = counts.iter().rposition(|&n| n > 0).map_or(0, |i| i + 1);
        let counts: Vec<u64> = counts[..used].iter().map(|&n| u64::from(n)).collect();
        let total = counts.iter().sum();
        Self { counts, total }
    }

    pub(crate) fn from_tallies(tallies: &[u64]) -> Self {
        let used = tallies.iter().rposition(|&n| n > 0).map_or(0, |i| i + 1);
        Self {
            counts: tallies[..used].to_vec(),
            total: tallies.iter().sum(),
        }
    }

    /// Adds the counts of `other`; pooling is independent of the order.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(a, b)| *a += b);
        self.total += other.total;
    }

    /// Number of values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Count of `value`.
    pub fn count(&self, value: u16) -> u64 {
        self.counts.get(usize::from(value)).copied().unwrap_or(0)
    }

    /// Values and their counts, ascending, zeros left out.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (u16, u64)> + '_ {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(v, n)| (v as u16, *n))
    }

    /// The value of rank `rank` (0 is the smallest), or `None` past the end.
    pub fn nth(&self, rank: u64) -> Option<u16> {
        let mut below = 0;
        self.entries()
            .find(|(_, n)| {
                below += n;
                below > rank
            })
            .map(|(v, _)| v)
    }

    /// The values of ascending ranks as f32, in one walk.
    pub(crate) fn nth_of(&self, ranks: &[usize]) -> Vec<f32> {
        let mut found = Vec::with_capacity(ranks.len());
        let mut below = 0;
        for (v, n) in self.entries() {
            below += n;
            while ranks.get(found.len()).is_some_and(|r| (*r as u64) < below) {
                found.push(f32::from(v));
            }
        }
        found
    }

    /// Percentile `q` (0 to 100) by linear interpolation at `(n - 1) q / 100` (numpy's default, type 7).
    ///
    /// # Errors
    /// `q` outside 0 to 100, or nothing counted.
    pub fn percentile(&self, q: f64) -> Result<f64, KernelError> {
        let bad = || KernelError::Percentile { q, count: self.total };
        if !(0.0..=100.0).contains(&q) {
            return Err(bad());
        }
        percentile_of_ranks(self.total, q, |rank| self.nth(rank).map(f64::from)).ok_or_else(bad)
    }
}

/// Percentile `q` (0 to 100) of `total` values, of which `nth` knows those of all ranks from 0 on, by linear interpolation at
/// `(total - 1) q / 100` (numpy's default, type 7). `None` where there is no value, or `nth` lacks one.
pub fn percentile_of_ranks(total: u64, q: f64, nth: impl Fn(u64) -> Option<f64>) -> Option<f64> {
    let last = total.checked_sub(1)?;
    let at = last as f64 * (q / 100.0);
    let rank = (at.floor() as u64).min(last);
    let (low, high) = (nth(rank)?, nth((rank + 1).min(last))?);
    Some(low + (high - low) * (at - rank as f64))
}

/// The registry entry.
#[derive(Debug, Clone, Copy)]
pub struct HistogramKernel;

impl Measure for HistogramKernel {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu(&self, image: &RawImage) -> Vec<u64> {
        let mut tallies = vec![0; BINS * image.channels()];
        for (c, out) in tallies.chunks_mut(BINS).enumerate() {
            for (o, n) in out.iter_mut().zip(cpu::count(image.plane(c))) {
                *o = u64::from(n);
            }
        }
        tallies
    }

    fn plan(&self, plan: &mut Plan, packed: BufferId, image: &RawImage) -> BufferId {
        let out = plan.buffer(NAME, BINS * image.channels());
        plan.clear(out);
        plan.dispatch(Dispatch {
            kernel: NAME,
            source: WGSL,
            entry: "histogram",
            params: vec![image.plane_len() as u32],
            pixels: None,
            pixels_rarely: false,
            later: None,
            reads: vec![(1, packed)],
            writes: vec![(2, out)],
            groups: [groups_for(image.plane_len()).min(256), image.channels() as u32, 1],
        });
        out
    }

    fn finish(&self, words: &[u32], _image: &RawImage) -> Vec<u64> {
        words.iter().map(|&n| u64::from(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_type_7() {
        let h = Histogram::of(&[10, 20, 30, 40]);
        assert_eq!(h.percentile(0.0).unwrap(), 10.0);
        assert_eq!(h.percentile(50.0).unwrap(), 25.0);
        assert_eq!(h.percentile(100.0).unwrap(), 40.0);
        assert!((h.percentile(10.0).unwrap() - 13.0).abs() < 1e-12);
        assert!(h.percentile(101.0).is_err());
        assert!(h.percentile(f64::NAN).is_err());
        assert!(Histogram::new().percentile(50.0).is_err());
    }

    #[test]
    fn merging_equals_counting_together() {
        let (a, b) = ([1u16, 2, 65535, 7], [7u16, 7, 0]);
        let mut merged = Histogram::of(&a);
        merged.merge(&Histogram::of(&b));
        assert_eq!(merged, Histogram::of(&[&a[..], &b[..]].concat()));
    }
}
