//! A device that is somebody else's too, and images that lie in its memory.
//!
//! Enters: handles of an open device, buffers with tiles. Leaves: a device for an engine, a batch that need not go up. Fails
//! on buffers that are too short.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::BatchError;

/// An open device of a graphics adapter, which an engine may share with whatever made its images: those in its memory need
/// not cross the bus.
#[derive(Debug, Clone)]
pub struct SharedGpu {
    /// The device. Its features say whether there are subgroups and 16-bit floats.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// Name of the adapter.
    pub name: String,
    /// The first fault that no command's error scope caught, such as the loss of the device; whoever opened it notes them.
    pub fault: Arc<Mutex<Option<String>>>,
    /// The driver's cache of compiled pipelines, and a flag that is raised when something was compiled that is worth keeping.
    pub pipelines: Option<(wgpu::PipelineCache, Arc<AtomicBool>)>,
    /// Counts the bytes of images that go up.
    pub up: Arc<AtomicU64>,
    /// Counts the bytes of anything else that goes up: weights, parameters.
    pub parameters: Arc<AtomicU64>,
    /// Counts the bytes that come down.
    pub down: Arc<AtomicU64>,
}

impl SharedGpu {
    /// Whether the device was lost, with everything in its memory.
    pub fn is_lost(&self) -> bool {
        self.fault().is_some()
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Two are the same where they are one open device.
impl PartialEq for SharedGpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fault, &other.fault)
    }
}

impl Eq for SharedGpu {}

/// A batch whose images lie in the memory of a device: as a [`crate::Batch`], NCHW in grey levels 0..255, but in several
/// buffers. An engine on the same device looks for values that are none.
#[derive(Debug, Clone)]
pub struct DeviceBatch<'a> {
    channels: usize,
    height: usize,
    width: usize,
    parts: Vec<Part<'a>>,
}

/// Images that follow each other in a buffer.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    buffer: &'a wgpu::Buffer,
    first: usize,
    items: usize,
}

impl<'a> DeviceBatch<'a> {
    /// So many images of each buffer, from its beginning, one buffer after the other.
    ///
    /// # Errors
    /// [`BatchError::WrongLength`] where a buffer is shorter than its images.
    pub fn new(
        channels: usize,
        height: usize,
        width: usize,
        buffers: &[(&'a wgpu::Buffer, usize)],
    ) -> Result<Self, BatchError> {
        for &(buffer, items) in buffers {
            let expected = [channels, height, width]
                .iter()
                .try_fold(items, |n, &d| n.checked_mul(d));
            let found = (buffer.size() / 4) as usize;
            if expected.is_none_or(|expected| found < expected) {
                return Err(BatchError::WrongLength {
                    items,
                    channels,
                    height,
                    width,
                    expected: expected.unwrap_or(usize::MAX),
                    found,
                });
            }
        }
        let part = |&(buffer, items)| Part {
            buffer,
            first: 0,
            items,
        };
        Ok(Self {
            channels,
            height,
            width,
            parts: buffers.iter().map(part).collect(),
        })
    }

    /// Its images `first..first + count`, or as many of them as there are.
    pub fn part(&self, first: usize, count: usize) -> Self {
        let (mut begin, end) = (0, first.saturating_add(count));
        let mut parts = Vec::new();
        for part in &self.parts {
            let (from, to) = (begin.max(first), (begin + part.items).min(end));
            if from < to {
                parts.push(Part {
                    first: part.first + from - begin,
                    items: to - from,
                    ..*part
                });
            }
            begin += part.items;
        }
        Self { parts, ..*self }
    }

    /// Number of images.
    pub fn items(&self) -> usize {
        self.parts.iter().map(|part| part.items).sum()
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

    /// The same images with every channel an item of its own.
    pub(crate) fn channels_apart(&self) -> Self {
        let apart = |part: &Part<'a>| Part {
            first: part.first * self.channels,
            items: part.items * self.channels,
            ..*part
        };
        Self {
            channels: 1,
            parts: self.parts.iter().map(apart).collect(),
            ..*self
        }
    }

    /// Where its values lie, in order.
    pub(super) fn pieces(&self) -> Vec<Piece<'a>> {
        let per_item = self.channels * self.height * self.width;
        let piece = |part: &Part<'a>| Piece {
            buffer: part.buffer,
            at: part.first * per_item,
            values: part.items * per_item,
        };
        self.parts.iter().map(piece).collect()
    }
}

/// Values that follow each other in a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) buffer: &'a wgpu::Buffer,
    pub(super) at: usize,
    pub(super) values: usize,
}
