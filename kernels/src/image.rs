//! Images: raw integer planes as a camera wrote them, and float tensors as networks want them.
//! Enters: pixels with their shape. Leaves: checked values with plane access. Fails on shapes that do not fit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;

/// Channels, height and width of a raw image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputShape {
    /// Number of channels (planes).
    pub channels: usize,
    /// Rows in pixels.
    pub height: usize,
    /// Columns in pixels.
    pub width: usize,
}

impl fmt::Display for InputShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} channels of {} x {} pixels",
            self.channels, self.height, self.width
        )
    }
}

/// Product of `shape`, or an error if a dimension is 0 or the product (in bytes of f32) overflows.
fn volume(what: &'static str, shape: &[usize]) -> Result<usize, KernelError> {
    if shape.contains(&0) {
        return Err(KernelError::Empty {
            what,
            shape: shape.to_vec(),
        });
    }
    let mut product = 1usize;
    for &d in shape {
        product = product
            .checked_mul(d)
            .filter(|p| *p <= isize::MAX as usize / 8)
            .ok_or_else(|| KernelError::Overflow {
                what,
                shape: shape.to_vec(),
            })?;
    }
    Ok(product)
}

/// One field of view as the detector wrote it: unsigned integers, plane after plane, each row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawImage {
    shape: InputShape,
    pixels: Vec<u16>,
    ceiling: u16,
}

impl RawImage {
    /// A checked image. `pixels` holds `channels * height * width` values, plane after plane. `ceiling` is the
    /// largest value the detector can give (255, 4095, 65535): many 16-bit files hold 12-bit data.
    ///
    /// # Errors
    /// A zero dimension, a pixel count that does not fit, a ceiling of 0.
    pub fn new(
        channels: usize,
        height: usize,
        width: usize,
        pixels: Vec<u16>,
        ceiling: u16,
    ) -> Result<Self, KernelError> {
        let dims = [channels, height, width];
        let expected = volume("image", &dims)?;
        if pixels.len() != expected {
            return Err(KernelError::Length {
                what: "image",
                shape: dims.to_vec(),
                expected,
                got: pixels.len(),
            });
        }
        if ceiling == 0 {
            return Err(KernelError::Ceiling);
        }
        Ok(Self {
            shape: InputShape {
                channels,
                height,
                width,
            },
            pixels,
            ceiling,
        })
    }

    /// An image from separate planes, all of `height * width` pixels.
    ///
    /// # Errors
    /// As [`RawImage::new`]; the first plane of another size is reported by its length.
    pub fn from_planes(
        planes: &[Vec<u16>],
        height: usize,
        width: usize,
        ceiling: u16,
    ) -> Result<Self, KernelError> {
        let expected = volume("plane", &[height, width])?;
        if let Some(bad) = planes.iter().find(|p| p.len() != expected) {
            return Err(KernelError::Length {
                what: "plane",
                shape: vec![height, width],
                expected,
                got: bad.len(),
            });
        }
        Self::new(planes.len(), height, width, planes.concat(), ceiling)
    }

    /// Channels, height and width.
    pub fn shape(&self) -> InputShape {
        self.shape
    }
    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.shape.channels
    }
    /// Rows in pixels.
    pub fn height(&self) -> usize {
        self.shape.height
    }
    /// Columns in pixels.
    pub fn width(&self) -> usize {
        self.shape.width
    }
    /// Largest value the detector can give.
    pub fn ceiling(&self) -> u16 {
        self.ceiling
    }
    /// All pixels, plane after plane.
    pub fn pixels(&self) -> &[u16] {
        &self.pixels
    }
    /// Pixels of one plane.
    pub fn plane_len(&self) -> usize {
        self.shape.height * self.shape.width
    }
    /// Channel `c`, row-major. An index past the last channel gives an empty slice.
    pub fn plane(&self, c: usize) -> &[u16] {
        let len = self.plane_len();
        c.checked_mul(len)
            .and_then(|at| self.pixels.get(at..at + len))
            .unwrap_or_default()
    }
}

/// Float images for a network: `shape` is items, channels, height, width; the last varies fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: [usize; 4],
    data: Vec<f32>,
}

impl Tensor {
    /// A checked tensor.
    ///
    /// # Errors
    /// A zero dimension or a length that is not the product of the shape.
    pub fn new(shape: [usize; 4], data: Vec<f32>) -> Result<Self, KernelError> {
        let expected = volume("tensor", &shape)?;
        if data.len() != expected {
            return Err(KernelError::Length {
                what: "tensor",
                shape: shape.to_vec(),
                expected,
                got: data.len(),
            });
        }
        Ok(Self { shape, data })
    }

    /// A tensor whose length is right by construction.
    pub(crate) fn from_parts(shape: [usize; 4], data: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data }
    }

    /// No values at all; only where one image gave one tensor.
    pub(crate) fn nothing() -> Self {
        Self {
            shape: [0; 4],
            data: Vec::new(),
        }
    }

    /// Items, channels, height, width.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }
    /// All values.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
    /// Gives the values away.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }
    /// Item `n`: all its channels. An index past the end gives an empty slice.
    pub fn item(&self, n: usize) -> &[f32] {
        let len = self.shape[1] * self.shape[2] * self.shape[3];
        n.checked_mul(len)
            .and_then(|at| self.data.get(at..at + len))
            .unwrap_or_default()
    }
    /// Channel `c` of item `n`, row-major. An index past the end gives an empty slice.
    pub fn plane(&self, n: usize, c: usize) -> &[f32] {
        let len = self.shape[2] * self.shape[3];
        let item = self.item(n);
        c.checked_mul(len)
            .and_then(|at| item.get(at..at + len))
            .unwrap_or_default()
    }
}
