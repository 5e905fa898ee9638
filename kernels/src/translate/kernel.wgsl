// Moves planes; mod.rs describes it.
struct Params { height: u32, width: u32, channels: u32 }
// Whole pixels down and right, then the fractions.
struct Offset { down: i32, right: i32, down_rest: f32, right_rest: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> offsets: array<Offset>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

fn source(plane: u32, y: i32, x: i32) -> f32 {
    let row = u32(clamp(y, 0, i32(params.height) - 1));
    let column = u32(clamp(x, 0, i32(params.width) - 1));
    return finite(pixel(plane, row * params.width + column));
}

@compute @workgroup_size(256)
fn translate(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    let o = offsets[id.y % params.channels];
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let y = i32(i / params.width) - o.down;
        let x = i32(i % params.width) - o.right;
        let a = (1.0 - o.down_rest) * source(id.y, y, x) + o.down_rest * source(id.y, y - 1, x);
        let b = (1.0 - o.down_rest) * source(id.y, y, x - 1) + o.down_rest * source(id.y, y - 1, x - 1);
        output[id.y * size + i] = (1.0 - o.right_rest) * a + o.right_rest * b;
    }
}
