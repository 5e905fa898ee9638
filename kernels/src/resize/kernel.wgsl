// Separable resize; the weights come from the same table as on the CPU. For each output the table has the first input
// and where in the axis' own table its weights begin and end, and behind all of them the weights; the rows' comes first.
// columns: of the input; height and width are the output's.
struct Params { columns: u32, height: u32, width: u32, horizontal: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

// Sum over the rows behind output row y of the pixels in column x.
fn column(plane: u32, y: u32, x: u32) -> f32 {
    var at = table[3u * y] * params.columns + x;
    let end = table[3u * y + 2u];
    var sum = 0.0;
    for (var k = table[3u * y + 1u]; k < end; k++) {
        sum += bitcast<f32>(table[k]) * pixel(plane, at);
        at += params.columns;
    }
    return sum;
}

// A workgroup makes outputs of one row, so what it reads of the rows' table is the same for all of its threads.
@compute @workgroup_size(256)
fn direct(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    open_plane(group.y);
    let parts = (params.width + 255u) / 256u;
    for (var job = group.x; job < parts * params.height; job += groups.x) {
        let y = job / parts;
        let o = (job - y * parts) * 256u + local;
        if o < params.width {
            let entry = params.horizontal + 3u * o;
            let end = table[entry + 2u];
            var x = table[entry];
            var sum = 0.0;
            for (var k = table[entry + 1u]; k < end; k++) {
                sum += bitcast<f32>(table[params.horizontal + k]) * column(group.y, y, x);
                x++;
            }
            output[(group.y * params.height + y) * params.width + o] = sum;
        }
    }
}

@compute @workgroup_size(256)
fn vertical(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let y = i / params.width;
        output[id.y * size + i] = column(id.y, y, i - y * params.width);
    }
}

@compute @workgroup_size(256)
fn horizontal(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let y = i / params.width;
        let entry = params.horizontal + 3u * (i - y * params.width);
        let end = table[entry + 2u];
        var at = y * params.columns + table[entry];
        var sum = 0.0;
        for (var k = table[entry + 1u]; k < end; k++) {
            sum += bitcast<f32>(table[params.horizontal + k]) * pixel(id.y, at);
            at++;
        }
        output[id.y * size + i] = sum;
    }
}
