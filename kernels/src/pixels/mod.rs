//! Pixels: the GPU twin of [`crate::rows::Rows`]. A buffer read through a chain of pending point-wise operations, so
//! that adjacent kernels are one dispatch: the chain becomes the function `pixel(plane, at)` of the next shader.
//! Enters: the buffer of a raw image (two pixels to a word) or of floats, and operations. Leaves: WGSL, and the buffers
//! behind it. Cannot fail.

use std::fmt::Write as _;

use crate::flat_field::Illumination;
use crate::kernel::Shape;
use crate::order_statistics::Order;
use crate::plan::{BufferId, Dispatch, Plan, float_words, groups_for};
use crate::point::PointFn;

/// WGSL that every shader may use.
const PRELUDE: &str = include_str!("prelude.wgsl");
/// In place of `pixel`, `pair` and `later` where a dispatch needs none of them.
const NO_PIXEL: &str = "fn open_plane(plane: u32) {}\nfn pixel(plane: u32, at: u32) -> f32 { return 0.0; }\n\
                        fn pair(plane: u32, at: u32) -> vec2<f32> { return vec2<f32>(0.0); }\n";
const NO_LATER: &str = "fn later(v: f32, plane: u32) -> f32 { return v; }\n";

const PACKED_PIXEL: &str = "fn pixel(plane: u32, at: u32) -> f32 {
    let i = plane * chain.plane + at;
    return through(f32((base[i >> 1u] >> ((i & 1u) * 16u)) & 0xffffu), plane, at);
}
";
const FLOAT_PIXEL: &str = "fn pixel(plane: u32, at: u32) -> f32 {
    return through(bitcast<f32>(base[plane * chain.plane + at]), plane, at);
}
";
const WORD_PAIR: &str = "fn pair(plane: u32, at: u32) -> vec2<f32> {
    let word = base[(plane * chain.plane + at) >> 1u];
    return vec2<f32>(through(f32(word & 0xffffu), plane, at), through(f32(word >> 16u), plane, at + 1u));
}
";
const TWO_PIXELS: &str = "fn pair(plane: u32, at: u32) -> vec2<f32> {
    return vec2<f32>(pixel(plane, at), pixel(plane, min(at + 1u, chain.plane - 1u)));
}
";

/// The whole module of a dispatch.
pub(crate) fn module(dispatch: &Dispatch) -> String {
    let pixel = dispatch.pixels.as_ref().map_or(NO_PIXEL.into(), Pixels::source);
    let later = dispatch
        .later
        .as_ref()
        .map_or(NO_LATER.into(), |(pixels, from)| pixels.later_source(*from));
    [PRELUDE, &pixel, &later, dispatch.source].concat()
}

/// How the planes of a map belong to the planes of the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MapPlanes {
    /// One for all.
    Shared,
    /// One per channel of one item.
    Each,
    /// One per channel of several items.
    Repeated,
}

/// A plane-sized constant beside the pixels.
#[derive(Debug, Clone, Copy)]
struct Map {
    buffer: BufferId,
    planes: MapPlanes,
}

/// A buffer with pending point-wise operations.
#[derive(Debug, Clone)]
pub struct Pixels {
    shape: Shape,
    base: BufferId,
    packed: bool,
    ops: Vec<&'static PointFn>,
    /// Four numbers per operation and plane.
    levels: Option<BufferId>,
    map: Option<Map>,
    /// Order statistics found so far, as long as they hold.
    order: Option<Order>,
}

impl Pixels {
    /// A raw image, two pixels to a word, the even one in the low half.
    pub(crate) fn packed(base: BufferId, shape: Shape) -> Self {
        Self {
            packed: true,
            ..Self::float(base, shape)
        }
    }

    /// Floats in [`Shape`] order.
    pub(crate) fn float(base: BufferId, shape: Shape) -> Self {
        Self {
            shape,
            base,
            packed: false,
            ops: Vec::new(),
            levels: None,
            map: None,
            order: None,
        }
    }

    /// Items, channels, height, width.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Items times channels.
    pub(crate) fn planes(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Pixels of one plane.
    pub(crate) fn plane_len(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    /// Raw integers, which fewer bits can rank.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed
    }

    /// Pending operations.
    pub(crate) fn ops(&self) -> &[&'static PointFn] {
        &self.ops
    }

    pub(crate) fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }

