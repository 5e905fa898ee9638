//! The open device for somebody else who computes on the same adapter, and what crossed its bus. Enters: bytes to be counted.
//! Leaves: handles and counts. Cannot fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::gpu::Gpu;

/// A device of a graphics adapter, to be shared with what takes images from its memory. It is the device that is open now:
/// after a loss [`super::Device::share`] gives another one.
#[derive(Debug, Clone)]
pub struct SharedDevice {
    /// The device. Timestamps, a pipeline cache, subgroups and 16-bit floats are switched on where the adapter has them.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// Name of the adapter.
    pub name: String,
    /// The first fault that no command's error scope caught, such as the loss of the device.
    pub fault: Arc<Mutex<Option<String>>>,
    /// The driver's cache of compiled pipelines, and a flag to be raised when something was compiled that is worth keeping.
    pub pipelines: Option<(wgpu::PipelineCache, Arc<AtomicBool>)>,
    /// What crosses the bus, to be counted by all who share it.
    pub bus: Bus,
}

impl SharedDevice {
    pub(super) fn of(gpu: &Gpu) -> Self {
        Self {
            device: gpu.device.clone(),
            queue: gpu.queue.clone(),
            name: gpu.name.clone(),
            fault: Arc::clone(&gpu.fault),
            pipelines: gpu.pipelines.cache(),
            bus: gpu.bus.clone(),
        }
    }

    /// Whether the device was lost, with everything in its memory.
    pub fn is_lost(&self) -> bool {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }
}

/// Counters of what crosses a bus, shared by those who use it.
#[derive(Debug, Clone, Default)]
pub struct Bus {
    /// Bytes of images that went up.
    pub up: Arc<AtomicU64>,
    /// Bytes of anything else that went up: parameters, tables, illumination functions, weights.
    pub parameters: Arc<AtomicU64>,
    /// Bytes that came down.
    pub down: Arc<AtomicU64>,
}

impl Bus {
    pub(super) fn up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn parameters(&self, bytes: u64) {
        self.parameters.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What crossed it so far.
    pub fn bytes(&self) -> BusBytes {
        BusBytes {
            up: self.up.load(Ordering::Relaxed),
            parameters: self.parameters.load(Ordering::Relaxed),
            down: self.down.load(Ordering::Relaxed),
        }
    }
}

/// Bytes that crossed the bus of a device since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusBytes {
    /// Of images, up.
    pub up: u64,
    /// Of anything else, up.
    pub parameters: u64,
    /// Down.
    pub down: u64,
}
