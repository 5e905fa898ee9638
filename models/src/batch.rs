//! What enters and leaves an engine: a checked batch of grey images, and one embedding per image.
//!
//! Enters: NCHW grey levels. Leaves: the same, known to be finite, in range and of the stated size. Fails with
//! [`BatchError`], which names the first offending item.

use thiserror::Error;

/// Slack around the grey range 0..255 that resampling may use up before an image counts as unprepared.
pub(crate) const GREY_SLACK: f32 = 0.5;

/// A batch of prepared images: `items` x `channels` x `height` x `width`, row-major, grey levels 0..255.
///
/// For a model with the replicate policy `channels` is 1; the engine replicates as its card says.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    items: usize,
    channels: usize,
    height: usize,
    width: usize,
    data: Vec<f32>,
}

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The data does not hold the stated number of values.
    #[error(
        "a batch of {items} x {channels} x {height} x {width} needs {expected} values, the data holds {found}: \
         pass exactly one value per item, channel, row and column"
    )]
    WrongLength {
        /// Stated items.
        items: usize,
        /// Stated channels.
        channels: usize,
        /// Stated rows.
        height: usize,
        /// Stated columns.
        width: usize,
        /// Their product (`usize::MAX` where it overflows).
        expected: usize,
        /// Values in the data.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "item {item} of the batch holds {value} at value {offset}: an image must be finite before it is embedded"
    )]
    NotFinite {
        /// Index of the item in the batch.
        item: usize,
        /// Index of the value inside the item.
        offset: usize,
        /// The value.
        value: f32,
    },
    /// A value is no grey level.
    #[error(
        "item {item} of the batch holds {value} at value {offset}, outside the grey levels 0..255: \
         scale the image as the model card asks before it is embedded"
    )]
    OutOfRange {
        /// Index of the item in the batch.
        item: usize,
        /// Index of the value inside the item.
        offset: usize,
        /// The value.
        value: f32,
    },
}

impl BatchError {
    /// A value that is no grey level.
    pub(crate) fn of_value(item: usize, offset: usize, value: f32) -> Self {
        if value.is_finite() {
            Self::OutOfRange { item, offset, value }
        } else {
            Self::NotFinite { item, offset, value }
        }
    }
}

impl Batch {
    /// Checks and takes `data`, NCHW.
    ///
    /// # Errors
    /// [`BatchError::WrongLength`] where `data` is not `items * channels * height * width` long;
    /// [`BatchError::NotFinite`] and [`BatchError::OutOfRange`] name the first bad item (half a grey level beyond
    /// 0..255 is let through, because resampling overshoots by rounding).
    pub fn new(
        items: usize,
        channels: usize,
        height: usize,
        width: usize,
        data: Vec<f32>,
    ) -> Result<Self, BatchError> {
        let expected = [channels, height, width]
            .iter()
            .try_fold(items, |n, &d| n.checked_mul(d));
        if expected != Some(data.len()) {
            return Err(BatchError::WrongLength {
                items,
                channels,
                height,
                width,
                expected: expected.unwrap_or(usize::MAX),
                found: data.len(),
            });
        }
        let range = -GREY_SLACK..=255.0 + GREY_SLACK;
        if let Some(at) = data.iter().position(|v| !range.contains(v)) {
            let value = data[at];
            let per_item = channels * height * width;
            let (item, offset) = (at / per_item, at % per_item);
            return Err(BatchError::of_value(item, offset, value));
        }
        Ok(Self {
            items,
            channels,
            height,
            width,
            data,
        })
    }

    /// Number of images.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Channels per image.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Rows per image, pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns per image, pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, NCHW, grey levels.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values of one image, CHW; `None` past the end.
    pub fn item(&self, index: usize) -> Option<&[f32]> {
        let per_item = self.channels * self.height * self.width;
        (index < self.items).then(|| &self.data[index * per_item..(index + 1) * per_item])
    }

    /// The same images with every channel an item of its own.
    pub(crate) fn channels_apart(&self) -> Self {
        Self {
            items: self.items * self.channels,
            channels: 1,
            data: self.data.clone(),
            ..*self
        }
    }

    /// The buffer, to be filled again.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }
}

/// One embedding per image: `items` x `width`, row-major, row i for item i.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// Number of rows.
    pub items: usize,
    /// Values per row; the card's `embedding_width`.
    pub width: usize,
    /// All rows, one after the other; finite.
    pub data: Vec<f32>,
}

impl Embeddings {
    /// The embedding of one item; `None` past the end.
    pub fn row(&self, item: usize) -> Option<&[f32]> {
        let start = item.checked_mul(self.width)?;
        (item < self.items)
            .then(|| self.data.get(start..start + self.width))
            .flatten()
    }

    /// The rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.width.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_bad_item() {
        let mut data = vec![1.0; 3 * 4];
        data[9] = f32::NAN;
        let error = Batch::new(3, 1, 2, 2, data.clone()).unwrap_err();
        assert!(
            matches!(
                error,
                BatchError::NotFinite {
                    item: 2,
                    offset: 1,
                    ..
                }
            ),
            "{error}"
        );
        data[9] = f32::INFINITY;
        assert!(matches!(
            Batch::new(3, 1, 2, 2, data.clone()),
            Err(BatchError::NotFinite { item: 2, .. })
        ));
        data[9] = 65535.0;
        assert!(matches!(
            Batch::new(3, 1, 2, 2, data),
            Err(BatchError::OutOfRange { item: 2, .. })
        ));
    }

    #[test]
    fn length_must_match_even_when_it_overflows() {
        assert!(matches!(
            Batch::new(2, 1, 2, 2, vec![0.0; 7]),
            Err(BatchError::WrongLength {
                expected: 8,
                found: 7,
                ..
            })
        ));
        assert!(Batch::new(usize::MAX, 2, 2, 2, vec![]).is_err());
        let empty = Batch::new(0, 1, 224, 224, vec![]).unwrap();
        assert_eq!((empty.items(), empty.item(0)), (0, None));
    }

    #[test]
    fn rows_follow_items() {
        let e = Embeddings {
            items: 2,
            width: 3,
            data: vec![1., 2., 3., 4., 5., 6.],
        };
        assert_eq!(e.row(1), Some(&[4., 5., 6.][..]));
        assert_eq!(e.row(2), None);
        assert_eq!(e.rows().len(), 2);
    }
}
