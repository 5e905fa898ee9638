//! Times of dispatches by the device's own clock. Enters: a plan. Leaves: a time for each of its dispatches. Fails if the
//! results cannot be read.

use std::time::Duration;

use crate::plan::{Plan, Traffic};

/// Bytes of one timestamp.
const STAMP: u64 = 8;

/// What one dispatch took, and what it moved at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelTime {
    /// Kernel, entry point and bytes.
    pub traffic: Traffic,
    /// From its beginning to its end.
    pub time: Duration,
}

/// Timestamps before and after each dispatch of a plan.
pub(super) struct Clock {
    traffic: Vec<Traffic>,
    stamps: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    pub(super) readback: wgpu::Buffer,
}

impl Clock {
    pub(super) fn new(device: &wgpu::Device, plan: &Plan) -> Self {
        let traffic = plan.traffic();
        let count = 2 * traffic.len().max(1) as u32;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: u64::from(count) * STAMP,
                usage,
                mapped_at_creation: false,
            })
        };
        Self {
            traffic,
            stamps: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readback: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
        }
    }

    /// Stamps around dispatch number `at`.
    pub(super) fn around(&self, at: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.stamps,
            beginning_of_pass_write_index: Some(2 * at),
            end_of_pass_write_index: Some(2 * at + 1),
        }
    }

    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let count = 2 * self.traffic.len() as u32;
        encoder.resolve_query_set(&self.stamps, 0..count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, u64::from(count) * STAMP);
    }

    /// The times, once the readback is mapped; `period` is the length of a tick in nanoseconds.
    pub(super) fn times(self, period: f32) -> Result<Vec<KernelTime>, String> {
        let mapped = self.readback.get_mapped_range(..).map_err(|e| e.to_string())?;
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&mapped[..]);
        let ticks = stamps.chunks_exact(2).map(|pair| pair[1].saturating_sub(pair[0]));
        let time = |ticks: u64| Duration::from_nanos((ticks as f64 * f64::from(period)) as u64);
        Ok(self
            .traffic
            .iter()
            .zip(ticks)
            .map(|(traffic, ticks)| KernelTime {
                traffic: *traffic,
                time: time(ticks),
            })
            .collect())
    }
}
