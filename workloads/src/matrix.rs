//! Rows of features as one block of memory: the form in which alignment, similarity and drift take profiles.
//!
//! Rows of `f32` enter; nothing fails but a row of another width, which is an error of the caller and refused.

/// `n` rows of `width` features, row after row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureMatrix {
    values: Vec<f32>,
    width: usize,
}

/// A row that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row of {found} features does not fit into a matrix of {expected}")]
pub struct WidthError {
    /// Features of a row.
    pub expected: usize,
    /// What was given.
    pub found: usize,
}

impl FeatureMatrix {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Self {
            values: Vec::new(),
            width,
        }
    }

    /// `rows` zero rows.
    pub fn zeros(rows: usize, width: usize) -> Self {
        Self {
            values: vec![0.0; rows * width],
            width,
        }
    }

    /// Copies rows.
    ///
    /// # Errors
    /// [`WidthError`] at the first row of another width.
    pub fn from_rows<'a>(
        width: usize,
        rows: impl IntoIterator<Item = &'a [f32]>,
    ) -> Result<Self, WidthError> {
        let mut matrix = Self::new(width);
        for row in rows {
            matrix.push(row)?;
        }
        Ok(matrix)
    }

    /// Takes `n * width` values, row after row.
    ///
    /// # Errors
    /// [`WidthError`] with the length of the incomplete last row.
    pub fn from_values(width: usize, values: Vec<f32>) -> Result<Self, WidthError> {
        let left = values.len().checked_rem(width).unwrap_or(values.len());
        if left != 0 {
            return Err(WidthError {
                expected: width,
                found: left,
            });
        }
        Ok(Self { values, width })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`WidthError`] where it has another width.
    pub fn push(&mut self, row: &[f32]) -> Result<(), WidthError> {
        if row.len() != self.width {
            return Err(WidthError {
                expected: self.width,
                found: row.len(),
            });
        }
        self.values.extend_from_slice(row);
        Ok(())
    }

    /// Number of rows; 0 where there are no features.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    ///
    /// # Panics
    /// Where there are not that many rows, as a slice does.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, to be written.
    ///
    /// # Panics
    /// Where there are not that many rows, as a slice does.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.values[i * self.width..(i + 1) * self.width]
    }

    /// Every row.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.width.max(1))
    }

    /// The rows named, in their order.
    ///
    /// # Panics
    /// Where there are not that many rows, as a slice does.
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut values = Vec::with_capacity(rows.len() * self.width);
        for &row in rows {
            values.extend_from_slice(self.row(row));
        }
        Self {
            values,
            width: self.width,
        }
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// All values, row after row, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.values
    }
}
