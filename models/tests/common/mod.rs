//! What the conformance suite needs beside the public interface: weights with random values, a forward pass written
//! the plain way, and the shared real data where it is present.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by test binaries, each of which uses its own part"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use wellspring_models::{
    Engine, EngineChoice, EngineError, ModelCard, OnnxProvider, content_digest, find_card,
};

/// Tensors by name: shape and values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Kernel, stride, expansion, channels in, channels out of each block.
pub type Blocks = Vec<[usize; 5]>;

/// The blocks of stages of repeats, kernel, stride, expansion and channels out, written out from the tables.
fn blocks(stages: [[usize; 5]; 7]) -> Blocks {
    let mut input = 32;
    let mut blocks = Vec::new();
    for [repeats, kernel, stride, expansion, output] in stages {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            blocks.push([kernel, stride, expansion, input, output]);
            input = output;
        }
    }
    blocks
}

/// EfficientNet-Lite0.
pub fn lite0() -> Blocks {
    blocks([
        [1, 3, 1, 1, 16],
        [2, 3, 2, 6, 24],
        [2, 5, 2, 6, 40],
        [3, 3, 2, 6, 80],
        [3, 5, 1, 6, 112],
        [4, 5, 2, 6, 192],
        [1, 3, 1, 6, 320],
    ])
}

/// EfficientNet-Lite2.
pub fn lite2() -> Blocks {
    blocks([
        [1, 3, 1, 1, 16],
        [3, 3, 2, 6, 24],
        [3, 5, 2, 6, 48],
        [4, 3, 2, 6, 88],
        [4, 5, 1, 6, 120],
        [5, 5, 2, 6, 208],
        [1, 3, 1, 6, 352],
    ])
}

/// A small deterministic generator (splitmix64), so that the numbers are the same everywhere.
pub struct Random(pub u64);

impl Random {
    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    }

    /// Uniform with mean 0 and the given standard deviation.
    pub fn spread(&mut self, sd: f32) -> f32 {
        (self.unit() - 0.5) * 12f32.sqrt() * sd
    }

    /// A grey image.
    pub fn image(&mut self, pixels: usize) -> Vec<f32> {
        (0..pixels).map(|_| (self.unit() * 255.0).round()).collect()
    }
}

/// An EfficientNet-Lite with random weights that keep the activations in a sane range.
pub fn random_lite(blocks: &Blocks, seed: u64) -> Tensors {
    let mut random = Random(seed);
    let mut tensors = Tensors::new();
    let mut layer = |conv: String, norm: String, shape: [usize; 4]| {
        let fan_in: usize = shape[1..].iter().product();
        let sd = (2.0 / fan_in as f32).sqrt();
        let n = shape.iter().product();
        tensors.insert(
            format!("{conv}.weight"),
            (shape.to_vec(), (0..n).map(|_| random.spread(sd)).collect()),
        );
        for (part, centre, sd) in [
            ("weight", 1.0, 0.1),
            ("bias", 0.2, 0.1),
            ("running_mean", 0.0, 0.1),
            ("running_var", 1.0, 0.2),
        ] {
            let values = (0..shape[0]).map(|_| centre + random.spread(sd)).collect();
            tensors.insert(format!("{norm}.{part}"), (vec![shape[0]], values));
        }
    };
    layer("_conv_stem".into(), "_bn0".into(), [32, 3, 3, 3]);
    for (i, [kernel, _, expansion, input, output]) in blocks.iter().copied().enumerate() {
        let at = |part: &str| format!("_blocks.{i}.{part}");
        let inner = input * expansion;
        if expansion != 1 {
            layer(at("_expand_conv"), at("_bn0"), [inner, input, 1, 1]);
        }
        layer(at("_depthwise_conv"), at("_bn1"), [inner, 1, kernel, kernel]);
        layer(at("_project_conv"), at("_bn2"), [output, inner, 1, 1]);
    }
    let last = blocks.last().map_or(32, |block| block[4]);
    layer("_conv_head".into(), "_bn1".into(), [1280, last, 1, 1]);
    tensors
}

