//! Typed access to the tables of a TOML document that reports every problem with its place.
//!
//! Values with their byte offsets enter, plain Rust values leave; what is wrong is collected in a [`Report`] and the
//! caller goes on, so that one reading finds everything.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::{ScreenError, ScreenErrors, ScreenProblem};

/// The problems found so far, each with its byte offset.
#[derive(Default)]
pub(super) struct Report {
    problems: Vec<(usize, ScreenProblem)>,
}

/// A value with its key's full name.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) key: String,
    pub(super) at: usize,
    pub(super) value: &'a DeValue<'a>,
}

/// A table of which some keys have been asked for.
pub(super) struct Table<'a> {
    name: String,
    at: usize,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
}

/// Line and column of a byte, from 1.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    // An offset within a character belongs to the character's start; offset 0 is always a boundary.
    let at = (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    let before = &text[..at];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

/// A word for a value's type, as in "is a string".
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Value<'a> {
    /// The number it holds, whole or not.
    pub(super) fn as_number(&self) -> Option<f64> {
        match self.value {
            DeValue::Integer(_) => self.as_whole().map(|number| number as f64),
            DeValue::Float(float) => float.as_str().parse().ok(),
            _ => None,
        }
    }

    fn as_whole(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// The value as the file writes it, for messages.
    fn written(&self) -> String {
        match self.value {
            DeValue::Integer(integer) => integer.as_str().to_owned(),
            DeValue::Float(float) => float.as_str().to_owned(),
            other => other.as_str().unwrap_or(kind(other)).to_owned(),
        }
    }

    /// The entries of a list; `None` where it is none.
    pub(super) fn entries(&self) -> Option<Vec<Value<'a>>> {
        let array = self.value.as_array()?;
        let entry = |(index, item): (usize, &'a toml::Spanned<DeValue<'a>>)| Value {
            key: format!("{}[{index}]", self.key),
            at: item.span().start,
            value: item.get_ref(),
        };
        Some(array.iter().enumerate().map(entry).collect())
    }
}

impl<'a> Table<'a> {
    /// The table of the whole file.
    pub(super) fn root(entries: &'a DeTable<'a>) -> Self {
        Self {
            name: String::new(),
            at: 0,
            entries,
            asked: Vec::new(),
        }
    }

    fn title(&self) -> String {
        if self.name.is_empty() {
            "the file".to_owned()
        } else {
            format!("[{}]", self.name)
        }
    }

    /// A key's value; the key is then known.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let value = self.entries.get(key)?;
        Some(Value {
            key: if self.name.is_empty() {
                key.to_owned()
            } else {
                format!("{}.{key}", self.name)
            },
            at: value.span().start,
            value: value.get_ref(),
        })
    }

    /// A key that must be there.
    pub(super) fn need(
        &mut self,
        report: &mut Report,
        key: &'static str,
        remedy: &'static str,
    ) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let table = self.title();
            report.add(self.at, ScreenProblem::Missing { table, key, remedy });
        }
        value
    }

    /// Every key and value, for tables with free keys.
    pub(super) fn free(&self) -> impl Iterator<Item = (String, Value<'a>)> {
        self.entries.iter().map(|(key, value)| {
            let value = Value {
                key: format!("{}.{}", self.name, key.get_ref()),
                at: value.span().start,
                value: value.get_ref(),
            };
            (key.get_ref().to_string(), value)
        })
    }

    /// Where the table stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Reports every key that was never asked for.
    pub(super) fn finish(self, report: &mut Report) {
        let table = self.title();
        for (key, _) in self
            .entries
            .iter()
            .filter(|(key, _)| !self.asked.contains(&key.get_ref().as_ref()))
        {
            report.unknown_key(&table, key.get_ref(), key.span().start, &self.asked);
        }
    }
}

