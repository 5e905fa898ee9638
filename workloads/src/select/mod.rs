//! Feature selection: which columns of classical features are worth keeping (SCIENCE 5.5; pycytominer 1.7.1
//! `feature_select`). Embeddings are not feature-selected.
//!
//! Rows of all plates and the columns' names enter; a [`Selection`], which says of every dropped column which operation
//! dropped it and why, leaves. It fails on infinite values, on names that do not match the rows, and where nothing is
//! left.

mod columns;
mod correlation;

use std::collections::HashSet;
use std::fmt;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::matrix::FeatureMatrix;

/// One operation. Each takes the columns that those before it left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Drops columns of which more than this share is NaN.
    DropNaColumns {
        /// From 0 to 1.
        cutoff: f64,
    },
    /// Drops columns whose population variance (NaN left out) is at most this.
    VarianceThreshold {
        /// At least 0.
        minimum: f64,
    },
    /// Drops columns in which one value is too common, or which have too few values.
    FrequencyThreshold {
        /// Least ratio of the second most common value's count to the most common one's, from 0 to 1.
        ratio: f64,
        /// Least number of different values as a share of the rows, from 0 to 1.
        unique: f64,
    },
    /// Of every two columns whose Pearson correlation is above this, drops the one whose correlations with all columns
    /// are larger in sum (of their magnitudes; of equals the later column). Every pair is judged by the full matrix, so
    /// all but one of three may go; a correlation of -0.99 drops nothing.
    CorrelationThreshold {
        /// From 0 to 1.
        threshold: f64,
    },
    /// Drops columns with a value of greater magnitude. For normalised columns.
    DropOutliers {
        /// Above 0.
        cutoff: f64,
    },
    /// Drops columns by name.
    Blocklist {
        /// Names; `*` stands for any characters, `?` for one.
        patterns: Vec<String>,
    },
}

impl Operation {
    /// All operations in the recommended order with pycytominer's limits.
    pub fn recommended(blocklist: Vec<String>) -> Vec<Self> {
        vec![
            Self::DropNaColumns { cutoff: 0.05 },
            Self::VarianceThreshold { minimum: 1e-6 },
            Self::FrequencyThreshold {
                ratio: 0.05,
                unique: 0.01,
            },
            Self::CorrelationThreshold { threshold: 0.9 },
            Self::DropOutliers { cutoff: 500.0 },
            Self::Blocklist { patterns: blocklist },
        ]
    }

    /// Its name, as pycytominer has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DropNaColumns { .. } => "drop_na_columns",
            Self::VarianceThreshold { .. } => "variance_threshold",
            Self::FrequencyThreshold { .. } => "frequency_threshold",
            Self::CorrelationThreshold { .. } => "correlation_threshold",
            Self::DropOutliers { .. } => "drop_outliers",
            Self::Blocklist { .. } => "blocklist",
        }
    }

    fn check(&self) -> Result<(), SelectError> {
        let share = |setting, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(SelectError::Setting {
                    operation: self.name(),
                    setting,
                    value,
                    expected: "a share from 0 to 1",
                })
            }
        };
        let at_least_0 = |setting, value: f64| {
            if value >= 0.0 {
                Ok(())
            } else {
                Err(SelectError::Setting {
                    operation: self.name(),
                    setting,
                    value,
                    expected: "a number of at least 0",
                })
            }
        };
        match *self {
            Self::DropNaColumns { cutoff } => share("cutoff", cutoff),
            Self::VarianceThreshold { minimum } => at_least_0("minimum", minimum),
            Self::FrequencyThreshold { ratio, unique } => {
                share("ratio", ratio).and_then(|()| share("unique", unique))
            }
            Self::CorrelationThreshold { threshold } => share("threshold", threshold),
            Self::DropOutliers { cutoff } => at_least_0("cutoff", cutoff),
            Self::Blocklist { .. } => Ok(()),
        }
    }
}

