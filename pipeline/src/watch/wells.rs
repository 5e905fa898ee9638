//! Wells of plates that are still being imaged: each is told of when its files have come to rest.
//!
//! Looks at a store enter, wells to tell of leave; a well is told of again when its files have changed since. Cannot fail.

use std::collections::BTreeMap;
use std::time::Duration;

use wellspring_workloads::words::{Barcode, WellPosition};

use super::Look;

/// A well of a plate.
type Of = (Barcode, WellPosition);

/// Wells that were seen, and since when each is as it is.
#[derive(Debug, Default)]
pub struct Wells {
    waiting: BTreeMap<Of, (String, Duration)>,
    told: BTreeMap<Of, String>,
}

impl Wells {
    /// Takes what was seen at a time, counted from any beginning; gives the wells that lack nothing and have not changed for
    /// `rest`, by plate.
    pub fn look(
        &mut self,
        now: Duration,
        seen: &BTreeMap<Barcode, Look>,
        rest: Duration,
    ) -> BTreeMap<Barcode, Vec<WellPosition>> {
        self.waiting
            .retain(|(plate, well), _| seen.get(plate).is_some_and(|look| look.wells.contains_key(well)));
        let mut due: BTreeMap<Barcode, Vec<WellPosition>> = BTreeMap::new();
        for (plate, look) in seen {
            for (&well, content) in &look.wells {
                let of = (plate.clone(), well);
                if self.told.get(&of) == Some(content) {
                    continue;
                }
                let (before, since) = self
                    .waiting
                    .entry(of.clone())
                    .or_insert_with(|| (content.clone(), now));
                if before != content {
                    (*before, *since) = (content.clone(), now);
                }
                if now.saturating_sub(*since) >= rest {
                    self.waiting.remove(&of);
                    self.told.insert(of, content.clone());
                    due.entry(plate.clone()).or_default().push(well);
                }
            }
        }
        due
    }

    /// Takes wells back that could not be told of after all.
    pub fn take_back(&mut self, wells: &BTreeMap<Barcode, Vec<WellPosition>>) {
        for (plate, wells) in wells {
            for &well in wells {
                self.told.remove(&(plate.clone(), well));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(wells: &[(&str, &str)]) -> BTreeMap<Barcode, Look> {
        let wells = wells
            .iter()
            .map(|(well, content)| (well.parse().unwrap(), (*content).to_owned()));
        let look = Look {
            fields: 0,
            missing: Vec::new(),
            content: String::new(),
            wells: wells.collect(),
        };
        BTreeMap::from([("P".parse().unwrap(), look)])
    }

    fn due(wells: &mut Wells, at: u64, look: &[(&str, &str)]) -> Vec<String> {
        let due = wells.look(Duration::from_secs(at), &seen(look), Duration::from_secs(10));
        due.values().flatten().map(ToString::to_string).collect()
    }

    #[test]
    fn a_well_is_told_of_when_it_rests_and_again_when_it_has_changed() {
        let mut wells = Wells::default();
        assert!(due(&mut wells, 0, &[("A01", "a")]).is_empty());
        assert!(due(&mut wells, 9, &[("A01", "a"), ("A02", "a")]).is_empty());
        assert_eq!(due(&mut wells, 10, &[("A01", "a"), ("A02", "b")]), ["A01"]);
        assert_eq!(due(&mut wells, 20, &[("A01", "a"), ("A02", "b")]), ["A02"]);
        assert!(due(&mut wells, 40, &[("A01", "c"), ("A02", "b")]).is_empty());
        assert_eq!(due(&mut wells, 50, &[("A01", "c"), ("A02", "b")]), ["A01"]);
        wells.take_back(&BTreeMap::from([(
            "P".parse().unwrap(),
            vec!["A02".parse().unwrap()],
        )]));
        assert!(due(&mut wells, 51, &[("A01", "c"), ("A02", "b")]).is_empty());
        assert_eq!(due(&mut wells, 61, &[("A01", "c"), ("A02", "b")]), ["A02"]);
    }
}