impl Report {
    pub(super) fn add(&mut self, at: usize, problem: ScreenProblem) {
        self.problems.push((at, problem));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn unknown_key(&mut self, table: &str, key: &str, at: usize, known: &[&str]) {
        let mut once: Vec<&str> = Vec::new();
        for name in known {
            if !once.contains(name) {
                once.push(name);
            }
        }
        let problem = ScreenProblem::UnknownKey {
            table: table.to_owned(),
            key: key.chars().take(80).collect(),
            nearest: nearest(key, known.iter().copied()).map(str::to_owned),
            known: once.into_iter().map(str::to_owned).collect(),
        };
        self.add(at, problem);
    }

    pub(super) fn unknown_word(&mut self, key: &str, word: &str, at: usize, known: &[&str]) {
        let problem = ScreenProblem::UnknownWord {
            key: key.to_owned(),
            word: word.chars().take(80).collect(),
            nearest: nearest(word, known.iter().copied()).map(str::to_owned),
            known: known.iter().map(|&name| name.to_owned()).collect(),
        };
        self.add(at, problem);
    }

    pub(super) fn unusable(&mut self, value: &Value<'_>, reason: impl Display) {
        let problem = ScreenProblem::Unusable {
            key: value.key.clone(),
            reason: reason.to_string(),
        };
        self.add(value.at, problem);
    }

    pub(super) fn wrong_type(&mut self, value: &Value<'_>, expected: &str) {
        let problem = ScreenProblem::Type {
            key: value.key.clone(),
            found: kind(value.value),
            expected: expected.to_owned(),
        };
        self.add(value.at, problem);
    }

    fn out_of_range(&mut self, value: &Value<'_>, expected: String) {
        let problem = ScreenProblem::Range {
            key: value.key.clone(),
            value: value.written(),
            expected,
        };
        self.add(value.at, problem);
    }

    pub(super) fn duplicate(&mut self, value: &Value<'_>, key: &str, twice: &str) {
        let problem = ScreenProblem::Duplicate {
            key: key.to_owned(),
            value: twice.to_owned(),
        };
        self.add(value.at, problem);
    }

    /// Text that is not blank.
    pub(super) fn text(&mut self, value: Option<Value<'_>>) -> Option<String> {
        let value = value?;
        match value.value.as_str() {
            Some(text) if !text.trim().is_empty() => return Some(text.to_owned()),
            Some(_) => self.unusable(&value, "empty: write something, or leave the key out"),
            None => self.wrong_type(&value, "a string"),
        }
        None
    }

    /// Text that a newtype accepts.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, value: Option<Value<'_>>) -> Option<T> {
        let value = value?;
        match value.value.as_str().map(str::parse) {
            Some(Ok(parsed)) => return Some(parsed),
            Some(Err(error)) => self.unusable(&value, error),
            None => self.wrong_type(&value, "a string"),
        }
        None
    }

