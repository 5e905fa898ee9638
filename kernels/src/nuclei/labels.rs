//! Label images: which object each pixel belongs to. Enters: labels with their shape. Leaves: a checked image whose
//! labels run from 1 to the number of objects without gaps; 0 is background.

use crate::error::KernelError;
use crate::nuclei::error::ObjectError;

/// Most pixels of a plane: pixel numbers and labels are 32-bit.
pub(crate) const PIXEL_LIMIT: usize = 1 << 31;

/// Where an object lies: rows `top..bottom`, columns `left..right`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectBox {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Row after the last.
    pub bottom: usize,
    /// Column after the last.
    pub right: usize,
    /// Pixels of the object.
    pub area: usize,
}

impl ObjectBox {
    const NONE: Self = Self {
        top: usize::MAX,
        left: usize::MAX,
        bottom: 0,
        right: 0,
        area: 0,
    };

    /// Rows of the box.
    pub fn height(&self) -> usize {
        self.bottom - self.top
    }
    /// Columns of the box.
    pub fn width(&self) -> usize {
        self.right - self.left
    }

    /// Takes up columns `left..right` of row `y`.
    fn add(&mut self, y: usize, left: usize, right: usize) {
        self.top = self.top.min(y);
        self.bottom = self.bottom.max(y + 1);
        self.left = self.left.min(left);
        self.right = self.right.max(right);
        self.area += right - left;
    }
}

/// Objects of one field of view: a label per pixel, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelImage {
    height: usize,
    width: usize,
    labels: Vec<u32>,
    boxes: Vec<ObjectBox>,
}

impl LabelImage {
    /// Checked labels: `height * width` values, 0 for background, objects from 1 without gaps. An object may consist
    /// of several pieces.
    ///
    /// # Errors
    /// A zero dimension, a wrong number of values, a gap in the labels, a plane of more than 2^31 pixels.
    pub fn new(height: usize, width: usize, labels: Vec<u32>) -> Result<Self, ObjectError> {
        check_plane("features", height, width)?;
        if labels.len() != height * width {
            return Err(KernelError::Length {
                what: "label image",
                shape: vec![height, width],
                expected: height * width,
                got: labels.len(),
            }
            .into());
        }
        let largest = labels.iter().copied().max().unwrap_or(0);
        // More objects than pixels means a gap; found before a box is made for each label.
        if largest as usize > labels.len() {
            let present: std::collections::HashSet<u32> = labels.iter().copied().collect();
            let missing = (1..largest).find(|l| !present.contains(l)).unwrap_or(largest);
            return Err(ObjectError::Gap { missing, largest });
        }
        let boxes = boxes(width, &labels, largest as usize);
        if let Some(at) = boxes.iter().position(|b| b.area == 0) {
            return Err(ObjectError::Gap {
                missing: at as u32 + 1,
                largest,
            });
        }
        Ok(Self {
            height,
            width,
            labels,
            boxes,
        })
    }

    /// Labels numbered anew from 1 in the order of the old numbers, so that gaps close.
    ///
    /// # Errors
    /// As [`LabelImage::new`], but for gaps.
    pub fn compact(height: usize, width: usize, mut labels: Vec<u32>) -> Result<Self, ObjectError> {
        let mut present: Vec<u32> = Vec::new();
        let mut last = 0;
        for &label in &labels {
            if label != last && label != 0 {
                present.push(label);
            }
            last = label;
        }
        present.sort_unstable();
        present.dedup();
        for label in labels.iter_mut().filter(|l| **l != 0) {
            // Every label but 0 was collected above.
            *label = present.binary_search(label).map_or(0, |at| at as u32 + 1);
        }
        Self::new(height, width, labels)
    }

    /// Rows in pixels.
    pub fn height(&self) -> usize {
        self.height
    }
    /// Columns in pixels.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Labels, row-major.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }
    /// Number of objects.
    pub fn count(&self) -> usize {
        self.boxes.len()
    }
    /// Where each object lies; entry `i` is that of label `i + 1`.
    pub fn boxes(&self) -> &[ObjectBox] {
        &self.boxes
    }

