// Pixels around a plane; mode 0 a constant, 1 the nearest pixel, 2 the mirrored image.
struct Params { height: u32, width: u32, rows: u32, columns: u32, top: u32, left: u32, mode: u32, value: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

fn source(at: i32, length: u32) -> u32 {
    if params.mode == 1u {
        return u32(clamp(at, 0, i32(length) - 1));
    }
    return reflect(at, length);
}

@compute @workgroup_size(256)
fn pad(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.rows * params.columns;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let y = i32(i / params.columns) - i32(params.top);
        let x = i32(i % params.columns) - i32(params.left);
        let outside = y < 0 || x < 0 || y >= i32(params.height) || x >= i32(params.width);
        if outside && params.mode == 0u {
            output[id.y * size + i] = params.value;
        } else {
            output[id.y * size + i] = pixel(id.y, source(y, params.height) * params.width + source(x, params.width));
        }
    }
}
