//! Per-plate scaling of feature columns (SCIENCE 5.1). Rows of raw features enter, a [`Scaler`] leaves.
//!
//! Nothing fails: a column without spread is named by [`Scaler::flat_columns`] and never blown up.

use std::ops::Range;

use rayon::prelude::*;

use super::window::{MAD_TO_SD, median_in_place};

/// A centre and a divisor per feature column.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaler {
    /// Mean or median of the fitted rows.
    pub centre: Vec<f64>,
    /// Divisor; 0 marks a dropped column, which [`Scaler::apply`] turns into 0.
    pub scale: Vec<f64>,
    /// Columns without spread in the fitted rows, ascending, 0-based.
    pub flat_columns: Vec<usize>,
}

/// A column's MAD below this share of the plate's median MAD is no spread (SCIENCE 5.1).
const FLAT_SHARE: f64 = 1e-6;

/// The least a column is divided by, as a share of its SD over all wells of the plate.
///
/// Rectified features of a network are near 0 in most wells of one state and not in another. Divided by their spread
/// among controls alone, a few such columns outweigh the rest: on simulated plates (20 controls, 3840 columns, a
/// third of them nearly empty) the leave-one-out Z' was -3.1 and -12.4 without this limit; see the test named
/// after it. A column whose spread among controls is ordinary is not changed.
const LEAST_SHARE: f64 = 0.5;

impl Scaler {
    /// Divides no column by less than half its population SD over all wells of the plate: `plate` is
    /// [`Scaler::standardise`] of them. Dropped columns stay dropped.
    pub fn floored(mut self, plate: &Self) -> Self {
        for (column, scale) in self.scale.iter_mut().enumerate() {
            let flat_on_plate = plate.flat_columns.binary_search(&column).is_ok();
            if *scale == 0.0 || flat_on_plate {
                continue;
            }
            let floor = LEAST_SHARE * plate.scale.get(column).copied().unwrap_or(0.0);
            // The divisor 1 of a column that is constant among the fitted wells says nothing of its unit.
            let constant = self.flat_columns.binary_search(&column).is_ok();
            *scale = if constant { floor } else { scale.max(floor) };
        }
        self
    }

    /// Mean and population SD of each column; NaN is left out, zero variance divides by 1 (`StandardScaler`).
    pub fn standardise(rows: &[&[f32]]) -> Self {
        let fitted = by_block(rows, |columns| mean_and_sd(rows, columns));
        let flat_columns = flat(&fitted, |column| column.flat);
        let (centre, scale) = fitted.iter().map(|c| (c.centre, c.scale)).unzip();
        Self {
            centre,
            scale,
            flat_columns,
        }
    }

    /// Median and `1.4826 MAD` of each column; NaN is left out. Columns whose MAD is below 1e-6 of the median MAD
    /// are flat: their divisor stays what it is until [`Scaler::repair`] or [`Scaler::with_epsilon`].
    pub fn robust(rows: &[&[f32]]) -> Self {
        let fitted = by_block(rows, |columns| median_and_mad(rows, columns));
        let (centre, scale): (Vec<f64>, Vec<f64>) = fitted.iter().map(|c| (c.centre, c.scale)).unzip();
        let floor = FLAT_SHARE * median_in_place(&mut scale.clone()).unwrap_or(0.0);
        let flat_columns = flat(&fitted, |column| column.scale <= floor);
        Self {
            centre,
            scale,
            flat_columns,
        }
    }

    /// Median of each column; nothing is divided.
    pub fn median(rows: &[&[f32]]) -> Self {
        let mut scaler = Self::robust(rows);
        scaler.scale.fill(1.0);
        scaler.flat_columns.clear();
        scaler
    }

    /// pycytominer's `mad_robustize`: `epsilon` (1e-18 there) is added to every divisor. Only for parity: a column
    /// without MAD becomes as large as 1e18.
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        for scale in &mut self.scale {
            *scale += epsilon;
        }
        self
    }

    /// Gives each flat column the median divisor of the other plates where it is not flat, or drops it.
    pub fn repair(&mut self, others: &[&Scaler]) {
        for &column in &self.flat_columns {
            let mut usable: Vec<f64> = others
                .iter()
                .filter(|other| other.flat_columns.binary_search(&column).is_err())
                .filter_map(|other| other.scale.get(column).copied())
                .collect();
            self.scale[column] = median_in_place(&mut usable).unwrap_or(0.0);
        }
    }

    /// `(x - centre) / scale`, 0 in dropped columns.
    pub fn apply(&self, row: &[f32]) -> Vec<f64> {
        self.scaled(row).collect()
    }

    /// The same, rounded to `f32`, into `out`: no memory is asked for. Columns beyond the shorter of the two stay.
    pub fn apply_to(&self, row: &[f32], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(self.scaled(row)) {
            *out = value as f32;
        }
    }

    fn scaled(&self, row: &[f32]) -> impl Iterator<Item = f64> {
        row.iter()
            .zip(self.centre.iter().zip(&self.scale))
            .map(|(&x, (centre, &scale))| {
                let scaled = (f64::from(x) - centre) / scale;
                if scale == 0.0 { 0.0 } else { scaled }
            })
    }
}

