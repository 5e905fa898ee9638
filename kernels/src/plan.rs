//! A plan: the dispatches of a recipe over numbered device buffers, before any device is involved.
//! Enters: what kernels append. Leaves: a list that the device layer encodes in one submission. Cannot fail; the
//! device checks sizes against its limits before it encodes anything.

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
}

/// One compute dispatch.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Kernel name; with `entry` the key of the pipeline cache.
    pub kernel: &'static str,
    /// WGSL source of the whole module.
    pub source: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Uniform words at binding 0; empty where the entry point reads none.
    pub params: Vec<u32>,
    /// Storage buffers by binding number.
    pub bindings: Vec<(u32, BufferId)>,
    /// Workgroups in x, y, z.
    pub groups: [u32; 3],
}

/// One operation, in order.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Clear(BufferId),
    Dispatch(Dispatch),
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
        });
        BufferId(self.buffers.len() - 1)
    }

    /// A buffer filled with `words` before the first dispatch.
    pub fn constant(&mut self, kernel: &'static str, words: Vec<u32>) -> BufferId {
        self.buffers.push(BufferSpec {
            kernel,
            words: words.len().max(1),
            constant: Some(words),
        });
        BufferId(self.buffers.len() - 1)
    }

    /// Sets a buffer to zero.
    pub fn clear(&mut self, buffer: BufferId) {
        self.ops.push(Op::Clear(buffer));
    }

    /// Appends a dispatch.
    pub fn dispatch(&mut self, dispatch: Dispatch) {
        self.ops.push(Op::Dispatch(dispatch));
    }

    /// Number of dispatches.
    pub fn dispatches(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op, Op::Dispatch(_))).count()
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
