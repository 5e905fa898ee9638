//! Runs plans on a graphics adapter: one upload, all dispatches in one submission, one readback.
//! Enters: a plan and its input. Leaves: the words of its output buffers. Fails before any dispatch if a buffer is
//! larger than the adapter binds, and with the driver's words if a command fails. Pipelines are cached and buffers
//! reused; within a plan a buffer is reused as soon as its last reader is recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use super::buffers::Buffers;
use super::clock::Clock;
pub use super::clock::KernelTime;
use super::pool::Pool;
use super::{DeviceInfo, DeviceKind};
use crate::error::KernelError;
use crate::pixels::{self, Pixels};
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
const STORAGE_BINDINGS: u32 = 7;

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

/// Constants kept on the device, such as the illumination functions of a plate.
const KEPT_CONSTANTS: usize = 4;

/// Kernel, entry point, and what was fused into it.
type PipelineKey = (&'static str, &'static str, String);

/// The words of each output, and the times of the dispatches.
type Timed = (Vec<Vec<u32>>, Option<Vec<KernelTime>>);

/// Work that the device was given and has not handed back yet. Its buffers return to the pool when it is finished.
pub(super) struct Pending<'g> {
    what: &'static str,
    buffers: Buffers<'g>,
    readback: wgpu::Buffer,
    sizes: Vec<u64>,
    submission: wgpu::SubmissionIndex,
    wait: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    clock: Option<Clock>,
}

