//! A linear probe: one score per class of control wells, on the standardised features. By ridge regression (Hoerl and Kennard
//! 1970, doi 10.1080/00401706.1970.10488634) a score is near 1 for wells of its class and near 0 for others, and the scores of
//! a well add up to 1. By logistic regression (`logistic.rs`) a score is the logarithm of the class's probability, but for a
//! number that a well's scores have in common.
//!
//! The ridge is the one, of a fixed series, whose predictions of held-out wells have the least loss: squared error, or the
//! logarithm of the probability that their class was given. Plates are held out whole, where every class is on several: a probe
//! that knows the plate is then no better for it. Leaving a group of rows out of a ridge regression needs no second fit: with
//! the hat matrix `H` the residuals of a group are `(I − H_gg)⁻¹ r_g` (Cook and Weisberg 1982, 2.2); a logistic regression is
//! fitted again. The standardisation is that of all wells.

use std::collections::{BTreeMap, BTreeSet};

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use rayon::prelude::*;

use super::logistic::{Weights, Wells};
use super::{ControlWells, FitLimits, Head, HeadError, singles};
use crate::align::pca::Pca;
use crate::linalg::{centred_rows, product};
use crate::matrix::FeatureMatrix;

/// Parts of the cross-validation where plates cannot be held out; a well's is its number within its class modulo this.
const FOLDS: usize = 5;

/// The ridges that are tried, as shares of the mean squared singular value: half decades up to 1e3.
const STRONGEST: i32 = 6;
/// From 1e-3.
const WEAKEST_OF_SQUARES: i32 = -6;
/// From 1e-6, since where a class has wells far off, those close to another class are told apart by large weights only.
const WEAKEST_OF_LOGISTIC: i32 = -12;

/// How to fit a probe.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProbeSettings {
    /// What is refused.
    pub limits: FitLimits,
    /// What is made least.
    pub loss: ProbeLoss,
}

/// What a probe makes least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProbeLoss {
    /// Squared errors of scores that are to be 1 and 0: ridge regression. At once, whatever the wells.
    #[default]
    Squares,
    /// The improbability of the classes: logistic regression.
    Logistic,
}

/// Which wells were held out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folds {
    /// All wells of a plate.
    Plates(usize),
    /// Every fifth well of each class.
    Wells(usize),
}

/// A probe and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeFit {
    /// The map; its values are the scores of the classes in order.
    pub head: Head,
    /// Names of the classes, sorted.
    pub classes: Vec<String>,
    /// The ridge, as a share of the mean squared singular value of the standardised wells.
    pub ridge: f64,
    /// How wells were held out.
    pub folds: Folds,
    /// Mean over the classes of the share of held-out wells whose greatest score is that of their class.
    pub balanced_accuracy: f64,
}

/// Fits a probe on control wells, each of which is of a class.
///
/// # Errors
/// [`HeadError`]: fewer than two classes, a class of too few wells, values that are not finite, features that do not
/// vary.
pub fn fit_probe(
    controls: &ControlWells,
    classes: &[String],
    settings: &ProbeSettings,
) -> Result<ProbeFit, HeadError> {
    let (names, of_well) = check_classes(controls, classes, settings.limits.fewest_wells)?;
    controls.check(settings.limits.fewest_wells)?;
    let standardised = controls.standardised(true, settings.limits)?;
    let rows = &standardised.rows;
    let n = rows.len();
    let pca = Pca::fit_rows(rows, usize::MAX)?;
    let squares: Vec<f64> = pca
        .explained_variance
        .iter()
        .map(|value| value * (n - 1) as f64)
        .collect();
    let scores = product(centred_rows(rows, &pca.mean).as_ref(), pca.loadings.as_ref());
    let shares: Vec<f64> = (0..names.len())
        .map(|class| of_well.iter().filter(|of| **of == class).count() as f64 / n as f64)
        .collect();
    let (groups, folds) = groups(controls, &of_well, names.len());
    let mean_square = squares.iter().sum::<f64>() / squares.len() as f64;
    let chosen = match settings.loss {
        ProbeLoss::Squares => {
            let targets = Mat::from_fn(n, names.len(), |i, class| {
                f64::from(u8::from(of_well[i] == class)) - shares[class]
            });
            let data = Data {
                against: product(scores.transpose(), targets.as_ref()),
                scores,
                targets,
                squares,
            };
            data.choose(mean_square, &groups, &shares)?
        }
        ProbeLoss::Logistic => {
            let rows: Vec<f64> = (0..n)
                .flat_map(|i| (0..squares.len()).map(move |k| (i, k)))
                .map(|at| scores[at])
                .collect();
            let wells = Wells {
                scores: &rows,
                components: squares.len(),
                of_well: &of_well,
                classes: names.len(),
                squares: &squares,
            };
            choose_logistic(&wells, mean_square, &groups)?
        }
    };
    let Some(chosen) = chosen else {
        return Err(HeadError::NoVariation { wells: n });
    };
    // Features x classes.
    let weights = product(pca.loadings.as_ref(), chosen.coefficients.as_ref());
    let mut directions = FeatureMatrix::zeros(names.len(), rows.width());
    for class in 0..names.len() {
        for (j, value) in directions.row_mut(class).iter_mut().enumerate() {
            *value = weights[(j, class)] as f32;
        }
    }
    let head = Head {
        mean: singles(&standardised.mean),
        gain: singles(&standardised.gain),
        directions,
        bias: singles(&chosen.bias),
        back: None,
    };
    Ok(ProbeFit {
        head: head.checked()?,
        balanced_accuracy: balanced_accuracy(&chosen.predicted, &of_well),
        classes: names,
        ridge: chosen.ridge,
        folds,
    })
}

