//! One object at a time: its pixels, cut out of the label image. Enters: labels and the number of an object. Leaves: its
//! mask, its runs, its distances to the edge, and its grey values in a channel. Cannot fail.

use crate::nuclei::distance::{self, Scratch};
use crate::nuclei::{LabelImage, ObjectBox};

/// Pixels `left..right` of row `y`, within the box of the object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) y: usize,
    pub(crate) left: usize,
    pub(crate) right: usize,
}

/// An object. Coordinates are rows and columns within its box, unless said otherwise.
pub(crate) struct Object<'a> {
    labels: &'a LabelImage,
    pub(crate) label: u32,
    pub(crate) bounds: ObjectBox,
    /// Its pixels, row after row.
    pub(crate) spans: Vec<Span>,
    /// One byte per pixel of the box and of a frame of one pixel of background around it.
    pub(crate) mask: Vec<u8>,
}

impl<'a> Object<'a> {
    /// Object `index`, which has the label `index + 1`.
    pub(crate) fn new(labels: &'a LabelImage, index: usize, bounds: ObjectBox) -> Self {
        let label = index as u32 + 1;
        let (width, wide) = (bounds.width(), bounds.width() + 2);
        let mut mask = vec![0u8; wide * (bounds.height() + 2)];
        let mut spans = Vec::with_capacity(bounds.height());
        for y in 0..bounds.height() {
            let start = (bounds.top + y) * labels.width() + bounds.left;
            let row = &labels.labels()[start..start + width];
            let mut x = 0;
            while let Some(skip) = row[x..].iter().position(|&l| l == label) {
                let left = x + skip;
                x = left + row[left..].iter().take_while(|&&l| l == label).count();
                spans.push(Span { y, left, right: x });
                let at = (y + 1) * wide + 1;
                mask[at + left..at + x].fill(1);
            }
        }
        Self {
            labels,
            label,
            bounds,
            spans,
            mask,
        }
    }

    /// Number of pixels.
    pub(crate) fn area(&self) -> usize {
        self.bounds.area
    }

    /// Columns of [`Object::mask`].
    pub(crate) fn wide(&self) -> usize {
        self.bounds.width() + 2
    }

    /// Place in [`Object::mask`] of a pixel of the box.
    pub(crate) fn place(&self, y: usize, x: usize) -> usize {
        (y + 1) * self.wide() + x + 1
    }

    /// Rows and columns of its pixels, row after row.
    pub(crate) fn pixels(&self) -> impl Iterator<Item = (usize, usize)> {
        self.spans
            .iter()
            .flat_map(|s| (s.left..s.right).map(|x| (s.y, x)))
    }

    /// Its values in `plane`, in the order of [`Object::pixels`].
    pub(crate) fn values(&self, plane: &[u16]) -> Vec<u16> {
        let mut values = Vec::with_capacity(self.area());
        for span in &self.spans {
            let start = (self.bounds.top + span.y) * self.labels.width() + self.bounds.left;
            values.extend_from_slice(&plane[start + span.left..start + span.right]);
        }
        values
    }

    /// Whether a pixel of the object has a neighbour of another label above, below, left or right, in the order of
    /// [`Object::pixels`]. Beyond the border of the image there are no neighbours (scikit-image `find_boundaries`, inner).
    pub(crate) fn edge(&self) -> Vec<bool> {
        let (height, width) = (self.labels.height(), self.labels.width());
        let other = |y: usize, x: usize| self.labels.labels()[y * width + x] != self.label;
        self.pixels()
            .map(|(y, x)| {
                let (y, x) = (y + self.bounds.top, x + self.bounds.left);
                (y > 0 && other(y - 1, x))
                    || (y + 1 < height && other(y + 1, x))
                    || (x > 0 && other(y, x - 1))
                    || (x + 1 < width && other(y, x + 1))
            })
            .collect()
    }

    /// Squared distances to the nearest pixel outside the object, beyond the border of the image included; laid out as
    /// [`Object::mask`].
    pub(crate) fn distances(&self, scratch: &mut Scratch) -> Vec<u32> {
        let mut squares = Vec::new();
        distance::squared(
            &self.mask,
            self.bounds.height() + 2,
            self.wide(),
            scratch,
            &mut squares,
        );
        squares
    }

    /// As [`Object::distances`], but beyond the border of the image there is nothing. `framed` are those distances: they
    /// are the same for an object that does not touch the border.
    pub(crate) fn distances_within(&self, framed: &[u32], scratch: &mut Scratch) -> Vec<u32> {
        if !self.labels.touches_border(self.label) {
            return framed.to_vec();
        }
        let ObjectBox {
            top,
            left,
            bottom,
            right,
            ..
        } = self.bounds;
        // Without those sides of the frame that lie beyond the image.
        let rows =
            usize::from(top == 0)..self.bounds.height() + 2 - usize::from(bottom == self.labels.height());
        let columns = usize::from(left == 0)..self.wide() - usize::from(right == self.labels.width());
        let mut mask = Vec::with_capacity(rows.len() * columns.len());
        for y in rows.clone() {
            mask.extend_from_slice(&self.mask[y * self.wide()..][columns.clone()]);
        }
        let mut squares = Vec::new();
        distance::squared(&mask, rows.len(), columns.len(), scratch, &mut squares);
        let mut out = vec![0; framed.len()];
        for (y, line) in rows.zip(squares.chunks_exact(columns.len())) {
            out[y * self.wide()..][columns.clone()].copy_from_slice(line);
        }
        out
    }
}
