// p: mean (stored, remainder), 1 / deviation.
fn standardise(x: f32, p: vec4<f32>, m: f32) -> f32 {
    return ((finite(x) - p.x) - p.y) * p.z;
}
