//! The kernels as WGSL: text that depends on a layer's kind and tile, never on its sizes, which are parameters.
//!
//! Enters: what a kernel is specialised for. Leaves: a module with the entry point `main`. Every value is one sum in one
//! order, whatever the batch. Maps are rows of channels, row i the pixel or token i of a batch; a `vec4` holds four
//! neighbouring channels.

use crate::native::gemm::Activation;

/// Threads of a workgroup along the columns of a product, and along the queries of attention.
pub(super) const LANES: usize = 32;

/// Rows of a product's tile: two groups of eight, because the first eight threads of a subgroup fetch eight rows.
pub(super) const TILE_ROWS: usize = 16;

/// Threads whose weights lie side by side: as many as a software adapter runs at once, and a line of a cache.
pub(super) const ROW: usize = 8;

/// Keys that attention looks at together.
const KEYS: usize = 8;

/// Threads of a workgroup of the kernels that go through values one by one.
pub(super) const THREADS: usize = 64;

/// Texels of a row of an image.
pub(super) const IMAGE_WIDTH: usize = 8192;

/// Images that a kernel reads at most.
pub(super) const IMAGES: usize = 2;

/// The type of an image whose texels are vectors.
const IMAGE: &str = "texture_storage_2d<rgba32float, read>";

/// The index of a thread among all, where groups go on in a second dimension after [`super::plan::MOST_GROUPS`].
const INDEX: &str = "(group.y * groups.x + group.x) * 64u + lane";

/// The built-in values that [`INDEX`] needs.
const BUILTINS: &str = "@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, \
                        @builtin(local_invocation_index) lane: u32";

/// The parameters `names`, 32-bit words in this order, as fields of `p`.
fn parameters(names: &[&str]) -> String {
    let fields: String = names.iter().map(|name| format!("{name}: u32, ")).collect();
    format!("struct Parameters {{ {fields} }}\n@group(0) @binding(0) var<uniform> p: Parameters;\n")
}

/// Storage bindings from 1 on: name and type; the last one is written. `name_at(i)` reads value i of another, vectors from an image too.
fn storage(bindings: &[(&str, &str)]) -> String {
    let last = bindings.len().saturating_sub(1);
    let line = |(at, (name, kind)): (usize, &(&str, &str))| {
        let place = format!("@group(0) @binding({})", at + 1);
        match *kind {
            IMAGE => format!(
                "{place} var {name}: {IMAGE};
                fn {name}_at(i: u32) -> vec4<f32> {{
                    return textureLoad({name}, vec2<u32>(i % {IMAGE_WIDTH}u, i / {IMAGE_WIDTH}u));
                }}\n"
            ),
            kind if at == last => format!("{place} var<storage, read_write> {name}: array<{kind}>;\n"),
            kind => format!(
                "{place} var<storage, read> {name}: array<{kind}>;
                fn {name}_at(i: u32) -> {kind} {{ return {name}[i]; }}\n"
            ),
        }
    };
    bindings.iter().enumerate().map(line).collect()
}

/// The type of vectors that a kernel reads with `name_at`.
fn vectors(images: bool) -> &'static str {
    if images { IMAGE } else { "vec4<f32>" }
}

/// Joins one line for each number below `n`.
fn lines(n: usize, line: impl Fn(usize) -> String) -> String {
    (0..n).map(|i| line(i) + "\n").collect()
}

/// The activation of a value called `x`, scalar or vector.
fn activation(activation: Activation, kind: &str) -> String {
    let body = match activation {
        Activation::Linear => "x".to_owned(),
        Activation::Relu6 => format!("clamp(x, {kind}(0.0), {kind}(6.0))"),
        Activation::Silu => format!("x / ({kind}(1.0) + exp(-x))"),
        Activation::Gelu => "0.5 * x * (1.0 + error_function(x * 0.70710678))".to_owned(),
    };
    // Abramowitz and Stegun 1964, formula 7.1.26: off by at most 1.5e-7.
    let erf = match activation {
        Activation::Gelu => {
            "fn error_function(x: f32) -> f32 {
                let a = abs(x);
                let t = 1.0 / fma(0.3275911, a, 1.0);
                let s = fma(fma(fma(fma(1.061405429, t, -1.453152027), t, 1.421413741), t, -0.284496736), t, 0.254829592);
                return sign(x) * (1.0 - s * t * exp(-a * a));
            }\n"
        }
        _ => "",
    };
    format!("{erf}fn activate(x: {kind}) -> {kind} {{ return {body}; }}\n")
}

