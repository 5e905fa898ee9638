//! Effects that no more wells will come to, until they are put in order.
//!
//! They enter as treatments become complete, in blocks in the spool; their order by compound leaves: four bytes each, which
//! is what a screen's effects take at once. Fails where the spool does, and beyond four billion effects.

use std::cmp::Ordering;

use super::SignatureError;
use super::rows::{Rows, bytes_of};
use crate::compare::Spool;
use crate::names::went;

/// Effects that are written together.
pub(super) const AT_ONCE: usize = 1 << 12;

/// What an effect is of. Numbers of names and origins are in their order of coming while plates pass, then in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) compound: u32,
    pub(super) origin: u32,
    /// 0 without a dose; else one more than its bits, which sort as doses do, since none is negative.
    pub(super) dose: u64,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |key: &Self| (key.compound, key.dose, key.origin);
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A complete effect and the place of its sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Complete {
    pub(super) key: Key,
    pub(super) place: u64,
    pub(super) wells: u32,
    pub(super) plates: u32,
}

/// Words of a [`Complete`] in the spool.
const COMPLETE_WORDS: usize = 4;

impl Complete {
    fn words(&self) -> [u64; COMPLETE_WORDS] {
        let pair = |high: u32, low: u32| (u64::from(high) << 32) | u64::from(low);
        [
            pair(self.key.compound, self.key.origin),
            self.key.dose,
            self.place,
            pair(self.wells, self.plates),
        ]
    }

    fn of(words: &[u64; COMPLETE_WORDS]) -> Self {
        let [names, dose, place, counts] = *words;
        let (high, low) = (|word: u64| (word >> 32) as u32, |word: u64| word as u32);
        Self {
            key: Key {
                compound: high(names),
                origin: low(names),
                dose,
            },
            place,
            wells: high(counts),
            plates: low(counts),
        }
    }
}

/// Complete effects in the spool, in blocks of [`AT_ONCE`] and a last one of fewer.
#[derive(Debug, Default)]
pub(super) struct Written {
    places: Vec<u64>,
    pub(super) len: usize,
}

impl Written {
    pub(super) fn append<S: Spool>(
        &mut self,
        spool: &mut Rows<S>,
        effects: &mut Vec<Complete>,
    ) -> Result<(), SignatureError> {
        let words: Vec<u64> = effects.iter().flat_map(Complete::words).collect();
        self.places.push(spool.append_words(&words)?);
        self.len += effects.len();
        effects.clear();
        Ok(())
    }

    /// Hands all of them to `take`, with their numbers.
    fn each<S: Spool>(
        &self,
        spool: &mut Rows<S>,
        mut take: impl FnMut(usize, Complete),
    ) -> Result<(), SignatureError> {
        let mut words = Vec::new();
        for (block, &place) in self.places.iter().enumerate() {
            let first = block * AT_ONCE;
            words.resize((self.len - first).min(AT_ONCE) * COMPLETE_WORDS, 0);
            spool.read_words(place, &mut words)?;
            let (effects, _) = words.as_chunks();
            for (number, words) in (first..).zip(effects) {
                take(number, Complete::of(words));
            }
        }
        Ok(())
    }

    pub(super) fn read<S: Spool>(
        &self,
        spool: &mut Rows<S>,
        number: usize,
    ) -> Result<Complete, SignatureError> {
        let within = number % AT_ONCE * COMPLETE_WORDS;
        let place = self.places[number / AT_ONCE] + bytes_of(within);
        let mut words = [0; COMPLETE_WORDS];
        spool.read_words(place, &mut words)?;
        Ok(Complete::of(&words))
    }
}

/// Numbers of complete effects, those of one compound together, in the order of the compounds' names.
pub(super) struct Ordered {
    pub(super) order: Vec<u32>,
    /// Where the effects of each name end.
    pub(super) ends: Vec<u32>,
}

impl Ordered {
    /// `names`: how many; `ranks`: the place of each compound's number among them.
    pub(super) fn new<S: Spool>(
        written: &Written,
        spool: &mut Rows<S>,
        names: usize,
        ranks: Option<&[u32]>,
    ) -> Result<Self, SignatureError> {
        let len = u32::try_from(written.len).map_err(|_| SignatureError::TooLarge)?;
        let rank = |complete: &Complete| went(ranks, complete.key.compound) as usize;
        let mut ends = vec![0u32; names];
        written.each(spool, |_, complete| ends[rank(&complete)] += 1)?;
        let mut start = 0;
        for end in &mut ends {
            // Where the name's first effect goes; it moves on with every one that is put there.
            start += std::mem::replace(end, start);
        }
        let mut order = vec![0; len as usize];
        written.each(spool, |number, complete| {
            let end = &mut ends[rank(&complete)];
            order[*end as usize] = number as u32;
            *end += 1;
        })?;
        Ok(Self { order, ends })
    }
}
