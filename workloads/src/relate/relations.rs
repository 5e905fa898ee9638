//! Known relations: pairs of perturbations that belong together, from a table the user supplies.
//!
//! Text of a table enters (`entity1, entity2` and, if there is one, `source`; comma or tab), distinct unordered pairs
//! by source leave: a pair with itself and a repetition do not count, as in EFAAR's `filter_relationships`. Fails
//! where a column is missing or a line is broken.

use std::collections::{BTreeMap, BTreeSet};

use super::{Perturbations, RelateError};

/// Distinct unordered pairs, by source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    sources: BTreeMap<String, BTreeSet<(String, String)>>,
}

/// Named groups of perturbations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clusters {
    /// Members by cluster.
    pub members: BTreeMap<String, BTreeSet<String>>,
}

/// What pairs have as source where the table has no such column.
pub const ONLY_SOURCE: &str = "annotations";

impl Relations {
    /// Adds a pair, unless it is one with itself.
    pub fn insert(&mut self, a: &str, b: &str, source: &str) {
        if a == b {
            return;
        }
        let (first, second) = if a < b { (a, b) } else { (b, a) };
        self.sources
            .entry(source.to_owned())
            .or_default()
            .insert((first.to_owned(), second.to_owned()));
    }

    /// Reads a table; `file` is its name in messages.
    ///
    /// # Errors
    /// A column is missing, a line is broken, or an entity is empty.
    pub fn parse(text: &str, file: &str) -> Result<Self, RelateError> {
        let mut relations = Self::default();
        let rows = rows(
            text,
            file,
            [&["entity1", "entity_1", "a"], &["entity2", "entity_2", "b"]],
            &["source"],
        )?;
        for ([a, b], source) in rows {
            relations.insert(&a, &b, source.as_deref().unwrap_or(ONLY_SOURCE));
        }
        Ok(relations)
    }

    /// Distinct pairs over all sources.
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.sources.values().all(BTreeSet::is_empty)
    }

    /// Names of the sources.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    fn all(&self) -> BTreeSet<&(String, String)> {
        self.sources.values().flatten().collect()
    }

    /// The pairs of one source (`None`: of all) of which both are there, as rows `(smaller, larger)`, ascending.
    pub fn present(&self, perturbations: &Perturbations, source: Option<&str>) -> Vec<(usize, usize)> {
        let pairs = self
            .sources
            .iter()
            .filter(|(name, _)| source.is_none_or(|source| *name == source))
            .flat_map(|(_, pairs)| pairs);
        let rows: BTreeSet<(usize, usize)> = pairs
            .filter_map(|(a, b)| Some((perturbations.find(a)?, perturbations.find(b)?)))
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        rows.into_iter().collect()
    }

    /// # Errors
    /// No pair has both perturbations.
    pub(super) fn check_present(&self, perturbations: &Perturbations) -> Result<(), RelateError> {
        if !self.present(perturbations, None).is_empty() {
            return Ok(());
        }
        let all = self.all();
        let absent = all
            .iter()
            .flat_map(|(a, b)| [a, b])
            .find(|name| perturbations.find(name).is_none());
        Err(RelateError::NothingAnnotated {
            pairs: all.len(),
            annotated: absent.cloned().unwrap_or_default(),
            present: perturbations.names().first().cloned().unwrap_or_default(),
        })
    }
}

impl Clusters {
    /// Reads a table with the columns `cluster` and `entity`.
    ///
    /// # Errors
    /// A column is missing, a line is broken, or a field is empty.
    pub fn parse(text: &str, file: &str) -> Result<Self, RelateError> {
        let mut clusters = Self::default();
        for ([cluster, member], _) in rows(text, file, [&["cluster"], &["entity", "member"]], &[])? {
            clusters.members.entry(cluster).or_default().insert(member);
        }
        Ok(clusters)
    }
}

type TableRow = ([String; 2], Option<String>);

fn rows(
    text: &str,
    file: &str,
    needed: [&[&'static str]; 2],
    optional: &[&str],
) -> Result<Vec<TableRow>, RelateError> {
    let first = text.lines().next().unwrap_or_default();
    let delimiter = if first.contains('\t') { b'\t' } else { b',' };
    let mut table = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let line_error = |line: u64, reason: String| RelateError::Line {
        file: file.to_owned(),
        line,
        reason,
    };
    let headers = table
        .headers()
        .map_err(|error| line_error(1, error.to_string()))?
        .clone();
    let find = |names: &[&str]| {
        headers
            .iter()
            .position(|header| names.iter().any(|name| header.eq_ignore_ascii_case(name)))
    };
    let mut columns = [0; 2];
    for (column, names) in columns.iter_mut().zip(needed) {
        *column = find(names).ok_or_else(|| RelateError::Column {
            file: file.to_owned(),
            column: names[0],
            found: headers.iter().collect::<Vec<_>>().join(", "),
        })?;
    }
    let source = find(optional);
    let mut rows = Vec::new();
    for record in table.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            line_error(line, error.to_string())
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |column: usize| record.get(column).unwrap_or_default();
        if let Some(column) = columns.into_iter().find(|&column| field(column).is_empty()) {
            return Err(line_error(
                line,
                format!("column '{}' is empty", &headers[column]),
            ));
        }
        let source = source.map(field).filter(|source| !source.is_empty());
        rows.push((
            columns.map(|column| field(column).to_owned()),
            source.map(str::to_owned),
        ));
    }
    Ok(rows)
}