/// Why a column was dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// Share of NaN.
    Missing {
        /// From 0 to 1.
        share: f64,
    },
    /// Population variance.
    Variance {
        /// NaN where no row has a value.
        variance: f64,
    },
    /// Second most common value's count by the most common one's.
    Frequency {
        /// From 0 to 1.
        ratio: f64,
    },
    /// Different values by rows.
    Unique {
        /// From 0 to 1.
        share: f64,
    },
    /// The first column it is too close to.
    Correlated {
        /// Name of the other column.
        with: String,
        /// Pearson's r.
        r: f64,
    },
    /// The value of greatest magnitude.
    Outlier {
        /// The value.
        value: f32,
    },
    /// On the blocklist.
    Blocked {
        /// The pattern.
        pattern: String,
    },
    /// Not among the columns that were asked for.
    NotNamed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { share } => write!(f, "{:.1} % of its values are missing", 100.0 * share),
            Self::Variance { variance } => write!(f, "its variance is {variance:.3e}"),
            Self::Frequency { ratio } => write!(
                f,
                "its second most common value is {ratio:.4} times as frequent as the most common one"
            ),
            Self::Unique { share } => {
                write!(f, "its different values are {:.2} % of the rows", 100.0 * share)
            }
            Self::Correlated { with, r } => write!(f, "it has r = {r:.4} with {with}"),
            Self::Outlier { value } => write!(f, "it reaches {value:.4e}"),
            Self::Blocked { pattern } => write!(f, "its name matches {pattern}"),
            Self::NotNamed => f.write_str("it is not a column of the alignment"),
        }
    }
}

/// A column that was dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Its name.
    pub name: String,
    /// The operation that dropped it.
    pub operation: String,
    /// What that operation found.
    #[serde(flatten)]
    pub why: Why,
}

/// The columns that were kept. Saved beside a transform, it selects from later plates what was selected from these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    width: usize,
    kept: Vec<usize>,
    names: Vec<String>,
    /// In the order of operations, then of columns.
    pub dropped: Vec<Dropped>,
    /// Blocklist patterns that match no column: perhaps misspelt.
    pub unmatched: Vec<String>,
}

/// Why columns could not be selected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SelectError {
    /// Names and rows do not match.
    #[error("there are {names} column names for rows of {width} features")]
    Names {
        /// Names given.
        names: usize,
        /// Features of a row.
        width: usize,
    },
    /// No rows.
    #[error("there are no rows to select features from")]
    NoRows,
    /// A value is infinite.
    #[error("row {row} column {column} is {value}: remove the row or the column before feature selection")]
    Infinite {
        /// 0-based row.
        row: usize,
        /// The column's name.
        column: String,
        /// The value.
        value: f32,
    },
    /// A setting is out of range.
    #[error("{operation}: {setting} is {value}, expected {expected}")]
    Setting {
        /// The operation.
        operation: &'static str,
        /// Its setting.
        setting: &'static str,
        /// The value.
        value: f64,
        /// What is expected.
        expected: &'static str,
    },
    /// Every column was dropped.
    #[error("{operation} dropped the last of {columns} columns: no feature is left")]
    NothingLeft {
        /// The operation.
        operation: &'static str,
        /// Columns at the beginning.
        columns: usize,
    },
}

/// Runs the operations in their order over all rows.
///
/// # Errors
/// [`SelectError`].
pub fn select(
    rows: &FeatureMatrix,
    names: &[String],
    operations: &[Operation],
) -> Result<Selection, SelectError> {
    let width = rows.width();
    if names.len() != width {
        return Err(SelectError::Names {
            names: names.len(),
            width,
        });
    }
    if rows.is_empty() {
        return Err(SelectError::NoRows);
    }
    if let Some(at) = rows.as_slice().iter().position(|value| value.is_infinite()) {
        return Err(SelectError::Infinite {
            row: at / width,
            column: names[at % width].clone(),
            value: rows.as_slice()[at],
        });
    }
    let mut selection = Selection {
        width,
        kept: (0..width).collect(),
        names: Vec::new(),
        dropped: Vec::new(),
        unmatched: Vec::new(),
    };
    for operation in operations {
        operation.check()?;
        let reasons = match operation {
            Operation::CorrelationThreshold { threshold } => {
                correlation::correlated(rows, &selection.kept, names, *threshold)
            }
            Operation::Blocklist { patterns } => selection.blocked(names, patterns),
            _ => columns::judge(rows, &selection.kept, operation),
        };
        let kept = std::mem::take(&mut selection.kept);
        for (column, why) in kept.into_iter().zip(reasons) {
            match why {
                None => selection.kept.push(column),
                Some(why) => selection.dropped.push(Dropped {
                    name: names[column].clone(),
                    operation: operation.name().to_owned(),
                    why,
                }),
            }
        }
        if selection.kept.is_empty() {
            return Err(SelectError::NothingLeft {
                operation: operation.name(),
                columns: width,
            });
        }
    }
    selection.names = selection
        .kept
        .iter()
        .map(|&column| names[column].clone())
        .collect();
    Ok(selection)
}

