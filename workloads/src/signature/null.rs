//! Nulls of the disease matrix: means of as many control wells as an effect has, from the same origin.
//!
//! Control wells of one origin enter, groups of them leave, with all that depends on no signature. Their products
//! with signatures are sums of the control wells' own, so that no product of 10⁴ mean vectors is ever taken. There is
//! no null without control wells.
//!
//! An effect shares its origin `d` with the signature `v = d − h` of its own disease, which pulls their cosine below
//! 0 by chance alone. A null that left this out would call inactive compounds reversing. Each control group is
//! therefore measured from its plates' other controls, and compared with the signature those others give.

use rayon::prelude::*;

use super::SignatureSettings;
use super::gather::ControlPool;
use super::vectors::dot;
use crate::compare::null::seed_for;
use crate::random::Random;

/// Groups of control wells, each standing for an inactive compound.
#[derive(Debug, Clone, Default)]
pub(super) struct Null {
    /// Control wells of a group.
    pub(super) group: usize,
    /// Indices into the pool, group after group.
    members: Vec<u32>,
    /// By group: `e·e`, `z·e` and `z·z`, with `e` the mean of its wells and `z = Σ r_i / n_i` as in
    /// [`ControlPool::moves`].
    squares: Vec<[f64; 3]>,
}

/// Cosine and rescue of every group against one signature; buffers to use again.
#[derive(Debug, Default)]
pub(super) struct NullScores {
    pub(super) cosine: Vec<f64>,
    pub(super) rescue: Vec<f64>,
}

impl Null {
    /// Groups of `wells` control wells: every combination where there are few enough, draws otherwise.
    ///
    /// Of fewer than twice as many control wells, groups of half of them: their means spread more than those of
    /// `wells` wells would, so that p is too large rather than too small.
    pub(super) fn new(pool: &ControlPool, wells: usize, name: &str, settings: &SignatureSettings) -> Self {
        let n = pool.rows.len();
        if n == 0 || wells == 0 {
            return Self::default();
        }
        let group = wells.min((n / 2).max(1));
        let members = match combinations(n, group, settings.exact_combinations) {
            Some(count) => all_combinations(n, group, count),
            None => draws(n, group, name, settings),
        };
        let squares = members
            .par_chunks(group)
            .map(|members| {
                let width = pool.rows.width();
                let (mut e, mut z) = (vec![0.0; width], vec![0.0; width]);
                for &i in members {
                    let (row, share) = (pool.rows.row(i as usize), pool.share[i as usize]);
                    for ((e, z), &r) in e.iter_mut().zip(&mut z).zip(row) {
                        *e += f64::from(r);
                        *z += f64::from(r) * share;
                    }
                }
                e.iter_mut().for_each(|e| *e /= group as f64);
                [dot(&e, &e), dot(&z, &e), dot(&z, &z)]
            })
            .collect();
        Self {
            group,
            members,
            squares,
        }
    }

    /// Groups.
    pub(super) fn len(&self) -> usize {
        self.squares.len()
    }

    /// Scores against the signature `v` with `square = v·v`: `along[i] = r_i · v`, and `shift` is
    /// [`ControlPool::moves`] of the signature.
    pub(super) fn score(&self, along: &[f64], share: &[f64], shift: f64, square: f64, into: &mut NullScores) {
        into.cosine.clear();
        into.rescue.clear();
        if self.group == 0 {
            return;
        }
        for (members, &[ee, ze, zz]) in self.members.chunks_exact(self.group).zip(&self.squares) {
            let mut ev: f64 = members.iter().map(|&i| along[i as usize]).sum();
            ev /= self.group as f64;
            let mut vv = square;
            if shift != 0.0 {
                // The signature without these wells is v + shift · z.
                let zv: f64 = members
                    .iter()
                    .map(|&i| along[i as usize] * share[i as usize])
                    .sum();
                ev += shift * ze;
                vv += 2.0 * shift * zv + shift * shift * zz;
            }
            into.cosine.push(cosine(ev, ee, vv));
            into.rescue.push(rescue(ev, vv));
        }
    }
}

/// `a·b / √(a·a · b·b)` within [-1, 1]; NaN where a vector has no length.
pub(super) fn cosine(ab: f64, aa: f64, bb: f64) -> f64 {
    if aa > 0.0 && bb > 0.0 {
        (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0)
    } else {
        f64::NAN
    }
}

/// The part of the way from disease to healthy: `e·(−v) / v·v` (SCIENCE 6.1); NaN without a signature.
pub(super) fn rescue(ev: f64, vv: f64) -> f64 {
    if vv > 0.0 { -ev / vv } else { f64::NAN }
}