    pub(crate) fn set_order(&mut self, order: Order) {
        self.order = Some(order);
    }

    /// The pixels as the first `count` operations leave them.
    pub(crate) fn prefix(&self, count: usize) -> Self {
        let mut first = self.clone();
        first.ops.truncate(count);
        if !first.ops.iter().any(|f| f.map) {
            first.map = None;
        }
        first
    }

    /// Appends an operation whose numbers are known.
    pub(crate) fn then(
        self,
        plan: &mut Plan,
        function: &'static PointFn,
        levels: impl Fn(usize) -> [f32; 4],
        map: Option<&Illumination>,
    ) -> Self {
        let mut this = if map.is_some() && self.map.is_some() {
            self.stored(plan)
        } else {
            self
        };
        let numbers = (0..this.planes()).flat_map(levels);
        let slots = this.slots(plan, function);
        plan.extend(slots, float_words(numbers));
        if let Some(map) = map {
            let (planes, values) = map.content();
            this.map = Some(Map {
                buffer: plan.shared_constant(function.kernel, values),
                planes: match (planes, this.shape[0]) {
                    (1, _) => MapPlanes::Shared,
                    (_, 1) => MapPlanes::Each,
                    _ => MapPlanes::Repeated,
                },
            });
        }
        this.push(function)
    }

    /// Appends an operation whose numbers a dispatch leaves in the buffer given to it, from that slot (in units of four
    /// floats) on, one slot per plane.
    pub(crate) fn then_computed(
        mut self,
        plan: &mut Plan,
        function: &'static PointFn,
        compute: impl FnOnce(&mut Plan, &Self, BufferId, usize),
    ) -> Self {
        let slots = self.slots(plan, function);
        let slot = self.ops.len() * self.planes();
        plan.extend(slots, std::iter::repeat_n(0, 4 * self.planes()));
        compute(plan, &self, slots, slot);
        self.push(function)
    }

    fn slots(&mut self, plan: &mut Plan, function: &'static PointFn) -> BufferId {
        // Pixels are cloned by dispatches, never branched, so the next slots are always at the end.
        *self
            .levels
            .get_or_insert_with(|| plan.constant(function.kernel, Vec::new()))
    }

    fn push(mut self, function: &'static PointFn) -> Self {
        if !function.monotone || !self.without_nan() {
            self.order = None;
        }
        self.ops.push(function);
        self
    }

    /// Every operation maps NaN to 0, and raw integers have none.
    pub(crate) fn without_nan(&self) -> bool {
        self.packed || !self.ops.is_empty()
    }

    /// Runs the pending operations and writes floats.
    pub(crate) fn stored(self, plan: &mut Plan) -> Self {
        if !self.packed && self.ops.is_empty() {
            return self;
        }
        crate::convert::plan(plan, self)
    }

    /// The buffer of stored floats.
    pub(crate) fn buffer(&self) -> BufferId {
        self.base
    }

    /// Workgroups for one thread per pixel: x over a plane, y over planes.
    pub(crate) fn groups(&self) -> [u32; 3] {
        [groups_for(self.plane_len()), self.planes() as u32, 1]
    }

    /// Buffers that `pixel` reads, in the order of their bindings in group 1, from binding 1 on.
    pub(crate) fn buffers(&self) -> Vec<BufferId> {
        let levels = self.levels.filter(|_| !self.ops.is_empty());
        std::iter::once(self.base)
            .chain(levels)
            .chain(self.map.map(|m| m.buffer))
            .collect()
    }

    /// Uniform words of group 1: pixels of a plane, planes, channels.
    pub(crate) fn params(&self) -> Vec<u32> {
        [self.plane_len(), self.planes(), self.shape[1], 0]
            .map(|v| v as u32)
            .to_vec()
    }

    /// What distinguishes the code of `pixel`.
    pub(crate) fn key(&self) -> String {
        let mut key = String::from(match (self.packed, self.pairs_are_words()) {
            (true, true) => "2u16",
            (true, false) => "u16",
            (false, _) => "f32",
        });
        for f in &self.ops {
            key.push(' ');
            key.push_str(f.function);
        }
        if let Some(m) = self.map {
            let _ = write!(key, " {:?}", m.planes);
        }
        key
    }

