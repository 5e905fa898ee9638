//! The graphics device of an engine: found by a word and opened, or shared, and all that crosses its bus.
//!
//! Enters: the word of an adapter, or a device. Leaves: a device with its queue, compiled kernels, and bytes counted both ways.
//! Fails with what the driver says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::shaders;
use super::shared::SharedGpu;
use crate::weights::to_half;

/// Usage of buffers that kernels read and write.
pub(super) const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_DST)
    .union(wgpu::BufferUsages::COPY_SRC);

/// Storage buffers that the most demanding kernel binds.
const BINDINGS: u32 = 5;

/// What the device was doing when it failed, and what it said.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) action: &'static str,
    pub(super) reason: String,
}

impl Failed {
    pub(super) fn new(action: &'static str, reason: impl ToString) -> Self {
        Self {
            action,
            reason: reason.to_string(),
        }
    }
}

/// Vectors of four on the device, which kernels only read.
#[derive(Debug)]
pub(super) enum Vectors {
    Buffer(wgpu::Buffer),
    Image(wgpu::TextureView),
}

/// How the first `values` values of an image lie in it and in memory: whole rows at once, then what is left.
pub(super) fn regions(
    values: usize,
) -> impl Iterator<Item = (wgpu::Origin3d, wgpu::TexelCopyBufferLayout, wgpu::Extent3d)> {
    const WIDTH: usize = shaders::IMAGE_WIDTH;
    let texels = values / 4;
    let (rows, rest) = (texels / WIDTH, texels % WIDTH);
    [(0, WIDTH, rows), (rows, rest, usize::from(rest > 0))]
        .into_iter()
        .filter(|(.., height)| *height > 0)
        .map(|(y, width, height)| {
            let origin = wgpu::Origin3d {
                x: 0,
                y: y as u32,
                z: 0,
            };
            let layout = wgpu::TexelCopyBufferLayout {
                offset: (y * WIDTH) as u64 * 16,
                bytes_per_row: Some(WIDTH as u32 * 16),
                rows_per_image: None,
            };
            let size = wgpu::Extent3d {
                width: width as u32,
                height: height as u32,
                depth_or_array_layers: 1,
            };
            (origin, layout, size)
        })
}

/// A device that an engine computes on.
pub(super) struct Gpu {
    shared: SharedGpu,
    /// Largest binding, bytes.
    limit: u64,
    /// Whether rows may be handed round in a subgroup of at least eight threads.
    subgroups: bool,
    /// Whether matrices are multiplied in 16-bit floats.
    half: bool,
    /// Whether kernels read vectors from images: an adapter that is the processor loads what threads find in a buffer one
    /// value after the other, and what they find in an image together.
    images: bool,
    pipelines: HashMap<String, wgpu::ComputePipeline>,
}

/// The adapters of this machine, real ones first.
fn adapters() -> Vec<wgpu::Adapter> {
    let descriptor = wgpu::InstanceDescriptor {
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let mut found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    found.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    found
}

/// Whether the adapter at place `index`, counted from 1, is the one that `word` means.
fn suits(word: &str, index: usize, info: &wgpu::AdapterInfo) -> bool {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, VirtualGpu};
    match word {
        "gpu" => true,
        "discrete" => info.device_type == DiscreteGpu,
        "integrated" => info.device_type == IntegratedGpu,
        "virtual" => info.device_type == VirtualGpu,
        "software" => info.device_type == Cpu,
        _ => match word.strip_prefix('#') {
            Some(number) => number.parse() == Ok(index),
            None => info.name.to_lowercase().contains(&word.to_lowercase()),
        },
    }
}

fn count(counter: &AtomicU64, bytes: u64) {
    counter.fetch_add(bytes, Ordering::Relaxed);
}