/// Writes the number of threads of a subgroup.
pub(super) fn subgroup_size() -> String {
    parameters(&["unused"])
        + &storage(&[("result", "u32")])
        + &format!(
            "@compute @workgroup_size({LANES}) fn main(@builtin(subgroup_size) size: u32) {{
                result[0] = max(size, p.unused);
            }}"
        )
}

/// `(first level, mean, deviation)` of each plane: its own mean and population variance, of levels less the first one, so
/// that those of a constant plane are exact.
pub(super) fn plane_statistics(epsilon_on_variance: bool) -> String {
    let deviation = if epsilon_on_variance {
        "sqrt(variance + bitcast<f32>(p.epsilon))"
    } else {
        "sqrt(variance) + bitcast<f32>(p.epsilon)"
    };
    parameters(&["pixels", "scale", "epsilon"])
        + &storage(&[("levels", "f32"), ("result", "vec4<f32>")])
        + &format!(
            "var<workgroup> sums: array<f32, {THREADS}>;
            fn total(value: f32, lane: u32) -> f32 {{
                sums[lane] = value;
                workgroupBarrier();
                for (var half = {THREADS}u / 2u; half > 0u; half /= 2u) {{
                    if lane < half {{ sums[lane] += sums[lane + half]; }}
                    workgroupBarrier();
                }}
                let sum = sums[0];
                workgroupBarrier();
                return sum;
            }}
            @compute @workgroup_size({THREADS}) fn main({BUILTINS}) {{
                let start = group.x * p.pixels;
                let scale = bitcast<f32>(p.scale);
                let first = levels[start];
                var part = 0.0;
                for (var i = lane; i < p.pixels; i += {THREADS}u) {{ part += (levels[start + i] - first) * scale; }}
                let mean = total(part, lane) / f32(p.pixels);
                part = 0.0;
                for (var i = lane; i < p.pixels; i += {THREADS}u) {{
                    let d = (levels[start + i] - first) * scale - mean;
                    part += d * d;
                }}
                let variance = total(part, lane) / f32(p.pixels);
                if lane == 0u {{ result[group.x] = vec4<f32>(first, mean, {deviation}, 0.0); }}
            }}"
        )
}

/// Looks for the first value that is no grey level, and writes how many values there are from it on. Bits are compared, since
/// a compiler of shaders may take every float for a number: those of positive floats are in their order, infinity and NaN
/// above them all.
pub(super) fn grey_levels() -> String {
    parameters(&["count", "below_zero", "above_zero"])
        + &storage(&[("levels", "u32"), ("result", "atomic<u32>")])
        + &format!(
            "@compute @workgroup_size({THREADS}) fn main({BUILTINS}) {{
                let i = {INDEX};
                if i >= p.count {{ return; }}
                let bits = levels[i];
                let most = select(p.above_zero, p.below_zero, (bits >> 31u) == 1u);
                if (bits & 0x7fffffffu) > most {{ atomicMax(&result[0], p.count - i); }}
            }}"
        )
}

/// The patch around each output pixel as a row, normalised, zeros outside the image and in what fills the row up: for each
/// plane of the row's group the rows and columns of the patch.
pub(super) fn patches() -> String {
    parameters(&[
        "count", "planes", "height", "width", "grid_height", "grid_width", "groups", "members", "kernel", "stride", "top",
        "left", "row", "scale", "statistics", "statistics_per_item",
    ]) + &storage(&[("levels", "f32"), ("statistics", "vec4<f32>"), ("result", "f32")])
        + &format!(
            "@compute @workgroup_size({THREADS}) fn main({BUILTINS}) {{
                let i = {INDEX};
                if i >= p.count {{ return; }}
                let k = i % p.row;
                let row = i / p.row;
                let grid = p.grid_height * p.grid_width;
                let place = row % grid;
                let owner = (row / grid) % p.groups;
                let item = row / (grid * p.groups);
                let taps = p.kernel * p.kernel;
                let member = k / taps;
                let tap = k % taps;
                let y = (place / p.grid_width) * p.stride + tap / p.kernel;
                let x = (place % p.grid_width) * p.stride + tap % p.kernel;
                if member >= p.members || y < p.top || x < p.left || y - p.top >= p.height || x - p.left >= p.width {{
                    result[i] = 0.0;
                    return;
                }}
                let plane = owner * p.members + member;
                let s = statistics[item * p.statistics_per_item + plane % p.statistics];
                let level = levels[((item * p.planes + plane) * p.height + (y - p.top)) * p.width + x - p.left];
                result[i] = ((level - s.x) * bitcast<f32>(p.scale) - s.y) / s.z;
            }}"
        )
}

