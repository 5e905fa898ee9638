// Separable Gaussian blur; the weights are those of the CPU.
struct Params { height: u32, width: u32, end: u32, reflect: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> inside: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

// The pixel `at` of a line of `length`, `stride` apart, or 0 if it is absent.
fn tap(plane: u32, first: u32, at: i32, length: u32, stride: u32) -> f32 {
    if at >= 0 && at < i32(length) {
        return finite(pixel(plane, first + u32(at) * stride));
    }
    if params.reflect == 0u {
        return 0.0;
    }
    return finite(pixel(plane, first + reflect(at, length) * stride));
}

fn convolve(plane: u32, first: u32, at: u32, length: u32, stride: u32) -> f32 {
    var sum = weights[0] * tap(plane, first, i32(at), length, stride);
    for (var d = 1u; d <= params.end; d++) {
        let near = tap(plane, first, i32(at) - i32(d), length, stride);
        let far = tap(plane, first, i32(at + d), length, stride);
        sum += weights[d] * (near + far);
    }
    return sum * inside[at];
}

@compute @workgroup_size(256)
fn vertical(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        output[id.y * size + i] = convolve(id.y, i % params.width, i / params.width, params.height, params.width);
    }
}

@compute @workgroup_size(256)
fn horizontal(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let x = i % params.width;
        output[id.y * size + i] = convolve(id.y, i - x, x, params.width, 1u);
    }
}
