// Exact moments of the Laplacian; mod.rs describes the split into 9-bit parts.
struct Params { height: u32, width: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> packed: array<u32>;
// Per channel and block: sum, high squares, half the cross terms, low squares.
@group(0) @binding(2) var<storage, read_write> output: array<vec4<u32>>;

var<workgroup> parts: array<vec4<u32>, 256>;

fn grey_level(plane: u32, y: u32, x: u32) -> i32 {
    let p = (plane * params.height + y) * params.width + x;
    return i32((packed[p >> 1u] >> ((p & 1u) * 16u)) & 0xffffu);
}

fn before(i: u32, len: u32) -> u32 {
    return select(min(1u, len - 1u), i - 1u, i > 0u);
}

fn after(i: u32, len: u32) -> u32 {
    return select(max(len, 2u) - 2u, i + 1u, i + 1u < len);
}

@compute @workgroup_size(256)
fn moments(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let count = params.height * params.width;
    let end = min((group.x + 1u) * 8192u, count);
    var part = vec4<u32>(0u);
    for (var i = group.x * 8192u + local; i < end; i += 256u) {
        let y = i / params.width;
        let x = i % params.width;
        let v = grey_level(group.y, before(y, params.height), x) + grey_level(group.y, after(y, params.height), x)
            + grey_level(group.y, y, before(x, params.width)) + grey_level(group.y, y, after(x, params.width))
            - 4 * grey_level(group.y, y, x);
        let magnitude = u32(abs(v));
        let high = magnitude >> 9u;
        let low = magnitude & 511u;
        part += vec4<u32>(bitcast<u32>(v), high * high, high * low, low * low);
    }
    parts[local] = part;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step >>= 1u) {
        if local < step {
            parts[local] += parts[local + step];
        }
        workgroupBarrier();
    }
    if local == 0u {
        output[group.y * groups.x + group.x] = parts[0];
    }
}
