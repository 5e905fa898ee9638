//! The axis from reference to phenotype, and positions on it (SCIENCE 6.1). Feature rows enter, positions leave.
//!
//! Controls are scored leave-one-out: each on an axis built without it, because a control that helps to build the
//! axis lies on it by construction. There is no axis (`None`) where both sides have the same mean.

pub use super::centre::{Centre, Centres, mean};
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

/// Builds the axis between the sides' centres and scores every control on an axis built without it, where its side has
/// another well. `None` when a side is empty, or when the axis (or one without one well) has no length.
pub fn score_controls(reference: &[&[f64]], phenotype: &[&[f64]], centres: Centres) -> Option<ControlScores> {
    let h = centres.reference.of(reference)?;
    let d = centres.phenotype.of(phenotype)?;
    let axis = Axis::between(&h, &d)?;
    let score = |side: &[&[f64]], rests: Vec<Vec<f64>>, is_reference: bool| -> Option<Vec<ControlScore>> {
        side.iter()
            .enumerate()
            .map(|(i, x)| {
                let own = match rests.get(i) {
                    None => None,
                    Some(rest) if is_reference => Some(Axis::between(rest, &d)?),
                    Some(rest) => Some(Axis::between(&h, rest)?),
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
        reference: score(reference, centres.reference.of_others(reference, &h), true)?,
        phenotype: score(phenotype, centres.phenotype.of_others(phenotype, &d), false)?,
        axis,
    })
}

/// Reference wells around their own centre, each around the centre of the others; 1 is the median distance of a
/// reference well. `None` with fewer than two rows or where they do not differ.
pub fn score_around(reference: &[&[f64]], centre: Centre) -> Option<ControlScores> {
    if reference.len() < 2 {
        return None;
    }
    let middle = centre.of(reference)?;
    let differences: Vec<Vec<f64>> = reference
        .iter()
        .zip(centre.of_others(reference, &middle))
        .map(|(x, rest)| x.iter().zip(&rest).map(|(x, m)| x - m).collect())
        .collect();
    let mut distances: Vec<f64> = differences.iter().map(|row| norm(row)).collect();
    let axis = Axis::around(middle, median_in_place(&mut distances)?)?;
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

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}
