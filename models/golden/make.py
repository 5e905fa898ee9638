"""Makes the golden files of the transformers: networks with random weights, their cards, and what PyTorch makes of them.

    python make.py              the small ones, committed beside this script
    python make.py --full DIR   of the published sizes, into DIR (some hundred MB); the tests take them up where
                                WELLSPRING_GOLDENS=DIR says so

Needs torch and safetensors. The networks are written here the plain way, from the papers and the published key names,
not taken from the engine: layer norms, layer scales and replicated channels as they are, nothing folded.

    python make.py --only torchscript-mini      one of the two below

For each case: NAME.json (the card, with the digest and the canary's embedding), NAME.safetensors, NAME.pt or NAME.onnx
(the weights), NAME.case.safetensors (input [N, C, H, W], grey levels, and output [N, values]). onnx-mini is a small
convolutional graph for the ONNX Runtime engine; it needs onnx too. torchscript-mini is a small module for the libtorch
engine, traced with its normalisation inside.
"""

import argparse
import hashlib
import json
import math
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

IMAGENET = {"fixed": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}


def content_digest(tensors):
    """As wellspring_models::content_digest."""
    digest = hashlib.sha256()
    number = lambda n: digest.update(struct.pack("<Q", n))
    for name in sorted(tensors):
        tensor = tensors[name]
        for text in (name.encode(), {torch.float32: b"F32", torch.float16: b"F16"}[tensor.dtype]):
            number(len(text))
            digest.update(text)
        number(tensor.dim())
        for n in tensor.shape:
            number(n)
        data = tensor.contiguous().numpy().tobytes()
        number(len(data))
        digest.update(data)
    return digest.hexdigest()


