//! One direction per perturbation: the mean of its wells, at length 1.
//!
//! Rows of aligned profiles enter one by one, with the name of what was given and the plate; directions leave, in order
//! of their names. Memory grows with perturbations. Fails on rows of another width and on values that are not finite.
//! A perturbation whose mean is zero has no direction and is named.

use std::collections::{BTreeMap, BTreeSet};

use super::RelateError;
use crate::signature::Vectors;

/// Sums of the rows of every perturbation.
#[derive(Debug, Default)]
pub struct PerturbationMeans {
    width: Option<usize>,
    plates: BTreeMap<String, u32>,
    sums: BTreeMap<String, Sum>,
}

#[derive(Debug, Default)]
struct Sum {
    values: Vec<f64>,
    rows: usize,
    plates: BTreeSet<u32>,
}

/// Perturbations with a direction, by name.
#[derive(Debug, Clone)]
pub struct Perturbations {
    names: Vec<String>,
    directions: Vectors,
    /// Numbers of the plates each lies on, ascending.
    plates: Vec<Vec<u32>>,
    /// A bit for each plate number modulo 64: no common bit, no common plate.
    masks: Vec<u64>,
    without_direction: Vec<String>,
}

impl PerturbationMeans {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Another width than before, or a value that is not finite.
    pub fn push(&mut self, name: &str, plate: &str, values: &[f32]) -> Result<(), RelateError> {
        let expected = *self.width.get_or_insert(values.len());
        if values.len() != expected || expected == 0 {
            return Err(RelateError::Width {
                name: name.to_owned(),
                expected: expected.max(1),
                found: values.len(),
            });
        }
        if let Some((column, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(RelateError::NotFinite {
                name: name.to_owned(),
                plate: plate.to_owned(),
                column,
                value,
            });
        }
        let next = self.plates.len() as u32;
        let number = match self.plates.get(plate) {
            Some(&number) => number,
            None => *self.plates.entry(plate.to_owned()).or_insert(next),
        };
        if !self.sums.contains_key(name) {
            self.sums.insert(name.to_owned(), Sum::default());
        }
        if let Some(sum) = self.sums.get_mut(name) {
            sum.values.resize(expected, 0.0);
            for (sum, &value) in sum.values.iter_mut().zip(values) {
                *sum += f64::from(value);
            }
            sum.rows += 1;
            sum.plates.insert(number);
        }
        Ok(())
    }

    /// The directions of the means.
    pub fn finish(mut self) -> Perturbations {
        let mut means = Vectors::new(self.width.unwrap_or(0));
        let mut found = Perturbations {
            names: Vec::new(),
            directions: Vectors::default(),
            plates: Vec::new(),
            masks: Vec::new(),
            without_direction: Vec::new(),
        };
        while let Some((name, sum)) = self.sums.pop_first() {
            let mean: Vec<f64> = sum.values.iter().map(|value| value / sum.rows as f64).collect();
            if mean.iter().all(|&value| value == 0.0) || means.push(&mean).is_err() {
                found.without_direction.push(name);
                continue;
            }
            found.names.push(name);
            let plates: Vec<u32> = sum.plates.into_iter().collect();
            found
                .masks
                .push(plates.iter().fold(0, |mask, plate| mask | 1 << (plate % 64)));
            found.plates.push(plates);
        }
        found.directions = means.directions();
        found
    }
}

impl Perturbations {
    /// Their names, ascending.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Rows of length 1, by name.
    pub fn directions(&self) -> &Vectors {
        &self.directions
    }

    /// Perturbations whose mean is zero: they have a cosine with nothing and take no part.
    pub fn without_direction(&self) -> &[String] {
        &self.without_direction
    }

    /// How many have a direction.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The row of a name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|own| own.as_str().cmp(name)).ok()
    }

    /// Whether two perturbations lie on a common plate.
    pub fn share_a_plate(&self, a: usize, b: usize) -> bool {
        self.masks[a] & self.masks[b] != 0
            && self.plates[a]
                .iter()
                .any(|plate| self.plates[b].binary_search(plate).is_ok())
    }
}