/// How a matrix product is tiled and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gemm {
    /// Columns of one thread, [`LANES`] apart.
    pub(super) columns: usize,
    pub(super) activation: Activation,
    pub(super) residual: bool,
    /// Whether rows are fetched by eight threads and handed round in the subgroup; else each thread fetches all.
    pub(super) subgroups: bool,
    /// Whether weights are 16-bit floats and products of four are summed in them, before these go into 32-bit sums.
    pub(super) half: bool,
    /// Whether rows and weights are in images.
    pub(super) images: bool,
}

/// `activation(rows * weights + bias) + residual`. Weights lie as they are fetched: for each tile of outputs, filled up with zeros,
/// and each four inputs, a vector of each output.
/// The rows of an item can go to a place among more rows. The residual is of the same place, or its rows repeat.
pub(super) fn gemm(kind: Gemm) -> String {
    let Gemm {
        columns,
        residual,
        subgroups,
        half,
        images,
        ..
    } = kind;
    let weights = if half { "vec4<f16>" } else { vectors(images) };
    let mut bindings = vec![("rows", vectors(images)), ("weights", weights), ("bias", "f32")];
    if residual {
        bindings.push(("residual", "f32"));
    }
    bindings.push(("result", "f32"));
    let each = |line: &dyn Fn(usize, usize) -> String| lines(TILE_ROWS, |i| lines(columns, |n| line(i, n)));
    let fetches = if subgroups {
        lines(TILE_ROWS / 8, |t| {
            format!(
                "let from{t} = min(row + {}u + s % 8u, p.rows - 1u) * p.inputs;",
                t * 8
            )
        })
    } else {
        lines(TILE_ROWS, |i| {
            format!("let from{i} = min(row + {i}u, p.rows - 1u) * p.inputs;")
        })
    };
    let fetch = if subgroups {
        lines(TILE_ROWS / 8, |t| format!("let own{t} = rows_at(from{t} + k);"))
            + &lines(TILE_ROWS, |i| {
                format!("let a{i} = subgroupBroadcast(own{}, {}u);", i / 8, i % 8)
            })
    } else {
        lines(TILE_ROWS, |i| format!("let a{i} = rows_at(from{i} + k);"))
    };
    let sums = lines(columns, |n| format!("let b{n} = weights_at(w + {}u);", n * ROW))
        + &format!("w += {}u;\n", ROW * columns)
        + &if half {
            lines(TILE_ROWS, |i| format!("let h{i} = vec4<f16>(a{i});"))
                + &each(&|i, n| format!("c{i}_{n} += f32(dot(h{i}, b{n}));"))
        } else {
            each(&|i, n| lines(4, |j| format!("c{i}_{n} = fma(a{i}[{j}], b{n}[{j}], c{i}_{n});")))
        };
    let added = if residual {
        " + residual[residual_row(r) * p.outputs + column]"
    } else {
        ""
    };
    let store = lines(TILE_ROWS, |i| {
        let columns = lines(columns, |n| {
            format!(
                "{{ let column = first + {}u; if column < p.outputs {{
                    result[place(r) * p.outputs + column] = activate(c{i}_{n} + bias[column]){added}; }} }}",
                n * LANES
            )
        });
        format!("if row + {i}u < p.rows {{ let r = row + {i}u; {columns} }}")
    });
    let enabled = if half {
        "enable f16;
"
    } else {
        ""
    };
    enabled.to_owned()
        + &parameters(&[
            "rows",
            "inputs",
            "outputs",
            "item_rows",
            "item_places",
            "item_first",
            "residual_rows",
        ])
        + &storage(&bindings)
        + &activation(kind.activation, "f32")
        + &format!(
            "fn place(row: u32) -> u32 {{
                return (row / p.item_rows) * p.item_places + p.item_first + row % p.item_rows;
            }}
            {}
            @compute @workgroup_size({LANES}) fn main({BUILTINS}{}) {{
                let row = group.x * {TILE_ROWS}u;
                let first = group.y * {}u + lane;
                var w = (group.y * {}u + lane / {ROW}u) * p.inputs * {}u + lane % {ROW}u;
                {fetches}{}
                for (var k = 0u; k < p.inputs; k++) {{
                    {fetch}{sums}
                }}
                {store}
            }}",
            if residual {
                "fn residual_row(row: u32) -> u32 {
                    if p.residual_rows == 0u { return place(row); }
                    return row % p.residual_rows;
                }"
            } else {
                ""
            },
            if subgroups {
                ", @builtin(subgroup_invocation_id) s: u32"
            } else {
                ""
            },
            LANES * columns,
            LANES / ROW,
            ROW * columns,
            each(&|i, n| format!("var c{i}_{n} = 0.0;")),
        )
}

