//! The device buffers behind one plan. Enters: buffer numbers. Leaves: buffers, taken from the pool at first use and
//! reused within the plan after their last reader. Cannot fail; sizes were checked before.
//!
//! Reuse inside one submission is safe because its commands run in order. Constants and uniforms are written before
//! the submission starts, so they are taken first and only pass to later writers.

use super::gpu::{Gpu, STORAGE, UNIFORM};
use crate::plan::{BufferId, Op, Plan};

/// In place of the last use: read back at the end.
const OUTPUT: usize = usize::MAX;
/// In place of the last use: belongs to somebody else and outlives the plan.
const KEPT: usize = usize::MAX - 1;

pub(super) struct Buffers<'g> {
    gpu: &'g Gpu,
    words: Vec<usize>,
    slots: Vec<Option<wgpu::Buffer>>,
    /// Index of the last operation that uses each buffer; outputs are never released.
    last_use: Vec<usize>,
    free: Vec<wgpu::Buffer>,
    uniforms: Vec<wgpu::Buffer>,
}

impl<'g> Buffers<'g> {
    /// Takes the buffers that are written before the first dispatch, and writes the constants. The input is a new buffer, or
    /// the one that has it already.
    pub(super) fn new(
        gpu: &'g Gpu,
        plan: &Plan,
        target: BufferId,
        there: Option<&wgpu::Buffer>,
        outputs: &[BufferId],
    ) -> Self {
        let mut last_use = vec![0; plan.buffers.len()];
        for (at, op) in plan.ops.iter().enumerate() {
            match op {
                Op::Clear(id) => last_use[id.0] = at,
                Op::Dispatch(d) => d.buffers().for_each(|id| last_use[id.0] = at),
            }
        }
        for id in outputs {
            last_use[id.0] = OUTPUT;
        }
        let mut this = Self {
            gpu,
            words: plan.buffers.iter().map(|b| b.words).collect(),
            slots: vec![None; plan.buffers.len()],
            last_use,
            free: Vec::new(),
            uniforms: Vec::new(),
        };
        if let Some(buffer) = there {
            this.slots[target.0] = Some(buffer.clone());
            this.last_use[target.0] = KEPT;
        }
        this.get(target);
        for (i, spec) in plan.buffers.iter().enumerate() {
            if let Some(values) = &spec.shared {
                this.slots[i] = Some(gpu.kept(values));
                this.last_use[i] = KEPT;
            }
            if let Some(words) = &spec.constant {
                let buffer = this.get(BufferId(i));
                gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
                gpu.bus.parameters(words.len() as u64 * 4);
            }
        }
        this
    }

    /// The buffer behind `id`.
    pub(super) fn get(&mut self, id: BufferId) -> wgpu::Buffer {
        if let Some(buffer) = &self.slots[id.0] {
            return buffer.clone();
        }
        let bytes = self.words[id.0] as u64 * 4;
        let fits = |b: &wgpu::Buffer| b.size() >= bytes && b.size() / 2 <= bytes.max(256);
        let buffer = match self.free.iter().position(fits) {
            Some(at) => self.free.swap_remove(at),
            None => self
                .gpu
                .pool
                .take(&self.gpu.device, STORAGE, bytes, self.gpu.limit),
        };
        self.slots[id.0] = Some(buffer.clone());
        buffer
    }

    /// A uniform buffer with `words`, whose count is a multiple of 4.
    pub(super) fn uniform(&mut self, words: &[u32]) -> wgpu::Buffer {
        let buffer = self
            .gpu
            .pool
            .take(&self.gpu.device, UNIFORM, words.len() as u64 * 4, u64::MAX);
        self.gpu
            .queue
            .write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        self.gpu.bus.parameters(words.len() as u64 * 4);
        self.uniforms.push(buffer.clone());
        buffer
    }

    /// Frees what operation `at` used last.
    pub(super) fn release_after(&mut self, at: usize) {
        for (slot, last) in self.slots.iter_mut().zip(&self.last_use) {
            if *last == at
                && let Some(buffer) = slot.take()
            {
                self.free.push(buffer);
            }
        }
    }

    /// An output that stays on the device: it is no longer the plan's.
    pub(super) fn take_out(&mut self, output: BufferId) -> wgpu::Buffer {
        let buffer = self.get(output);
        self.slots[output.0] = None;
        buffer
    }

    /// Gives everything back to the pool, once the device is done.
    pub(super) fn give_back(self) {
        let own = self
            .slots
            .into_iter()
            .zip(&self.last_use)
            .filter(|(_, last)| **last != KEPT);
        for buffer in own
            .filter_map(|(slot, _)| slot)
            .chain(self.free)
            .chain(self.uniforms)
        {
            self.gpu.pool.give(buffer);
        }
    }
}
