//! Runs plans on a graphics adapter: one upload, all dispatches in one submission, one readback.
//! Enters: a plan and its input. Leaves: the words of its output buffers. Fails before any dispatch if a buffer is
//! larger than the adapter binds, and with the driver's words if a command fails. Pipelines are cached and buffers
//! reused; within a plan a buffer is reused as soon as its last reader is recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use super::buffers::Buffers;
use super::pool::Pool;
use super::{DeviceInfo, DeviceKind};
use crate::error::KernelError;
use crate::plan::{BufferId, Dispatch, Op, Plan, WORKGROUP};

/// Usage of storage buffers.
pub(super) const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_DST)
    .union(wgpu::BufferUsages::COPY_SRC);
/// Usage of uniform buffers.
pub(super) const UNIFORM: wgpu::BufferUsages =
    wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
const READBACK: wgpu::BufferUsages = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);

/// Storage buffers that the most demanding kernel binds at once.
const STORAGE_BINDINGS: u32 = 5;

/// Largest number of planes: the second dimension of a dispatch.
const MAX_PLANES: u64 = 65_535;

/// The adapters of this machine, best first.
pub(super) fn adapters() -> Vec<(DeviceInfo, wgpu::Adapter)> {
    let descriptor = wgpu::InstanceDescriptor {
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<_> = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
        .into_iter()
        .map(|adapter| (describe(&adapter), adapter))
        .collect();
    found.sort_by_key(|(info, _)| match info.kind {
        DeviceKind::DiscreteGpu => 0,
        DeviceKind::IntegratedGpu => 1,
        DeviceKind::VirtualGpu => 2,
        DeviceKind::Other | DeviceKind::Cpu => 3,
        DeviceKind::Software => 4,
    });
    found
}

fn describe(adapter: &wgpu::Adapter) -> DeviceInfo {
    let info = adapter.get_info();
    let limits = adapter.limits();
    DeviceInfo {
        name: info.name,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu,
            wgpu::DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu,
            wgpu::DeviceType::VirtualGpu => DeviceKind::VirtualGpu,
            wgpu::DeviceType::Cpu => DeviceKind::Software,
            wgpu::DeviceType::Other => DeviceKind::Other,
        },
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_binding_bytes: Some(limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)),
    }
}

/// Kernel and entry point.
type PipelineKey = (&'static str, &'static str);

