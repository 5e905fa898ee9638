// Exact order statistics by two radix passes of 16 bits; mod.rs describes them.
struct Params { plane: u32, fraction_lo: f32, fraction_hi: f32, unused: u32, ranks: vec4<u32> }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> upper: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> lower: array<atomic<u32>>;
// Per plane and rank: the key found so far, and the rank left inside its bucket.
@group(0) @binding(4) var<storage, read_write> state: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;

var<workgroup> partial: array<u32, 256>;

// Unsigned integer in the order of the floats; every NaN last.
fn key(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return 0xffffffffu;
    }
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value(k: u32) -> f32 {
    return bitcast<f32>(select(~k, k & 0x7fffffffu, (k & 0x80000000u) != 0u));
}

@compute @workgroup_size(256)
fn count_upper(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        atomicAdd(&upper[id.y * 65536u + (key(input[id.y * params.plane + i]) >> 16u)], 1u);
    }
}

@compute @workgroup_size(256)
fn count_lower(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        let k = key(input[id.y * params.plane + i]);
        for (var r = 0u; r < 4u; r++) {
            let slot = id.y * 4u + r;
            if (k >> 16u) == state[slot].x {
                atomicAdd(&lower[slot * 65536u + (k & 0xffffu)], 1u);
            }
        }
    }
}

@compute @workgroup_size(256)
fn select_upper(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = group.y * 65536u;
    var sum = 0u;
    for (var i = 0u; i < 256u; i++) {
        sum += atomicLoad(&upper[start + local * 256u + i]);
    }
    partial[local] = sum;
    workgroupBarrier();
    if local != 0u {
        return;
    }
    var rank = params.ranks[group.z];
    var block = 0u;
    while block < 255u && rank >= partial[block] {
        rank -= partial[block];
        block++;
    }
    var bin = block * 256u;
    while bin < block * 256u + 255u && rank >= atomicLoad(&upper[start + bin]) {
        rank -= atomicLoad(&upper[start + bin]);
        bin++;
    }
    state[group.y * 4u + group.z] = vec2<u32>(bin, rank);
}

@compute @workgroup_size(256)
fn select_lower(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let slot = group.y * 4u + group.z;
    let start = slot * 65536u;
    var sum = 0u;
    for (var i = 0u; i < 256u; i++) {
        sum += atomicLoad(&lower[start + local * 256u + i]);
    }
    partial[local] = sum;
    workgroupBarrier();
    if local != 0u {
        return;
    }
    var rank = state[slot].y;
    var block = 0u;
    while block < 255u && rank >= partial[block] {
        rank -= partial[block];
        block++;
    }
    var bin = block * 256u;
    while bin < block * 256u + 255u && rank >= atomicLoad(&lower[start + bin]) {
        rank -= atomicLoad(&lower[start + bin]);
        bin++;
    }
    state[slot] = vec2<u32>((state[slot].x << 16u) | bin, rank);
}

fn rest(low: f32, high: f32, fraction: f32) -> f32 {
    if fraction > 0.0 {
        return (high - low) * fraction;
    }
    return 0.0;
}

@compute @workgroup_size(1)
fn interpolate(@builtin(workgroup_id) group: vec3<u32>) {
    let slot = group.y * 4u;
    let lo = value(state[slot].x);
    let hi = value(state[slot + 2u].x);
    output[slot] = lo;
    output[slot + 1u] = rest(lo, value(state[slot + 1u].x), params.fraction_lo);
    output[slot + 2u] = hi;
    output[slot + 3u] = rest(hi, value(state[slot + 3u].x), params.fraction_hi);
}
