//! A network's dispatches for one size of a batch, recorded once and run as often as there are such batches.
//!
//! Enters: kernels with their parameters and buffers, in order, then images. Leaves: the values of the last buffer. Everything
//! but the images is on the device when a plan runs, so only these go up, and only the embeddings come down; images that are on
//! the device too are copied there, and looked through for values that are no grey levels: one more word comes down.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::device::{Failed, Gpu, Vectors, regions};
use super::shaders::{self, THREADS};
use super::shared::Piece;
use crate::batch::GREY_SLACK;

/// Workgroups along one dimension at most; every adapter takes as many.
pub(super) const MOST_GROUPS: usize = 65_535;

/// What a kernel binds.
#[derive(Clone, Copy)]
pub(super) enum Bound<'a> {
    /// A buffer.
    Buffer(&'a wgpu::Buffer),
    /// Vectors that never change.
    Constant(&'a Vectors),
    /// The first so many values of a map, which the kernel reads as vectors: where kernels read images, in one that they
    /// are copied to before. A kernel reads one such map at most: two of one size would go to one image.
    Map(&'a wgpu::Buffer, usize),
}

impl<'a> Bound<'a> {
    /// What is bound, or its copy in an image.
    fn resource(self, copy: Option<&'a wgpu::TextureView>) -> wgpu::BindingResource<'a> {
        match (self, copy) {
            (_, Some(view)) | (Self::Constant(Vectors::Image(view)), None) => {
                wgpu::BindingResource::TextureView(view)
            }
            (Self::Buffer(buffer) | Self::Map(buffer, _) | Self::Constant(Vectors::Buffer(buffer)), None) => {
                buffer.as_entire_binding()
            }
        }
    }
}

/// A map copied to the image that a kernel reads.
struct Mirror {
    map: wgpu::Buffer,
    values: usize,
    image: wgpu::Texture,
}

/// Images that maps are copied to, by the number of their values; the next map of that size goes to the same one.
type Images = HashMap<usize, wgpu::Texture>;

/// One dispatch, and what is copied before it.
struct Step {
    mirrors: Vec<Mirror>,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: [u32; 3],
}

/// The same values copied to the same place before each run.
struct Copy {
    from: wgpu::Buffer,
    to: wgpu::Buffer,
    /// Bytes.
    offset: u64,
    bytes: u64,
}

/// What looks for values that are no grey levels.
struct Check {
    step: Step,
    /// One word: the number of values from the first such on, 0 where there is none.
    found: wgpu::Buffer,
}

/// What a run gave.
pub(super) struct Run {
    pub(super) values: Vec<f32>,
    /// The place of the first value that is no grey level, and that value, where the images were on the device.
    pub(super) refused: Option<(usize, f32)>,
}

/// A recorded plan.
pub(super) struct Plan {
    copies: Vec<Copy>,
    steps: Vec<Step>,
    images: Images,
    output: wgpu::Buffer,
    values: usize,
    readback: Option<wgpu::Buffer>,
    check: Option<Check>,
}

impl Plan {
    /// A plan that ends with `values` values in `output`.
    pub(super) fn new(output: wgpu::Buffer, values: usize) -> Self {
        Self {
            copies: Vec::new(),
            steps: Vec::new(),
            images: Images::new(),
            output,
            values,
            readback: None,
            check: None,
        }
    }

    /// Dispatches of one run.
    #[cfg(test)]
    pub(super) fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// Adds a kernel: its text, its parameters, what it binds, and its workgroups.
    pub(super) fn dispatch(
        &mut self,
        gpu: &mut Gpu,
        source: String,
        parameters: &[u32],
        bound: &[Bound<'_>],
        groups: [usize; 3],
    ) -> Result<(), Failed> {
        let step = Step::new(gpu, source, parameters, (bound, &mut self.images), groups)?;
        self.steps.push(step);
        Ok(())
    }

    /// Adds a copy of `values` values of `from` to place `at` of `to`.
    pub(super) fn copy(&mut self, from: &wgpu::Buffer, to: &wgpu::Buffer, at: usize, values: usize) {
        self.copies.push(Copy {
            from: from.clone(),
            to: to.clone(),
            offset: at as u64 * 4,
            bytes: values as u64 * 4,
        });
    }

    /// Runs it on what its input holds, and brings the output down.
    pub(super) fn run(&mut self, gpu: &mut Gpu) -> Result<Vec<f32>, Failed> {
        let encoder = gpu.encoder();
        self.submit(gpu, encoder, self.values)
    }

    /// Runs it on the images of `pieces`, which fill `input`.
    pub(super) fn run_on(
        &mut self,
        gpu: &mut Gpu,
        input: &wgpu::Buffer,
        pieces: &[Piece<'_>],
    ) -> Result<Run, Failed> {
        let count: usize = pieces.iter().map(|piece| piece.values).sum();
        let check = match self.check.take() {
            Some(check) => check,
            None => Check::new(gpu, input, count)?,
        };
        let mut encoder = gpu.encoder();
        let mut at = 0;
        for piece in pieces {
            let bytes = piece.values as u64 * 4;
            encoder.copy_buffer_to_buffer(piece.buffer, piece.at as u64 * 4, input, at, bytes);
            at += bytes;
        }
        encoder.clear_buffer(&check.found, 0, None);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        check.step.record(&mut pass);
        drop(pass);
        let readback = self.readback(gpu)?;
        encoder.copy_buffer_to_buffer(&check.found, 0, &readback, self.values as u64 * 4, 4);
        self.check = Some(check);
        let mut values = self.submit(gpu, encoder, self.values + 1)?;
        let from_end = values.pop().map_or(0, f32::to_bits) as usize;
        let refused = match from_end {
            0 => None,
            _ => {
                let place = count.saturating_sub(from_end);
                let mut encoder = gpu.encoder();
                encoder.copy_buffer_to_buffer(input, place as u64 * 4, &readback, 0, 4);
                let value = gpu.finish(encoder, &readback, 1)?;
                Some((place, value.first().copied().unwrap_or(f32::NAN)))
            }
        };
        Ok(Run { values, refused })
    }

    /// Adds the plan's commands to `encoder`, and brings so many values of its readback down.
    fn submit(
        &mut self,
        gpu: &mut Gpu,
        mut encoder: wgpu::CommandEncoder,
        values: usize,
    ) -> Result<Vec<f32>, Failed> {
        let readback = self.readback(gpu)?;
        for copy in &self.copies {
            encoder.copy_buffer_to_buffer(&copy.from, 0, &copy.to, copy.offset, copy.bytes);
        }
        // A pass goes on until something is copied.
        for steps in self.steps.chunk_by(|_, next| next.mirrors.is_empty()) {
            for mirror in steps.iter().flat_map(|step| &step.mirrors) {
                mirror.record(&mut encoder);
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for step in steps {
                step.record(&mut pass);
            }
        }
        encoder.copy_buffer_to_buffer(&self.output, 0, &readback, 0, self.values as u64 * 4);
        gpu.finish(encoder, &readback, values)
    }

    /// Room for the output and one word.
    fn readback(&mut self, gpu: &Gpu) -> Result<wgpu::Buffer, Failed> {
        let readback = match self.readback.take() {
            Some(readback) => readback,
            None => gpu.readback(self.values + 1)?,
        };
        self.readback = Some(readback.clone());
        Ok(readback)
    }
}

impl Step {
    fn new(
        gpu: &mut Gpu,
        source: String,
        parameters: &[u32],
        (bound, images): (&[Bound<'_>], &mut Images),
        groups: [usize; 3],
    ) -> Result<Self, Failed> {
        if groups.iter().any(|&n| n > MOST_GROUPS) {
            let reason =
                format!("{groups:?} workgroups are needed, and {MOST_GROUPS} are the most in one dimension");
            return Err(Failed::new("make room for", reason));
        }
        let pipeline = gpu.pipeline(source);
        let uniform = gpu.uniform(parameters);
        let mut mirrors = Vec::new();
        let mut views = Vec::new();
        for bound in bound {
            views.push(match *bound {
                Bound::Map(map, values) if gpu.images() => {
                    let image = match images.entry(values) {
                        Entry::Occupied(entry) => entry.into_mut(),
                        Entry::Vacant(entry) => entry.insert(gpu.image(values)?),
                    };
                    mirrors.push(Mirror {
                        map: map.clone(),
                        values,
                        image: image.clone(),
                    });
                    Some(image.create_view(&wgpu::TextureViewDescriptor::default()))
                }
                _ => None,
            });
        }
        let mut resources = vec![uniform.as_entire_binding()];
        resources.extend(
            bound
                .iter()
                .zip(&views)
                .map(|(bound, view)| bound.resource(view.as_ref())),
        );
        let group = gpu.bind(&pipeline, &resources);
        Ok(Self {
            mirrors,
            pipeline,
            group,
            groups: groups.map(|n| n as u32),
        })
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = self.groups;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Mirror {
    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        for (origin, layout, size) in regions(self.values) {
            let from = wgpu::TexelCopyBufferInfo {
                buffer: &self.map,
                layout,
            };
            let to = wgpu::TexelCopyTextureInfo {
                origin,
                ..self.image.as_image_copy()
            };
            encoder.copy_buffer_to_texture(from, to, size);
        }
    }
}

impl Check {
    /// Of the first `count` values of `levels`.
    fn new(gpu: &mut Gpu, levels: &wgpu::Buffer, count: usize) -> Result<Self, Failed> {
        let found = gpu.buffer(1)?;
        let (low, high) = (-GREY_SLACK, 255.0 + GREY_SLACK);
        let parameters = [count as u32, (-low).to_bits(), high.to_bits()];
        let bound = [Bound::Buffer(levels), Bound::Buffer(&found)];
        let step = Step::new(
            gpu,
            shaders::grey_levels(),
            &parameters,
            (&bound, &mut Images::new()),
            groups_of(count),
        )?;
        Ok(Self { step, found })
    }
}

/// Workgroups for `count` values, one thread each.
pub(super) fn groups_of(count: usize) -> [usize; 3] {
    spread(count.div_ceil(THREADS))
}

/// `groups` workgroups in as many rows as needed.
pub(super) fn spread(groups: usize) -> [usize; 3] {
    [
        groups.clamp(1, MOST_GROUPS),
        groups.div_ceil(MOST_GROUPS).max(1),
        1,
    ]
}
