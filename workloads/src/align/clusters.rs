//! Harmony's soft clusters, which a penalty makes hold every batch (equations 4 to 8 of its paper).
//!
//! Rows of length 1 enter; each row's share of every cluster leaves. Nothing fails.

use rayon::prelude::*;

use super::harmony::HarmonySettings;
use crate::linalg::{inner_products, weighted_sums};
use crate::matrix::FeatureMatrix;
use crate::random::Random;

/// Rounds of k-means from which the soft clusters start.
const FIRST_ROUNDS: usize = 10;

/// Keys of the random streams.
const FIRST: u64 = 1;
const ORDER: u64 = 2;

/// Soft clusters of rows on the unit sphere.
#[derive(Debug)]
pub(super) struct Clusters<'a> {
    /// Unit rows.
    rows: FeatureMatrix,
    /// Unit rows.
    centroids: FeatureMatrix,
    /// Rows x clusters; a row's shares add up to 1.
    shares: FeatureMatrix,
    batch: &'a [usize],
    /// Share of all rows in each batch.
    batch_share: Vec<f64>,
    /// Weight of each batch in each cluster: clusters x batches.
    observed: Vec<f64>,
    random: Random,
}

impl<'a> Clusters<'a> {
    /// Starts from k-means; `rows` have length 1.
    pub(super) fn new(
        rows: FeatureMatrix,
        batch: &'a [usize],
        batches: usize,
        count: usize,
        settings: &HarmonySettings,
    ) -> Self {
        let mut batch_share = vec![0.0; batches];
        for &b in batch {
            batch_share[b] += 1.0 / batch.len() as f64;
        }
        let mut clusters = Self {
            centroids: first_centroids(&rows, count, &mut Random::keyed(&[settings.seed, FIRST])),
            shares: FeatureMatrix::zeros(rows.len(), count),
            rows,
            batch,
            batch_share,
            observed: Vec::new(),
            random: Random::keyed(&[settings.seed, ORDER]),
        };
        for _ in 0..FIRST_ROUNDS {
            clusters.assign_nearest();
            clusters.move_centroids();
        }
        let products = clusters.products();
        clusters.shares = products;
        clusters
            .shares
            .as_mut_slice()
            .par_chunks_mut(count.max(1))
            .for_each(|shares| soften(shares, settings.softness, |_| 1.0));
        clusters.count_observed();
        clusters
    }

    pub(super) fn count(&self) -> usize {
        self.centroids.len()
    }

    pub(super) fn batches(&self) -> usize {
        self.batch_share.len()
    }

    /// Share of all rows in batch `b`.
    pub(super) fn batch_share(&self, b: usize) -> f64 {
        self.batch_share[b]
    }

    /// Rows x clusters.
    pub(super) fn shares(&self) -> &FeatureMatrix {
        &self.shares
    }

    pub(super) fn replace_rows(&mut self, rows: FeatureMatrix) {
        self.rows = rows;
    }

    /// Rounds of centroids and shares until the objective hardly changes; the objective.
    pub(super) fn settle(&mut self, settings: &HarmonySettings) -> f64 {
        let mut objective = f64::INFINITY;
        for _ in 0..settings.cluster_rounds {
            self.move_centroids();
            let products = self.products();
            self.update_shares(&products, settings);
            let value = self.objective(&products, settings);
            let change = (objective - value).abs();
            objective = value;
            if change < settings.tolerance * value.abs() {
                break;
            }
        }
        objective
    }

    /// Centroids as the shares have them, at length 1. A cluster without rows keeps its centroid.
    fn move_centroids(&mut self) {
        let sums = weighted_sums(&self.shares, &self.rows);
        for k in 0..self.count() {
            let length = sums.row(k).iter().map(|v| v * v).sum::<f64>().sqrt();
            if length > 0.0 {
                for (value, sum) in self.centroids.row_mut(k).iter_mut().zip(sums.row(k).iter()) {
                    *value = (sum / length) as f32;
                }
            }
        }
    }

    /// Inner product of every row with every centroid.
    fn products(&self) -> FeatureMatrix {
        let mut products = FeatureMatrix::zeros(self.rows.len(), self.count());
        inner_products(&self.rows, &self.centroids, products.as_mut_slice());
        products
    }

    /// Each row wholly to its nearest centroid; the first of equals.
    fn assign_nearest(&mut self) {
        let products = self.products();
        for (i, products) in products.rows().enumerate() {
            let mut nearest = 0;
            for (k, product) in products.iter().enumerate() {
                if *product > products[nearest] {
                    nearest = k;
                }
            }
            let shares = self.shares.row_mut(i);
            shares.fill(0.0);
            shares[nearest] = 1.0;
        }
    }

    fn count_observed(&mut self) {
        let batches = self.batches();
        self.observed = vec![0.0; self.count() * batches];
        for (shares, &b) in self.shares.rows().zip(self.batch) {
            for (k, &share) in shares.iter().enumerate() {
                self.observed[k * batches + b] += f64::from(share);
            }
        }
    }

