//! Multinomial logistic regression with a ridge: the weights `W` and biases `b` of the classes that make
//! `Σ_i −ln p_i(y_i) + ½ λ Σ W²` least, where `p_i = softmax(W s_i + b)` for the scores `s_i` of well `i` (le Cessie and van
//! Houwelingen 1992, doi 10.2307/2347628). Biases are not penalised and add up to 0.
//!
//! The sum is convex and is made least by L-BFGS (Liu and Nocedal 1989, doi 10.1007/BF01589116), begun with the curvature that
//! each component has at least. Wells are gone through in order on one thread, so that the same wells give the same numbers.

use super::HeadError;

/// Steps that the curvature is learnt from.
const MEMORY: usize = 12;

/// Steps at most; some dozens are usual.
const MOST_STEPS: usize = 2_000;

/// The search has ended when what a step can still gain is this share of the loss of one well that is not known at all.
const ENOUGH: f64 = 1e-13;

/// Wells with principal scores, and their classes.
pub(super) struct Wells<'a> {
    /// Wells x components.
    pub(super) scores: &'a [f64],
    pub(super) components: usize,
    pub(super) of_well: &'a [usize],
    pub(super) classes: usize,
    /// Squared singular values of the scores: what each component has of all wells.
    pub(super) squares: &'a [f64],
}

/// Weights of the components and a bias, class after class.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weights {
    values: Vec<f64>,
    components: usize,
}

impl Weights {
    pub(super) fn zero(wells: &Wells<'_>) -> Self {
        Self {
            values: vec![0.0; wells.classes * (wells.components + 1)],
            components: wells.components,
        }
    }

    /// The weights of one class, and its bias.
    pub(super) fn class(&self, class: usize) -> (&[f64], f64) {
        let row = &self.values[class * (self.components + 1)..][..=self.components];
        (&row[..self.components], row[self.components])
    }

    /// The logarithm of each class's probability for a well.
    pub(super) fn log_probabilities(&self, well: &[f64], to: &mut [f64]) {
        for (class, value) in to.iter_mut().enumerate() {
            let (weights, bias) = self.class(class);
            *value = dot(weights, well) + bias;
        }
        let greatest = to.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = to.iter().map(|value| (value - greatest).exp()).sum();
        let all = greatest + sum.ln();
        to.iter_mut().for_each(|value| *value -= all);
    }
}

impl Wells<'_> {
    pub(super) fn well(&self, row: usize) -> &[f64] {
        &self.scores[row * self.components..][..self.components]
    }

    /// The loss of the wells in `rows`, and its gradient.
    fn loss(&self, weights: &Weights, ridge: f64, rows: &[usize], gradient: &mut [f64]) -> f64 {
        let width = self.components + 1;
        gradient.fill(0.0);
        let mut loss = 0.0;
        let mut logarithms = vec![0.0; self.classes];
        for &row in rows {
            let well = self.well(row);
            weights.log_probabilities(well, &mut logarithms);
            loss -= logarithms[self.of_well[row]];
            for (class, logarithm) in logarithms.iter().enumerate() {
                let own = f64::from(u8::from(class == self.of_well[row]));
                let residual = logarithm.exp() - own;
                let slope = &mut gradient[class * width..][..width];
                for (slope, score) in slope.iter_mut().zip(well) {
                    *slope += residual * score;
                }
                slope[self.components] += residual;
            }
        }
        for (slope, values) in gradient
            .chunks_exact_mut(width)
            .zip(weights.values.chunks_exact(width))
        {
            for (slope, value) in slope.iter_mut().zip(&values[..self.components]) {
                *slope += ridge * value;
                loss += 0.5 * ridge * value * value;
            }
        }
        loss
    }

    /// The weights for the wells in `rows`, looked for from `start` on.
    pub(super) fn fit(&self, ridge: f64, rows: &[usize], start: Weights) -> Result<Weights, HeadError> {
        let width = self.components + 1;
        // The least that a probability's variance lets the curvature be is unknown; a quarter is the most.
        let usual: Vec<f64> = (0..start.values.len())
            .map(|at| match self.squares.get(at % width) {
                Some(square) => 1.0 / (0.25 * square + ridge),
                None => 4.0 / rows.len().max(1) as f64,
            })
            .collect();
        let enough = ENOUGH * (self.classes as f64).ln();
        let mut at = start;
        let mut gradient = vec![0.0; at.values.len()];
        let mut loss = self.loss(&at, ridge, rows, &mut gradient);
        let mut learnt: Vec<Pair> = Vec::with_capacity(MEMORY);
        let mut next_gradient = vec![0.0; gradient.len()];
        for _ in 0..MOST_STEPS {
            let direction = direction(&gradient, &learnt, &usual);
            let slope = dot(&direction, &gradient);
            if -slope <= enough {
                return Ok(at);
            }
            let mut length = 1.0;
            let (next, next_loss) = loop {
                let values = at.values.iter().zip(&direction).map(|(x, d)| x + length * d);
                let next = Weights {
                    values: values.collect(),
                    ..at
                };
                let next_loss = self.loss(&next, ridge, rows, &mut next_gradient);
                if next_loss <= loss + 1e-4 * length * slope {
                    break (next, next_loss);
                }
                length *= 0.5;
                // What is left to gain is below what can be told of a sum.
                if length < 1e-12 {
                    return Ok(at);
                }
            };
            if let Some(pair) = Pair::of(&at, &next, &gradient, &next_gradient) {
                if learnt.len() == MEMORY {
                    learnt.remove(0);
                }
                learnt.push(pair);
            }
            (at, loss) = (next, next_loss);
            std::mem::swap(&mut gradient, &mut next_gradient);
        }
        Err(HeadError::NotFound { steps: MOST_STEPS })
    }
}