/// The fit with the best ridge.
struct Chosen {
    /// As a share of the mean squared singular value.
    ridge: f64,
    /// Components x classes.
    coefficients: Mat<f64>,
    bias: Vec<f64>,
    /// Wells x classes: the scores of each well by a fit without its group.
    predicted: Mat<f64>,
}

/// The ridges from the strongest on, so that of equals the stronger one stays.
fn ridges(weakest: i32) -> impl Iterator<Item = f64> {
    (weakest..=STRONGEST)
        .rev()
        .map(|step| 10f64.powf(f64::from(step) / 2.0))
}

/// Logistic regression by the ridge under which wells of held-out groups are the most probable.
fn choose_logistic(
    wells: &Wells<'_>,
    mean_square: f64,
    groups: &[Vec<usize>],
) -> Result<Option<Chosen>, HeadError> {
    let n = wells.of_well.len();
    let all: Vec<usize> = (0..n).collect();
    let mut without: Vec<Weights> = vec![Weights::zero(wells); groups.len()];
    let mut best: Option<(f64, f64, Mat<f64>)> = None;
    for ridge in ridges(WEAKEST_OF_LOGISTIC) {
        // Each begins where the stronger ridge left it.
        without = groups
            .par_iter()
            .zip(without)
            .map(|(group, start)| {
                let mut held = vec![false; n];
                group.iter().for_each(|&row| held[row] = true);
                let kept: Vec<usize> = (0..n).filter(|&row| !held[row]).collect();
                wells.fit(ridge * mean_square, &kept, start)
            })
            .collect::<Result<_, _>>()?;
        let mut predicted = Mat::zeros(n, wells.classes);
        let mut loss = 0.0;
        let mut logarithms = vec![0.0; wells.classes];
        for (group, weights) in groups.iter().zip(&without) {
            for &row in group {
                weights.log_probabilities(wells.well(row), &mut logarithms);
                loss -= logarithms[wells.of_well[row]];
                for (class, logarithm) in logarithms.iter().enumerate() {
                    predicted[(row, class)] = *logarithm;
                }
            }
        }
        if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
            best = Some((loss, ridge, predicted));
        }
    }
    let Some((_, ridge, predicted)) = best else {
        return Ok(None);
    };
    let weights = wells.fit(ridge * mean_square, &all, Weights::zero(wells))?;
    Ok(Some(Chosen {
        ridge,
        coefficients: Mat::from_fn(wells.components, wells.classes, |k, class| {
            weights.class(class).0[k]
        }),
        bias: (0..wells.classes).map(|class| weights.class(class).1).collect(),
        predicted,
    }))
}