    /// Assigns the rows anew, a block at a time: a block's rows are taken out of the clusters, and each batch is pushed
    /// to the clusters where it is rarer than expected.
    fn update_shares(&mut self, products: &FeatureMatrix, settings: &HarmonySettings) {
        let (count, batches) = (self.count(), self.batches());
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        self.random.shuffle(&mut order);
        let block = ((self.rows.len() as f64 * settings.block).ceil() as usize).max(1);
        for block in order.chunks(block) {
            for &i in block {
                for (k, &share) in self.shares.row(i).iter().enumerate() {
                    self.observed[k * batches + self.batch[i]] -= f64::from(share);
                }
            }
            let totals: Vec<f64> = self
                .observed
                .chunks(batches)
                .map(|cluster| cluster.iter().sum())
                .collect();
            let penalty: Vec<f64> = (0..count * batches)
                .map(|at| {
                    let expected = totals[at / batches] * self.batch_share[at % batches];
                    // Taken out and put back, a weight can come to be a rounding below 0.
                    let observed = self.observed[at].max(0.0);
                    ((expected.max(0.0) + 1.0) / (observed + 1.0)).powf(settings.diversity)
                })
                .collect();
            let shares: Vec<Vec<f32>> = block
                .par_iter()
                .map(|&i| {
                    let mut shares = products.row(i).to_vec();
                    soften(&mut shares, settings.softness, |k| {
                        penalty[k * batches + self.batch[i]]
                    });
                    shares
                })
                .collect();
            for (&i, shares) in block.iter().zip(&shares) {
                self.shares.row_mut(i).copy_from_slice(shares);
                for (k, &share) in shares.iter().enumerate() {
                    self.observed[k * batches + self.batch[i]] += f64::from(share);
                }
            }
        }
        // Sums anew, so that roundings do not add up over blocks.
        self.count_observed();
    }

    /// Distances, entropy and diversity together: what the rounds make smaller.
    fn objective(&self, products: &FeatureMatrix, settings: &HarmonySettings) -> f64 {
        let mut sum = 0.0;
        for (shares, products) in self.shares.rows().zip(products.rows()) {
            for (&share, &product) in shares.iter().zip(products) {
                let share = f64::from(share);
                if share > 0.0 {
                    sum += share * 2.0 * (1.0 - f64::from(product)) + settings.softness * share * share.ln();
                }
            }
        }
        let batches = self.batches();
        for cluster in self.observed.chunks(batches) {
            let total: f64 = cluster.iter().sum();
            for (&observed, share) in cluster.iter().zip(&self.batch_share) {
                let expected = total * share;
                let ratio = ((observed + 1.0) / (expected + 1.0)).ln();
                sum += settings.softness * settings.diversity * observed * ratio;
            }
        }
        sum
    }
}

/// From inner products to shares: `exp(−2(1 − product)/σ)` times the penalty, adding up to 1.
fn soften(shares: &mut [f32], softness: f64, penalty: impl Fn(usize) -> f64) {
    let largest = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = shares
        .iter()
        .enumerate()
        .map(|(k, &product)| (2.0 * f64::from(product - largest) / softness).exp() * penalty(k))
        .collect();
    let total: f64 = weights.iter().sum();
    for (share, weight) in shares.iter_mut().zip(&weights) {
        *share = (weight / total) as f32;
    }
}

/// Rows drawn far from one another (k-means++, Arthur and Vassilvitskii 2007).
fn first_centroids(rows: &FeatureMatrix, count: usize, random: &mut Random) -> FeatureMatrix {
    let n = rows.len();
    let mut chosen = vec![random.below(u32::try_from(n).unwrap_or(u32::MAX)) as usize];
    let mut distance = vec![f64::INFINITY; n];
    while chosen.len() < count {
        let last = chosen[chosen.len() - 1];
        distance.par_iter_mut().enumerate().for_each(|(i, distance)| {
            let product: f64 = rows
                .row(i)
                .iter()
                .zip(rows.row(last))
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            *distance = distance.min((1.0 - product).max(0.0));
        });
        let mut left = random.uniform() * distance.iter().sum::<f64>();
        // Where all rows are equal to chosen ones, any will do: the last.
        let next = distance
            .iter()
            .position(|distance| {
                left -= distance;
                left < 0.0
            })
            .unwrap_or(n - 1);
        chosen.push(next);
    }
    rows.select(&chosen)
}

/// The rows at length 1; a zero row stays.
pub(crate) fn unit_rows(rows: &FeatureMatrix) -> FeatureMatrix {
    let mut unit = rows.clone();
    unit.as_mut_slice()
        .par_chunks_mut(rows.width().max(1))
        .for_each(|row| {
            let length = row
                .iter()
                .map(|&v| f64::from(v) * f64::from(v))
                .sum::<f64>()
                .sqrt();
            if length > 0.0 {
                for value in row {
                    *value = (f64::from(*value) / length) as f32;
                }
            }
        });
    unit
}
