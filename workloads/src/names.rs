//! Names, each kept once in little more memory than its letters: a screen has as many as it has compounds.
//!
//! Names enter in any order and get numbers; in the end they are sorted, and found by halving. More than four billion
//! names or letters are too many: whoever adds them asks [`NamesBuilder::too_large`] before the end.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Collects names; the absence of a name is one of them, and comes before all others.
#[derive(Debug)]
pub(crate) struct NamesBuilder {
    letters: String,
    /// Where each name ends in `letters`; number 0, the absence, has no letters.
    ends: Vec<u32>,
    /// Number of a name at the place that its hash says or the next free one; 0 is free.
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
        Self {
            letters: String::new(),
            ends: vec![0],
            places: Vec::new(),
            too_large: false,
        }
    }
}

impl NamesBuilder {
    /// The number of a name, from 0 on as they come.
    pub(crate) fn number(&mut self, name: Option<&str>) -> u32 {
        let Some(name) = name else { return 0 };
        // Two thirds full at most.
        if 3 * self.ends.len() >= 2 * self.places.len() {
            self.grow();
        }
        let place = self.place(name);
        if self.places[place] == 0 {
            let end = u32::try_from(self.letters.len() + name.len());
            let (Ok(number), Ok(end)) = (u32::try_from(self.ends.len()), end) else {
                self.too_large = true;
                return 0;
            };
            self.places[place] = number;
            self.letters.push_str(name);
            self.ends.push(end);
        }
        self.places[place]
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
        for number in 1..self.named() {
            let place = self.place(letters(&self.letters, &self.ends, number));
            self.places[place] = number;
        }
    }

    fn named(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// Whether there were more names than numbers.
    pub(crate) fn too_large(&self) -> bool {
        self.too_large
    }

    /// The names in order, and where each number went.
    pub(crate) fn finish(self) -> (Names, Vec<u32>) {
        let mut order: Vec<u32> = (1..self.named()).collect();
        let Self {
            letters: all, ends, ..
        } = self;
        order.sort_unstable_by_key(|&number| letters(&all, &ends, number));
        let mut went = vec![0; ends.len()];
        let mut sorted = String::with_capacity(all.len());
        let mut sorted_ends = Vec::with_capacity(ends.len());
        sorted_ends.push(0);
        let mut end = 0;
        for (&number, place) in order.iter().zip(1..) {
            went[number as usize] = place;
            let name = letters(&all, &ends, number);
            sorted.push_str(name);
            // No longer together than in their first order.
            end += ends[number as usize] - ends[number as usize - 1];
            sorted_ends.push(end);
        }
        let names = Names {
            letters: sorted.into(),
            ends: sorted_ends.into(),
        };
        (names, went)
    }
}

impl Names {
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
        fn names_are_numbered_once_sorted_and_found(names in proptest::collection::vec(proptest::option::of("[aé]{0,4}"), 0..200)) {
            let mut builder = NamesBuilder::default();
            let numbers: Vec<u32> = names.iter().map(|name| builder.number(name.as_deref())).collect();
            prop_assert!(!builder.too_large());
            let (sorted, went) = builder.finish();
            let mut expected: Vec<Option<String>> = names.clone();
            expected.push(None);
            expected.sort();
            expected.dedup();
            for (name, number) in names.iter().zip(numbers) {
                let found = sorted.find(name.as_deref()).unwrap();
                prop_assert_eq!(went[number as usize], found);
                prop_assert_eq!(sorted.get(found), name.as_deref());
                prop_assert_eq!(expected.binary_search(name), Ok(found as usize));
            }
            prop_assert_eq!(sorted.find(Some("b")), None);
            prop_assert_eq!(sorted.get(expected.len() as u32), None);
        }
    }
}
