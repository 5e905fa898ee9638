// Flips and turns: height and width are the input's; up and left say which source index runs backwards.
struct Params { height: u32, width: u32, swap: u32, up: u32, left: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn orient(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    let columns = select(params.width, params.height, params.swap != 0u);
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let row = i / columns;
        let column = i % columns;
        let a = select(row, column, params.swap != 0u);
        let b = select(column, row, params.swap != 0u);
        let y = select(a, params.height - 1u - a, params.up != 0u);
        let x = select(b, params.width - 1u - b, params.left != 0u);
        output[id.y * size + i] = pixel(id.y, y * params.width + x);
    }
}
