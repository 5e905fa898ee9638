//! The features that all tables have: per-plate feature selection leaves each plate with its own.
//!
//! Paths of tables enter, the common features leave in the order of the first table, whatever the order of the others.
//! Features that not every table has are dropped and named. Fails where the tables have less than half of their features
//! in common: they are of different kinds.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, bail};
use wellspring::results::ProfileFile;

use super::super::left_out::{Kind, LeftOut};
use super::Reading;

/// Features that are named where they are dropped.
const NAMED: usize = 12;
/// Smallest share of the features of a table that all tables must have.
const LEAST_SHARED: f64 = 0.5;

pub(super) fn common_features(
    reading: &Reading<'_>,
    reserved: &[String],
    left_out: &mut LeftOut,
) -> anyhow::Result<Vec<String>> {
    let open = |path: &Path| ProfileFile::open(path, &reading.features, reserved);
    let (first, others) = reading.paths.split_first().context("no table is given")?;
    let all = open(first)?.features().to_vec();
    let mut kept = all.clone();
    // By feature, a table that does not have it.
    let mut dropped: BTreeMap<String, &Path> = BTreeMap::new();
    for path in others {
        let file = open(path)?;
        if file.features() == all {
            continue;
        }
        let here: HashSet<&str> = file.features().iter().map(String::as_str).collect();
        let before: HashSet<&str> = all.iter().map(String::as_str).collect();
        for name in file
            .features()
            .iter()
            .filter(|name| !before.contains(name.as_str()))
        {
            dropped.entry(name.clone()).or_insert(first);
        }
        kept.retain(|name| {
            let has = here.contains(name.as_str());
            if !has {
                dropped.insert(name.clone(), path);
            }
            has
        });
        if (kept.len() as f64) < LEAST_SHARED * (all.len().min(file.features().len()) as f64) {
            let lacks = |a: &[String], b: &[String]| -> String {
                let b: HashSet<&String> = b.iter().collect();
                let only: Vec<&str> = a
                    .iter()
                    .filter(|name| !b.contains(name))
                    .map(String::as_str)
                    .collect();
                only[..only.len().min(3)].join(", ")
            };
            bail!(
                "'{}' has other features than '{}': {} and {}, of which {} are in all tables so far ({} against {}); compare \
                 tables of one kind at a time, or choose common columns with --columns",
                path.display(),
                first.display(),
                file.features().len(),
                all.len(),
                kept.len(),
                lacks(file.features(), &all),
                lacks(&all, file.features()),
            );
        }
    }
    if !dropped.is_empty() {
        let named: Vec<String> = dropped
            .iter()
            .take(NAMED)
            .map(|(name, path)| format!("{name} (not in '{}')", path.display()))
            .collect();
        let dots = if dropped.len() > NAMED { ", ..." } else { "" };
        left_out.push(Kind::Columns, || {
            format!(
                "{} features are not in every table and are dropped, {} are left: {}{dots}",
                dropped.len(),
                kept.len(),
                named.join(", ")
            )
        });
    }
    Ok(kept)
}