impl Selection {
    /// The columns of `names` that are among `wanted`, in the order of `names`: what was selected before.
    pub fn named(names: &[String], wanted: &[String]) -> Self {
        let wanted: HashSet<&String> = wanted.iter().collect();
        let (kept, rest): (Vec<usize>, Vec<usize>) =
            (0..names.len()).partition(|&column| wanted.contains(&names[column]));
        let dropped = |column: usize| Dropped {
            name: names[column].clone(),
            operation: "transform".to_owned(),
            why: Why::NotNamed,
        };
        Self {
            width: names.len(),
            names: kept.iter().map(|&column| names[column].clone()).collect(),
            kept,
            dropped: rest.into_iter().map(dropped).collect(),
            unmatched: Vec::new(),
        }
    }

    /// Drops of the kept columns those whose value of greatest magnitude is above `cutoff`; as
    /// [`Operation::DropOutliers`], for values that are not all at hand. `largest`: one per column, dropped ones too.
    ///
    /// # Errors
    /// [`SelectError::Names`] with another number of values than columns, [`SelectError::NothingLeft`].
    pub fn drop_outliers(&mut self, largest: &[f32], cutoff: f64) -> Result<(), SelectError> {
        let operation = Operation::DropOutliers { cutoff }.name();
        if largest.len() != self.width {
            return Err(SelectError::Names {
                names: largest.len(),
                width: self.width,
            });
        }
        let names = std::mem::take(&mut self.names);
        let kept = std::mem::take(&mut self.kept);
        for (column, name) in kept.into_iter().zip(names) {
            let value = largest[column];
            if f64::from(value.abs()) > cutoff {
                self.dropped.push(Dropped {
                    name,
                    operation: operation.to_owned(),
                    why: Why::Outlier { value },
                });
            } else {
                self.kept.push(column);
                self.names.push(name);
            }
        }
        if self.kept.is_empty() {
            return Err(SelectError::NothingLeft {
                operation,
                columns: self.width,
            });
        }
        Ok(())
    }

    /// The kept columns, ascending.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// Names of the kept columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The kept columns of other rows of the same features.
    ///
    /// # Errors
    /// [`SelectError::Names`] for rows of another width.
    pub fn apply(&self, rows: &FeatureMatrix) -> Result<FeatureMatrix, SelectError> {
        if rows.width() != self.width {
            return Err(SelectError::Names {
                names: self.width,
                width: rows.width(),
            });
        }
        Ok(columns::take(rows, &self.kept))
    }

    /// Per kept column the first pattern that matches it.
    fn blocked(&mut self, names: &[String], patterns: &[String]) -> Vec<Option<Why>> {
        let matchers: Vec<(&String, Option<Regex>)> =
            patterns.iter().map(|pattern| (pattern, glob(pattern))).collect();
        let matches = |pattern: &str, matcher: &Option<Regex>, name: &str| {
            matcher
                .as_ref()
                .map_or(pattern == name, |regex| regex.is_match(name))
        };
        for (pattern, matcher) in &matchers {
            if !names.iter().any(|name| matches(pattern, matcher, name)) {
                self.unmatched.push((*pattern).clone());
            }
        }
        self.kept
            .iter()
            .map(|&column| {
                matchers
                    .iter()
                    .find(|(pattern, matcher)| matches(pattern, matcher, &names[column]))
                    .map(|(pattern, _)| Why::Blocked {
                        pattern: (*pattern).clone(),
                    })
            })
            .collect()
    }
}

/// A pattern with `*` or `?`; `None` is a plain name.
fn glob(pattern: &str) -> Option<Regex> {
    if !pattern.contains(['*', '?']) {
        return None;
    }
    let text = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("^(?s:{text})$")).ok()
}