/// The names of the classes, sorted, and the class of each well.
fn check_classes(
    controls: &ControlWells,
    classes: &[String],
    fewest: usize,
) -> Result<(Vec<String>, Vec<usize>), HeadError> {
    if classes.len() != controls.rows.len() {
        return Err(HeadError::Setting {
            setting: "classes",
            value: classes.len().to_string(),
            expected: format!("one for each of {} wells", controls.rows.len()),
        });
    }
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for class in classes {
        *counts.entry(class).or_default() += 1;
    }
    if let (1, Some((class, _))) = (counts.len(), counts.first_key_value()) {
        return Err(HeadError::OneClass {
            class: (*class).clone(),
        });
    }
    if let Some((class, &found)) = counts.iter().find(|(_, count)| **count < fewest.max(2)) {
        return Err(HeadError::FewWells {
            what: format!("wells of the class '{class}'"),
            found,
            needed: fewest.max(2),
        });
    }
    let names: Vec<String> = counts.keys().map(|name| (*name).clone()).collect();
    let of_well = classes
        .iter()
        .filter_map(|class| names.binary_search(class).ok())
        .collect();
    Ok((names, of_well))
}

/// Rows that are held out together.
fn groups(controls: &ControlWells, of_well: &[usize], classes: usize) -> (Vec<Vec<usize>>, Folds) {
    let mut plates: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let mut of_class = vec![BTreeSet::new(); classes];
    for (row, ((plate, _), &class)) in controls.wells.iter().zip(of_well).enumerate() {
        plates.entry(plate).or_default().push(row);
        of_class[class].insert(plate);
    }
    if of_class.iter().all(|plates| plates.len() > 1) {
        let folds = Folds::Plates(plates.len());
        return (plates.into_values().collect(), folds);
    }
    let mut seen = vec![0; classes];
    let mut groups = vec![Vec::new(); FOLDS];
    for (row, &class) in of_well.iter().enumerate() {
        groups[seen[class] % FOLDS].push(row);
        seen[class] += 1;
    }
    groups.retain(|group| !group.is_empty());
    let folds = Folds::Wells(groups.len());
    (groups, folds)
}

/// What a ridge regression is made of.
struct Data {
    /// Principal scores: wells x components.
    scores: Mat<f64>,
    /// 1 or 0, less the class's share: wells x classes.
    targets: Mat<f64>,
    /// `scoresᵀ · targets`.
    against: Mat<f64>,
    /// Squared singular values.
    squares: Vec<f64>,
}

impl Data {
    /// The ridge regression with the least squared error of held-out wells.
    fn choose(
        &self,
        mean_square: f64,
        groups: &[Vec<usize>],
        shares: &[f64],
    ) -> Result<Option<Chosen>, HeadError> {
        let mut best: Option<(f64, f64, Mat<f64>)> = None;
        for ridge in ridges(WEAKEST_OF_SQUARES) {
            let held_out = self.held_out(ridge * mean_square, groups)?;
            let error = held_out
                .col_iter()
                .map(|column| column.squared_norm_l2())
                .sum::<f64>();
            if best.as_ref().is_none_or(|(least, ..)| error < *least) {
                best = Some((error, ridge, held_out));
            }
        }
        Ok(best.map(|(_, ridge, residuals)| Chosen {
            ridge,
            coefficients: self.coefficients(ridge * mean_square),
            bias: shares.to_vec(),
            predicted: Mat::from_fn(residuals.nrows(), residuals.ncols(), |i, class| {
                self.targets[(i, class)] + shares[class] - residuals[(i, class)]
            }),
        }))
    }

    /// Components x classes.
    fn coefficients(&self, ridge: f64) -> Mat<f64> {
        Mat::from_fn(self.against.nrows(), self.against.ncols(), |k, class| {
            self.against[(k, class)] / (self.squares[k] + ridge)
        })
    }

    /// Wells x classes: how far each target is from what is predicted without the well's group.
    fn held_out(&self, ridge: f64, groups: &[Vec<usize>]) -> Result<Mat<f64>, HeadError> {
        let n = self.scores.nrows();
        let residuals = &self.targets - product(self.scores.as_ref(), self.coefficients(ridge).as_ref());
        let mut out = Mat::zeros(n, self.targets.ncols());
        for group in groups {
            let own = Mat::from_fn(group.len(), self.scores.ncols(), |i, k| {
                self.scores[(group[i], k)]
            });
            let weighed = Mat::from_fn(group.len(), self.scores.ncols(), |i, k| {
                own[(i, k)] / (self.squares[k] + ridge)
            });
            let hat = product(weighed.as_ref(), own.transpose());
            let system = Mat::from_fn(group.len(), group.len(), |i, j| {
                f64::from(u8::from(i == j)) - hat[(i, j)] - 1.0 / n as f64
            });
            let right = Mat::from_fn(group.len(), out.ncols(), |i, class| residuals[(group[i], class)]);
            // Positive definite: a ridge keeps every eigenvalue of the hat matrix below 1, and no group is everything.
            let solved = system
                .llt(Side::Lower)
                .map_err(|_| HeadError::Range)?
                .solve(&right);
            for (i, &row) in group.iter().enumerate() {
                for class in 0..out.ncols() {
                    out[(row, class)] = solved[(i, class)];
                }
            }
        }
        Ok(out)
    }
}