/// An open adapter.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pool: Pool,
    /// Largest buffer in bytes.
    pub(super) limit: u64,
    name: String,
    /// Whether dispatches can be timed.
    timestamps: bool,
    pipelines: Mutex<HashMap<PipelineKey, wgpu::ComputePipeline>>,
    /// Constants that many plans have in common, the latest last, with their buffers.
    constants: Mutex<Vec<(Arc<Vec<f32>>, wgpu::Buffer)>>,
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
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
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
            timestamps: adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY),
            limit,
            pipelines: Mutex::default(),
            constants: Mutex::default(),
            pool: Pool::default(),
            fault,
        })
    }

    /// Uploads `input` to `target`, runs `plan` and reads `outputs` back, one vector each.
    pub(super) fn execute(
        &self,
        what: &'static str,
        plan: &Plan,
        target: BufferId,
        input: &[u8],
        outputs: &[BufferId],
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        self.check(plan)?;
        self.finish(self.start(what, plan, target, input, outputs, false)?)
    }

    /// The same, without waiting: [`Gpu::finish`] waits. The plan was checked.
    pub(super) fn start(
        &self,
        what: &'static str,
        plan: &Plan,
        target: BufferId,
        input: &[u8],
        outputs: &[BufferId],
        timed: bool,
    ) -> Result<Pending<'_>, KernelError> {
        if let Some(reason) = self.fault() {
            return Err(self.failed(what, reason));
        }
        let scopes = [
            wgpu::ErrorFilter::Validation,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Internal,
        ]
        .map(|filter| self.device.push_error_scope(filter));
        let pending = self.record_all(what, plan, target, input, outputs, timed);
        for scope in scopes.into_iter().rev() {
            match pollster::block_on(scope.pop()) {
                None => {}
                Some(wgpu::Error::OutOfMemory { .. }) => {
                    // What lies idle may be what was missing.
                    self.pool.clear();
                    return Err(KernelError::OutOfMemory {
                        device: self.name.clone(),
                        what: what.to_owned(),
                    });
                }
                Some(e) => return Err(self.failed(what, e.to_string())),
            }
        }
        Ok(pending)
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the device is lost, or failed where no command of ours caught it.
    pub(super) fn is_broken(&self) -> bool {
        self.fault().is_some()
    }

    /// Ends the device as a reset of the driver does.
    pub(super) fn lose(&self) {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| "device lost: ended by `lose`".into());
        self.device.destroy();
    }

    fn failed(&self, what: &str, reason: String) -> KernelError {
        KernelError::DeviceFailed {
            device: self.name.clone(),
            what: what.to_owned(),
            reason,
        }
    }

    /// Every buffer and dispatch against the adapter's limits, before anything is recorded.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), KernelError> {
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

    fn record_all<'g>(
        &'g self,
        what: &'static str,
        plan: &Plan,
        target: BufferId,
        input: &[u8],
        outputs: &[BufferId],
        timed: bool,
    ) -> Pending<'g> {
        let mut buffers = Buffers::new(self, plan, target, outputs);
        let clock = (timed && self.timestamps).then(|| Clock::new(&self.device, plan));
        self.upload(&buffers.get(target), input);
        let mut encoder = self
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut dispatches = 0;
        for (at, op) in plan.ops.iter().enumerate() {
            match op {
                Op::Clear(id) => {
                    let bytes = plan.buffers[id.0].words as u64 * 4;
                    encoder.clear_buffer(&buffers.get(*id), 0, Some(bytes));
                }
                Op::Dispatch(d) => {
                    let writes = clock.as_ref().map(|c| c.around(dispatches));
                    self.record(&mut encoder, &mut buffers, plan, d, writes);
                    dispatches += 1;
                }
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
        if let Some(clock) = &clock {
            clock.resolve(&mut encoder);
        }
        let submission = self.queue.submit([encoder.finish()]);
        let (done, wait) = mpsc::sync_channel(2);
        let clock_done = done.clone();
        readback.map_async(wgpu::MapMode::Read, 0..total, move |r| {
            // The receiver lives until the end of `finish`; nobody else needs the result.
            let _ = done.send(r);
        });
        if let Some(clock) = &clock {
            clock.readback.map_async(wgpu::MapMode::Read, .., move |r| {
                let _ = clock_done.send(r);
            });
        }
        Pending {
            what,
            buffers,
            readback,
            sizes,
            submission,
            wait,
            clock,
        }
    }

    /// Waits for what [`Gpu::start`] started.
    pub(super) fn finish(&self, pending: Pending<'_>) -> Result<Vec<Vec<u32>>, KernelError> {
        Ok(self.finish_timed(pending)?.0)
    }

    /// The same, with the times of the dispatches if they were asked for and can be had.
    pub(super) fn finish_timed(&self, pending: Pending<'_>) -> Result<Timed, KernelError> {
        let Pending {
            what,
            buffers,
            readback,
            sizes,
            submission,
            wait,
            clock,
        } = pending;
        self.device
            .poll(wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: None,
            })
            .map_err(|e| self.failed(what, e.to_string()))?;
        for _ in 0..=usize::from(clock.is_some()) {
            match wait.recv() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(self.failed(what, e.to_string())),
                Err(e) => return Err(self.failed(what, e.to_string())),
            }
        }
        if let Some(reason) = self.fault() {
            return Err(self.failed(what, reason));
        }
        let total = sizes.iter().sum();
        let mapped = readback
            .get_mapped_range(0..total)
            .map_err(|e| self.failed(what, e.to_string()))?;
        let mut words = Vec::with_capacity(sizes.len());
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
        let times = match clock {
            None => None,
            Some(clock) => {
                let period = self.queue.get_timestamp_period();
                Some(clock.times(period).map_err(|e| self.failed(what, e))?)
            }
        };
        Ok((words, times))
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

    /// The buffer of a constant, uploaded at its first use. A plan that still runs keeps its own handle of a buffer that
    /// is forgotten here.
    pub(super) fn kept(&self, values: &Arc<Vec<f32>>) -> wgpu::Buffer {
        let mut constants = self.constants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = constants.iter().position(|(known, _)| Arc::ptr_eq(known, values)) {
            let found = constants.remove(at);
            let buffer = found.1.clone();
            constants.push(found);
            return buffer;
        }
        if constants.len() >= KEPT_CONSTANTS {
            constants.remove(0);
        }
        let bytes = bytemuck::cast_slice(values);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("constant"),
            size: bytes.len() as u64,
            usage: STORAGE,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytes);
        constants.push((Arc::clone(values), buffer.clone()));
        buffer
    }

    fn pipeline(&self, d: &Dispatch) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let fused = d.pixels.as_ref().map(Pixels::key).unwrap_or_default();
        let later = d
            .later
            .as_ref()
            .map(|(pixels, from)| pixels.later_key(*from))
            .unwrap_or_default();
        let make = || {
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(d.kernel),
                source: wgpu::ShaderSource::Wgsl(pixels::module(d).into()),
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
        pipelines
            .entry((d.kernel, d.entry, fused + &later))
            .or_insert_with(make)
            .clone()
    }

    /// A group of one uniform (at binding 0, unless it is empty) and storage buffers.
    fn bind_group(
        &self,
        buffers: &mut Buffers<'_>,
        plan: &Plan,
        pipeline: &wgpu::ComputePipeline,
        index: u32,
        params: &[u32],
        storage: Vec<(u32, BufferId)>,
    ) -> wgpu::BindGroup {
        let mut params = params.to_vec();
        params.resize(params.len().next_multiple_of(4), 0);
        let uniform = (!params.is_empty()).then(|| buffers.uniform(&params));
        let bound: Vec<_> = storage.iter().map(|(_, id)| buffers.get(*id)).collect();
        let mut entries: Vec<_> = uniform
            .iter()
            .map(|u| wgpu::BindGroupEntry {
                binding: 0,
                resource: bind(u, params.len()),
            })
            .collect();
        for ((binding, id), buffer) in storage.iter().zip(&bound) {
            entries.push(wgpu::BindGroupEntry {
                binding: *binding,
                resource: bind(buffer, plan.buffers[id.0].words),
            });
        }
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(index),
            entries: &entries,
        })
    }

    fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &mut Buffers<'_>,
        plan: &Plan,
        d: &Dispatch,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let pipeline = self.pipeline(d);
        let storage = d
            .reads
            .iter()
            .chain(&d.writes)
            .map(|(binding, id)| (*binding, *id))
            .collect();
        let own = self.bind_group(buffers, plan, &pipeline, 0, &d.params, storage);
        let read = d.pixels.as_ref().map(|pixels| {
            let storage = (1..).zip(pixels.buffers()).collect();
            self.bind_group(buffers, plan, &pipeline, 1, &pixels.params(), storage)
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(d.entry),
            timestamp_writes,
        });
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &own, &[]);
        if let Some(read) = &read {
            pass.set_bind_group(1, read, &[]);
        }
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
