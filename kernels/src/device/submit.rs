//! Plans on an open adapter: one upload, all dispatches in one submission, one readback.
//! Enters: a plan that was checked, and its input, or a buffer that has it. Leaves: the words of its output buffers, now or
//! when asked, or an output that stays on the device. Fails with the driver's words if a command fails, and where memory
//! runs out.

use std::sync::mpsc;

use super::buffers::Buffers;
use super::clock::{Clock, KernelTime};
use super::gpu::{Gpu, READBACK, STORAGE};
use crate::error::KernelError;
use crate::plan::{BufferId, Dispatch, Op, Plan};

/// The words of each output, and the times of the dispatches.
type Timed = (Vec<Vec<u32>>, Option<Vec<KernelTime>>);

/// A plan with what it works on.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    /// In words, for errors.
    pub(super) what: &'static str,
    pub(super) plan: &'a Plan,
    /// The buffer of the input.
    pub(super) target: BufferId,
    pub(super) input: Input<'a>,
    pub(super) outputs: &'a [BufferId],
    pub(super) result: Outputs,
}

/// What a plan works on.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// Bytes that go up.
    Bytes(&'a [u8]),
    /// A buffer of the device that has them.
    There(&'a wgpu::Buffer),
}

/// What becomes of the outputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outputs {
    /// They are read back.
    Read,
    /// They are read back, and the dispatches are timed.
    Timed,
    /// They stay on the device.
    Kept,
}

/// Work that the device was given and has not handed back yet. Its buffers return to the pool when it is finished.
pub(super) struct Pending<'g> {
    what: &'static str,
    buffers: Buffers<'g>,
    /// None where the outputs stay.
    readback: Option<wgpu::Buffer>,
    sizes: Vec<u64>,
    submission: wgpu::SubmissionIndex,
    wait: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    clock: Option<Clock>,
}

impl Gpu {
    /// Checks a plan, runs it on its input and reads its outputs back, one vector each.
    pub(super) fn execute(&self, job: Job<'_>) -> Result<Vec<Vec<u32>>, KernelError> {
        self.check(job.plan)?;
        self.finish(self.start(job)?)
    }

    /// Runs a plan, which was checked, on its input and leaves its output on the device.
    pub(super) fn keep(&self, job: Job<'_>, output: BufferId) -> Result<wgpu::Buffer, KernelError> {
        let result = Outputs::Kept;
        let mut pending = self.start(Job { result, ..job })?;
        let kept = pending.buffers.take_out(output);
        self.finish(pending)?;
        Ok(kept)
    }

    /// Brings `bytes` to a buffer of its own.
    pub(super) fn load(&self, what: &'static str, bytes: &[u8]) -> Result<wgpu::Buffer, KernelError> {
        self.guarded(what, || {
            let words = bytes.len().div_ceil(4) as u64;
            let buffer = self.pool.take(&self.device, STORAGE, words * 4, self.limit);
            self.upload(&buffer, bytes);
            buffer
        })
    }

    /// The same, without waiting: [`Gpu::finish`] waits. The plan was checked.
    pub(super) fn start(&self, job: Job<'_>) -> Result<Pending<'_>, KernelError> {
        self.guarded(job.what, || self.record_all(job))
    }

    /// Does `work` and turns what the driver refuses meanwhile into an error.
    fn guarded<T>(&self, what: &'static str, work: impl FnOnce() -> T) -> Result<T, KernelError> {
        if let Some(reason) = self.fault() {
            return Err(self.failed(what, reason));
        }
        let scopes = [
            wgpu::ErrorFilter::Validation,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Internal,
        ]
        .map(|filter| self.device.push_error_scope(filter));
        let done = work();
        for scope in scopes.into_iter().rev() {
            match pollster::block_on(scope.pop()) {
                None => {}
                Some(wgpu::Error::OutOfMemory { .. }) => {
                    // What lies idle may be what was missing.
                    self.forget();
                    return Err(KernelError::OutOfMemory {
                        device: self.name.clone(),
                        what: what.to_owned(),
                    });
                }
                Some(e) => return Err(self.failed(what, e.to_string())),
            }
        }
        Ok(done)
    }

    fn record_all(&self, job: Job<'_>) -> Pending<'_> {
        let Job {
            what,
            plan,
            target,
            input,
            outputs,
            result,
        } = job;
        let there = match input {
            Input::There(buffer) => Some(buffer),
            Input::Bytes(_) => None,
        };
        let mut buffers = Buffers::new(self, plan, target, there, outputs);
        let clock = (result == Outputs::Timed && self.timestamps).then(|| Clock::new(&self.device, plan));
        if let Input::Bytes(bytes) = input {
            self.upload(&buffers.get(target), bytes);
        }
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
        let mut sizes: Vec<u64> = outputs
            .iter()
            .map(|id| plan.buffers[id.0].words as u64 * 4)
            .collect();
        let total = sizes.iter().sum();
        let readback = (result != Outputs::Kept).then(|| {
            let readback = self.pool.take(&self.device, READBACK, total, u64::MAX);
            let mut offset = 0;
            for (id, size) in outputs.iter().zip(&sizes) {
                encoder.copy_buffer_to_buffer(&buffers.get(*id), 0, &readback, offset, *size);
                offset += size;
            }
            readback
        });
        if readback.is_none() {
            sizes.clear();
        }
        if let Some(clock) = &clock {
            clock.resolve(&mut encoder);
        }
        let submission = self.queue.submit([encoder.finish()]);
        let (done, wait) = mpsc::sync_channel(2);
        let clock_done = done.clone();
        if let Some(readback) = &readback {
            readback.map_async(wgpu::MapMode::Read, 0..total, move |r| {
                // The receiver lives until the end of `finish`; nobody else needs the result.
                let _ = done.send(r);
            });
        }
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
        for _ in 0..usize::from(readback.is_some()) + usize::from(clock.is_some()) {
            match wait.recv() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(self.failed(what, e.to_string())),
                Err(e) => return Err(self.failed(what, e.to_string())),
            }
        }
        if let Some(reason) = self.fault() {
            return Err(self.failed(what, reason));
        }
        let mut words = Vec::with_capacity(sizes.len());
        if let Some(readback) = readback {
            let total = sizes.iter().sum();
            let mapped = readback
                .get_mapped_range(0..total)
                .map_err(|e| self.failed(what, e.to_string()))?;
            let mut at = 0;
            for size in sizes {
                let end = at + size as usize;
                words.push(bytemuck::pod_collect_to_vec(&mapped[at..end]));
                at = end;
            }
            drop(mapped);
            readback.unmap();
            self.bus.down(total);
            self.pool.give(readback);
        }
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
        self.bus.up(bytes.len() as u64);
        // Writes are whole words; the last one is padded.
        let whole = bytes.len() / 4 * 4;
        self.queue.write_buffer(buffer, 0, &bytes[..whole]);
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(buffer, whole as u64, &last);
        }
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
        let pipeline = self.pipelines.get(&self.device, d);
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
