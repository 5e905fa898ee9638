//! Idle device buffers, kept for the next image. Enters: buffers no longer in use. Leaves: a buffer of at least the
//! size asked for. Bounded: what does not fit is freed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most bytes kept idle.
const IDLE_BYTES: u64 = 512 << 20;

/// Smallest buffer, so that tiny constants share sizes.
const SMALLEST: u64 = 256;

#[derive(Debug, Default)]
struct Idle {
    buffers: HashMap<(wgpu::BufferUsages, u64), Vec<wgpu::Buffer>>,
    bytes: u64,
}

/// A bounded set of idle buffers.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
}

impl Pool {
    /// A buffer of at least `bytes`; its content is undefined.
    pub(super) fn take(
        &self,
        device: &wgpu::Device,
        usage: wgpu::BufferUsages,
        bytes: u64,
        limit: u64,
    ) -> wgpu::Buffer {
        let size = class(bytes).min(limit).max(bytes);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = idle.buffers.get_mut(&(usage, size)).and_then(Vec::pop) {
            idle.bytes -= size;
            return buffer;
        }
        drop(idle);
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// Frees everything idle.
    pub(super) fn clear(&self) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Idle::default();
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buffer: wgpu::Buffer) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + buffer.size() <= IDLE_BYTES {
            idle.bytes += buffer.size();
            idle.buffers
                .entry((buffer.usage(), buffer.size()))
                .or_default()
                .push(buffer);
        }
    }
}

/// Rounds up to an eighth of the next power of two: few sizes, little waste.
fn class(bytes: u64) -> u64 {
    let bytes = bytes.max(SMALLEST);
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(4))
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn size_classes_are_aligned_and_waste_little() {
        for bytes in [1u64, 255, 256, 257, 1000, 4097, 1 << 20, 93_312_000] {
            let c = class(bytes);
            assert!(
                c >= bytes && c.is_multiple_of(4) && c <= (bytes.max(256) * 5).div_ceil(4),
                "{bytes} -> {c}"
            );
        }
    }
}
