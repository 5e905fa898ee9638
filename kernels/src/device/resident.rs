//! What stays in a device's memory between two pieces of work: a raw image that several recipes and measures read, and the
//! images that a recipe made of it, for a network on the same device. Enters: buffers. Leaves: the same, and back to the pool
//! when they are dropped. Cannot fail.

use std::sync::Arc;

use super::gpu::Gpu;
use crate::image::InputShape;

/// A buffer of a device's pool, which goes back there.
#[derive(Debug)]
struct Held {
    gpu: Arc<Gpu>,
    buffer: wgpu::Buffer,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Work that reads it was submitted before whatever will write to it.
        self.gpu.pool.give(self.buffer.clone());
    }
}

/// A raw image in the memory of a device.
#[derive(Debug)]
pub struct DeviceImage {
    held: Held,
    shape: InputShape,
}

impl DeviceImage {
    pub(super) fn new(gpu: &Arc<Gpu>, buffer: wgpu::Buffer, shape: InputShape) -> Self {
        let gpu = Arc::clone(gpu);
        Self {
            held: Held { gpu, buffer },
            shape,
        }
    }

    /// Its buffer, for work of `gpu` on an image of `shape`. None if it is another device's: one that was lost.
    pub(super) fn on(&self, gpu: &Arc<Gpu>, shape: InputShape) -> Option<&wgpu::Buffer> {
        (Arc::ptr_eq(gpu, &self.held.gpu) && shape == self.shape).then_some(&self.held.buffer)
    }
}

/// Float images in the memory of a device: as a [`crate::Tensor`], items, channels, height, width, the last fastest.
#[derive(Debug)]
pub struct DeviceTensor {
    held: Held,
    shape: [usize; 4],
}

impl DeviceTensor {
    pub(super) fn new(gpu: &Arc<Gpu>, buffer: wgpu::Buffer, shape: [usize; 4]) -> Self {
        let gpu = Arc::clone(gpu);
        Self {
            held: Held { gpu, buffer },
            shape,
        }
    }

    /// Items, channels, height, width.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The buffer, which begins with the values and may be longer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.held.buffer
    }

    /// Whether the values are gone, because the device was lost.
    pub fn is_lost(&self) -> bool {
        self.held.gpu.is_broken()
    }
}
