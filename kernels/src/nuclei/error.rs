//! What can go wrong with objects: settings, labels and images that do not fit. Every message names what, where and
//! the value, and says what to do.

use crate::error::KernelError;

/// Errors of segmentation and of object features.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// A shape or a length that is wrong in itself.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A setting outside its range.
    #[error("{part}: `{setting}` is {value}; {expected}")]
    Setting {
        /// "nuclei" or "features".
        part: &'static str,
        /// Name of the setting.
        setting: &'static str,
        /// The value given.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A channel that the image does not have.
    #[error("{part}: channel {channel} of an image with {channels} channels; channels count from 0")]
    Channel {
        /// "nuclei" or "features".
        part: &'static str,
        /// The channel asked for.
        channel: usize,
        /// Channels of the image.
        channels: usize,
    },
    /// Names given for another number of channels.
    #[error("features: {got} channel names for an image with {channels} channels; give one name per channel")]
    ChannelNames {
        /// Names given.
        got: usize,
        /// Channels of the image.
        channels: usize,
    },
    /// Labels of another size than the image.
    #[error(
        "features: labels of {labels:?} pixels (height, width) for an image of {image:?}; measure each field with its own labels"
    )]
    Size {
        /// Height and width of the labels.
        labels: [usize; 2],
        /// Height and width of the image.
        image: [usize; 2],
    },
    /// A label between 1 and the largest that no pixel has.
    #[error(
        "labels run up to {largest} but no pixel has label {missing}; number objects from 1 without gaps (`LabelImage::compact` does)"
    )]
    Gap {
        /// The first label missing.
        missing: u32,
        /// The largest label present.
        largest: u32,
    },
    /// Feature tables of other columns than the first.
    #[error(
        "features: table {field} has column {got} where table 0 has {expected}; measure all fields of a well with the same settings"
    )]
    Columns {
        /// Place of the table.
        field: usize,
        /// Column of the first table.
        expected: String,
        /// Column of this table.
        got: String,
    },
    /// More pixels than labels can count.
    #[error(
        "{part}: a plane of {height} x {width} pixels; at most {limit} pixels fit, so cut the field into tiles first"
    )]
    TooLarge {
        /// "nuclei" or "features".
        part: &'static str,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Most pixels of a plane.
        limit: usize,
    },
}
