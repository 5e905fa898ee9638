//! What is wrong with a screen file: every problem, with its place and what would have been right.

use std::fmt;

/// One problem of a screen file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct ScreenError {
    /// The file's name as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: ScreenProblem,
}

/// What can be wrong with a screen file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScreenProblem {
    /// The file is larger than a screen file can sensibly be.
    #[error("the file holds {bytes} bytes: a screen file holds at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not TOML.
    #[error("not TOML: {reason}")]
    Syntax {
        /// What the TOML parser said.
        reason: String,
    },
    /// A key no table of this name has.
    #[error("unknown key '{key}' in {table}{}", suggestion(nearest, known))]
    UnknownKey {
        /// The table, such as `[images]`.
        table: String,
        /// The key as written.
        key: String,
        /// The nearest known key, where one is near.
        nearest: Option<String>,
        /// Every key of the table.
        known: Vec<String>,
    },
    /// A key that must be given.
    #[error("{table} needs '{key}': {remedy}")]
    Missing {
        /// The table.
        table: String,
        /// The key.
        key: &'static str,
        /// What to write.
        remedy: &'static str,
    },
    /// A value of the wrong TOML type.
    #[error("{key} is {found}: expected {expected}")]
    Type {
        /// The key with its table.
        key: String,
        /// The type found.
        found: &'static str,
        /// What is expected.
        expected: String,
    },
    /// A word that is not one of a few.
    #[error("{key} is \"{word}\"{}", suggestion(nearest, known))]
    UnknownWord {
        /// The key with its table.
        key: String,
        /// The word as written.
        word: String,
        /// The nearest known word, where one is near.
        nearest: Option<String>,
        /// Every known word.
        known: Vec<String>,
    },
    /// A number outside its range.
    #[error("{key} is {value}: expected {expected}")]
    Range {
        /// The key with its table.
        key: String,
        /// The value as written.
        value: String,
        /// The range in words.
        expected: String,
    },
    /// A value that is of the right type but cannot be used.
    #[error("{key}: {reason}")]
    Unusable {
        /// The key with its table.
        key: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Two entries that must differ.
    #[error("{key} holds \"{value}\" twice: every entry must be different")]
    Duplicate {
        /// The key with its table.
        key: String,
        /// What occurs twice.
        value: String,
    },
    /// A list with the wrong number of entries.
    #[error("{key} has {found} entries for {expected} channels: give one number, or one per channel")]
    PerChannel {
        /// The key with its table.
        key: String,
        /// Entries given.
        found: usize,
        /// Channels of the screen.
        expected: usize,
    },
}

/// "did you mean ...?", or the list of what would have been right.
fn suggestion(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean '{nearest}'?"),
        None => format!(": known are {}", known.join(", ")),
    }
}

/// Every problem of a screen file, in file order; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenErrors(pub Vec<ScreenError>);

impl fmt::Display for ScreenErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ScreenErrors {}
