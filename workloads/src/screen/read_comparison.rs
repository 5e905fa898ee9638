//! Reads `[comparison]` and `[monitor]`: their settings types belong to the mathematics; this finds every problem with
//! them, not the first.
//!
//! A type's `Deserialize` and its check name one problem each. So the key at fault is reported and taken out, and the rest
//! is read again, until nothing is left to report.

use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use serde::Deserialize;

use super::ScreenProblem;
use super::table::{Report, Value};
use crate::compare::{CompareError, ComparisonSettings};
use crate::monitor::{MonitorSettings, SettingRange};
use crate::plate_map::{is_dose_unit, usual_dose_units};

pub(super) fn comparison(
    report: &mut Report,
    value: Option<Value<'_>>,
    plate_map_unit: Option<&str>,
) -> ComparisonSettings {
    let mut settings = ComparisonSettings::default();
    let mut own_unit = None;
    if let Some(value) = &value {
        match value.value.as_table() {
            Some(table) => {
                own_unit = table.get("dose_unit").map(|unit| unit.span().start);
                settings = peel(report, "comparison", value.at, table, &comparison_fault);
            }
            None => report.wrong_type(value, "a table"),
        }
    }
    if let Some(at) = own_unit {
        check_dose_unit(report, "comparison.dose_unit", at, &settings.dose_unit);
    }
    match (plate_map_unit, own_unit) {
        (Some(unit), None) => settings.dose_unit = unit.to_owned(),
        (Some(unit), Some(at)) if unit != settings.dose_unit => {
            let key = "comparison.dose_unit".to_owned();
            let reason = format!(
                "\"{}\" contradicts plate_map.dose_unit = \"{unit}\": leave one of the two out",
                settings.dose_unit
            );
            report.add(at, ScreenProblem::Unusable { key, reason });
        }
        _ => {}
    }
    settings
}

/// A unit that no dose can be in would stand in every result.
pub(super) fn check_dose_unit(report: &mut Report, key: &str, at: usize, unit: &str) {
    if !is_dose_unit(unit) {
        let known: Vec<&str> = usual_dose_units().collect();
        report.unknown_word(key, unit, at, &known);
    }
}

pub(super) fn monitor(report: &mut Report, value: Option<Value<'_>>) -> MonitorSettings {
    let Some(value) = value else {
        return MonitorSettings::default();
    };
    match value.value.as_table() {
        Some(table) => peel(
            report,
            "monitor",
            value.at,
            table,
            &|settings: &MonitorSettings| settings.check().err().map(Fault::Range),
        ),
        None => {
            report.wrong_type(&value, "a table");
            MonitorSettings::default()
        }
    }
}

/// What is wrong with settings that could be read.
enum Fault {
    Range(SettingRange),
    Other(String),
}

fn comparison_fault(settings: &ComparisonSettings) -> Option<Fault> {
    match settings.check().err()? {
        CompareError::Setting {
            setting,
            value,
            expected,
        } => Some(Fault::Range(SettingRange {
            setting,
            value,
            expected,
        })),
        other => Some(Fault::Other(other.to_string())),
    }
}

fn peel<T: for<'de> Deserialize<'de> + Default>(
    report: &mut Report,
    name: &str,
    at: usize,
    table: &DeTable<'_>,
    fault: &dyn Fn(&T) -> Option<Fault>,
) -> T {
    let mut table = table.clone();
    // serde takes a list for a table, value by value; none of these settings is a list.
    for path in lists(&table) {
        let place = span_of(&table, &path).unwrap_or(at);
        let key = format!("{name}.{}", path.join("."));
        let (found, expected) = ("a list", "one value".to_owned());
        report.add(place, ScreenProblem::Type { key, found, expected });
        remove(&mut table, &path);
    }
    // Every round takes a key out, so this ends.
    loop {
        let whole = Spanned::new(at..at, DeValue::Table(table.clone()));
        let (place, path, problem) = match T::deserialize(ValueDeserializer::from(whole)) {
            Ok(settings) => match fault(&settings) {
                None => return settings,
                Some(fault) => checked(name, fault, &table, at),
            },
            Err(error) => {
                let place = error.span().map_or(at, |span| span.start);
                let path = path_to(&table, place);
                (place, path.clone(), read_problem(name, error.message(), &path))
            }
        };
        report.add(place, problem);
        if !remove(&mut table, &path) {
            return T::default();
        }
    }
}

fn checked(name: &str, fault: Fault, table: &DeTable<'_>, at: usize) -> (usize, Vec<String>, ScreenProblem) {
    let range = match fault {
        Fault::Range(range) => range,
        Fault::Other(reason) => {
            let key = name.to_owned();
            return (at, Vec::new(), ScreenProblem::Unusable { key, reason });
        }
    };
    let path: Vec<String> = range.setting.split('.').map(str::to_owned).collect();
    let place = span_of(table, &path).unwrap_or(at);
    let problem = ScreenProblem::Range {
        key: format!("{name}.{}", range.setting),
        value: range.value.to_string(),
        expected: range.expected.to_owned(),
    };
    (place, path, problem)
}

/// Where the value of a path begins, or that of the longest part of it that is there.
fn span_of(table: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let mut place = None;
    let mut inner = Some(table);
    for key in path {
        let found = inner.and_then(|table| table.get(key.as_str()));
        place = found.map(|value| value.span().start).or(place);
        inner = found.and_then(|value| value.get_ref().as_table());
    }
    place
}

/// The paths of all lists.
fn lists(table: &DeTable<'_>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().to_string();
        match value.get_ref() {
            DeValue::Array(_) => found.push(vec![name]),
            DeValue::Table(inner) => found.extend(lists(inner).into_iter().map(|mut path| {
                path.insert(0, name.clone());
                path
            })),
            _ => {}
        }
    }
    found
}

/// The keys that lead to the entry standing at a byte offset.
fn path_to(table: &DeTable<'_>, at: usize) -> Vec<String> {
    for (key, value) in table {
        let (key_span, value_span) = (key.span(), value.span());
        let name = key.get_ref().to_string();
        if let Some(inner) = value.get_ref().as_table() {
            let below = path_to(inner, at);
            if !below.is_empty() {
                return std::iter::once(name).chain(below).collect();
            }
        }
        if key_span.contains(&at) || value_span.contains(&at) {
            return vec![name];
        }
    }
    Vec::new()
}

fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    match path {
        [] => false,
        [key] => table.remove(key.as_str()).is_some(),
        [key, rest @ ..] => match table.get_mut(key.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

/// serde words two of its messages as "unknown field `x`, expected one of `a`, `b`": they become the problems of the
/// other tables, with the nearest name.
fn read_problem(table: &str, message: &str, path: &[String]) -> ScreenProblem {
    let key = format!("{table}.{}", path.join("."));
    let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
    let (field, variant) = (
        message.starts_with("unknown field"),
        message.starts_with("unknown variant"),
    );
    let (true, Some(word)) = (field || variant, names.next()) else {
        let reason = message.to_owned();
        return ScreenProblem::Unusable { key, reason };
    };
    let known: Vec<String> = names.collect();
    let nearest = super::nearest(&word, known.iter().map(String::as_str)).map(str::to_owned);
    if field {
        let parents = path.split_last().map_or(&[][..], |(_, parents)| parents);
        let table: Vec<&str> = std::iter::once(table)
            .chain(parents.iter().map(String::as_str))
            .collect();
        ScreenProblem::UnknownKey {
            table: format!("[{}]", table.join(".")),
            key: word,
            nearest,
            known,
        }
    } else {
        ScreenProblem::UnknownWord {
            key,
            word,
            nearest,
            known,
        }
    }
}
