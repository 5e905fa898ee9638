//! A plan: the dispatches of a recipe over numbered device buffers, before any device is involved.
//! Enters: what kernels append. Leaves: a list that the device layer encodes in one submission, and what each
//! dispatch moves. Cannot fail; the device checks sizes against its limits before it encodes anything.

use std::sync::Arc;

use crate::pixels::{self, Pixels};

/// A buffer of a plan, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferId(pub(crate) usize);

/// Size and content of a planned buffer.
#[derive(Debug, Clone)]
pub(crate) struct BufferSpec {
    /// Kernel that asked for it, for error messages.
    pub(crate) kernel: &'static str,
    /// Size in 32-bit words.
    pub(crate) words: usize,
    /// Content written before the first dispatch.
    pub(crate) constant: Option<Vec<u32>>,
    /// Content that the device keeps from plan to plan, known by its address.
    pub(crate) shared: Option<Arc<Vec<f32>>>,
}

/// One compute dispatch.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Kernel name; with `entry` and the chain of `pixels` the key of the pipeline cache.
    pub kernel: &'static str,
    /// WGSL source of the kernel's module, without the shared functions and `pixel`.
    pub source: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Uniform words at binding 0, in the order of the shader's `Params`; empty where the entry point reads none.
    pub params: Vec<u32>,
    /// What the entry point reads through `pixel`, if it does.
    pub pixels: Option<Pixels>,
    /// Whether it reads a few of them, or all only where an estimate failed, which is rare: they do not count as moved then.
    pub pixels_rarely: bool,
    /// What the entry point does to order statistics through `later`, if it does: the pixels whose operations from that
    /// number on it applies.
    pub later: Option<(Pixels, usize)>,
    /// Storage buffers that are read, by binding number.
    pub reads: Vec<(u32, BufferId)>,
    /// Storage buffers that are written (or updated), by binding number.
    pub writes: Vec<(u32, BufferId)>,
    /// Workgroups in x, y, z.
    pub groups: [u32; 3],
}

impl Dispatch {
    /// Every storage buffer it names.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = BufferId> + '_ {
        let named = self.reads.iter().chain(&self.writes).map(|(_, id)| *id);
        named.chain(self.pixels.iter().flat_map(Pixels::buffers))
    }
}

/// One operation, in order.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Clear(BufferId),
    Dispatch(Box<Dispatch>),
}

/// What one dispatch moves: every buffer it names, once, but not pixels that it rarely reads. Neighbours that are read again
/// come from the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Kernel name.
    pub kernel: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// The module that a dispatch runs, for those who want to read or check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shader {
    /// Kernel name.
    pub kernel: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// WGSL, with what was fused into it.
    pub source: String,
    /// Words that the dispatch gives for the shader's `Params`.
    pub params: usize,
}

/// Threads per workgroup in every shader of this crate.
pub const WORKGROUP: u32 = 256;

/// Upper bound of workgroups in x: threads stride over the rest, so any size fits one dispatch.
const MAX_GROUPS: usize = 16_384;

/// A list of operations over numbered buffers.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub(crate) buffers: Vec<BufferSpec>,
    pub(crate) ops: Vec<Op>,
}

impl Plan {
    /// A buffer of `words` 32-bit words whose content is undefined until written.
    pub fn buffer(&mut self, kernel: &'static str, words: usize) -> BufferId {
        self.buffers.push(BufferSpec {
            kernel,
            words: words.max(1),
            constant: None,
            shared: None,
        });
        BufferId(self.buffers.len() - 1)
    }

    /// A buffer filled with `words` before the first dispatch.
    pub fn constant(&mut self, kernel: &'static str, words: Vec<u32>) -> BufferId {
        self.buffers.push(BufferSpec {
            kernel,
            words: words.len().max(1),
            constant: Some(words),
            shared: None,
        });
        BufferId(self.buffers.len() - 1)
    }

    /// A constant that many plans have in common, such as an illumination function: the device keeps it.
    pub(crate) fn shared_constant(&mut self, kernel: &'static str, values: Arc<Vec<f32>>) -> BufferId {
        let id = self.buffer(kernel, values.len());
        self.buffers[id.0].shared = Some(values);
        id
    }

    /// Appends to the content of a constant.
    pub(crate) fn extend(&mut self, constant: BufferId, words: impl IntoIterator<Item = u32>) {
        let spec = &mut self.buffers[constant.0];
        let content = spec.constant.get_or_insert_default();
        content.extend(words);
        spec.words = content.len().max(1);
    }

    /// Sets a buffer to zero.
    pub fn clear(&mut self, buffer: BufferId) {
        self.ops.push(Op::Clear(buffer));
    }

    /// Appends a dispatch.
    pub fn dispatch(&mut self, dispatch: Dispatch) {
        self.ops.push(Op::Dispatch(Box::new(dispatch)));
    }

    /// The module of each dispatch, in order.
    pub fn shaders(&self) -> Vec<Shader> {
        let shader = |op: &Op| match op {
            Op::Clear(_) => None,
            Op::Dispatch(d) => Some(Shader {
                kernel: d.kernel,
                entry: d.entry,
                source: pixels::module(d),
                params: d.params.len(),
            }),
        };
        self.ops.iter().filter_map(shader).collect()
    }

    /// What each dispatch moves, in order.
    pub fn traffic(&self) -> Vec<Traffic> {
        let bytes = |id: &BufferId| self.buffers[id.0].words as u64 * 4;
        let dispatch = |op: &Op| match op {
            Op::Clear(_) => None,
            Op::Dispatch(d) => Some(Traffic {
                kernel: d.kernel,
                entry: d.entry,
                read: d.reads.iter().map(|(_, id)| bytes(id)).sum::<u64>()
                    + d.pixels
                        .iter()
                        .filter(|_| !d.pixels_rarely)
                        .flat_map(Pixels::buffers)
                        .map(|id| bytes(&id))
                        .sum::<u64>(),
                written: d.writes.iter().map(|(_, id)| bytes(id)).sum(),
            }),
        };
        self.ops.iter().filter_map(dispatch).collect()
    }
}

/// Workgroups in x for `count` threads, bounded; shaders stride over the rest.
pub(crate) fn groups_for(count: usize) -> u32 {
    count.div_ceil(WORKGROUP as usize).clamp(1, MAX_GROUPS) as u32
}

/// Bits of floats as words.
pub(crate) fn float_words(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}