impl Gpu {
    /// Opens the first adapter that `word` means, to multiply matrices in 16-bit floats where `half` says so; see
    /// [`crate::EngineChoice::Wgpu`].
    pub(super) fn open(word: &str, half: bool) -> Result<Self, Failed> {
        let found = adapters();
        let names: Vec<String> = found.iter().map(|adapter| adapter.get_info().name).collect();
        let adapter = (1..)
            .zip(&found)
            .find(|(index, adapter)| suits(word, *index, &adapter.get_info()));
        let Some((_, adapter)) = adapter else {
            let reason = if names.is_empty() {
                "this machine has no graphics adapter; Debian's mesa-vulkan-drivers is one in software"
                    .to_owned()
            } else {
                format!("this machine has {}", names.join(", "))
            };
            return Err(Failed::new("find an adapter for", reason));
        };
        let refused = |reason: String| Failed::new("open a device for", reason);
        let name = adapter.get_info().name;
        let mut features = adapter.features() & wgpu::Features::SUBGROUP;
        if half {
            features |= adapter.features() & wgpu::Features::SHADER_F16;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wellspring-embed"),
            required_limits: adapter.limits(),
            required_features: features,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| refused(error.to_string()))?;
        let fault = Arc::new(Mutex::new(None::<String>));
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
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| uncaptured(error.to_string())));
        let lost = note(&fault);
        device.set_device_lost_callback(move |reason, words| {
            // Dropping the device ourselves is reported here too and is no fault.
            if !matches!(reason, wgpu::DeviceLostReason::Destroyed) {
                lost(format!("device lost: {words}"));
            }
        });
        let shared = SharedGpu {
            device,
            queue,
            name,
            fault,
            pipelines: None,
            up: Arc::default(),
            parameters: Arc::default(),
            down: Arc::default(),
        };
        Self::on(shared, half)
    }

    /// Computes on a device that is open already.
    pub(super) fn on(shared: SharedGpu, half: bool) -> Result<Self, Failed> {
        let refused = |reason: String| Failed::new("use the device for", reason);
        let (name, limits) = (&shared.name, shared.device.limits());
        if limits.max_storage_buffers_per_shader_stage < BINDINGS
            || (limits.max_compute_invocations_per_workgroup as usize) < shaders::THREADS
        {
            return Err(refused(format!(
                "{name} binds {} storage buffers and runs {} threads per workgroup; {BINDINGS} and {} are needed",
                limits.max_storage_buffers_per_shader_stage,
                limits.max_compute_invocations_per_workgroup,
                shaders::THREADS,
            )));
        }
        let features = shared.device.features();
        if half && !features.contains(wgpu::Features::SHADER_F16) {
            return Err(refused(format!(
                "{name} has no 16-bit floats in shaders; leave out --wgpu-half"
            )));
        }
        let mut this = Self {
            limit: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            subgroups: false,
            half,
            images: !half
                && shared.device.adapter_info().device_type == wgpu::DeviceType::Cpu
                && limits.max_storage_textures_per_shader_stage as usize >= shaders::IMAGES
                && limits.max_texture_dimension_2d as usize >= shaders::IMAGE_WIDTH,
            shared,
            pipelines: HashMap::new(),
        };
        // What an adapter promises is the least of all its drivers' modes, so one is asked for what it does.
        if features.contains(wgpu::Features::SUBGROUP) {
            this.subgroups = this.subgroup_size()? >= 8;
        }
        Ok(this)
    }

    /// Threads of a subgroup in kernels of ours.
    fn subgroup_size(&mut self) -> Result<u32, Failed> {
        self.guarded("probe", |gpu| {
            let result = gpu.buffer(4)?;
            let mut plan = super::plan::Plan::new(result.clone(), 1);
            let bound = [super::plan::Bound::Buffer(&result)];
            plan.dispatch(gpu, shaders::subgroup_size(), &[1], &bound, [1, 1, 1])?;
            Ok(plan.run(gpu)?.first().map_or(0, |word| word.to_bits()))
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    pub(super) fn subgroups(&self) -> bool {
        self.subgroups
    }

    pub(super) fn half(&self) -> bool {
        self.half
    }

    pub(super) fn images(&self) -> bool {
        self.images
    }

    /// As on adapters without subgroups, or that read buffers.
    #[cfg(test)]
    pub(super) fn limited(mut self, subgroups: bool, images: bool) -> Self {
        self.subgroups &= subgroups;
        self.images &= images;
        self
    }

    /// The device.
    pub(super) fn shared(&self) -> &SharedGpu {
        &self.shared
    }

    /// Largest binding, bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Does `work` and turns what the driver refuses meanwhile into an error.
    pub(super) fn guarded<T>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        if let Some(reason) = self.shared.fault() {
            return Err(Failed::new(action, reason));
        }
        let scopes = [
            wgpu::ErrorFilter::Validation,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Internal,
        ]
        .map(|filter| self.shared.device.push_error_scope(filter));
        let result = work(self);
        let mut refused = None;
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                refused.get_or_insert(error);
            }
        }
        match refused {
            Some(error) => Err(Failed::new(action, error)),
            None => result,
        }
    }

    /// A buffer of `values` words; its content is undefined.
    pub(super) fn buffer(&self, values: usize) -> Result<wgpu::Buffer, Failed> {
        self.make(values, STORAGE)
    }

    fn make(&self, values: usize, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, Failed> {
        let size = (values as u64 * 4).next_multiple_of(16).max(16);
        if size > self.limit {
            let reason = format!(
                "a buffer of {size} bytes is needed, and it binds {} at most",
                self.limit
            );
            return Err(Failed::new("make room for", reason));
        }
        Ok(self.shared.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        }))
    }

    /// A buffer that the processor reads.
    pub(super) fn readback(&self, values: usize) -> Result<wgpu::Buffer, Failed> {
        self.make(
            values,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )
    }

    /// A buffer with these values.
    pub(super) fn constant(&mut self, values: &[f32]) -> Result<wgpu::Buffer, Failed> {
        let buffer = self.buffer(values.len())?;
        self.shared
            .queue
            .write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        count(&self.shared.parameters, values.len() as u64 * 4);
        Ok(buffer)
    }

    /// Vectors of four that never change.
    pub(super) fn vectors(&mut self, values: &[f32]) -> Result<Vectors, Failed> {
        if !self.images {
            return self.constant(values).map(Vectors::Buffer);
        }
        let image = self.image(values.len())?;
        for (origin, layout, size) in regions(values.len()) {
            let to = wgpu::TexelCopyTextureInfo {
                origin,
                ..image.as_image_copy()
            };
            let bytes = bytemuck::cast_slice(values);
            self.shared.queue.write_texture(to, bytes, layout, size);
        }
        count(&self.shared.parameters, values.len() as u64 * 4);
        Ok(Vectors::Image(
            image.create_view(&wgpu::TextureViewDescriptor::default()),
        ))
    }

    /// An image for `values` values, four to a texel, rows of texels following each other.
    pub(super) fn image(&self, values: usize) -> Result<wgpu::Texture, Failed> {
        let texels = values.div_ceil(4);
        let most = self.shared.device.limits().max_texture_dimension_2d;
        let height = texels.div_ceil(shaders::IMAGE_WIDTH).max(1) as u64;
        if height > u64::from(most) {
            let reason = format!("an image of {height} rows is needed, and it takes {most} at most");
            return Err(Failed::new("make room for", reason));
        }
        Ok(self.shared.device.create_texture(&wgpu::TextureDescriptor {
            label: None,
            size: wgpu::Extent3d {
                width: texels.clamp(1, shaders::IMAGE_WIDTH) as u32,
                height: height as u32,
                depth_or_array_layers: 1,
            },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba32Float,
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        }))
    }

    /// The weights of a matrix: 16-bit floats where products are made in them.
    pub(super) fn weights(&mut self, values: &[f32]) -> Result<Vectors, Failed> {
        if !self.half {
            return self.vectors(values);
        }
        let halves: Vec<u16> = values.iter().map(|&value| to_half(value)).collect();
        if let Some(at) = halves.iter().position(|half| half & 0x7c00 == 0x7c00) {
            let reason = format!(
                "a weight of {} is beyond 16-bit floats; leave out --wgpu-half",
                values[at]
            );
            return Err(Failed::new("bring the weights of", reason));
        }
        // Two halves in a word; weights come in whole vectors of four.
        let buffer = self.buffer(halves.len().div_ceil(2))?;
        self.shared
            .queue
            .write_buffer(&buffer, 0, bytemuck::cast_slice(&halves));
        count(&self.shared.parameters, halves.len() as u64 * 2);
        Ok(Vectors::Buffer(buffer))
    }

    /// A buffer of parameters.
    pub(super) fn uniform(&mut self, words: &[u32]) -> wgpu::Buffer {
        let buffer = self.shared.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: (words.len() as u64 * 4).next_multiple_of(16),
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.shared
            .queue
            .write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        count(&self.shared.parameters, words.len() as u64 * 4);
        buffer
    }

    /// Sends the pixels of images up.
    pub(super) fn upload(&mut self, buffer: &wgpu::Buffer, values: &[f32]) {
        self.shared
            .queue
            .write_buffer(buffer, 0, bytemuck::cast_slice(values));
        count(&self.shared.up, values.len() as u64 * 4);
    }

    /// The compiled form of a kernel.
    pub(super) fn pipeline(&mut self, source: String) -> wgpu::ComputePipeline {
        if let Some(known) = self.pipelines.get(&source) {
            return known.clone();
        }
        let module = self
            .shared
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: None,
                source: wgpu::ShaderSource::Wgsl(source.as_str().into()),
            });
        let pipeline = self
            .shared
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: self.shared.pipelines.as_ref().map(|(cache, _)| cache),
            });
        if let Some((_, grown)) = &self.shared.pipelines {
            grown.store(true, Ordering::Relaxed);
        }
        self.pipelines.insert(source, pipeline.clone());
        pipeline
    }

    /// Buffers and images at bindings 0, 1, ...
    pub(super) fn bind(
        &self,
        pipeline: &wgpu::ComputePipeline,
        bound: &[wgpu::BindingResource<'_>],
    ) -> wgpu::BindGroup {
        let entries: Vec<_> = (0..)
            .zip(bound)
            .map(|(binding, resource)| wgpu::BindGroupEntry {
                binding,
                resource: resource.clone(),
            })
            .collect();
        self.shared.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        self.shared
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// Submits commands whose last one fills `readback`, waits, and brings `values` of it down.
    pub(super) fn finish(
        &mut self,
        encoder: wgpu::CommandEncoder,
        readback: &wgpu::Buffer,
        values: usize,
    ) -> Result<Vec<f32>, Failed> {
        let failed = |reason: String| Failed::new("run", reason);
        let bytes = values as u64 * 4;
        let submission = self.shared.queue.submit([encoder.finish()]);
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        readback.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // The receiver lives until the result is there; nobody else needs it.
            let _ = done.send(result);
        });
        self.shared
            .device
            .poll(wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: None,
            })
            .map_err(|error| failed(error.to_string()))?;
        match wait.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(error) => return Err(failed(error.to_string())),
        }
        if let Some(reason) = self.shared.fault() {
            return Err(failed(reason));
        }
        let mapped = readback
            .get_mapped_range(0..bytes)
            .map_err(|error| failed(error.to_string()))?;
        let found = bytemuck::pod_collect_to_vec(&mapped[..]);
        drop(mapped);
        readback.unmap();
        count(&self.shared.down, bytes);
        Ok(found)
    }
}