/// A convolution of each channel by itself, zeros outside the image.
pub(super) fn depthwise(kind: Activation, images: bool) -> String {
    parameters(&[
        "count", "height", "width", "channels", "out_height", "out_width", "kernel", "stride", "top", "left",
    ]) + &storage(&[
        ("input", vectors(images)),
        ("weights", vectors(images)),
        ("bias", "vec4<f32>"),
        ("result", "vec4<f32>"),
    ]) + &activation(kind, "vec4<f32>")
        + &format!(
            "@compute @workgroup_size({THREADS}) fn main({BUILTINS}) {{
                let i = {INDEX};
                if i >= p.count {{ return; }}
                let c = i % p.channels;
                let pixel = i / p.channels;
                let x = pixel % p.out_width;
                let y = (pixel / p.out_width) % p.out_height;
                let item = pixel / (p.out_width * p.out_height);
                var sum = vec4<f32>(0.0);
                for (var ky = 0u; ky < p.kernel; ky++) {{
                    let from_y = y * p.stride + ky;
                    if from_y < p.top || from_y - p.top >= p.height {{ continue; }}
                    for (var kx = 0u; kx < p.kernel; kx++) {{
                        let from_x = x * p.stride + kx;
                        if from_x < p.left || from_x - p.left >= p.width {{ continue; }}
                        let at = ((item * p.height + from_y - p.top) * p.width + from_x - p.left) * p.channels + c;
                        sum = fma(input_at(at), weights_at((ky * p.kernel + kx) * p.channels + c), sum);
                    }}
                }}
                result[i] = activate(sum + bias[c]);
            }}"
        )
}

/// `(x - mean) / sqrt(variance + epsilon)` of each row; gain and shift are in the matrix that follows.
pub(super) fn layer_norm(images: bool) -> String {
    parameters(&["rows", "width", "epsilon"])
        + &storage(&[("input", vectors(images)), ("result", "vec4<f32>")])
        + &format!(
            "var<workgroup> sums: array<f32, {LANES}>;
            fn total(value: f32, lane: u32) -> f32 {{
                sums[lane] = value;
                workgroupBarrier();
                for (var half = {LANES}u / 2u; half > 0u; half /= 2u) {{
                    if lane < half {{ sums[lane] += sums[lane + half]; }}
                    workgroupBarrier();
                }}
                let sum = sums[0];
                workgroupBarrier();
                return sum;
            }}
            @compute @workgroup_size({LANES}) fn main({BUILTINS}) {{
                let row = min(group.y * groups.x + group.x, p.rows - 1u);
                let start = row * p.width;
                var part = vec4<f32>(0.0);
                for (var i = lane; i < p.width; i += {LANES}u) {{ part += input_at(start + i); }}
                let n = f32(p.width * 4u);
                let mean = total(dot(part, vec4<f32>(1.0)), lane) / n;
                part = vec4<f32>(0.0);
                for (var i = lane; i < p.width; i += {LANES}u) {{
                    let d = input_at(start + i) - mean;
                    part = fma(d, d, part);
                }}
                let scale = 1.0 / sqrt(total(dot(part, vec4<f32>(1.0)), lane) / n + bitcast<f32>(p.epsilon));
                for (var i = lane; i < p.width; i += {LANES}u) {{ result[start + i] = (input_at(start + i) - mean) * scale; }}
            }}"
        )
}

/// A layer norm over the channels of each head, in place, with gain and shift (`affine`: gains, then shifts).
pub(super) fn head_norm() -> String {
    parameters(&["count", "heads", "width", "stride", "first", "epsilon"])
        + &storage(&[("affine", "vec4<f32>"), ("values", "vec4<f32>")])
        + &format!(
            "@compute @workgroup_size({THREADS}) fn main({BUILTINS}) {{
                let i = {INDEX};
                if i >= p.count {{ return; }}
                let start = (i / p.heads) * p.stride + p.first + (i % p.heads) * p.width;
                var part = vec4<f32>(0.0);
                for (var c = 0u; c < p.width; c++) {{ part += values[start + c]; }}
                let n = f32(p.width * 4u);
                let mean = dot(part, vec4<f32>(1.0)) / n;
                part = vec4<f32>(0.0);
                for (var c = 0u; c < p.width; c++) {{
                    let d = values[start + c] - mean;
                    part = fma(d, d, part);
                }}
                let scale = 1.0 / sqrt(dot(part, vec4<f32>(1.0)) / n + bitcast<f32>(p.epsilon));
                for (var c = 0u; c < p.width; c++) {{
                    values[start + c] = fma((values[start + c] - mean) * scale, affine[c], affine[p.width + c]);
                }}
            }}"
        )
}