fn balanced_accuracy(predicted: &Mat<f64>, of_well: &[usize]) -> f64 {
    let classes = predicted.ncols();
    let (mut right, mut all) = (vec![0.0; classes], vec![0.0; classes]);
    for (row, &class) in of_well.iter().enumerate() {
        // Of equals the first counts.
        let greatest = (1..classes).fold(0, |best, other| {
            if predicted[(row, other)] > predicted[(row, best)] {
                other
            } else {
                best
            }
        });
        all[class] += 1.0;
        right[class] += f64::from(u8::from(greatest == class));
    }
    right
        .iter()
        .zip(&all)
        .map(|(right, all)| right / all)
        .sum::<f64>()
        / classes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wells x 3 features, in 4 groups, with targets of 2 classes: all centred.
    fn made_up() -> (Mat<f64>, Mat<f64>, Vec<Vec<usize>>) {
        let n = 20;
        let noise = |i: usize, j: usize| ((i * 37 + j * 11) % 19) as f64 / 19.0;
        let centred = |raw: Mat<f64>| {
            let means: Vec<f64> = raw.col_iter().map(|column| column.sum() / n as f64).collect();
            Mat::from_fn(n, raw.ncols(), |i, j| raw[(i, j)] - means[j])
        };
        let rows = centred(Mat::from_fn(n, 3, noise));
        let targets = centred(Mat::from_fn(n, 2, |i, class| f64::from(u8::from(i % 3 == class))));
        let groups = (0..4).map(|g| (0..n).filter(|i| i % 4 == g).collect()).collect();
        (rows, targets, groups)
    }

    /// Ridge regression with an intercept on the rows that are not held out, written out.
    fn refitted(rows: &Mat<f64>, targets: &Mat<f64>, ridge: f64, group: &[usize]) -> Mat<f64> {
        let kept: Vec<usize> = (0..rows.nrows()).filter(|i| !group.contains(i)).collect();
        let d = rows.ncols();
        let mean =
            |of: &Mat<f64>, j: usize| kept.iter().map(|&i| of[(i, j)]).sum::<f64>() / kept.len() as f64;
        let x = Mat::from_fn(kept.len(), d, |i, j| rows[(kept[i], j)] - mean(rows, j));
        let y = Mat::from_fn(kept.len(), targets.ncols(), |i, c| {
            targets[(kept[i], c)] - mean(targets, c)
        });
        let system = x.transpose() * &x + Mat::from_fn(d, d, |i, j| if i == j { ridge } else { 0.0 });
        let weights = system.llt(Side::Lower).unwrap().solve(&(x.transpose() * &y));
        Mat::from_fn(group.len(), targets.ncols(), |i, c| {
            let score: f64 = (0..d)
                .map(|j| (rows[(group[i], j)] - mean(rows, j)) * weights[(j, c)])
                .sum();
            targets[(group[i], c)] - mean(targets, c) - score
        })
    }

    #[test]
    fn held_out_residuals_are_those_of_fits_without_the_group() {
        let (rows, targets, groups) = made_up();
        let eigen = crate::linalg::symmetric_eigen((rows.transpose() * &rows).as_ref()).unwrap();
        let scores = &rows * &eigen.vectors;
        let data = Data {
            against: scores.transpose() * &targets,
            scores,
            targets: targets.clone(),
            squares: eigen.values,
        };
        for ridge in [0.01, 1.0, 30.0] {
            let held_out = data.held_out(ridge, &groups).unwrap();
            for group in &groups {
                let expected = refitted(&rows, &targets, ridge, group);
                for (i, &row) in group.iter().enumerate() {
                    for class in 0..2 {
                        let difference = held_out[(row, class)] - expected[(i, class)];
                        assert!(difference.abs() < 1e-10, "{ridge} {row} {class} {difference}");
                    }
                }
            }
        }
    }
}
