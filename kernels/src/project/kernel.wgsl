// Projections of stacks; mod.rs describes them. `planes` counts output planes.
struct Params { height: u32, width: u32, slices: u32, planes: u32, blocks: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;
// Per slice and block: sum of the Laplacian, high squares, half the cross terms, low squares.
@group(0) @binding(2) var<storage, read_write> parts: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> chosen: array<u32>;

fn number(v: f32) -> f32 {
    // NaN compares false.
    return select(0.0, v, v <= 0.0 || v > 0.0);
}

@compute @workgroup_size(256)
fn maximum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        open_plane(id.y * params.slices);
        var best = number(pixel(id.y * params.slices, i));
        for (var z = 1u; z < params.slices; z++) {
            open_plane(id.y * params.slices + z);
            let v = number(pixel(id.y * params.slices + z, i));
            best = select(best, v, v > best);
        }
        output[id.y * size + i] = best;
    }
}

@compute @workgroup_size(256)
fn mean(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        var sum = 0.0;
        for (var z = 0u; z < params.slices; z++) {
            open_plane(id.y * params.slices + z);
            sum += finite(pixel(id.y * params.slices + z, i));
        }
        output[id.y * size + i] = sum / f32(params.slices);
    }
}

@compute @workgroup_size(256)
fn best(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let size = params.height * params.width;
    let slice = id.y * params.slices + chosen[id.y];
    open_plane(slice);
    for (var i = id.x; i < size; i += groups.x * 256u) {
        output[id.y * size + i] = number(pixel(slice, i));
    }
}

fn level(plane: u32, y: u32, x: u32) -> i32 {
    let v = pixel(plane, y * params.width + x);
    let low = select(0.0, v, v > 0.0);
    return i32(select(65535.0, low, low < 65535.0) + 0.5);
}

fn before(i: u32, length: u32) -> u32 {
    return select(min(1u, length - 1u), i - 1u, i > 0u);
}

fn after(i: u32, length: u32) -> u32 {
    return select(max(length, 2u) - 2u, i + 1u, i + 1u < length);
}

var<workgroup> shared_parts: array<vec4<u32>, 256>;

@compute @workgroup_size(256)
fn sharpness(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let size = params.height * params.width;
    let end = min((group.x + 1u) * 8192u, size);
    open_plane(group.y);
    var part = vec4<u32>(0u);
    for (var i = group.x * 8192u + local; i < end; i += 256u) {
        let y = i / params.width;
        let x = i % params.width;
        let v = level(group.y, before(y, params.height), x) + level(group.y, after(y, params.height), x)
            + level(group.y, y, before(x, params.width)) + level(group.y, y, after(x, params.width))
            - 4 * level(group.y, y, x);
        let magnitude = u32(abs(v));
        let high = magnitude >> 9u;
        let low = magnitude & 511u;
        part += vec4<u32>(bitcast<u32>(v), high * high, high * low, low * low);
    }
    shared_parts[local] = part;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step >>= 1u) {
        if local < step {
            shared_parts[local] += shared_parts[local + step];
        }
        workgroupBarrier();
    }
    if local == 0u {
        parts[group.y * params.blocks + group.x] = shared_parts[0];
    }
}

// Whole numbers of two words, the low one first.
fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn shifted(a: u32, by: u32) -> vec2<u32> {
    return vec2<u32>(a << by, a >> (32u - by));
}

fn product(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let cross1 = (a & 0xffffu) * (b >> 16u);
    let cross2 = (a >> 16u) * (b & 0xffffu);
    let middle = (low >> 16u) + (cross1 & 0xffffu) + (cross2 & 0xffffu);
    return vec2<u32>(
        (low & 0xffffu) | (middle << 16u),
        (a >> 16u) * (b >> 16u) + (cross1 >> 16u) + (cross2 >> 16u) + (middle >> 16u),
    );
}

// n^2 times the variance: n * squares - sum^2, in three words. It never needs more, since sum^2 <= n * squares.
fn spread(slice: u32) -> vec3<u32> {
    let count = params.height * params.width;
    var sum = vec2<u32>(0u);
    var squares = vec2<u32>(0u);
    for (var i = 0u; i < params.blocks; i++) {
        let part = parts[slice * params.blocks + i];
        sum = add64(sum, vec2<u32>(part.x, select(0u, 0xffffffffu, part.x >= 0x80000000u)));
        squares = add64(squares, shifted(part.y, 18u));
        squares = add64(squares, shifted(part.z, 10u));
        squares = add64(squares, vec2<u32>(part.w, 0u));
    }
    if sum.y >= 0x80000000u {
        sum = add64(~sum, vec2<u32>(1u, 0u));
    }
    let low = product(count, squares.x);
    let high = add64(product(count, squares.y), vec2<u32>(low.y, 0u));
    let square = product(sum.x, sum.x);
    let cross = product(sum.x, sum.y);
    var upper = add64(vec2<u32>(square.y, sum.y * sum.y), cross);
    upper = add64(upper, cross);
    let rest = add64(high, add64(~upper, vec2<u32>(1u, 0u)));
    let borrow = select(0u, 1u, low.x < square.x);
    let whole = add64(rest, ~vec2<u32>(borrow, 0u));
    let final_rest = add64(whole, vec2<u32>(1u, 0u));
    return vec3<u32>(low.x - square.x, final_rest);
}

fn greater(a: vec3<u32>, b: vec3<u32>) -> bool {
    if a.z != b.z {
        return a.z > b.z;
    }
    if a.y != b.y {
        return a.y > b.y;
    }
    return a.x > b.x;
}

@compute @workgroup_size(256)
fn choose(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var plane = id.x; plane < params.planes; plane += groups.x * 256u) {
        var most = spread(plane * params.slices);
        var at = 0u;
        for (var z = 1u; z < params.slices; z++) {
            let next = spread(plane * params.slices + z);
            if greater(next, most) {
                most = next;
                at = z;
            }
        }
        chosen[plane] = at;
    }
}
