// Mean and deviation of every plane; mod.rs has the formulas. Differences from the first pixel, then from the mean, are
// summed by blocks, so that a constant plane has no deviation at all.
struct Params { plane: u32, planes: u32, blocks: u32, block: u32, slot: u32, inside: f32, outside: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums_of: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> means: array<f32>;
@group(0) @binding(3) var<storage, read_write> levels: array<vec4<f32>>;

var<workgroup> parts: array<vec2<f32>, 256>;

// Sums over one block of differences from `pivot` and of their squares, left by thread 0.
fn sum_block(plane: u32, block: u32, local: u32, pivot: f32) {
    let end = min((block + 1u) * params.block, params.plane);
    open_plane(plane);
    var sum = vec2<f32>(0.0);
    for (var i = block * params.block + local; i < end; i += 256u) {
        let d = finite(pixel(plane, i)) - pivot;
        sum += vec2<f32>(d, d * d);
    }
    parts[local] = sum;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step >>= 1u) {
        if local < step {
            parts[local] += parts[local + step];
        }
        workgroupBarrier();
    }
    if local == 0u {
        sums_of[plane * params.blocks + block] = parts[0];
    }
}

fn total(plane: u32) -> vec2<f32> {
    var sum = vec2<f32>(0.0);
    for (var i = 0u; i < params.blocks; i++) {
        sum += sums_of[plane * params.blocks + i];
    }
    return sum / f32(params.plane);
}

@compute @workgroup_size(256)
fn sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    open_plane(group.y);
    sum_block(group.y, group.x, local, finite(pixel(group.y, 0u)));
}

@compute @workgroup_size(256)
fn squares(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    sum_block(group.y, group.x, local, means[group.y]);
}

@compute @workgroup_size(256)
fn mean(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var plane = id.x; plane < params.planes; plane += groups.x * 256u) {
        open_plane(plane);
        means[plane] = finite(pixel(plane, 0u)) + total(plane).x;
    }
}

@compute @workgroup_size(256)
fn numbers(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var plane = id.x; plane < params.planes; plane += groups.x * 256u) {
        let sum = total(plane);
        let variance = max(sum.y - sum.x * sum.x, 0.0);
        let deviation = sqrt(variance + params.inside) + params.outside;
        let inverse = select(0.0, 1.0 / deviation, deviation > 0.0);
        levels[params.slot + plane] = vec4<f32>(means[plane], sum.x, inverse, 0.0);
    }
}
