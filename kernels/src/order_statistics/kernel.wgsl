// Exact order statistics: brackets from a sample, one pass that keeps what lies in them, then radix passes of 16 bits over
// what was kept; mod.rs describes them.
// In `find`, slot is the room for kept keys of each plane (0: no brackets), a and b hold the ranks; in `levels`, a the indices
// of two ranks each, b two fractions and two numbers.
struct Params { plane: u32, planes: u32, count: u32, slot: u32, a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> upper: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read_write> lower: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> state: array<State>;
@group(0) @binding(4) var<storage, read_write> values: array<f32>;
@group(0) @binding(5) var<storage, read> found: array<f32>;
@group(0) @binding(6) var<storage, read_write> levels: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> kept: array<u32>;

// What is known of a plane. Brackets are in ascending order and do not overlap; those that are not used hold nothing.
struct State {
    // Keys between which ranks must lie, both included.
    lo: array<u32, 4>,
    hi: array<u32, 4>,
    // Keys below each bracket, and keys up to its end.
    below: array<atomic<u32>, 4>,
    until: array<atomic<u32>, 4>,
    // Keys inside brackets.
    inside: atomic<u32>,
    // Keys to count: those that were kept, or all pixels of the plane.
    listed: u32,
    // Per rank: the upper half of its key, and the rank left among the keys to count, then inside its bin.
    bin: array<u32, 8>,
    rank: array<u32, 8>,
}

// In place of the number of keys that were kept.
const ALL: u32 = 0xffffffffu;
// Pixels of a sample.
const SAMPLE: u32 = 2048u;
// Standard deviations between a rank and the ends of its bracket.
const DEVIATIONS: f32 = 4.0;

var<workgroup> partial: array<u32, 256>;
var<workgroup> keys: array<u32, SAMPLE>;
var<workgroup> counts: array<array<vec4<u32>, 2>, 256>;

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

// Pixels at random places of equal parts of the plane, sorted (bitonic), and from them the brackets.
@compute @workgroup_size(256)
fn sample(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let plane = group.y;
    open_plane(plane);
    let step = params.plane / SAMPLE;
    for (var i = local; i < SAMPLE; i += 256u) {
        // The golden ratio spreads the places evenly, without a period of its own.
        keys[i] = key(pixel(plane, i * step + ((i * 0x9e3779b9u) >> 8u) % step));
    }
    workgroupBarrier();
    for (var run = 2u; run <= SAMPLE; run <<= 1u) {
        for (var gap = run >> 1u; gap > 0u; gap >>= 1u) {
            for (var t = local; t < SAMPLE / 2u; t += 256u) {
                let i = 2u * t - (t & (gap - 1u));
                let a = keys[i];
                let b = keys[i + gap];
                let rising = (i & run) == 0u;
                keys[i] = select(max(a, b), min(a, b), rising);
                keys[i + gap] = select(min(a, b), max(a, b), rising);
            }
            workgroupBarrier();
        }
    }
    if local != 0u {
        return;
    }
    var used = 0u;
    for (var r = 0u; r < params.count; r++) {
        let p = (f32(rank_of(r)) + 0.5) / f32(params.plane);
        let middle = f32(SAMPLE) * p;
        let margin = DEVIATIONS * sqrt(middle * (1.0 - p)) + 2.0;
        let first = floor(middle - margin);
        let last = ceil(middle + margin);
        var lo = 0u;
        if first >= 0.0 {
            lo = keys[u32(first)];
        }
        var hi = 0xffffffffu;
        if last < f32(SAMPLE) {
            hi = keys[u32(last)];
        }
        if used > 0u && (used == 4u || lo <= state[plane].hi[used - 1u]) {
            state[plane].hi[used - 1u] = max(hi, state[plane].hi[used - 1u]);
        } else {
            state[plane].lo[used] = lo;
            state[plane].hi[used] = hi;
            used++;
        }
    }
    for (var b = 0u; b < 4u; b++) {
        if b >= used {
            state[plane].lo[b] = 0xffffffffu;
            state[plane].hi[b] = 0u;
        }
        atomicStore(&state[plane].below[b], 0u);
        atomicStore(&state[plane].until[b], 0u);
    }
    atomicStore(&state[plane].inside, 0u);
}

fn keep(plane: u32, k: u32) {
    let place = atomicAdd(&state[plane].inside, 1u);
    if place < params.slot {
        kept[plane * params.slot + place] = k;
    }
}

// Counts the keys below and in the brackets, and keeps the latter.
@compute @workgroup_size(256)
fn sift(
    @builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let plane = id.y;
    open_plane(plane);
    let lo = vec4<u32>(state[plane].lo[0], state[plane].lo[1], state[plane].lo[2], state[plane].lo[3]);
    let hi = vec4<u32>(state[plane].hi[0], state[plane].hi[1], state[plane].hi[2], state[plane].hi[3]);
    var below = vec4<u32>(0u);
    var until = vec4<u32>(0u);
    for (var at = 2u * id.x; at < params.plane; at += groups.x * 512u) {
        let two = pair(plane, at);
        let first = key(two.x);
        let less = vec4<u32>(first) < lo;
        let most = vec4<u32>(first) <= hi;
        below += vec4<u32>(less);
        until += vec4<u32>(most);
        if any(most & !less) {
            keep(plane, first);
        }
        if at + 1u < params.plane {
            let second = key(two.y);
            let less = vec4<u32>(second) < lo;
            let most = vec4<u32>(second) <= hi;
            below += vec4<u32>(less);
            until += vec4<u32>(most);
            if any(most & !less) {
                keep(plane, second);
            }
        }
    }
    counts[local] = array<vec4<u32>, 2>(below, until);
    workgroupBarrier();
    if local < 4u {
        var sums = vec2<u32>(0u);
        for (var i = 0u; i < 256u; i++) {
            sums += vec2<u32>(counts[i][0][local], counts[i][1][local]);
        }
        atomicAdd(&state[plane].below[local], sums.x);
        atomicAdd(&state[plane].until[local], sums.y);
    }
}

// Where each rank lies among the keys that were kept; where one lies in no bracket, or not all keys found room, all pixels
// of the plane are counted.
@compute @workgroup_size(256)
fn settle(@builtin(global_invocation_id) id: vec3<u32>) {
    let plane = id.x;
    if plane >= params.planes {
        return;
    }
    var listed = atomicLoad(&state[plane].inside);
    if params.slot == 0u || listed > params.slot {
        listed = ALL;
    }
    for (var r = 0u; r < params.count; r++) {
        let rank = rank_of(r);
        var before = 0u;
        var left = ALL;
        for (var b = 0u; b < 4u; b++) {
            let below = atomicLoad(&state[plane].below[b]);
            let until = atomicLoad(&state[plane].until[b]);
            if below <= rank && rank < until {
                left = before + rank - below;
            }
            before += until - min(below, until);
        }
        state[plane].rank[r] = left;
        if left == ALL {
            listed = ALL;
        }
    }
    if listed == ALL {
        for (var r = 0u; r < params.count; r++) {
            state[plane].rank[r] = rank_of(r);
        }
    }
    state[plane].listed = listed;
}

fn count_key_upper(plane: u32, k: u32) {
    atomicAdd(&upper[plane * 65536u + (k >> 16u)], 1u);
}

@compute @workgroup_size(256)
fn count_upper(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let listed = state[id.y].listed;
    if listed != ALL {
        for (var i = id.x; i < listed; i += groups.x * 256u) {
            count_key_upper(id.y, kept[id.y * params.slot + i]);
        }
    } else {
        open_plane(id.y);
        for (var i = id.x; i < params.plane; i += groups.x * 256u) {
            count_key_upper(id.y, key(pixel(id.y, i)));
        }
    }
}

// The buckets looked for, repeated up to 8: most keys lie in none of them.
var<private> buckets: array<vec4<u32>, 2>;

fn count_key_lower(plane: u32, k: u32) {
    let bucket = vec4<u32>(k >> 16u);
    if any(bucket == buckets[0]) || any(bucket == buckets[1]) {
        for (var r = 0u; r < params.count; r++) {
            if bucket.x == state[plane].bin[r] {
                atomicAdd(&lower[(plane * params.count + r) * 65536u + (k & 0xffffu)], 1u);
            }
        }
    }
}

@compute @workgroup_size(256)
fn count_lower(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let last = params.count - 1u;
    for (var r = 0u; r < 8u; r++) {
        buckets[r >> 2u][r & 3u] = state[id.y].bin[min(r, last)];
    }
    let listed = state[id.y].listed;
    if listed != ALL {
        for (var i = id.x; i < listed; i += groups.x * 256u) {
            count_key_lower(id.y, kept[id.y * params.slot + i]);
        }
    } else {
        open_plane(id.y);
        for (var i = id.x; i < params.plane; i += groups.x * 256u) {
            count_key_lower(id.y, key(pixel(id.y, i)));
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
    let hit = find_upper(group.y * 65536u, state[group.y].rank[group.z], local);
    if local == 0u && group.z < params.count {
        state[group.y].bin[group.z] = hit.x;
        state[group.y].rank[group.z] = hit.y;
    }
}

@compute @workgroup_size(256)
fn select_lower(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let slot = group.y * params.count + group.z;
    let hit = find_lower(slot * 65536u, state[group.y].rank[group.z], local);
    if local == 0u {
        values[slot] = value((state[group.y].bin[group.z] << 16u) | hit.x);
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