def canary(height, width, channels):
    """As CanaryImage::BlobsOnARamp."""
    image = torch.zeros(channels, height, width)
    for c in range(channels):
        for y in range(height):
            for x0 in range(width):
                x = x0 + 5 * c
                dx, dy = x % 32 - 16, y % 32 - 16
                r2, k = dx * dx + dy * dy, (x // 32 * 7 + y // 32 * 13) % 11
                rim = (k + 4) ** 2
                value = (x0 + y) * 40 // (height + width)
                if r2 < rim:
                    value += 160 - 160 * r2 // rim + 5 * ((x * 31 + y * 17) % 8)
                image[c, y, x0] = value
    return image[None]


def normalise(images, card, planes):
    """Scaled grey levels as the card wants them; plane i of the image as channel i of the card, going round."""
    y = images * card["input"]["scale"]
    kind = card["input"]["normalisation"]
    if "fixed" in kind:
        of = lambda key: torch.tensor([kind["fixed"][key][i % len(kind["fixed"][key])] for i in range(planes)])
        return (y - of("mean")[:, None, None]) / of("std")[:, None, None]
    epsilon, place = kind["image"]["epsilon"], kind["image"]["added_to"]
    mean = y.mean(dim=(2, 3), keepdim=True)
    variance = y.var(dim=(2, 3), keepdim=True, unbiased=False)
    return (y - mean) / ((variance + epsilon).sqrt() if place == "variance" else variance.sqrt() + epsilon)


def positions(card, w, grid):
    """Positions of the class token (and registers) and of the patches."""
    shape = card["architecture"]["vit"]
    d, before = shape["width"], int(shape["class_token"])
    if shape["positions"] == "sin-cos":
        rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
        frequency = 1 / 10000.0 ** (torch.arange(d // 4) / (d // 4))
        h, v = torch.outer(rows.flatten(), frequency), torch.outer(columns.flatten(), frequency)
        return torch.zeros(1, before, d), torch.cat([h.sin(), h.cos(), v.sin(), v.cos()], 1)[None]
    table = w["pos_embed"]
    side = math.isqrt(table.shape[1] - before)
    prefix, patches = table[:, :before], table[:, before:]
    if grid != (side, side):
        patches = patches.reshape(1, side, side, d).permute(0, 3, 1, 2)
        kind = shape["positions"]["learned"]
        if kind == "plain-offset":
            scale = tuple((n + 0.1) / side for n in grid)
            patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", antialias=False)
        else:
            patches = F.interpolate(patches, size=grid, mode="bicubic", antialias=kind == "antialiased")
        assert patches.shape[-2:] == grid
        patches = patches.permute(0, 2, 3, 1).reshape(1, -1, d)
    return prefix, patches


def forward(card, w, images):
    """Embeddings [N, values] of images [N, C, H, W]; w has the network's own key names."""
    shape = card["architecture"]["vit"]
    d, heads, patch, epsilon = (shape[k] for k in ("width", "heads", "patch", "norm_epsilon"))
    epsilon = float(epsilon)
    own, policy = card["input"]["channels"], card["channel_policy"]
    norm = lambda x, name: F.layer_norm(x, (x.shape[-1],), w[name + ".weight"], w[name + ".bias"], epsilon)
    linear = lambda x, name: F.linear(x, w[name + ".weight"], w.get(name + ".bias"))
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)

    activate = {"gelu": F.gelu, "silu": F.silu}[shape.get("activation", "gelu")]

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, split(v)).transpose(1, 2).flatten(2)

    kernel, bias = w["patch_embed.proj.weight"], w["patch_embed.proj.bias"]
    n, channels, height, width = images.shape
    if policy == "replicate-and-concatenate":
        x = normalise(images.expand(n, own, height, width), card, own)
        x = F.conv2d(x, kernel, bias, stride=patch).flatten(2).transpose(1, 2)
        groups = 1
    elif "channel-agnostic" in policy:
        x = normalise(images, card, channels)
        x = [F.conv2d(x[:, c : c + 1], kernel, bias, stride=patch) for c in range(channels)]
        x = torch.stack(x, dim=2).flatten(2).transpose(1, 2)
        groups = channels
    else:
        x = normalise(images, card, channels)
        index = torch.arange(channels) % own
        x = F.conv2d(x, kernel[:, index] * own / channels, bias, stride=patch).flatten(2).transpose(1, 2)
        groups = 1
    prefix, places = positions(card, w, (height // patch, width // patch))
    x = x + places.repeat(1, groups, 1)
    before = []
    if shape["class_token"]:
        before.append(w["cls_token"] + prefix[:, :1])
    if shape["registers"]:
        before.append(w["reg_token"])
    x = torch.cat([b.expand(n, -1, -1) for b in before] + [x], 1)
    skip = x.shape[1] - groups * places.shape[1]

    for i in range(shape["depth"]):
        at = f"blocks.{i}."
        scale = lambda name: w[at + name] if shape["layer_scale"] else 1.0
        if shape["block"] == "sequential":
            q, k, v = linear(norm(x, at + "norm1"), at + "attn.qkv").chunk(3, -1)
            x = x + scale("ls1.gamma") * linear(attend(split(q), split(k), v), at + "attn.proj")
            hidden = activate(linear(norm(x, at + "norm2"), at + "mlp.fc1"))
            x = x + scale("ls2.gamma") * linear(hidden, at + "mlp.fc2")
        else:
            zeros, bias = torch.zeros(3 * d), w[at + "mlp_bias"]
            first = shape["block"]["parallel-scaling"] == "first"
            bias = torch.cat([bias, zeros] if first else [zeros, bias])
            y = F.linear(norm(x, at + "in_norm"), w[at + "in_proj.weight"], bias)
            hidden, q, k, v = y.split([shape["mlp_width"], d, d, d], -1)
            attended = attend(norm(split(q), at + "q_norm"), norm(split(k), at + "k_norm"), v)
            added = linear(attended, at + "attn_out_proj") + linear(activate(hidden), at + "mlp_out_proj")
            x = x + scale("ls.gamma") * added
    if shape["final_norm"]:
        x = norm(x, "norm")
    patches, pooling = x[:, skip:], card["pooling"]
    if pooling == "class-token":
        return x[:, 0]
    if pooling == "class-token-and-patch-mean":
        return torch.cat([x[:, 0], patches.mean(1)], 1)
    if pooling == "patch-mean-per-channel":
        return patches.unflatten(1, (groups, -1)).mean(2).flatten(1)
    return patches.mean(1)


def random_weights(card, side, seed):
    """Weights under the network's own names; `side` patches along each side of the learned positions."""
    generator = torch.Generator().manual_seed(seed)
    shape = card["architecture"]["vit"]
    d, mlp, own, patch = shape["width"], shape["mlp_width"], card["input"]["channels"], shape["patch"]
    w = {}
    draw = lambda name, *size, sd=1.0, centre=0.0: w.update(
        {name: centre + sd * torch.randn(*size, generator=generator)}
    )

    def linear(name, outputs, inputs, bias=True):
        draw(name + ".weight", outputs, inputs, sd=1.5 / math.sqrt(inputs))
        if bias:
            draw(name + ".bias", outputs, sd=0.2)

    def norm(name, n):
        draw(name + ".weight", n, sd=0.3, centre=1.0)
        draw(name + ".bias", n, sd=0.3)

    draw("patch_embed.proj.weight", d, own, patch, patch, sd=1.0 / math.sqrt(own * patch * patch))
    draw("patch_embed.proj.bias", d, sd=0.2)
    if shape["class_token"]:
        draw("cls_token", 1, 1, d, sd=0.5)
    if shape["registers"]:
        draw("reg_token", 1, shape["registers"], d, sd=0.5)
    if shape["positions"] != "sin-cos":
        draw("pos_embed", 1, side * side + int(shape["class_token"]), d, sd=0.5)
    for i in range(shape["depth"]):
        at = f"blocks.{i}."
        if shape["block"] == "sequential":
            norm(at + "norm1", d)
            linear(at + "attn.qkv", 3 * d, d)
            linear(at + "attn.proj", d, d)
            norm(at + "norm2", d)
            linear(at + "mlp.fc1", mlp, d)
            linear(at + "mlp.fc2", d, mlp)
            scales = ["ls1.gamma", "ls2.gamma"]
        else:
            norm(at + "in_norm", d)
            linear(at + "in_proj", mlp + 3 * d, d, bias=False)
            draw(at + "mlp_bias", mlp, sd=0.5)
            norm(at + "q_norm", d // shape["heads"])
            norm(at + "k_norm", d // shape["heads"])
            linear(at + "attn_out_proj", d, d)
            linear(at + "mlp_out_proj", d, mlp)
            scales = ["ls.gamma"]
        if shape["layer_scale"]:
            for scale in scales:
                draw(at + scale, d, sd=0.3, centre=0.6)
    if shape["final_norm"]:
        norm("norm", d)
    return w


def card(name, *, patch, width, depth, heads, mlp_width, size, positions, pooling, **more):
    parallel = more.get("block", "sequential") != "sequential"
    return {
        "name": name,
        "version": "1",
        "architecture": {
            "vit": {
                "patch": patch,
                "width": width,
                "depth": depth,
                "heads": heads,
                "mlp_width": mlp_width,
                **({"activation": more["activation"]} if "activation" in more else {}),
                "norm_epsilon": 1e-6,
                "class_token": more.get("class_token", True),
                "registers": more.get("registers", 0),
                "positions": positions,
                "block": more.get("block", "sequential"),
                "layer_scale": more.get("layer_scale", parallel),
                "final_norm": more.get("final_norm", not parallel),
            }
        },
        "weights": {
            "uri": "random weights of models/golden/make.py",
            "content_sha256": "",
            "keys": [{"network": network, "file": file} for network, file in more.get("keys", [])],
        },
        "licence": "CC0-1.0",
        "input": {
            "channels": more.get("channels", 3),
            "height": size[0],
            "width": size[1],
            "scale": 1 / 255,
            "normalisation": more.get("normalisation", IMAGENET),
            "padding": "none",
        },
        "channel_policy": more.get("policy", "replicate-and-concatenate"),
        "tiling": "centred-grid-mean",
        "pooling": pooling,
        "embedding_width": width * (2 if pooling == "class-token-and-patch-mean" else 1),
        "canary": {"image": "blobs-on-a-ramp", "embedding": []},
    }


def stored(w, rules):
    """The weights under the file's names."""
    found = {}
    for name, tensor in w.items():
        names = [name]
        for network, file in rules:
            before, star, after = network.partition("*")
            if not star and network == name:
                names = file
            elif star and name.startswith(before) and name.endswith(after) and len(name) >= len(before + after):
                names = [f.replace("*", name[len(before) : len(name) - len(after)]) for f in file]
            else:
                continue
            break
        parts = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
        found.update({n: p.contiguous() for n, p in zip(names, parts, strict=True)})
    return found


OPENPHENOM = [("*", ["encoder.vit_backbone.*"])]
APART = [
    ("blocks.*.attn.qkv.weight", [f"layer.*.attention.{part}.weight" for part in ("query", "key", "value")]),
    ("blocks.*.attn.qkv.bias", [f"layer.*.attention.{part}.bias" for part in ("query", "key", "value")]),
    ("blocks.*", ["layer.*"]),
]
SELF_VARIANCE = {"image": {"epsilon": 1e-5, "added_to": "variance"}}
SELF_DEVIATION = {"image": {"epsilon": 1e-7, "added_to": "deviation"}}

# Kept as 16-bit floats, and computed with what these hold.
HALF = ("timm", "per-channel")

SMALL = dict(width=24, depth=2, heads=3, mlp_width=40)
S16 = dict(width=384, depth=12, heads=6, mlp_width=1536)
B16 = dict(width=768, depth=12, heads=12, mlp_width=3072)


def cases(full):
    """(card, trained side of the positions, image channels, file name's end)."""
    agnostic = dict(
        positions="sin-cos",
        channels=1,
        policy={"channel-agnostic": {"most": 11 if full else 4}},
        normalisation=SELF_VARIANCE,
        block={"parallel-scaling": "last"},
    )
    learned = lambda kind: {"learned": kind}
    if full:
        s16, b16 = dict(patch=16, size=(224, 224), **S16), dict(patch=16, size=(224, 224), **B16)
        s14 = dict(patch=14, size=(224, 224), **S16)
        s256 = dict(patch=16, size=(256, 256), **S16)
        yield card("vit-s16", positions=learned("antialiased"), pooling="class-token", **s16), 14, 1, "safetensors"
        yield card("vit-b16", positions=learned("antialiased"), pooling="class-token", **b16), 14, 1, "safetensors"
        yield (
            card(
                "dinov2-s14-reg",
                positions=learned("antialiased"),
                pooling="class-token-and-patch-mean",
                registers=4,
                layer_scale=True,
                keys=[("reg_token", ["register_tokens"])],
                **s14,
            ),
            37,
            1,
            "safetensors",
        )
        yield card("openphenom-layout", pooling="patch-mean", keys=OPENPHENOM, **agnostic, **s256), 0, 3, "pt"
        return
    yield (
        card(
            "timm",
            positions=learned("antialiased"),
            pooling="class-token",
            patch=8,
            size=(32, 32),
            **SMALL,
        ),
        4,
        1,
        "safetensors",
    )
    yield (
        card(
            "dinov2-registers",
            positions=learned("antialiased"),
            pooling="class-token-and-patch-mean",
            patch=7,
            size=(28, 35),
            registers=4,
            layer_scale=True,
            keys=[("reg_token", ["register_tokens"])],
            **SMALL,
        ),
        7,
        1,
        "safetensors",
    )
    yield (
        card("dino", positions=learned("plain-offset"), pooling="class-token", patch=8, size=(40, 24), **SMALL),
        4,
        1,
        "pt",
    )
    yield (
        card(
            "apart",
            positions=learned("plain"),
            pooling="patch-mean",
            patch=8,
            size=(48, 40),
            keys=APART,
            policy={"first-convolution": {"channels": 5}},
            normalisation=SELF_DEVIATION,
            **SMALL,
        ),
        3,
        5,
        "safetensors",
    )
    small = dict(patch=8, size=(32, 32), **SMALL)
    yield card("openphenom-layout", pooling="patch-mean", keys=OPENPHENOM, **agnostic, **small), 0, 3, "pt"
    per_channel = agnostic | {"block": {"parallel-scaling": "first"}}
    yield (
        card("per-channel", pooling="patch-mean-per-channel", keys=OPENPHENOM, **per_channel, **small),
        0,
        4,
        "safetensors",
    )
    yield (
        card("silu", positions=learned("antialiased"), pooling="class-token", activation="silu", **small),
        4,
        1,
        "safetensors",
    )


def onnx_mini(folder):
    """Convolution, ReLU, mean and a linear layer as an ONNX file."""
    import onnx
    from onnx import helper, numpy_helper

    generator = torch.Generator().manual_seed(99)
    draw = lambda *size: torch.randn(*size, generator=generator)
    kernel, shift, matrix, bias = draw(8, 3, 3, 3) / 5, draw(8) / 5, draw(10, 8), draw(10)

    def network(images):
        x = normalise(images.expand(-1, 3, -1, -1), made, 3)
        return F.linear(F.relu(F.conv2d(x, kernel, shift, stride=2, padding=1)).mean((2, 3)), matrix, bias)

    nodes = [
        helper.make_node("Conv", ["pixels", "kernel", "shift"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "matrix", "bias"], ["embedding"], transB=1),
    ]
    weights = {"kernel": kernel, "shift": shift, "matrix": matrix, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "mini",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["items", 3, 32, 24])],
        [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["items", 10])],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    (folder / "onnx-mini.onnx").write_bytes(data)
    made = card("onnx-mini", patch=1, width=10, depth=0, heads=1, mlp_width=1, size=(32, 24), positions="sin-cos", pooling="global-mean")
    made["architecture"] = {"onnx": {"input": "pixels", "output": "embedding"}}
    made["weights"]["content_sha256"] = hashlib.sha256(data).hexdigest()
    images = torch.randint(0, 256, (3, 1, 32, 24), generator=generator).float()
    keep(folder, made, images, network(images), network(canary(32, 24, 1)))


class Mini(torch.nn.Module):
    """Normalisation, convolution, batch norm, ReLU, mean and a linear layer, for grey levels [N, 3, H, W]."""

    def __init__(self, generator):
        super().__init__()
        draw = lambda *size: torch.randn(*size, generator=generator)
        self.convolution, self.norm, self.linear = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 10)
        for tensor in (*self.parameters(), self.norm.running_mean):
            tensor.copy_(draw(*tensor.shape) / (5 if tensor.dim() != 2 else 1))
        self.norm.running_var.copy_(draw(8) ** 2 + 0.5)
        for name, values in IMAGENET["fixed"].items():
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, images):
        x = (images / 255 - self.mean) / self.std
        return self.linear(torch.relu(self.norm(self.convolution(x))).mean((2, 3)))


def torchscript_mini(folder):
    """A module as the libtorch engine wants it: traced, in evaluation mode, not frozen."""
    generator = torch.Generator().manual_seed(98)
    module = torch.jit.trace(Mini(generator).eval(), torch.zeros(2, 3, 32, 24))
    path = folder / "torchscript-mini.pt"
    module.save(path)
    made = card("torchscript-mini", patch=1, width=10, depth=0, heads=1, mlp_width=1, size=(32, 24), positions="sin-cos", pooling="global-mean")
    made["architecture"] = "torchscript"
    made["weights"]["content_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    made["input"] |= {"scale": 1.0, "normalisation": {"fixed": {"mean": [0.0], "std": [1.0]}}}
    images = torch.randint(0, 256, (3, 1, 32, 24), generator=generator).float()
    grey = lambda x: x.expand(-1, 3, -1, -1)
    keep(folder, made, images, module(grey(images)), module(grey(canary(32, 24, 1))))


def keep(folder, made, images, output, reference):
    """Writes the card and the case."""
    name = made["name"]
    save_file(
        {"input": images.to(torch.uint8).contiguous(), "output": output.contiguous()},
        folder / f"{name}.case.safetensors",
    )
    made["canary"]["embedding"] = [float(f"{v:.7g}") for v in reference[0].tolist()]
    (folder / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
    for path in folder.glob(f"{name}.*"):
        path.chmod(0o644)


SINGLE = {"onnx-mini": onnx_mini, "torchscript-mini": torchscript_mini}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, metavar="DIR")
    parser.add_argument("--only", choices=SINGLE)
    arguments = parser.parse_args()
    folder = arguments.full or Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    if arguments.only:
        SINGLE[arguments.only](folder)
        return
    for seed, (made, side, channels, end) in enumerate(cases(arguments.full is not None)):
        name, size = made["name"], made["input"]
        w = random_weights(made, side, seed)
        rules = [(rule["network"], rule["file"]) for rule in made["weights"]["keys"]]
        if name in HALF:
            w = {key: tensor.half().float() for key, tensor in w.items()}
        file = stored(w, rules)
        if name in HALF:
            file = {key: tensor.half() for key, tensor in file.items()}
        made["weights"]["content_sha256"] = content_digest(file)
        if end == "pt":
            whole = {"state_dict": file, "epoch": 3, "lr": 1e-4} if rules == OPENPHENOM else file
            torch.save(whole, folder / f"{name}.pt")
        else:
            save_file(file, folder / f"{name}.safetensors")
        generator = torch.Generator().manual_seed(1000 + seed)
        images = torch.randint(0, 256, (3, channels, size["height"], size["width"]), generator=generator).float()
        images[2] = 100 + torch.arange(size["width"]) % 156
        # As ModelCard::canary_channels.
        own = {"replicate-and-concatenate": 1, "channel-agnostic": 2, "first-convolution": 5}
        own = own[next(iter(made["channel_policy"])) if isinstance(made["channel_policy"], dict) else made["channel_policy"]]
        reference = forward(made, w, canary(size["height"], size["width"], own))
        keep(folder, made, images, forward(made, w, images), reference)
        print(f"{name}: {sum(t.numel() for t in file.values())} values")
    if arguments.full is None:
        for make in SINGLE.values():
            make(folder)


if __name__ == "__main__":
    main()
