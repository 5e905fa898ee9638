//! A selector: which rows of a plate map it means.
//!
//! A table of column = value or list of values enters; a yes or no per row leaves. Cannot fail.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One value a column may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SelectorValue {
    /// `true` or `false`; in the map `true`, `yes` or `1`, `false`, `no` or `0`, in any case.
    Bool(bool),
    /// Compared as a number: 30 equals `30`, `30.0` and `3e1`.
    Number(f64),
    /// Compared as text, spaces around it ignored; numerically where both are numbers.
    Text(String),
}

impl SelectorValue {
    /// Whether a cell of the plate map holds this value.
    pub fn matches(&self, cell: &str) -> bool {
        let cell = cell.trim();
        match self {
            Self::Bool(true) => ["true", "yes", "1"]
                .iter()
                .any(|yes| cell.eq_ignore_ascii_case(yes)),
            Self::Bool(false) => ["false", "no", "0"]
                .iter()
                .any(|no| cell.eq_ignore_ascii_case(no)),
            Self::Number(number) => same_number(*number, cell),
            Self::Text(text) => {
                text.trim() == cell
                    || text
                        .trim()
                        .parse::<f64>()
                        .is_ok_and(|number| same_number(number, cell))
            }
        }
    }
}

/// Equal up to rounding in the last places, so that 0.1 and 0.10000000000000001 are one dose.
fn same_number(number: f64, cell: &str) -> bool {
    cell.parse::<f64>()
        .is_ok_and(|other| number == other || (number - other).abs() <= 1e-9 * number.abs().max(other.abs()))
}

impl fmt::Display for SelectorValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "\"{value}\""),
        }
    }
}

/// Column -> values: a row is selected when every column holds one of its values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(pub BTreeMap<String, Vec<SelectorValue>>);

impl Selector {
    /// Whether a row is selected; `cell` gives the row's text in a column, `None` where there is no such column.
    pub fn matches<'row>(&self, cell: impl Fn(&str) -> Option<&'row str>) -> bool {
        self.0.iter().all(|(column, values)| {
            cell(column).is_some_and(|text| values.iter().any(|value| value.matches(text)))
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (column, values)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" and ")?;
            }
            write!(f, "{column} = ")?;
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    f.write_str(" or ")?;
                }
                write!(f, "{value}")?;
            }
        }
        Ok(())
    }
}
