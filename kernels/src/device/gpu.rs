//! An open graphics adapter: its device, its limits, and what is kept between plans (idle buffers, constants; pipelines are in
//! `pipelines.rs`).
//! Enters: an adapter, then plans to be checked. Leaves: an open device. Fails if the driver refuses, and on a plan that does
//! not fit the adapter's limits, before anything is recorded. `submit.rs` runs the plans.

use std::sync::{Arc, Mutex, PoisonError};

use super::pipelines::Pipelines;
use super::pool::Pool;
use super::shared::Bus;
use super::{DeviceInfo, DeviceKind, DeviceOptions};
use crate::error::KernelError;
use crate::plan::{Op, Plan, WORKGROUP};

/// Usage of storage buffers.
pub(super) const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_DST)
    .union(wgpu::BufferUsages::COPY_SRC);
/// Usage of uniform buffers.
pub(super) const UNIFORM: wgpu::BufferUsages =
    wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
/// Usage of buffers that the processor reads.
pub(super) const READBACK: wgpu::BufferUsages =
    wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);

/// Storage buffers that the most demanding kernel binds at once.
const STORAGE_BINDINGS: u32 = 6;

/// Largest number of planes: the second dimension of a dispatch.
const MAX_PLANES: u64 = 65_535;

/// The adapters of this machine, best first.
pub(super) fn adapters(options: &DeviceOptions) -> Vec<(DeviceInfo, wgpu::Adapter)> {
    let descriptor = wgpu::InstanceDescriptor {
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<_> = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
        .into_iter()
        .map(|adapter| (describe(&adapter, options), adapter))
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

fn describe(adapter: &wgpu::Adapter, options: &DeviceOptions) -> DeviceInfo {
    let info = adapter.get_info();
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
        max_binding_bytes: Some(binding_limit(&adapter.limits(), options)),
    }
}

/// Bytes of the largest buffer that a shader can bind and we use.
fn binding_limit(limits: &wgpu::Limits, options: &DeviceOptions) -> u64 {
    let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    options.binding_bytes.map_or(limit, |bytes| bytes.min(limit))
}

/// Constants kept on the device, such as the illumination functions of a plate.
const KEPT_CONSTANTS: usize = 4;

/// An open adapter.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pool: Pool,
    /// Largest buffer in bytes.
    pub(super) limit: u64,
    /// Storage buffers that one dispatch can bind.
    bindings: usize,
    pub(super) name: String,
    /// Whether dispatches can be timed.
    pub(super) timestamps: bool,
    pub(super) pipelines: Pipelines,
    /// Constants that many plans have in common, the latest last, with their buffers.
    constants: Mutex<Vec<(Arc<Vec<f32>>, wgpu::Buffer)>>,
    /// First fault that no command of ours caught: a lost device, an error on a driver thread.
    pub(super) fault: Arc<Mutex<Option<String>>>,
    /// What crossed the bus; counted on when the device is opened anew.
    pub(super) bus: Bus,
}

impl Gpu {
    pub(super) fn open(
        info: &DeviceInfo,
        adapter: &wgpu::Adapter,
        options: &DeviceOptions,
        bus: Bus,
    ) -> Result<Self, KernelError> {
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
        let bindings = limits.max_storage_buffers_per_shader_stage as usize;
        let limit = binding_limit(&limits, options);
        // The last two are for networks that share the device.
        let optional = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::PIPELINE_CACHE
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wellspring"),
            required_limits: limits,
            required_features: adapter.features() & optional,
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
            pipelines: Pipelines::new(&device, &adapter.get_info(), options.pipelines.as_ref()),
            device,
            queue,
            name: info.name.clone(),
            timestamps: adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY),
            limit,
            bindings,
            constants: Mutex::default(),
            pool: Pool::default(),
            fault,
            bus,
        })
    }

    pub(super) fn fault(&self) -> Option<String> {
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

    pub(super) fn failed(&self, what: &str, reason: String) -> KernelError {
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
            let Op::Dispatch(d) = op else { continue };
            let bound = d.buffers().count();
            if bound > self.bindings {
                return Err(KernelError::Parameter {
                    kernel: d.kernel,
                    parameter: "storage buffers",
                    value: format!(
                        "{bound} in one dispatch, and `{}` binds {}",
                        self.name, self.bindings
                    ),
                    expected: "put fewer point-wise steps before this one, or use device `cpu`",
                });
            }
            if d.groups.iter().any(|g| u64::from(*g) > MAX_PLANES) {
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

    /// Frees what lies idle and what is kept for later plans.
    pub(super) fn forget(&self) {
        self.pool.clear();
        self.constants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
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
        self.bus.parameters(bytes.len() as u64);
        constants.push((Arc::clone(values), buffer.clone()));
        buffer
    }
}
