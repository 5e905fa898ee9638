//! Names, each kept once in little more memory than its letters: a screen has as many as it has compounds.
//!
//! Names enter in any order and get numbers; in the end they are sorted, and found by halving. More than four billion
//! names or letters are too many: whoever adds them asks [`NamesBuilder::too_large`] before the end.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Collects names; the absence of a name is one of them, and comes before all others.
#[derive(Debug)]
pub(crate) struct NamesBuilder {
    /// Names that are there already, under their own numbers: what is collected comes after them.
    known: Arc<Names>,
    letters: String,
    /// Where each collected name ends in `letters`; the first, the absence, has no letters.
    ends: Vec<u32>,
    /// Place in `ends` of a name at the place that its hash says or the next free one; 0 is free.
    places: Vec<u32>,
    too_large: bool,
}

/// Names in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Names {
    letters: Box<str>,
    ends: Box<[u32]>,
}

impl Default for NamesBuilder {
    fn default() -> Self {
        Self::beyond(Arc::default())
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            letters: Box::default(),
            ends: Box::new([0]),
        }
    }
}

impl NamesBuilder {
    /// Collects names that are not known.
    pub(crate) fn beyond(known: Arc<Names>) -> Self {
        Self {
            known,
            letters: String::new(),
            ends: vec![0],
            places: Vec::new(),
            too_large: false,
        }
    }

    /// The number of a name: of known ones their own, of others those after them as they come.
    pub(crate) fn number(&mut self, name: Option<&str>) -> u32 {
        if let Some(known) = self.known.find(name) {
            return known;
        }
        // The absence is known to all.
        let Some(name) = name else { return 0 };
        // Two thirds full at most.
        if 3 * self.ends.len() >= 2 * self.places.len() {
            self.grow();
        }
        let place = self.place(name);
        if self.places[place] == 0 {
            let end = u32::try_from(self.known.letters.len() + self.letters.len() + name.len());
            let last = u32::try_from(self.known.ends.len() + self.ends.len());
            let (Ok(_), Ok(_)) = (end, last) else {
                self.too_large = true;
                return 0;
            };
            self.places[place] = self.collected();
            self.letters.push_str(name);
            self.ends.push(self.letters.len() as u32);
        }
        self.known.ends.len() as u32 - 1 + self.places[place]
    }

    /// Where a name is, or where it goes.
    fn place(&self, name: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let mut place = hasher.finish() as usize % self.places.len();
        while self.places[place] != 0 && letters(&self.letters, &self.ends, self.places[place]) != name {
            place = (place + 1) % self.places.len();
        }
        place
    }

    fn grow(&mut self) {
        self.places = vec![0; (2 * self.places.len()).max(16)];
        for number in 1..self.collected() {
            let place = self.place(letters(&self.letters, &self.ends, number));
            self.places[place] = number;
        }
    }

    /// Collected names, and the absence.
    fn collected(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// Whether there were more names than numbers.
    pub(crate) fn too_large(&self) -> bool {
        self.too_large
    }

    /// The names in order, and where each number went; `None`: all stayed where they are.
    pub(crate) fn finish(self) -> (Arc<Names>, Option<Vec<u32>>) {
        if self.ends.len() == 1 {
            return (self.known, None);
        }
        let known = self.known.ends.len() - 1;
        let name = |number: u32| match (number as usize).checked_sub(known) {
            None | Some(0) => letters(&self.known.letters, &self.known.ends, number),
            Some(collected) => letters(&self.letters, &self.ends, collected as u32),
        };
        let all = known as u32 + self.collected();
        let mut order: Vec<u32> = (1..all).collect();
        order.sort_unstable_by_key(|&number| name(number));
        let mut went = vec![0; all as usize];
        let mut sorted = String::with_capacity(self.known.letters.len() + self.letters.len());
        let mut ends = Vec::with_capacity(all as usize);
        ends.push(0);
        for (&number, place) in order.iter().zip(1..) {
            went[number as usize] = place;
            sorted.push_str(name(number));
            ends.push(sorted.len() as u32);
        }
        let names = Names {
            letters: sorted.into(),
            ends: ends.into(),
        };
        (Arc::new(names), Some(went))
    }
}

impl Names {
    /// How many, with the absence.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&str> {
        let named = number > 0 && (number as usize) < self.ends.len();
        named.then(|| letters(&self.letters, &self.ends, number))
    }

    pub(crate) fn find(&self, name: Option<&str>) -> Option<u32> {
        let Some(name) = name else { return Some(0) };
        let (mut from, mut to) = (1, u32::try_from(self.ends.len()).ok()?);
        while from < to {
            let middle = from + (to - from) / 2;
            match letters(&self.letters, &self.ends, middle).cmp(name) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }
}

/// Where a number went, as [`NamesBuilder::finish`] has it.
pub(crate) fn went(all: Option<&[u32]>, number: u32) -> u32 {
    all.map_or(number, |all| all[number as usize])
}

fn letters<'l>(all: &'l str, ends: &[u32], number: u32) -> &'l str {
    let number = number as usize;
    &all[ends[number - 1] as usize..ends[number] as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_numbered_once_sorted_and_found(
            before in proptest::collection::vec("[aé]{0,4}", 0..20),
            names in proptest::collection::vec(proptest::option::of("[aé]{0,4}"), 0..200),
        ) {
            let mut builder = NamesBuilder::default();
            before.iter().for_each(|name| _ = builder.number(Some(name)));
            let (known, _) = builder.finish();
            let mut builder = NamesBuilder::beyond(known.clone());
            let numbers: Vec<u32> = names.iter().map(|name| builder.number(name.as_deref())).collect();
            prop_assert!(!builder.too_large());
            let (sorted, went) = builder.finish();
            let mut expected: Vec<Option<String>> = names.clone();
            expected.push(None);
            expected.extend(before.iter().cloned().map(Some));
            expected.sort();
            expected.dedup();
            for (name, number) in names.iter().zip(numbers) {
                let found = sorted.find(name.as_deref()).unwrap();
                prop_assert_eq!(super::went(went.as_deref(), number), found);
                prop_assert_eq!(sorted.get(found), name.as_deref());
                prop_assert_eq!(expected.binary_search(name), Ok(found as usize));
            }
            prop_assert_eq!(sorted.find(Some("b")), None);
            prop_assert_eq!(sorted.get(expected.len() as u32), None);
        }
    }
}