/// The bytes of a safetensors file.
pub fn to_safetensors(tensors: &Tensors) -> Vec<u8> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, b)| (*name, TensorView::new(Dtype::F32, (*shape).clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// A map of the plain forward pass: channel by channel.
struct Planes {
    channels: usize,
    side: usize,
    values: Vec<f64>,
}

/// Convolution with `SAME` padding, batch norm and, where wanted, ReLU6, each as the papers write it.
fn convolve(t: &Tensors, conv: &str, norm: &str, input: &Planes, stride: usize, relu6: bool) -> Planes {
    let (shape, weights) = &t[&format!("{conv}.weight")];
    let (outputs, per_group, kernel) = (shape[0], shape[1], shape[2]);
    let depthwise = per_group == 1 && input.channels > 1;
    let side = input.side.div_ceil(stride);
    let before = ((side - 1) * stride + kernel).saturating_sub(input.side) / 2;
    let part = |name: &str, channel: usize| f64::from(t[&format!("{norm}.{name}")].1[channel]);
    let mut values = vec![0.0; outputs * side * side];
    for (channel, plane) in values.chunks_exact_mut(side * side).enumerate() {
        for i in 0..per_group {
            let from = if depthwise { channel } else { i };
            let source = &input.values[from * input.side * input.side..];
            for ky in 0..kernel {
                for kx in 0..kernel {
                    let w = f64::from(weights[((channel * per_group + i) * kernel + ky) * kernel + kx]);
                    for y in 0..side {
                        let Some(sy) = (y * stride + ky).checked_sub(before).filter(|&v| v < input.side)
                        else {
                            continue;
                        };
                        for x in 0..side {
                            let Some(sx) = (x * stride + kx).checked_sub(before).filter(|&v| v < input.side)
                            else {
                                continue;
                            };
                            plane[y * side + x] += w * source[sy * input.side + sx];
                        }
                    }
                }
            }
        }
        let scale = part("weight", channel) / (part("running_var", channel) + 1e-3).sqrt();
        for v in plane {
            *v = (*v - part("running_mean", channel)) * scale + part("bias", channel);
            if relu6 {
                *v = v.clamp(0.0, 6.0);
            }
        }
    }
    Planes {
        channels: outputs,
        side,
        values,
    }
}

/// An EfficientNet-Lite written the plain way: a grey image of `side` x `side` to 1280 pooled features.
pub fn naive_lite(t: &Tensors, blocks: &Blocks, side: usize, image: &[f32]) -> Vec<f32> {
    let grey: Vec<f64> = image.iter().map(|&v| (f64::from(v) - 127.0) / 128.0).collect();
    let mut map = Planes {
        channels: 3,
        side,
        values: [&grey[..], &grey, &grey].concat(),
    };
    map = convolve(t, "_conv_stem", "_bn0", &map, 2, true);
    for (i, [_, stride, expansion, input, output]) in blocks.iter().copied().enumerate() {
        let at = |part: &str| format!("_blocks.{i}.{part}");
        let mut inner = Planes {
            channels: map.channels,
            side: map.side,
            values: map.values.clone(),
        };
        if expansion != 1 {
            inner = convolve(t, &at("_expand_conv"), &at("_bn0"), &inner, 1, true);
        }
        inner = convolve(t, &at("_depthwise_conv"), &at("_bn1"), &inner, stride, true);
        inner = convolve(t, &at("_project_conv"), &at("_bn2"), &inner, 1, false);
        if stride == 1 && input == output {
            inner
                .values
                .iter_mut()
                .zip(&map.values)
                .for_each(|(a, b)| *a += b);
        }
        map = inner;
    }
    map = convolve(t, "_conv_head", "_bn1", &map, 1, true);
    let pixels = map.side * map.side;
    map.values
        .chunks_exact(pixels)
        .map(|plane| (plane.iter().sum::<f64>() / pixels as f64) as f32)
        .collect()
}

/// A model with random weights that a clone without any shared data can open: the real architecture, a card of its
/// own, and a canary from the plain forward pass.
pub struct Synthetic {
    pub tensors: Tensors,
    pub bytes: Vec<u8>,
    pub card: ModelCard,
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

/// The one synthetic model of this test binary.
pub fn synthetic() -> &'static Synthetic {
    static MODEL: OnceLock<Synthetic> = OnceLock::new();
    MODEL.get_or_init(|| {
        let tensors = random_lite(&lite0(), 7);
        let bytes = to_safetensors(&tensors);
        let mut card = find_card("efficientnet-lite0").unwrap().clone();
        card.name = "synthetic-lite0".into();
        card.weights.content_sha256 = content_digest(&bytes).unwrap();
        card.canary.embedding = naive_lite(&tensors, &lite0(), 224, &card.canary.image.render(224, 224, 0));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        Synthetic {
            tensors,
            bytes,
            card,
            path,
            _folder: folder,
        }
    })
}

/// A path under `../shared` beside the repository, where it exists; says so where it does not.
pub fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(path);
    if !found.exists() {
        println!("skipped: ../shared not present");
        return None;
    }
    Some(found)
}

/// Cosine and largest difference.
pub fn compare(a: &[f32], b: &[f32]) -> (f64, f64) {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum::<f64>()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let largest = a
        .iter()
        .zip(b)
        .map(|(x, y)| f64::from((x - y).abs()))
        .fold(0.0, f64::max);
    (cosine, largest)
}

/// The error of an attempt that must fail.
pub fn refused(result: Result<Box<dyn Engine>, EngineError>) -> EngineError {
    match result {
        Ok(_) => panic!("the engine opened"),
        Err(error) => error,
    }
}

/// ONNX Runtime on the processor, with the library of this machine.
pub fn runtime() -> Option<EngineChoice> {
    let found = std::env::var_os("WELLSPRING_ONNXRUNTIME")
        .map(PathBuf::from)
        .or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
            let path = cache.join("wellspring/onnxruntime/libonnxruntime.so");
            path.exists().then_some(path)
        });
    if found.is_none() {
        println!("skipped: no ONNX Runtime; scripts/onnxruntime fetches it");
    }
    found.map(|library| EngineChoice::OnnxRuntime {
        library,
        provider: OnnxProvider::Cpu,
    })
}
