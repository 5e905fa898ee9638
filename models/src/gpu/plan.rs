//! A network's dispatches for one size of a batch, recorded once and run as often as there are such batches.
//!
//! Enters: kernels with their parameters and buffers, in order. Leaves: the values of the last buffer. Everything but the
//! images is on the device when a plan runs, so only these go up, and only the embeddings come down.

use super::device::{Failed, Gpu};
use super::shaders::THREADS;

/// Workgroups along one dimension at most; every adapter takes as many.
pub(super) const MOST_GROUPS: usize = 65_535;

/// One dispatch.
struct Step {
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

/// A recorded plan.
pub(super) struct Plan {
    copies: Vec<Copy>,
    steps: Vec<Step>,
    output: wgpu::Buffer,
    values: usize,
    readback: Option<wgpu::Buffer>,
}

impl Plan {
    /// A plan that ends with `values` values in `output`.
    pub(super) fn new(output: wgpu::Buffer, values: usize) -> Self {
        Self {
            copies: Vec::new(),
            steps: Vec::new(),
            output,
            values,
            readback: None,
        }
    }

    /// Dispatches of one run.
    #[cfg(test)]
    pub(super) fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// Adds a kernel: its text, its parameters, its storage buffers, and its workgroups.
    pub(super) fn dispatch(
        &mut self,
        gpu: &mut Gpu,
        source: String,
        parameters: &[u32],
        buffers: &[&wgpu::Buffer],
        groups: [usize; 3],
    ) -> Result<(), Failed> {
        if groups.iter().any(|&n| n > MOST_GROUPS) {
            let reason =
                format!("{groups:?} workgroups are needed, and {MOST_GROUPS} are the most in one dimension");
            return Err(Failed::new("make room for", reason));
        }
        let pipeline = gpu.pipeline(source);
        let uniform = gpu.uniform(parameters);
        let bound: Vec<&wgpu::Buffer> = std::iter::once(&uniform).chain(buffers.iter().copied()).collect();
        let group = gpu.bind(&pipeline, &bound);
        self.steps.push(Step {
            pipeline,
            group,
            groups: groups.map(|n| n as u32),
        });
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

    /// Runs it, and brings the output down.
    pub(super) fn run(&mut self, gpu: &mut Gpu) -> Result<Vec<f32>, Failed> {
        let readback = match &self.readback {
            Some(readback) => readback.clone(),
            None => gpu.readback(self.values)?,
        };
        self.readback = Some(readback.clone());
        let mut encoder = gpu.encoder();
        for copy in &self.copies {
            encoder.copy_buffer_to_buffer(&copy.from, 0, &copy.to, copy.offset, copy.bytes);
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for step in &self.steps {
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &step.group, &[]);
            let [x, y, z] = step.groups;
            pass.dispatch_workgroups(x, y, z);
        }
        drop(pass);
        encoder.copy_buffer_to_buffer(&self.output, 0, &readback, 0, self.values as u64 * 4);
        gpu.finish(encoder, &readback, self.values)
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