/// `softmax(q k^T) v` of one head of `quads` times four channels, one query per thread, eight keys at a time with a running
/// maximum and sum (Milakov and Gimelshein 2018, arXiv:1805.02867), so that no score is ever stored.
pub(super) fn attention(quads: usize, subgroups: bool, images: bool) -> String {
    // Key or value c of eight tokens: fetched by eight threads, or by each thread when it is used.
    let own = |name: &str, part: usize, c: usize| {
        if subgroups {
            format!("let {name}{c} = qkv_at(source + {part}u * p.width + {c}u);\n")
        } else {
            String::new()
        }
    };
    let of = |name: &str, part: usize, c: usize, j: usize| {
        if subgroups {
            format!("subgroupBroadcast({name}{c}, {j}u)")
        } else {
            format!("qkv_at(from{j} + {part}u * p.width + {c}u)")
        }
    };
    let from = if subgroups {
        "let source = (base + min(key + s % 8u, p.tokens - 1u)) * 3u * p.width + head;\n".to_owned()
    } else {
        lines(KEYS, |j| {
            format!("let from{j} = (base + min(key + {j}u, p.tokens - 1u)) * 3u * p.width + head;")
        })
    };
    let scores = lines(quads, |c| {
        own("k", 1, c) + &lines(KEYS, |j| format!("s{j} += dot(q{c}, {});", of("k", 1, c, j)))
    });
    let mixes = lines(quads, |c| {
        own("v", 2, c)
            + &format!("o{c} *= keep;\n")
            + &lines(KEYS, |j| {
                format!("o{c} = fma(vec4<f32>(e{j}), {}, o{c});", of("v", 2, c, j))
            })
    });
    let largest = (0..KEYS).fold("largest".to_owned(), |m, j| format!("max({m}, s{j})"));
    let sum: Vec<String> = (0..KEYS).map(|j| format!("e{j}")).collect();
    parameters(&["tokens", "width", "head_width"])
        + &storage(&[("qkv", vectors(images)), ("result", "vec4<f32>")])
        + &format!(
            "@compute @workgroup_size({LANES}) fn main(
                @builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32{}
            ) {{
                let base = group.z * p.tokens;
                let head = group.y * p.head_width;
                let query = group.x * {LANES}u + lane;
                let at = (base + min(query, p.tokens - 1u)) * 3u * p.width + head;
                {}{}
                var largest = -1e30;
                var weight = 0.0;
                for (var key = 0u; key < p.tokens; key += {KEYS}u) {{
                    {from}{}{scores}
                    {}
                    let next = {largest};
                    let keep = exp(largest - next);
                    largest = next;
                    {}
                    weight = fma(weight, keep, {});
                    {mixes}
                }}
                if query < p.tokens {{
                    let to = (base + query) * p.width + head;
                    {}
                }}
            }}",
            if subgroups {
                ", @builtin(subgroup_invocation_id) s: u32"
            } else {
                ""
            },
            lines(quads, |c| format!("let q{c} = qkv_at(at + {c}u);")),
            lines(quads, |c| format!("var o{c} = vec4<f32>(0.0);")),
            lines(KEYS, |j| format!("var s{j} = 0.0;")),
            lines(KEYS, |j| format!("if key + {j}u >= p.tokens {{ s{j} = -1e30; }}")),
            lines(KEYS, |j| format!("let e{j} = exp(s{j} - next);")),
            sum.join(" + "),
            lines(quads, |c| format!("result[to + {c}u] = o{c} / weight;")),
        )
}

/// The mean of `count` rows from `first` on of each item, and where `affine` then a gain and a shift for each channel.
pub(super) fn mean(affine: bool) -> String {
    let mut bindings = vec![("input", "f32")];
    if affine {
        bindings.push(("affine", "f32"));
    }
    bindings.push(("result", "f32"));
    let value = if affine {
        "fma(value, affine[c], affine[p.width + c])"
    } else {
        "value"
    };
    parameters(&["count", "width", "item_rows", "first", "rows", "result_width", "result_first"])
        + &storage(&bindings)
        + &format!(
            "@compute @workgroup_size({THREADS}) fn main({BUILTINS}) {{
                let i = {INDEX};
                if i >= p.count {{ return; }}
                let c = i % p.width;
                let item = i / p.width;
                var sum = 0.0;
                for (var r = 0u; r < p.rows; r++) {{ sum += input[(item * p.item_rows + p.first + r) * p.width + c]; }}
                let value = sum / f32(p.rows);
                result[item * p.result_width + p.result_first + c] = {value};
            }}"
        )
}