    /// One of a few words.
    pub(super) fn word<'w>(&mut self, value: Option<Value<'w>>, known: &[&str]) -> Option<&'w str> {
        let value = value?;
        match value.value.as_str() {
            Some(word) if known.contains(&word) => return Some(word),
            Some(word) => self.unknown_word(&value.key, word, value.at, known),
            None => self.wrong_type(&value, &format!("one of {}", known.join(", "))),
        }
        None
    }

    /// As [`Report::word`], where the value may also be what `others` says.
    pub(super) fn word_or<'w>(&mut self, value: &Value<'w>, known: &[&str], others: &str) -> Option<&'w str> {
        match value.value.as_str() {
            Some(word) if known.contains(&word) => return Some(word),
            Some(word) => {
                let problem = ScreenProblem::UnknownWord {
                    key: value.key.clone(),
                    word: word.chars().take(80).collect(),
                    nearest: nearest(word, known.iter().copied()).map(str::to_owned),
                    known: known.iter().copied().chain([others]).map(str::to_owned).collect(),
                };
                self.add(value.at, problem);
            }
            None => self.wrong_type(value, &format!("one of {}, or {others}", known.join(", "))),
        }
        None
    }

    /// A finite number in a range.
    pub(super) fn number(&mut self, value: Option<Value<'_>>, range: RangeInclusive<f64>) -> Option<f64> {
        let value = value?;
        let (low, high) = (range.start(), range.end());
        let expected = format!("a number from {low} to {high}");
        match value.as_number() {
            // NaN lies in no range.
            Some(number) if range.contains(&number) => return Some(number),
            Some(_) => self.out_of_range(&value, expected),
            None => self.wrong_type(&value, &expected),
        }
        None
    }

    /// A whole number in a range.
    pub(super) fn whole(&mut self, value: Option<Value<'_>>, range: RangeInclusive<u64>) -> Option<u64> {
        let value = value?;
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match (
            value.as_whole().and_then(|number| u64::try_from(number).ok()),
            value.value,
        ) {
            (Some(number), _) if range.contains(&number) => return Some(number),
            (_, DeValue::Integer(_)) => self.out_of_range(&value, expected),
            _ => self.wrong_type(&value, &expected),
        }
        None
    }

    /// A whole number that fits `u32`.
    pub(super) fn count(&mut self, value: Option<Value<'_>>, range: RangeInclusive<u32>) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.whole(value, range)
            .and_then(|number| u32::try_from(number).ok())
    }

    /// A time with its unit, such as `"30s"`, `"500 ms"`, `"2m"` or `"1h"`, in milliseconds.
    pub(super) fn duration(&mut self, value: Option<Value<'_>>, range: RangeInclusive<u64>) -> Option<u64> {
        let value = value?;
        let Some(text) = value.value.as_str() else {
            self.wrong_type(
                &value,
                "a time with its unit, such as \"30s\", \"500ms\", \"2m\" or \"1h\"",
            );
            return None;
        };
        let digits = text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let (number, unit) = text.trim().split_at(digits);
        let factor = match unit.trim() {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" | "min" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let number = number.parse::<u64>().ok();
        let found = number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor));
        match found {
            Some(ms) if range.contains(&ms) => return Some(ms),
            _ => self.unusable(
                &value,
                format!(
                    "'{text}' is not a time from {} ms to {} s: write a whole number and ms, s, m or h, such as \"30s\"",
                    range.start(),
                    range.end() / 1_000
                ),
            ),
        }
        None
    }

    pub(super) fn boolean(&mut self, value: Option<Value<'_>>) -> Option<bool> {
        let value = value?;
        let found = value.value.as_bool();
        if found.is_none() {
            self.wrong_type(&value, "true or false");
        }
        found
    }

    pub(super) fn table<'v>(&mut self, value: Option<Value<'v>>) -> Option<Table<'v>> {
        let value = value?;
        let Some(entries) = value.value.as_table() else {
            self.wrong_type(&value, "a table");
            return None;
        };
        Some(Table {
            name: value.key,
            at: value.at,
            entries,
            asked: Vec::new(),
        })
    }

    /// One number for all channels, or a list with one per channel; one per channel leaves. `channels` is 0 where
    /// the channels themselves are in doubt.
    pub(super) fn per_channel(
        &mut self,
        value: Option<Value<'_>>,
        channels: usize,
        range: RangeInclusive<f64>,
    ) -> Option<Vec<f64>> {
        let value = value?;
        let Some(entries) = value.entries() else {
            return self
                .number(Some(value), range)
                .map(|number| vec![number; channels]);
        };
        if channels > 0 && entries.len() != channels {
            let problem = ScreenProblem::PerChannel {
                key: value.key,
                found: entries.len(),
                expected: channels,
            };
            self.add(value.at, problem);
            return None;
        }
        let numbers: Vec<Option<f64>> = entries
            .into_iter()
            .map(|entry| self.number(Some(entry), range.clone()))
            .collect();
        numbers.into_iter().collect()
    }

    /// Every problem in file order, with lines and columns.
    pub(super) fn into_errors(mut self, text: &str, file: &str) -> ScreenErrors {
        self.problems.sort_by_key(|(at, _)| *at);
        let error = |(at, problem): (usize, ScreenProblem)| {
            let (line, column) = place(text, at);
            ScreenError {
                file: file.to_owned(),
                line,
                column,
                problem,
            }
        };
        ScreenErrors(self.problems.into_iter().map(error).collect())
    }

    /// After errors of syntax a missing key or an odd value may only be what the parser could not read: keeps what
    /// stands on a line without such an error, and drops what is missing.
    pub(super) fn keep_certain(&mut self, text: &str, syntax: Vec<(usize, ScreenProblem)>) {
        let line = |at: usize| text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        let broken: Vec<usize> = syntax.iter().map(|(at, _)| line(*at)).collect();
        self.problems.retain(|(at, problem)| {
            !matches!(problem, ScreenProblem::Missing { .. }) && !broken.contains(&line(*at))
        });
        self.problems.extend(syntax);
    }
}
