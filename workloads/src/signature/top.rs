//! The best matches: for each compound its diseases, for each disease its compounds.
//!
//! Scores enter disease after disease, short lists leave; nothing fails. Equal scores keep the order of effects and
//! signatures; what is not defined (NaN) is in no list.

use std::ops::Range;

use super::effects::Effects;
use super::score::SignatureColumn;

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// The effect.
    pub effect: usize,
    /// The signature.
    pub signature: usize,
    /// The score it was ranked by.
    pub score: f64,
}

/// What is ranked, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankBy {
    /// `cos(e, −v)`.
    Reversal,
    /// `cos(e, v)`.
    Mimicry,
    /// The part of the way back.
    Rescue,
}

/// Lists of the `k` best, filled column by column.
#[derive(Debug, Clone)]
pub struct TopMatches {
    by: RankBy,
    k: usize,
    /// The effects of each compound.
    groups: Vec<Range<usize>>,
    compounds: Vec<Vec<Match>>,
    diseases: Vec<Vec<Match>>,
}

impl TopMatches {
    /// Empty lists. `effects` as the screen holds them: those of one compound lie together.
    pub fn new(effects: &Effects, by: RankBy, k: usize) -> Self {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for effect in 0..effects.len() {
            let same = effect > 0 && effects.compound(effect) == effects.compound(effect - 1);
            match groups.last_mut().filter(|_| same) {
                Some(group) => group.end = effect + 1,
                None => groups.push(effect..effect + 1),
            }
        }
        Self {
            by,
            k,
            compounds: vec![Vec::new(); groups.len()],
            groups,
            diseases: Vec::new(),
        }
    }

    /// Ranks scores.
    pub fn take(&mut self, column: &SignatureColumn) {
        let Range { start, end } = column.effects;
        let score = |effect: usize| match self.by {
            RankBy::Reversal => -column.cosine[effect - start],
            RankBy::Mimicry => column.cosine[effect - start],
            RankBy::Rescue => column.rescue[effect - start],
        };
        if start == 0 {
            self.diseases.push(Vec::new());
        }
        let Some(disease) = self.diseases.last_mut() else {
            return;
        };
        let here = self.groups.partition_point(|group| group.start < start)
            ..self.groups.partition_point(|group| group.start < end);
        // A compound is in a list once, with its best dose.
        for (group, compound) in self.groups[here.clone()].iter().zip(&mut self.compounds[here]) {
            let best = group
                .clone()
                .map(|effect| Match {
                    effect,
                    signature: column.signature,
                    score: score(effect),
                })
                .filter(|entry| !entry.score.is_nan())
                .reduce(|best, next| if next.score > best.score { next } else { best });
            if let Some(best) = best {
                keep(disease, best, self.k);
                keep(compound, best, self.k);
            }
        }
    }

    /// By compound, in the order of the effects: its best diseases, each with its best dose, best first.
    pub fn compounds(&self) -> &[Vec<Match>] {
        &self.compounds
    }

    /// By disease, in the order the columns came: its best compounds, each with its best dose, best first.
    pub fn diseases(&self) -> &[Vec<Match>] {
        &self.diseases
    }
}

/// Puts an entry into its place among the `k` best; equals stay behind those that came first.
fn keep(list: &mut Vec<Match>, entry: Match, k: usize) {
    let place = list.partition_point(|other| other.score >= entry.score);
    if place < k {
        list.truncate(k - 1);
        list.insert(place, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::effects::OpenEffects;
    use super::*;
    use crate::signature::Origin;

    /// Effects of compounds at 1, 2, ... in the order given.
    fn effects(compounds: &[&str]) -> Effects {
        let mut open = OpenEffects::new(Cursor::new(Vec::new()), 0).unwrap();
        let wells = compounds.iter().zip(1u8..);
        let wells = wells.map(|(name, dose)| (Some(*name), Some(f64::from(dose)), &[1.0f32][..]));
        open.add(&Origin::Healthy, &[0.0], wells).unwrap();
        open.finish().unwrap().0
    }

    #[test]
    fn lists_hold_the_best_dose_of_each_compound_and_keep_the_order_of_equals() {
        let mut top = TopMatches::new(&effects(&["a", "a", "b", "c"]), RankBy::Rescue, 2);
        for (signature, rescue) in [
            [0.1, 0.4, 0.4, f64::NAN],
            [0.3, 0.2, 0.9, 0.4],
            [0.5, 0.0, 0.1, 0.2],
        ]
        .into_iter()
        .enumerate()
        {
            top.take(&SignatureColumn {
                signature,
                effects: 0..4,
                cosine: vec![0.0; 4],
                rescue: rescue.to_vec(),
                ..SignatureColumn::default()
            });
        }
        let ids = |list: &[Match]| -> Vec<(usize, usize)> {
            list.iter().map(|entry| (entry.effect, entry.signature)).collect()
        };
        assert_eq!(ids(&top.diseases()[0]), [(1, 0), (2, 0)]);
        assert_eq!(ids(&top.diseases()[1]), [(2, 1), (3, 1)]);
        assert_eq!(ids(&top.compounds()[0]), [(0, 2), (1, 0)]);
        assert_eq!(ids(&top.compounds()[2]), [(3, 1), (3, 2)]);
        assert_eq!(top.compounds().len(), 3);
    }
}
