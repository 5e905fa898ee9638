//! Where a comparison's findings go: all of them into the tables, the first of each kind to the report.
//!
//! Rows enter as they are found; memory is what a page can show. Fails where the disk does.

use std::collections::BTreeMap;

use wellspring::results::{ComparisonTables, WriteError};
use wellspring_workloads::compare::{
    AssayWindow, Call, Comparison, CompoundSummary, Note, ScreenComparison, Sink, WellScore,
};

/// Most of each kind that the report is given; it shows fewer.
const MOST_ROWS: usize = 4_000;
const MOST_COMPOUNDS: usize = 1_000;
const MOST_WELLS: usize = 4_000;
const MOST_WINDOWS: usize = 1_000;
const MOST_NOTES: usize = 200;

/// Takes what a comparison finds.
#[derive(Debug)]
pub(super) struct Found {
    tables: ComparisonTables,
    shown: ScreenComparison,
    rows: usize,
    compounds: usize,
    calls: BTreeMap<Call, usize>,
    notes: usize,
}

impl Found {
    pub(super) fn new(tables: ComparisonTables) -> Self {
        Self {
            tables,
            shown: ScreenComparison::default(),
            rows: 0,
            compounds: 0,
            calls: BTreeMap::new(),
            notes: 0,
        }
    }

    /// Completes the tables.
    pub(super) fn finish(self) -> Result<Shown, WriteError> {
        self.tables.finish()?;
        let beyond = (self.compounds > self.shown.compounds.len()).then(|| {
            let calls = self.calls.iter().map(|(call, count)| format!("{count} {call}"));
            format!(
                "This page was given the first {} of {} compounds; compounds.parquet has all: {}",
                self.shown.compounds.len(),
                self.compounds,
                calls.collect::<Vec<_>>().join(", ")
            )
        });
        let mut comparison = self.shown;
        if let (Some(last), true) = (comparison.notes.last_mut(), self.notes > MOST_NOTES) {
            let more = self.notes - MOST_NOTES;
            last.text
                .push_str(&format!("; and {more} more notes of this kind or another"));
        }
        Ok(Shown {
            comparison,
            rows: self.rows,
            beyond,
        })
    }
}

/// What of the findings a report can show.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) comparison: ScreenComparison,
    /// Rows of `comparisons.parquet`.
    pub(super) rows: usize,
    /// What the report must say of the compounds that it was not given.
    pub(super) beyond: Option<String>,
}

fn keep<T>(kept: &mut Vec<T>, most: usize, found: T) {
    if kept.len() < most {
        kept.push(found);
    }
}

impl Sink for Found {
    type Error = anyhow::Error;

    fn well(&mut self, score: WellScore) -> anyhow::Result<()> {
        if self.shown.wells.len() < MOST_WELLS {
            self.shown.wells.push(score.clone());
        }
        self.tables.well(score)?;
        Ok(())
    }

    fn window(&mut self, window: AssayWindow) -> anyhow::Result<()> {
        if self.shown.windows.len() < MOST_WINDOWS {
            self.shown.windows.push(window.clone());
        }
        self.tables.window(window)?;
        Ok(())
    }

    fn row(&mut self, row: Comparison) -> anyhow::Result<()> {
        self.tables.row(&row)?;
        self.rows += 1;
        keep(&mut self.shown.rows, MOST_ROWS, row);
        Ok(())
    }

    fn compound(&mut self, summary: CompoundSummary) -> anyhow::Result<()> {
        self.tables.compound(&summary)?;
        self.compounds += 1;
        *self.calls.entry(summary.call).or_default() += 1;
        keep(&mut self.shown.compounds, MOST_COMPOUNDS, summary);
        Ok(())
    }

    fn note(&mut self, note: Note) -> anyhow::Result<()> {
        self.notes += 1;
        keep(&mut self.shown.notes, MOST_NOTES, note);
        Ok(())
    }
}