    /// Whether object `label` has a pixel on the border of the image, where part of it may be cut off.
    pub fn touches_border(&self, label: u32) -> bool {
        (label as usize)
            .checked_sub(1)
            .and_then(|at| self.boxes.get(at))
            .is_some_and(|b| b.top == 0 || b.left == 0 || b.bottom == self.height || b.right == self.width)
    }

    /// The objects for which `keep` holds, numbered anew in the same order.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(u32, &ObjectBox) -> bool) -> Self {
        let mut kept = Vec::new();
        let mut number = vec![0u32; self.boxes.len() + 1];
        for (at, object) in self.boxes.iter().enumerate() {
            if keep(at as u32 + 1, object) {
                kept.push(*object);
                number[at + 1] = kept.len() as u32;
            }
        }
        Self {
            height: self.height,
            width: self.width,
            labels: self.labels.iter().map(|&l| number[l as usize]).collect(),
            boxes: kept,
        }
    }

    /// The objects that do not touch the border of the image: those whose shape and size can be trusted.
    #[must_use]
    pub fn without_border(&self) -> Self {
        self.filtered(|label, _| !self.touches_border(label))
    }
}

/// Checks the size of a plane.
pub(crate) fn check_plane(part: &'static str, height: usize, width: usize) -> Result<(), ObjectError> {
    if height == 0 || width == 0 {
        return Err(KernelError::Empty {
            what: "label image",
            shape: vec![height, width],
        }
        .into());
    }
    match height.checked_mul(width) {
        Some(pixels) if pixels <= PIXEL_LIMIT => Ok(()),
        _ => Err(ObjectError::TooLarge {
            part,
            height,
            width,
            limit: PIXEL_LIMIT,
        }),
    }
}

/// The boxes of labels 1 to `count`; those without pixels have area 0.
fn boxes(width: usize, labels: &[u32], count: usize) -> Vec<ObjectBox> {
    let mut boxes = vec![ObjectBox::NONE; count];
    for (y, row) in labels.chunks_exact(width).enumerate() {
        let mut x = 0;
        while let Some(skip) = row[x..].iter().position(|&l| l != 0) {
            let left = x + skip;
            let label = row[left];
            x = left + row[left..].iter().take_while(|&&l| l == label).count();
            boxes[label as usize - 1].add(y, left, x);
        }
    }
    boxes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_areas_and_borders() {
        let labels = LabelImage::new(3, 4, vec![0, 1, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(labels.count(), 2);
        let [a, b] = labels.boxes() else { panic!() };
        assert_eq!((a.top, a.left, a.bottom, a.right, a.area), (0, 1, 2, 2, 2));
        assert_eq!((b.height(), b.width(), b.area), (1, 1, 1));
        assert!(labels.touches_border(1) && !labels.touches_border(2) && !labels.touches_border(9));
        let inner = labels.without_border();
        assert_eq!(inner.count(), 1);
        assert_eq!(inner.labels()[6], 1);
    }

    #[test]
    fn gaps_are_named_and_can_be_closed() {
        let gap = LabelImage::new(1, 3, vec![1, 0, 3]).unwrap_err();
        assert!(gap.to_string().contains("label 2"), "{gap}");
        let huge = LabelImage::new(1, 3, vec![1, 0, u32::MAX]).unwrap_err();
        assert!(huge.to_string().contains("label 2"), "{huge}");
        let closed = LabelImage::compact(1, 4, vec![7, 0, u32::MAX, 7]).unwrap();
        assert_eq!(closed.labels(), &[1, 0, 2, 1]);
        assert!(LabelImage::new(0, 3, vec![]).is_err());
        for (height, width) in [(1 << 20, 1 << 20), (usize::MAX, 2)] {
            let large = check_plane("nuclei", height, width).unwrap_err().to_string();
            assert!(
                large.contains(&height.to_string()) && large.contains("tiles"),
                "{large}"
            );
        }
        // A field of 3 GB of 16-bit pixels has few enough.
        assert!(check_plane("nuclei", 40_000, 40_000).is_ok());
        assert!(LabelImage::new(2, 3, vec![0]).is_err());
    }
}
