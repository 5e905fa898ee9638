//! Feature tables: a row per object, a column per feature. Enters: columns. Leaves: names and values, and medians and
//! spreads over the objects, which is what a well's profile is made of. Fails where tables of other columns are pooled.

use crate::nuclei::{ObjectBox, ObjectError};

/// Features of the objects of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTable {
    names: Vec<String>,
    rows: usize,
    /// Column after column.
    values: Vec<f64>,
    boxes: Vec<ObjectBox>,
}

impl FeatureTable {
    /// A table from rows of one value per name.
    pub(crate) fn from_rows(names: Vec<String>, rows: &[Vec<f64>], boxes: Vec<ObjectBox>) -> Self {
        let mut values = vec![f64::NAN; names.len() * rows.len()];
        for (r, row) in rows.iter().enumerate() {
            debug_assert_eq!(row.len(), names.len());
            for (c, &value) in row.iter().enumerate() {
                values[c * rows.len() + r] = value;
            }
        }
        Self {
            names,
            rows: rows.len(),
            values,
            boxes,
        }
    }

    /// The objects of several fields in one table, field after field: those of a well, whose profile is made of all its
    /// objects. No table gives an empty one.
    ///
    /// # Errors
    /// Tables of other columns than the first; names the first column that differs.
    pub fn pool(tables: &[Self]) -> Result<Self, ObjectError> {
        let names = tables.first().map(|t| t.names.clone()).unwrap_or_default();
        let rows = tables.iter().map(|t| t.rows).sum();
        for (field, table) in tables.iter().enumerate() {
            let column =
                |names: &[String], at: usize| names.get(at).cloned().unwrap_or_else(|| "none".to_owned());
            let longest = names.len().max(table.names.len());
            if let Some(at) = (0..longest).find(|&at| names.get(at) != table.names.get(at)) {
                return Err(ObjectError::Columns {
                    field,
                    expected: column(&names, at),
                    got: column(&table.names, at),
                });
            }
        }
        let mut values = Vec::with_capacity(names.len() * rows);
        for at in 0..names.len() {
            for table in tables {
                values.extend_from_slice(table.column(at));
            }
        }
        let boxes = tables.iter().flat_map(|t| t.boxes.iter().copied()).collect();
        Ok(Self {
            names,
            rows,
            values,
            boxes,
        })
    }

    /// Names of the columns, CellProfiler's.
    pub fn names(&self) -> &[String] {
        &self.names
    }
    /// Number of objects. Row `i` is that of label `i + 1`.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Where each object lies.
    pub fn boxes(&self) -> &[ObjectBox] {
        &self.boxes
    }

    /// A column by its place in [`FeatureTable::names`]; empty past the last.
    pub fn column(&self, at: usize) -> &[f64] {
        at.checked_mul(self.rows)
            .and_then(|start| self.values.get(start..start + self.rows))
            .unwrap_or_default()
    }

    /// A column by its name.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.names
            .iter()
            .position(|n| n == name)
            .map(|at| self.column(at))
    }

    /// Median and MAD (`median |x - median|`, without 1.4826) of every column over the objects, as `Median_<name>` and
    /// `MAD_<name>`. Objects whose value is not finite do not count; a column without any finite value gives NaN.
    pub fn summary(&self) -> Vec<(String, f64)> {
        let mut out = Vec::with_capacity(2 * self.names.len());
        for (at, name) in self.names.iter().enumerate() {
            let mut finite: Vec<f64> = self
                .column(at)
                .iter()
                .copied()
                .filter(|v| v.is_finite())
                .collect();
            let middle = median(&mut finite);
            finite.iter_mut().for_each(|v| *v = (*v - middle).abs());
            out.push((format!("Median_{name}"), middle));
            out.push((format!("MAD_{name}"), median(&mut finite)));
        }
        out
    }
}

/// The median, of an even number the mean of the two in the middle; NaN of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    values.sort_unstable_by(f64::total_cmp);
    f64::midpoint(values[last / 2], values[last.div_ceil(2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_leaves_out_what_is_not_finite() {
        let rows = [
            vec![1.0, f64::NAN],
            vec![f64::INFINITY, f64::NAN],
            vec![4.0, f64::NAN],
        ];
        let table = FeatureTable::from_rows(vec!["a".into(), "b".into()], &rows, Vec::new());
        let summary = table.summary();
        assert_eq!(summary[0], ("Median_a".into(), 2.5));
        assert_eq!(summary[1], ("MAD_a".into(), 1.5));
        assert!(summary[2].1.is_nan() && summary[3].1.is_nan());
        assert_eq!(table.get("a").unwrap()[2], 4.0);
        assert!(table.get("c").is_none() && table.column(9).is_empty());
    }
}
