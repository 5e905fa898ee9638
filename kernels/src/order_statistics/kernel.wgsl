// Exact order statistics by radix passes of 16 bits; mod.rs describes them.
// In `find`, a and b hold the ranks; in `levels`, a the indices of two ranks each, b two fractions and two numbers.
struct Params { plane: u32, planes: u32, count: u32, slot: u32, a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> upper: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read_write> lower: array<atomic<u32>>;
// Per plane and rank: the key found so far, and the rank left inside its bucket.
@group(0) @binding(3) var<storage, read_write> state: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> values: array<f32>;
@group(0) @binding(5) var<storage, read> found: array<f32>;
@group(0) @binding(6) var<storage, read_write> levels: array<vec4<f32>>;

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

fn rank_of(r: u32) -> u32 {
    if r < 4u {
        return params.a[r];
    }
    return params.b[r - 4u];
}

@compute @workgroup_size(256)
fn count_whole(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        atomicAdd(&upper[id.y * 65536u + u32(pixel(id.y, i))], 1u);
    }
}

@compute @workgroup_size(256)
fn count_upper(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        atomicAdd(&upper[id.y * 65536u + (key(pixel(id.y, i)) >> 16u)], 1u);
    }
}

@compute @workgroup_size(256)
fn count_lower(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    // The buckets looked for, repeated up to 8: most pixels lie in none of them.
    let first = id.y * params.count;
    let last = params.count - 1u;
    let some = vec4<u32>(
        state[first].x, state[first + min(1u, last)].x, state[first + min(2u, last)].x, state[first + min(3u, last)].x,
    );
    let more = vec4<u32>(
        state[first + min(4u, last)].x, state[first + min(5u, last)].x,
        state[first + min(6u, last)].x, state[first + last].x,
    );
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        let k = key(pixel(id.y, i));
        let bucket = vec4<u32>(k >> 16u);
        if any(bucket == some) || any(bucket == more) {
            for (var r = 0u; r < params.count; r++) {
                if bucket.x == state[first + r].x {
                    atomicAdd(&lower[(first + r) * 65536u + (k & 0xffffu)], 1u);
                }
            }
        }
    }
}

// The bin of 65536 from `start` on that holds `rank`, and the rank inside it; right in thread 0 only.
fn find_upper(start: u32, first: u32, local: u32) -> vec2<u32> {
    var sum = 0u;
    for (var i = 0u; i < 256u; i++) {
        sum += atomicLoad(&upper[start + local * 256u + i]);
    }
    partial[local] = sum;
    workgroupBarrier();
    var rank = first;
    var bin = 0u;
    if local == 0u {
        var block = 0u;
        while block < 255u && rank >= partial[block] {
            rank -= partial[block];
            block++;
        }
        bin = block * 256u;
        while bin < block * 256u + 255u && rank >= atomicLoad(&upper[start + bin]) {
            rank -= atomicLoad(&upper[start + bin]);
            bin++;
        }
    }
    return vec2<u32>(bin, rank);
}

fn find_lower(start: u32, first: u32, local: u32) -> vec2<u32> {
    var sum = 0u;
    for (var i = 0u; i < 256u; i++) {
        sum += atomicLoad(&lower[start + local * 256u + i]);
    }
    partial[local] = sum;
    workgroupBarrier();
    var rank = first;
    var bin = 0u;
    if local == 0u {
        var block = 0u;
        while block < 255u && rank >= partial[block] {
            rank -= partial[block];
            block++;
        }
        bin = block * 256u;
        while bin < block * 256u + 255u && rank >= atomicLoad(&lower[start + bin]) {
            rank -= atomicLoad(&lower[start + bin]);
            bin++;
        }
    }
    return vec2<u32>(bin, rank);
}

@compute @workgroup_size(256)
fn select_whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let hit = find_upper(group.y * 65536u, rank_of(group.z), local);
    if local == 0u {
        values[group.y * params.count + group.z] = f32(hit.x);
    }
}

@compute @workgroup_size(256)
fn select_upper(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let hit = find_upper(group.y * 65536u, rank_of(group.z), local);
    if local == 0u {
        state[group.y * params.count + group.z] = hit;
    }
}

@compute @workgroup_size(256)
fn select_lower(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let slot = group.y * params.count + group.z;
    let hit = find_lower(slot * 65536u, state[slot].y, local);
    if local == 0u {
        values[slot] = value((state[slot].x << 16u) | hit.x);
    }
}

// A percentile as the lower neighbour and what interpolation adds to it.
fn percentile(plane: u32, low: u32, high: u32, fraction: f32) -> vec2<f32> {
    let a = later(found[plane * params.count + low], plane);
    let b = later(found[plane * params.count + high], plane);
    if fraction > 0.0 {
        return vec2<f32>(a, (b - a) * fraction);
    }
    return vec2<f32>(a, 0.0);
}

@compute @workgroup_size(256)
fn one_level(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var plane = id.x; plane < params.planes; plane += groups.x * 256u) {
        let at = percentile(plane, params.a.x, params.a.y, bitcast<f32>(params.b.x));
        levels[params.slot + plane] = vec4<f32>(at, 0.0, 0.0);
    }
}

@compute @workgroup_size(256)
fn range_levels(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let scale = bitcast<f32>(params.b.z);
    let tiny = bitcast<f32>(params.b.w);
    for (var plane = id.x; plane < params.planes; plane += groups.x * 256u) {
        let lo = percentile(plane, params.a.x, params.a.y, bitcast<f32>(params.b.x));
        let hi = percentile(plane, params.a.z, params.a.w, bitcast<f32>(params.b.y));
        let span = (hi.x - lo.x) + (hi.y - lo.y);
        levels[params.slot + plane] = vec4<f32>(lo, 1.0 / select(tiny, span, span > tiny), scale);
    }
}