    /// What distinguishes the code of `later`.
    pub(crate) fn later_key(&self, from: usize) -> String {
        let names: Vec<_> = self.ops[from..].iter().map(|f| f.function).collect();
        format!("{from} {}", names.join(" "))
    }

    /// Whether the two pixels from an even column on always share a word.
    fn pairs_are_words(&self) -> bool {
        self.packed && self.shape[3].is_multiple_of(2)
    }

    /// `pixel(plane, at)` and `pair(plane, at)`, the pixels from an even column on and the next one, with their bindings and the
    /// functions that they call; `open_plane(plane)` must precede them.
    pub(crate) fn source(&self) -> String {
        let mut text = String::from(
            "struct Chain { plane: u32, planes: u32, channels: u32 }\n\
             @group(1) @binding(0) var<uniform> chain: Chain;\n\
             @group(1) @binding(1) var<storage, read> base: array<u32>;\n",
        );
        let mut binding = 1;
        if !self.ops.is_empty() {
            binding += 1;
            let _ = writeln!(
                text,
                "@group(1) @binding({binding}) var<storage, read> chain_levels: array<vec4<f32>>;"
            );
        }
        if self.map.is_some() {
            binding += 1;
            let _ = writeln!(
                text,
                "@group(1) @binding({binding}) var<storage, read> map: array<f32>;"
            );
        }
        text.push_str(&functions(&self.ops));
        // The numbers of a plane are read once by each thread, not once for each pixel.
        for slot in 0..self.ops.len() {
            let _ = writeln!(text, "var<private> level_{slot}: vec4<f32>;");
        }
        text.push_str("fn open_plane(plane: u32) {\n");
        for slot in 0..self.ops.len() {
            let _ = writeln!(
                text,
                "    level_{slot} = chain_levels[{slot}u * chain.planes + plane];"
            );
        }
        text.push_str("}\nfn through(v: f32, plane: u32, at: u32) -> f32 {\n    var x = v;\n");
        if let Some(m) = self.map {
            text.push_str(match m.planes {
                MapPlanes::Shared => "    let m = map[at];\n",
                MapPlanes::Each => "    let m = map[plane * chain.plane + at];\n",
                MapPlanes::Repeated => "    let m = map[(plane % chain.channels) * chain.plane + at];\n",
            });
        }
        text.push_str(&calls(&self.ops, |slot| format!("level_{slot}")));
        text.push_str("    return x;\n}\n");
        text.push_str(if self.packed { PACKED_PIXEL } else { FLOAT_PIXEL });
        text.push_str(if self.pairs_are_words() {
            WORD_PAIR
        } else {
            TWO_PIXELS
        });
        text
    }

    /// `later(x, plane)`: what the operations from number `from` on make of a value, with the numbers in `levels`, which
    /// the shader itself declares. They are monotone, so they read no map.
    pub(crate) fn later_source(&self, from: usize) -> String {
        let ops = &self.ops[from..];
        format!(
            "{}fn later(v: f32, plane: u32) -> f32 {{\n    var x = v;\n{}    return x;\n}}\n",
            functions(ops),
            calls(ops, |slot| format!(
                "levels[{}u * params.planes + plane]",
                from + slot
            )),
        )
    }

    /// A dispatch of one thread per pixel of these pixels.
    pub(crate) fn dispatch(
        self,
        kernel: &'static str,
        source: &'static str,
        entry: &'static str,
        params: Vec<u32>,
    ) -> Dispatch {
        Dispatch {
            kernel,
            source,
            entry,
            params,
            groups: self.groups(),
            pixels: Some(self),
            pixels_rarely: false,
            later: None,
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }
}

/// Sources of the operations, each once.
fn functions(ops: &[&'static PointFn]) -> String {
    let mut text = String::new();
    for (i, f) in ops.iter().enumerate() {
        if !ops[..i].iter().any(|g| g.kernel == f.kernel) {
            text.push_str(f.source);
            text.push('\n');
        }
    }
    text
}

fn calls(ops: &[&'static PointFn], levels: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for (slot, f) in ops.iter().enumerate() {
        let map = if f.map { "m" } else { "0.0" };
        let _ = writeln!(text, "    x = {}(x, {}, {map});", f.function, levels(slot));
    }
    text
}
