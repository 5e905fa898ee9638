//! The axis from reference to phenotype, and positions on it (SCIENCE 6.1). Feature rows enter, positions leave.
//!
//! Controls are scored leave-one-out: each on an axis built without it, because a control that helps to build the
//! axis lies on it by construction. There is no axis (`None`) where both sides have the same mean.

use super::window::median_in_place;

/// 0 at the reference mean, 1 at the phenotype mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    origin: Vec<f64>,
    unit: Vec<f64>,
    length: f64,
}

/// Below this share of the means' own size a difference of means is rounding, not an axis.
const NO_LENGTH: f64 = 1e-12;

impl Axis {
    /// The axis from the reference mean to the phenotype mean; `None` where they coincide.
    pub fn between(reference: &[f64], phenotype: &[f64]) -> Option<Self> {
        let difference: Vec<f64> = phenotype.iter().zip(reference).map(|(d, h)| d - h).collect();
        let length = norm(&difference);
        if !length.is_finite() || length <= NO_LENGTH * (norm(reference) + norm(phenotype)) {
            return None;
        }
        Some(Self {
            origin: reference.to_vec(),
            unit: difference.iter().map(|v| v / length).collect(),
            length,
        })
    }

    /// An origin without a direction, for screens without a phenotype: everything lies beside it. `length` is the
    /// unit of distance; `None` where it is not above 0.
    pub fn around(reference: Vec<f64>, length: f64) -> Option<Self> {
        let unit = vec![0.0; reference.len()];
        (length.is_finite() && length > NO_LENGTH * norm(&reference)).then_some(Self {
            origin: reference,
            unit,
            length,
        })
    }

    /// Distance between the means, or the unit of distance; in feature units, above 0.
    pub fn length(&self) -> f64 {
        self.length
    }

    /// The direction, of length 1.
    pub fn unit(&self) -> &[f64] {
        &self.unit
    }

    /// `(x − reference) / length`: a row in axis lengths, in the feature space's own directions.
    pub fn scaled(&self, x: &[f64]) -> Vec<f64> {
        x.iter()
            .zip(&self.origin)
            .map(|(x, h)| (x - h) / self.length)
            .collect()
    }

    /// Where a row lies.
    pub fn position(&self, x: &[f64]) -> Position {
        position(&self.scaled(x), &self.unit)
    }
}

/// Position of a row in axis lengths (see [`Axis::scaled`]) with respect to a direction of length 1.
pub fn position(scaled: &[f64], unit: &[f64]) -> Position {
    let on_axis = dot(scaled, unit);
    let beside: f64 = scaled
        .iter()
        .zip(unit)
        .map(|(y, u)| {
            let rejected = y - on_axis * u;
            rejected * rejected
        })
        .sum();
    Position {
        on_axis,
        off_axis: beside.sqrt(),
    }
}

/// A position relative to an axis, in axis lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// 0 at the reference, 1 at the phenotype.
    pub on_axis: f64,
    /// Length beside the axis, at least 0.
    pub off_axis: f64,
}

impl Position {
    /// `1 − on_axis`.
    pub fn rescue(self) -> f64 {
        1.0 - self.on_axis
    }

    /// Distance to the reference.
    pub fn distance(self) -> f64 {
        self.on_axis.hypot(self.off_axis)
    }

    /// Distance to the phenotype: the size of the treatment's effect on it.
    pub fn effect_length(self) -> f64 {
        self.rescue().hypot(self.off_axis)
    }

    /// Cosine of the effect on the phenotype with the way back to the reference; `None` without effect.
    pub fn cos_to_rescue(self) -> Option<f64> {
        let length = self.effect_length();
        (length > 0.0).then(|| (self.rescue() / length).clamp(-1.0, 1.0))
    }

    /// Cosine of the effect on the reference with the way to the phenotype; `None` without effect.
    pub fn cos_to_phenotype(self) -> Option<f64> {
        let length = self.distance();
        (length > 0.0).then(|| (self.on_axis / length).clamp(-1.0, 1.0))
    }
}

/// A control well's score.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlScore {
    /// Where it lies on the axis it was scored on.
    pub position: Position,
    /// The well in axis lengths of that axis.
    pub scaled: Vec<f64>,
    /// False when it was the only well of its side, so that the axis was built with it.
    pub leave_one_out: bool,
}

/// The plate's axis and its controls.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlScores {
    /// The axis of all controls, for every other well.
    pub axis: Axis,
    /// Reference wells in the order given.
    pub reference: Vec<ControlScore>,
    /// Phenotype wells in the order given.
    pub phenotype: Vec<ControlScore>,
}

/// Builds the axis and scores every control on an axis built without it, where its side has another well.
/// `None` when a side is empty, or when the axis (or one without one well) has no length.
pub fn score_controls(reference: &[&[f64]], phenotype: &[&[f64]]) -> Option<ControlScores> {
    let h = mean(reference)?;
    let d = mean(phenotype)?;
    let axis = Axis::between(&h, &d)?;
    let score = |side: &[&[f64]], side_mean: &[f64], is_reference: bool| -> Option<Vec<ControlScore>> {
        side.iter()
            .map(|x| {
                let own = if side.len() < 2 {
                    None
                } else {
                    let rest = without(side_mean, side.len(), x);
                    Some(if is_reference {
                        Axis::between(&rest, &d)?
                    } else {
                        Axis::between(&h, &rest)?
                    })
                };
                let used = own.as_ref().unwrap_or(&axis);
                let scaled = used.scaled(x);
                let position = position(&scaled, used.unit());
                Some(ControlScore {
                    position,
                    scaled,
                    leave_one_out: own.is_some(),
                })
            })
            .collect()
    };
    Some(ControlScores {
        reference: score(reference, &h, true)?,
        phenotype: score(phenotype, &d, false)?,
        axis,
    })
}

/// Reference wells around their own mean, each around the mean of the others; 1 is the median distance of a reference
/// well. `None` with fewer than two rows or where they do not differ.
pub fn score_around(reference: &[&[f64]]) -> Option<ControlScores> {
    if reference.len() < 2 {
        return None;
    }
    let centre = mean(reference)?;
    let differences: Vec<Vec<f64>> = reference
        .iter()
        .map(|x| {
            let rest = without(&centre, reference.len(), x);
            x.iter().zip(&rest).map(|(x, m)| x - m).collect()
        })
        .collect();
    let mut distances: Vec<f64> = differences.iter().map(|row| norm(row)).collect();
    let axis = Axis::around(centre, median_in_place(&mut distances)?)?;
    let reference = differences
        .into_iter()
        .map(|row| {
            let scaled: Vec<f64> = row.iter().map(|v| v / axis.length).collect();
            ControlScore {
                position: position(&scaled, &axis.unit),
                scaled,
                leave_one_out: true,
            }
        })
        .collect();
    Some(ControlScores {
        axis,
        reference,
        phenotype: Vec::new(),
    })
}

/// The mean of `n` rows without one of them.
fn without(mean: &[f64], n: usize, x: &[f64]) -> Vec<f64> {
    let n = n as f64;
    mean.iter().zip(x).map(|(m, x)| (n * m - x) / (n - 1.0)).collect()
}

/// Column means; `None` without rows.
pub fn mean(rows: &[&[f64]]) -> Option<Vec<f64>> {
    let mut sum = rows.first()?.to_vec();
    for row in &rows[1..] {
        for (sum, x) in sum.iter_mut().zip(*row) {
            *sum += x;
        }
    }
    let n = rows.len() as f64;
    for sum in &mut sum {
        *sum /= n;
    }
    Some(sum)
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}
