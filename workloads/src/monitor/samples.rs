//! Do a plate's controls follow the law of the reference's? Two-sample statistics of pairwise distances (Gretton et
//! al. 2012; Székely and Rizzo 2013) with permutation p-values.
//!
//! Rows of principal components in `f64` enter. Nothing fails: with fewer than two rows on a side there is no answer
//! (`None`).

use crate::compare::window::median_in_place;
use crate::random::Random;

/// Distances between wells of a reference sample and of a plate, ready for both statistics.
#[derive(Debug, Clone)]
pub struct TwoSamples {
    /// Reference rows come first.
    reference: usize,
    plate: usize,
    kernel: Pairs,
    distance: Pairs,
}

/// A symmetric matrix of pairs without its diagonal.
#[derive(Debug, Clone)]
struct Pairs {
    values: Vec<f64>,
    row_sums: Vec<f64>,
    total: f64,
}

/// Both statistics and their p-values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleTest {
    /// Unbiased MMD², with an RBF kernel; about 0 where both follow one law, also below it.
    pub mmd2: f64,
    /// Energy distance `2 E‖X−Y‖ − E‖X−X'‖ − E‖Y−Y'‖` (V-statistic), at least 0.
    pub energy: f64,
    /// `(1 + #{permuted ≥ observed}) / (1 + permutations)` of MMD².
    pub p_mmd: f64,
    /// The same of the energy distance.
    pub p_energy: f64,
}

/// Median of the distances between all pairs of rows; `None` with fewer than two rows.
pub fn median_distance(rows: &[&[f64]]) -> Option<f64> {
    let mut distances = Vec::with_capacity(rows.len() * rows.len().saturating_sub(1) / 2);
    for (i, a) in rows.iter().enumerate() {
        distances.extend(rows[..i].iter().map(|b| square_distance(a, b).sqrt()));
    }
    median_in_place(&mut distances)
}

/// `1 / (2 median²)`: the kernel's width by the median heuristic; `None` where the median is 0.
pub fn gamma_of(median_distance: f64) -> Option<f64> {
    (median_distance > 0.0).then(|| 1.0 / (2.0 * median_distance * median_distance))
}

impl TwoSamples {
    /// Compares `plate` with `reference` under the kernel `exp(−gamma ‖x − y‖²)`; `None` with fewer than two rows on a
    /// side.
    pub fn new(reference: &[&[f64]], plate: &[&[f64]], gamma: f64) -> Option<Self> {
        if reference.len() < 2 || plate.len() < 2 {
            return None;
        }
        let rows: Vec<&[f64]> = reference.iter().chain(plate).copied().collect();
        let mut squares = vec![0.0; rows.len() * rows.len()];
        for i in 0..rows.len() {
            for j in 0..i {
                let square = square_distance(rows[i], rows[j]);
                squares[i * rows.len() + j] = square;
                squares[j * rows.len() + i] = square;
            }
        }
        let of = |value: &dyn Fn(f64) -> f64| {
            let n = rows.len();
            let off_diagonal = |at: usize| at / n != at % n;
            let values = squares.iter().enumerate();
            Pairs::new(
                n,
                values
                    .map(|(at, &square)| if off_diagonal(at) { value(square) } else { 0.0 })
                    .collect(),
            )
        };
        Some(Self {
            reference: reference.len(),
            plate: plate.len(),
            kernel: of(&|square| (-gamma * square).exp()),
            distance: of(&f64::sqrt),
        })
    }

    /// MMD² and energy distance as observed.
    pub fn statistics(&self) -> (f64, f64) {
        let plate: Vec<usize> = (self.reference..self.reference + self.plate).collect();
        self.of(&plate)
    }

    /// The statistics where the wells named are the plate's.
    fn of(&self, plate: &[usize]) -> (f64, f64) {
        let (m, n) = (self.reference as f64, self.plate as f64);
        let (within, across, rest) = self.kernel.sums(plate);
        let mmd2 = rest / (m * (m - 1.0)) + within / (n * (n - 1.0)) - 2.0 * across / (m * n);
        let (within, across, rest) = self.distance.sums(plate);
        let energy = 2.0 * across / (m * n) - within / (n * n) - rest / (m * m);
        (mmd2, energy)
    }

    /// The statistics with p-values from `permutations` random relabellings.
    pub fn test(&self, permutations: u32, seed: u64) -> SampleTest {
        let (mmd2, energy) = self.statistics();
        let mut random = Random::keyed(&[seed]);
        let mut wells: Vec<usize> = (0..self.reference + self.plate).collect();
        let (mut mmd_as_large, mut energy_as_large) = (1u32, 1u32);
        for _ in 0..permutations {
            for i in 0..self.plate {
                let other = i + random.below((wells.len() - i) as u32) as usize;
                wells.swap(i, other);
            }
            let (permuted_mmd2, permuted_energy) = self.of(&wells[..self.plate]);
            mmd_as_large += u32::from(permuted_mmd2 >= mmd2);
            energy_as_large += u32::from(permuted_energy >= energy);
        }
        let all = f64::from(permutations) + 1.0;
        SampleTest {
            mmd2,
            energy,
            p_mmd: f64::from(mmd_as_large) / all,
            p_energy: f64::from(energy_as_large) / all,
        }
    }
}

impl Pairs {
    fn new(n: usize, values: Vec<f64>) -> Self {
        let row_sums: Vec<f64> = values
            .chunks_exact(n.max(1))
            .map(|row| row.iter().sum())
            .collect();
        Self {
            total: row_sums.iter().sum(),
            row_sums,
            values,
        }
    }

    /// Sums over ordered pairs: both among `chosen`, one of them, none.
    fn sums(&self, chosen: &[usize]) -> (f64, f64, f64) {
        let n = self.row_sums.len();
        let mut within = 0.0;
        let mut all = 0.0;
        for (place, &i) in chosen.iter().enumerate() {
            let row = &self.values[i * n..(i + 1) * n];
            within += chosen[..place].iter().map(|&j| row[j]).sum::<f64>();
            all += self.row_sums[i];
        }
        within *= 2.0;
        let across = all - within;
        (within, across, self.total - within - 2.0 * across)
    }
}

fn square_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