/// A step and what it changed of the gradient.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// One over their product.
    scale: f64,
}

impl Pair {
    fn of(from: &Weights, to: &Weights, before: &[f64], after: &[f64]) -> Option<Self> {
        let difference = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        let (step, change) = (difference(&to.values, &from.values), difference(after, before));
        let product = dot(&step, &change);
        let told = product > 1e-14 * dot(&step, &step).sqrt() * dot(&change, &change).sqrt();
        told.then(|| Self {
            step,
            change,
            scale: 1.0 / product,
        })
    }
}

/// Downhill, as far as the curvature that was learnt says.
fn direction(gradient: &[f64], learnt: &[Pair], usual: &[f64]) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut shares = Vec::with_capacity(learnt.len());
    for pair in learnt.iter().rev() {
        let share = pair.scale * dot(&pair.step, &q);
        q.iter_mut().zip(&pair.change).for_each(|(q, y)| *q -= share * y);
        shares.push(share);
    }
    // As much as the last step found the usual curvature to be off.
    let off = learnt.last().map_or(1.0, |pair| {
        let squares = pair.change.iter().zip(usual).map(|(y, usual)| y * y * usual);
        1.0 / (pair.scale * squares.sum::<f64>())
    });
    q.iter_mut().zip(usual).for_each(|(q, usual)| *q *= off * usual);
    for (pair, share) in learnt.iter().zip(shares.iter().rev()) {
        let back = share - pair.scale * dot(&pair.change, &q);
        q.iter_mut().zip(&pair.step).for_each(|(q, s)| *q += back * s);
    }
    q.iter_mut().for_each(|q| *q = -*q);
    q
}

/// An inner product in eight partial sums, which fill vector registers, in a fixed order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, rest_of_a), (b, rest_of_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = rest_of_a.iter().zip(rest_of_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen wells of two components in three classes, none of which can be told from the others without fault.
    fn made_up() -> (Vec<f64>, Vec<usize>) {
        let scores = (0..32).map(|i| ((i * 37 + i * i % 11) % 23) as f64 / 7.0 - 1.5);
        (scores.collect(), (0..16).map(|i| (i * i + i / 5) % 3).collect())
    }

    #[test]
    fn weights_are_where_the_loss_is_least() {
        let (scores, of_well) = made_up();
        let squares: Vec<f64> = (0..2)
            .map(|j| scores.iter().skip(j).step_by(2).map(|x| x * x).sum())
            .collect();
        let wells = Wells {
            scores: &scores,
            components: 2,
            of_well: &of_well,
            classes: 3,
            squares: &squares,
        };
        let rows: Vec<usize> = (0..16).filter(|i| i % 5 != 2).collect();
        let loss = |weights: &Weights, ridge| {
            // Written out, without the trick of the greatest.
            let mut sum = 0.0;
            for &row in &rows {
                let z: Vec<f64> = (0..3)
                    .map(|c| {
                        let (w, b) = weights.class(c);
                        w[0] * scores[2 * row] + w[1] * scores[2 * row + 1] + b
                    })
                    .collect();
                sum -= (z[of_well[row]].exp() / z.iter().map(|z| z.exp()).sum::<f64>()).ln();
            }
            let squares = (0..3).flat_map(|c| weights.class(c).0.to_vec()).map(|w| w * w);
            sum + 0.5 * ridge * squares.sum::<f64>()
        };
        for ridge in [0.001, 0.3, 40.0] {
            let fit = wells.fit(ridge, &rows, Weights::zero(&wells)).unwrap();
            let least = loss(&fit, ridge);
            for at in 0..fit.values.len() {
                for step in [-1e-3, 1e-3] {
                    let mut other = fit.clone();
                    other.values[at] += step;
                    assert!(loss(&other, ridge) > least, "{ridge} {at} {step}");
                }
                // The slope is 0 to what differences can tell.
                let mut sides = [fit.clone(), fit.clone()];
                sides[0].values[at] -= 1e-5;
                sides[1].values[at] += 1e-5;
                let slope = (loss(&sides[1], ridge) - loss(&sides[0], ridge)) / 2e-5;
                assert!(slope.abs() < 1e-6, "{ridge} {at} {slope}");
            }
            let biases: f64 = (0..3).map(|c| fit.class(c).1).sum();
            assert!(biases.abs() < 1e-9, "{biases}");
            // From elsewhere the same is found.
            let mut start = Weights::zero(&wells);
            start
                .values
                .iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = (i as f64 - 4.0) / 2.0);
            let moved: f64 = [2, 5, 8].map(|at| start.values[at]).iter().sum::<f64>() / 3.0;
            for at in [2, 5, 8] {
                start.values[at] -= moved;
            }
            let again = wells.fit(ridge, &rows, start).unwrap();
            for (a, b) in fit.values.iter().zip(&again.values) {
                assert!((a - b).abs() < 1e-5 * (1.0 + a.abs()), "{ridge} {a} {b}");
            }
        }
    }
}