/// An open adapter.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pool: Pool,
    /// Largest buffer in bytes.
    pub(super) limit: u64,
    name: String,
    pipelines: Mutex<HashMap<PipelineKey, wgpu::ComputePipeline>>,
    /// First fault that no command of ours caught: a lost device, an error on a driver thread.
    fault: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    pub(super) fn open(info: &DeviceInfo, adapter: &wgpu::Adapter) -> Result<Self, KernelError> {
        let refused = |reason: String| KernelError::DeviceOpen {
            adapter: info.name.clone(),
            reason,
        };
        let limits = adapter.limits();
        if limits.max_storage_buffers_per_shader_stage < STORAGE_BINDINGS
            || limits.max_compute_invocations_per_workgroup < WORKGROUP
            || limits.max_compute_workgroup_size_x < WORKGROUP
        {
            return Err(refused(format!(
                "it binds {} storage buffers and runs {} threads per workgroup; {STORAGE_BINDINGS} and {WORKGROUP} are needed",
                limits.max_storage_buffers_per_shader_stage, limits.max_compute_invocations_per_workgroup,
            )));
        }
        let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wellspring"),
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| refused(e.to_string()))?;
        let fault = Arc::new(Mutex::new(None));
        let note = |fault: &Arc<Mutex<Option<String>>>| {
            let fault = Arc::clone(fault);
            move |reason: String| {
                fault
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(reason);
            }
        };
        let uncaptured = note(&fault);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| uncaptured(e.to_string())));
        let lost = note(&fault);
        device.set_device_lost_callback(move |reason, words| {
            // Dropping the device ourselves is reported here too and is not a fault.
            if !matches!(reason, wgpu::DeviceLostReason::Destroyed) {
                lost(format!("device lost: {words}"));
            }
        });
        Ok(Self {
            device,
            queue,
            name: info.name.clone(),
            limit,
            pipelines: Mutex::default(),
            pool: Pool::default(),
            fault,
        })
    }

    /// Uploads `input` to `target`, runs `plan` and reads `outputs` back, one vector each.
    pub(super) fn execute(
        &self,
        what: &str,
        plan: &Plan,
        target: BufferId,
        input: &[u8],
        outputs: &[BufferId],
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        self.check(plan)?;
        if let Some(reason) = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(self.failed(what, reason));
        }
        let scopes = [
            wgpu::ErrorFilter::Validation,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Internal,
        ]
        .map(|filter| self.device.push_error_scope(filter));
        let result = self.record_and_read(what, plan, target, input, outputs);
        for scope in scopes.into_iter().rev() {
            match pollster::block_on(scope.pop()) {
                None => {}
                Some(wgpu::Error::OutOfMemory { .. }) => {
                    return Err(KernelError::OutOfMemory {
                        device: self.name.clone(),
                        what: what.to_owned(),
                    });
                }
                Some(e) => return Err(self.failed(what, e.to_string())),
            }
        }
        result
    }

    fn failed(&self, what: &str, reason: String) -> KernelError {
        KernelError::DeviceFailed {
            device: self.name.clone(),
            what: what.to_owned(),
            reason,
        }
    }

    /// Every buffer and dispatch against the adapter's limits, before anything is recorded.
    fn check(&self, plan: &Plan) -> Result<(), KernelError> {
        for spec in &plan.buffers {
            let bytes = spec.words as u64 * 4;
            if bytes > self.limit {
                return Err(KernelError::TooLarge {
                    kernel: spec.kernel,
                    bytes,
                    limit: self.limit,
                    device: self.name.clone(),
                });
            }
        }
        for op in &plan.ops {
            if let Op::Dispatch(d) = op
                && d.groups.iter().any(|g| u64::from(*g) > MAX_PLANES)
            {
                return Err(KernelError::Parameter {
                    kernel: d.kernel,
                    parameter: "planes",
                    value: format!("{:?} workgroups", d.groups),
                    expected: "an adapter takes at most 65535 planes at once; cut fewer tiles or use device `cpu`",
                });
            }
        }
        Ok(())
    }

    fn record_and_read(
        &self,
        what: &str,
        plan: &Plan,
        target: BufferId,
        input: &[u8],
        outputs: &[BufferId],
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        let mut buffers = Buffers::new(self, plan, target, outputs);
        self.upload(&buffers.get(target), input);
        let mut encoder = self
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (at, op) in plan.ops.iter().enumerate() {
            match op {
                Op::Clear(id) => {
                    let bytes = plan.buffers[id.0].words as u64 * 4;
                    encoder.clear_buffer(&buffers.get(*id), 0, Some(bytes));
                }
                Op::Dispatch(d) => self.record(&mut encoder, &mut buffers, plan, d),
            }
            buffers.release_after(at);
        }
        let sizes: Vec<u64> = outputs
            .iter()
            .map(|id| plan.buffers[id.0].words as u64 * 4)
            .collect();
        let total = sizes.iter().sum();
        let readback = self.pool.take(&self.device, READBACK, total, u64::MAX);
        let mut offset = 0;
        for (id, size) in outputs.iter().zip(&sizes) {
            encoder.copy_buffer_to_buffer(&buffers.get(*id), 0, &readback, offset, *size);
            offset += size;
        }
        let submission = self.queue.submit([encoder.finish()]);
        let (done, wait) = mpsc::sync_channel(1);
        readback.map_async(wgpu::MapMode::Read, 0..total, move |r| {
            // The receiver lives until the end of this function; nobody else needs the result.
            let _ = done.send(r);
        });
        self.device
            .poll(wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: None,
            })
            .map_err(|e| self.failed(what, e.to_string()))?;
        match wait.recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(self.failed(what, e.to_string())),
            Err(e) => return Err(self.failed(what, e.to_string())),
        }
        let mapped = readback
            .get_mapped_range(0..total)
            .map_err(|e| self.failed(what, e.to_string()))?;
        let mut words = Vec::with_capacity(outputs.len());
        let mut at = 0;
        for size in sizes {
            let end = at + size as usize;
            words.push(bytemuck::pod_collect_to_vec(&mapped[at..end]));
            at = end;
        }
        drop(mapped);
        readback.unmap();
        self.pool.give(readback);
        buffers.give_back();
        Ok(words)
    }

    fn upload(&self, buffer: &wgpu::Buffer, bytes: &[u8]) {
        // Writes are whole words; the last one is padded.
        let whole = bytes.len() / 4 * 4;
        self.queue.write_buffer(buffer, 0, &bytes[..whole]);
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(buffer, whole as u64, &last);
        }
    }

    fn pipeline(&self, d: &Dispatch) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(d.kernel),
                source: wgpu::ShaderSource::Wgsl(d.source.into()),
            });
            self.device
                .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(d.entry),
                    layout: None,
                    module: &module,
                    entry_point: Some(d.entry),
                    compilation_options: wgpu::PipelineCompilationOptions::default(),
                    cache: None,
                })
        };
        pipelines.entry((d.kernel, d.entry)).or_insert_with(make).clone()
    }

    fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &mut Buffers<'_>,
        plan: &Plan,
        d: &Dispatch,
    ) {
        let pipeline = self.pipeline(d);
        let mut params = d.params.clone();
        params.resize(params.len().next_multiple_of(4), 0);
        let uniform = (!params.is_empty()).then(|| buffers.uniform(&params));
        let bound: Vec<_> = d.bindings.iter().map(|(_, id)| buffers.get(*id)).collect();
        let mut entries: Vec<_> = uniform
            .iter()
            .map(|u| wgpu::BindGroupEntry {
                binding: 0,
                resource: bind(u, params.len()),
            })
            .collect();
        for ((binding, id), buffer) in d.bindings.iter().zip(&bound) {
            let resource = bind(buffer, plan.buffers[id.0].words);
            entries.push(wgpu::BindGroupEntry {
                binding: *binding,
                resource,
            });
        }
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(d.entry),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(d.groups[0], d.groups[1], d.groups[2]);
    }
}

/// Exactly the words of a plan buffer, which may be shorter than the pooled buffer behind it.
fn bind(buffer: &wgpu::Buffer, words: usize) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset: 0,
        size: wgpu::BufferSize::new(words as u64 * 4),
    })
}