/// Columns fitted together: a block of rows of them is one cache line wide, and there are enough blocks for every
/// thread.
const BLOCK_COLUMNS: usize = 16;

/// What was fitted to one column.
#[derive(Debug, Clone, Copy, Default)]
struct Column {
    centre: f64,
    scale: f64,
    flat: bool,
}

fn flat(columns: &[Column], flat: impl Fn(&Column) -> bool) -> Vec<usize> {
    (0..columns.len()).filter(|&c| flat(&columns[c])).collect()
}

/// Runs `fit` over blocks of columns in parallel. A column's numbers depend on that column alone.
fn by_block(rows: &[&[f32]], fit: impl Fn(Range<usize>) -> Vec<Column> + Sync) -> Vec<Column> {
    let width = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let blocks: Vec<Vec<Column>> = (0..width.div_ceil(BLOCK_COLUMNS))
        .into_par_iter()
        .map(|block| {
            let first = block * BLOCK_COLUMNS;
            fit(first..width.min(first + BLOCK_COLUMNS))
        })
        .collect();
    blocks.concat()
}

/// Row by row, so that a block's columns advance together in vector registers.
fn mean_and_sd(rows: &[&[f32]], columns: Range<usize>) -> Vec<Column> {
    let mut n = [0.0; BLOCK_COLUMNS];
    let mut sum = [0.0; BLOCK_COLUMNS];
    let mut least = [f64::INFINITY; BLOCK_COLUMNS];
    let mut most = [f64::NEG_INFINITY; BLOCK_COLUMNS];
    for row in rows {
        for (c, &value) in row[columns.clone()].iter().enumerate() {
            let value = f64::from(value);
            n[c] += if value.is_nan() { 0.0 } else { 1.0 };
            sum[c] += if value.is_nan() { 0.0 } else { value };
            least[c] = if value < least[c] { value } else { least[c] };
            most[c] = if value > most[c] { value } else { most[c] };
        }
    }
    let mut squares = [0.0; BLOCK_COLUMNS];
    let mean: [f64; BLOCK_COLUMNS] = std::array::from_fn(|c| sum[c] / n[c]);
    for row in rows {
        for (c, &value) in row[columns.clone()].iter().enumerate() {
            let off = f64::from(value) - mean[c];
            squares[c] += if value.is_nan() { 0.0 } else { off * off };
        }
    }
    let column = |c: usize| {
        // Compared by value, not by variance: rounding must not turn a constant into a tiny SD.
        if least[c] >= most[c] {
            let centre = if least[c] == most[c] { least[c] } else { 0.0 };
            return Column {
                centre,
                scale: 1.0,
                flat: true,
            };
        }
        Column {
            centre: mean[c],
            scale: (squares[c] / n[c]).sqrt(),
            flat: false,
        }
    };
    (0..columns.len()).map(column).collect()
}

/// The block is turned first, so that each column lies in one piece.
fn median_and_mad(rows: &[&[f32]], columns: Range<usize>) -> Vec<Column> {
    let n = rows.len();
    let mut turned = vec![0.0f32; n * columns.len()];
    for (r, row) in rows.iter().enumerate() {
        for (c, &value) in row[columns.clone()].iter().enumerate() {
            turned[c * n + r] = value;
        }
    }
    let mut values = Vec::with_capacity(n);
    turned
        .chunks_exact(n.max(1))
        .map(|column| {
            values.clear();
            values.extend(column.iter().map(|&v| f64::from(v)).filter(|v| !v.is_nan()));
            let centre = median_in_place(&mut values).unwrap_or(0.0);
            for v in &mut values {
                *v = (*v - centre).abs();
            }
            Column {
                centre,
                scale: MAD_TO_SD * median_in_place(&mut values).unwrap_or(0.0),
                flat: false,
            }
        })
        .collect()
}