/// How many groups there are; `None` above `most`.
fn combinations(n: usize, group: usize, most: u32) -> Option<usize> {
    let mut count = 1u128;
    for i in 0..group.min(n - group) {
        count = count * (n - i) as u128 / (i + 1) as u128;
        if count > u128::from(most) {
            return None;
        }
    }
    usize::try_from(count).ok()
}

/// Every combination, the last member turning fastest.
fn all_combinations(n: usize, group: usize, count: usize) -> Vec<u32> {
    let mut members = Vec::with_capacity(count * group);
    let mut chosen: Vec<u32> = (0..group as u32).collect();
    loop {
        members.extend_from_slice(&chosen);
        let Some(i) = (0..group).rev().find(|&i| (chosen[i] as usize) < n - group + i) else {
            return members;
        };
        let start = chosen[i] + 1;
        for (slot, value) in chosen[i..].iter_mut().zip(start..) {
            *slot = value;
        }
    }
}

/// Groups without repetition inside a group, by a partial Fisher-Yates shuffle.
fn draws(n: usize, group: usize, name: &str, settings: &SignatureSettings) -> Vec<u32> {
    let size = (group as u64).to_le_bytes();
    let seed = seed_for(settings.seed, [name.as_bytes(), &size].into_iter());
    let mut random = Random::seeded(seed);
    let mut members = Vec::with_capacity(settings.draws as usize * group);
    let mut order: Vec<u32> = (0..n as u32).collect();
    for _ in 0..settings.draws {
        for i in 0..group {
            let j = i + random.index(n - i);
            order.swap(i, j);
        }
        members.extend_from_slice(&order[..group]);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::FeatureMatrix;

    fn pool(n: usize) -> ControlPool {
        let values = (0..n * 3).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        ControlPool {
            rows: FeatureMatrix::from_values(3, values).unwrap(),
            share: (0..n).map(|i| 1.0 / (3 + i % 2) as f64).collect(),
            moves: vec![-0.5, 0.0],
        }
    }

    #[test]
    fn combinations_are_all_there_once() {
        let all = all_combinations(5, 3, 10);
        let groups: std::collections::BTreeSet<&[u32]> = all.chunks_exact(3).collect();
        assert_eq!((all.len(), groups.len()), (30, 10));
        assert_eq!(combinations(48, 2, 100_000), Some(1128));
        assert_eq!(combinations(1000, 500, 100_000), None);
    }

    #[test]
    fn draws_hold_no_well_twice_and_follow_the_seed() {
        let settings = SignatureSettings {
            exact_combinations: 1,
            draws: 200,
            ..SignatureSettings::default()
        };
        let drawn = draws(9, 4, "x", &settings);
        for group in drawn.chunks_exact(4) {
            let wells: std::collections::BTreeSet<_> = group.iter().collect();
            assert_eq!(wells.len(), 4);
        }
        assert_eq!(drawn, draws(9, 4, "x", &settings));
        assert_ne!(
            drawn,
            draws(9, 4, "x", &SignatureSettings { seed: 1, ..settings })
        );
    }

    #[test]
    fn scores_are_those_of_the_mean_vectors_and_the_signature_without_them() {
        let pool = pool(6);
        let null = Null::new(&pool, 2, "x", &SignatureSettings::default());
        assert_eq!(null.len(), 15);
        let v = [0.3, -0.7, 0.4];
        let row = |i: u32| -> Vec<f64> { pool.rows.row(i as usize).iter().map(|&r| f64::from(r)).collect() };
        let along: Vec<f64> = (0..6).map(|i| dot(&row(i), &v)).collect();
        let mut scores = NullScores::default();
        for shift in pool.moves.clone() {
            null.score(&along, &pool.share, shift, dot(&v, &v), &mut scores);
            for (b, group) in null.members.chunks_exact(2).enumerate() {
                let (a, c) = (row(group[0]), row(group[1]));
                let (s, t) = (pool.share[group[0] as usize], pool.share[group[1] as usize]);
                let e: Vec<f64> = a.iter().zip(&c).map(|(a, c)| 0.5 * (a + c)).collect();
                let moved: Vec<f64> = (0..3).map(|i| v[i] + shift * (a[i] * s + c[i] * t)).collect();
                let (ev, vv) = (dot(&e, &moved), dot(&moved, &moved));
                assert!((scores.cosine[b] - ev / (dot(&e, &e) * vv).sqrt()).abs() < 1e-12);
                assert!((scores.rescue[b] + ev / vv).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn without_controls_there_is_no_null_and_one_control_is_one_group() {
        let mut none = pool(1);
        assert_eq!(Null::new(&none, 4, "x", &SignatureSettings::default()).len(), 1);
        none.rows = FeatureMatrix::new(3);
        assert_eq!(Null::new(&none, 4, "x", &SignatureSettings::default()).len(), 0);
    }
}
