//! What was left out, and why: everything is counted, the first of each kind are named.

use std::collections::BTreeMap;

/// Things of one kind that are named; more are only counted.
const NAMED: usize = 20;

/// Kinds of things that are left out, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Features.
    Columns,
    /// Rows that do not say where they belong.
    Placeless,
    /// Rows without a row of the metadata file.
    Unmatched,
    /// Rows that miss a feature.
    Missing,
    /// Wells that occur twice.
    Twice,
    /// Wells whose rows say that they were given different things.
    Contradicted,
    /// Counts of cells that are none.
    Counts,
    /// Plates.
    Plates,
    /// Wells.
    Wells,
    /// Rows of the plate map without features.
    Map,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Columns => "features are dropped",
            Self::Placeless => "rows have no place and are left out",
            Self::Unmatched => "rows have no metadata and are left out",
            Self::Missing => "rows with a missing or infinite feature are left out",
            Self::Twice => "wells occur twice and are left out",
            Self::Contradicted => "wells have rows that contradict each other and are left out",
            Self::Counts => "cell counts are not used",
            Self::Plates => "plates are left out, or some of their wells",
            Self::Wells => "wells are left out",
            Self::Map => "plates have wells without features",
        }
    }
}

/// What was left out.
#[derive(Debug, Clone, Default)]
pub(super) struct LeftOut(BTreeMap<Kind, Few>);

#[derive(Debug, Clone, Default)]
struct Few {
    named: Vec<String>,
    more: u64,
}

impl LeftOut {
    /// `text` is called only where the thing is named.
    pub(super) fn push(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        let few = self.0.entry(kind).or_default();
        if few.named.len() < NAMED {
            few.named.push(text());
        } else {
            few.more += 1;
        }
    }

    /// Everything in words.
    pub(super) fn notes(&self) -> Vec<String> {
        let words = |(kind, few): (&Kind, &Few)| {
            let more = (few.more > 0).then(|| format!("{} more {}", few.more, kind.words()));
            few.named.iter().cloned().chain(more).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_named_and_all_are_counted() {
        let mut all = LeftOut::default();
        for i in 0..45 {
            all.push(Kind::Missing, || i.to_string());
        }
        all.push(Kind::Columns, || "a".to_owned());
        let notes = all.notes();
        assert_eq!(notes.len(), 1 + NAMED + 1);
        assert_eq!(notes[0], "a");
        assert!(notes[NAMED + 1].starts_with("25 more rows"), "{notes:?}");
    }
}
