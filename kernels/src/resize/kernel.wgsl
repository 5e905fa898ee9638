// Separable resize; the weights come from the same table as on the CPU.
struct Params { count: u32, lines: u32, out_height: u32, out_width: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> first: array<u32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;

// lines = input height.
@compute @workgroup_size(256)
fn vertical(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let x = i % params.out_width;
        let y = (i / params.out_width) % params.out_height;
        let plane = i / (params.out_width * params.out_height);
        let base = (plane * params.lines + start[y]) * params.out_width + x;
        var sum = 0.0;
        for (var k = first[y]; k < first[y + 1u]; k++) {
            sum += weights[k] * input[base + (k - first[y]) * params.out_width];
        }
        output[i] = sum;
    }
}

// lines = input width.
@compute @workgroup_size(256)
fn horizontal(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let x = i % params.out_width;
        let base = (i / params.out_width) * params.lines + start[x];
        var sum = 0.0;
        for (var k = first[x]; k < first[x + 1u]; k++) {
            sum += weights[k] * input[base + k - first[x]];
        }
        output[i] = sum;
    }
}
