//! Rows that are kept for long among much that is not, in one block of memory.
//!
//! Rows of one width enter and leave again; what holds them has their slots. Allocated one by one they would lie between
//! what a plate leaves free, and hold the pages around them. Nothing fails.

/// Up to so many rows as were asked room for, or more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    rows: usize,
    width: usize,
    values: Vec<f32>,
    free: Vec<u32>,
}

impl Slots {
    /// Room for `rows` rows, taken with the first of them.
    pub(crate) fn new(rows: usize) -> Self {
        Self {
            rows,
            ..Self::default()
        }
    }

    /// Keeps a row; all are as long as the first. Gives its slot.
    pub(crate) fn put(&mut self, row: impl ExactSizeIterator<Item = f32>) -> u32 {
        if self.values.is_empty() {
            self.width = row.len();
            self.values.reserve_exact(self.rows * self.width);
        }
        match self.free.pop() {
            Some(slot) => {
                let from = slot as usize * self.width;
                for (kept, value) in self.values[from..from + self.width].iter_mut().zip(row) {
                    *kept = value;
                }
                slot
            }
            None => {
                let slot = self.values.len() / self.width.max(1);
                self.values.extend(row);
                self.values.resize((slot + 1) * self.width, f32::NAN);
                u32::try_from(slot).unwrap_or(u32::MAX)
            }
        }
    }

    /// The row in a slot.
    pub(crate) fn row(&self, slot: u32) -> &[f32] {
        let from = slot as usize * self.width;
        &self.values[from..from + self.width]
    }

    /// Forgets the row in a slot: the next one goes there.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_rows_stay_as_they_are() {
        let mut slots = Slots::new(2);
        let put = |slots: &mut Slots, value: f32| slots.put([value, -value].into_iter());
        let (a, b) = (put(&mut slots, 1.0), put(&mut slots, 2.0));
        slots.forget(a);
        let c = put(&mut slots, 3.0);
        assert_eq!(
            (c, slots.row(b), slots.row(c)),
            (a, &[2.0, -2.0][..], &[3.0, -3.0][..])
        );
        // More than room was asked for.
        let d = put(&mut slots, 4.0);
        assert_eq!(
            (d, slots.row(d), slots.row(b)),
            (2, &[4.0, -4.0][..], &[2.0, -2.0][..])
        );
        assert!(slots.row(Slots::default().put(std::iter::empty::<f32>())).len() <= 2);
    }
}
