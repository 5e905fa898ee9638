"""Measures the native engine beside PyTorch and ONNX Runtime, the wgpu engine, and the libtorch engine beside PyTorch running the same module,
interleaved, and prints JSON lines.

    python embed.py beside SERVE CACHE LITE0_WEIGHTS [--rounds N]
    python embed.py serve torch|torchscript|module|device|onnxruntime CACHE WORK THREADS

`beside` keeps one process per side and work and lets them take turns: SERVE is our example `embed_serve`. Time is
processor time per image, the least of a turn, and the median over the turns; for two threads against one the least wall
time. Before anything is timed, every side embeds
the canary, and all must agree. `serve` answers each line `BATCH REPEATS` with `CPU WALL`, and `0 0` with the canary's
embedding. CACHE keeps the random ViT-S/16, the traced modules and
the ONNX files.

Each line: {"bench","work","ours","unit","peer","peer_value","ratio","bar","met"}; the ratio is peer / ours, the bar the
least it must be.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[3] / "models" / "golden"
# Work: batches, and the bars: ours against the best TorchScript, against the best of all, against ONNX Runtime.
WORK = {
    "efficientnet-lite0": ((1, 8, 32), {"torchscript": 1.4, "onnxruntime": 1.0}),
    "vit-s16": ((1, 8), {"best": 0.95}),
}
PEERS = ("torch", "torchscript", "onnxruntime")
# The libtorch engine, and Python running the module that it runs; and what the engine must reach of it.
SAME_MODULE = ("ours, libtorch", "module")
SAME_MODULE_BAR = 0.97
# The same two on the device that EMBED_TORCH_DEVICE names (cuda): images go up and embeddings come down in the time.
DEVICE = os.environ.get("EMBED_TORCH_DEVICE", "")
ON_DEVICE = ("ours, libtorch on a device", "device")
# The wgpu engine runs on Mesa's software Vulkan, on all cores. Burn 0.22.1 took 1.3 s per ViT-S/16 image there, on an idle
# machine of two cores (measured before, not in this run); ours is to be five times as fast.
WGPU = "ours, wgpu"
WGPU_MOST_MS = {"vit-s16": 260}
# The same allocator settings on every side: nothing goes back to the system between batches.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 63) - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


def lite0(weights):
    """EfficientNet-Lite0 in PyTorch: grey levels [N, 3, 224, 224] to 1280 pooled features."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    w = load_file(weights)
    stages = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)]
    stages += [(4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]

    class Layer(torch.nn.Module):
        def __init__(self, conv, norm, stride, relu6, side):
            super().__init__()
            kernel = w[conv + ".weight"]
            outputs, per_group, k, _ = kernel.shape
            self.conv = torch.nn.Conv2d(
                per_group if per_group > 1 else (1 if k == 1 else outputs),
                outputs,
                k,
                stride,
                bias=False,
                groups=outputs if per_group == 1 else 1,
            )
            self.conv.weight.data = kernel
            self.norm = torch.nn.BatchNorm2d(outputs, eps=1e-3)
            for part in ("weight", "bias", "running_mean", "running_var"):
                getattr(self.norm, part).data = w[f"{norm}.{part}"]
            out = -(-side // stride)
            total = max((out - 1) * stride + k - side, 0)
            self.pad = (total // 2, total - total // 2) * 2
            if total % 2 == 0:
                self.conv.padding, self.pad = (total // 2, total // 2), (0, 0, 0, 0)
            self.relu6 = relu6
            self.side = out

        def forward(self, x):
            x = F.pad(x, self.pad) if any(self.pad) else x
            x = self.norm(self.conv(x))
            return F.relu6(x) if self.relu6 else x

    class Block(torch.nn.Module):
        def __init__(self, i, k, stride, expansion, inputs, outputs, side):
            super().__init__()
            at = f"_blocks.{i}."
            self.expand = None
            if expansion != 1:
                self.expand = Layer(at + "_expand_conv", at + "_bn0", 1, True, side)
            self.depthwise = Layer(at + "_depthwise_conv", at + "_bn1", stride, True, side)
            self.side = self.depthwise.side
            self.project = Layer(at + "_project_conv", at + "_bn2", 1, False, self.side)
            self.keeps = stride == 1 and inputs == outputs

        def forward(self, x):
            y = x if self.expand is None else self.expand(x)
            y = self.project(self.depthwise(y))
            return x + y if self.keeps else y

    class Lite0(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = [Layer("_conv_stem", "_bn0", 2, True, 224)]
            inputs, i = 32, 0
            for repeats, k, stride, expansion, outputs in stages:
                for repeat in range(repeats):
                    step = stride if repeat == 0 else 1
                    layers.append(Block(i, k, step, expansion, inputs, outputs, layers[-1].side))
                    inputs, i = outputs, i + 1
            layers.append(Layer("_conv_head", "_bn1", 1, True, layers[-1].side))
            self.layers = torch.nn.Sequential(*layers)

        def forward(self, x):
            return self.layers((x - 127) / 128).mean((2, 3))

    return Lite0().eval()


def vit(cache):
    """The ViT-S/16 of models/golden/make.py: grey levels [N, 3, 224, 224] to the class token."""
    import torch
    from safetensors.torch import load_file

    sys.path.insert(0, str(GOLDEN))
    import make

    card = json.loads((cache / "vit-s16.json").read_text())
    # Replicated already, as a user's batch is; the module normalises.
    weights = load_file(cache / "vit-s16.safetensors")

    class Vit(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for key, tensor in weights.items():
                self.register_buffer(key.replace(".", "/"), tensor)

        def forward(self, x):
            return make.forward(card, {k.replace("/", "."): v for k, v in self._buffers.items()}, x)

    return Vit().eval()


def module(cache, work):
    return lite0(cache / "lite0.safetensors") if work == "efficientnet-lite0" else vit(cache)


def images(items):
    """The canary, replicated to three channels as a caller of these networks does."""
    sys.path.insert(0, str(GOLDEN))
    import make

    return make.canary(224, 224, 1).expand(items, 3, -1, -1).contiguous()


def serve(peer, cache, work, threads):
    """Answers lines on standard input."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)
    runners = {}

    def runner(items):
        image = images(items)
        if peer == "onnxruntime":
            import onnxruntime

            path = cache / f"{work}-{items}.onnx"
            if not path.exists():
                torch.onnx.export(module(cache, work), (image,), str(path), dynamo=True, external_data=False, verbose=False)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            name, array = session.get_inputs()[0].name, image.numpy()
            return lambda: session.run(None, {name: array})
        if peer == "module":
            traced = torch.jit.load(cache / f"{work}.pt")
            return lambda: traced(image)
        if peer == ON_DEVICE[1]:
            moved = torch.jit.load(cache / f"{work}.pt", map_location=DEVICE)
            return lambda: moved(image.to(DEVICE)).cpu()
        network = module(cache, work)
        if peer == "torchscript":
            # The better of both layouts, frozen and optimised for inference.
            best = []
            for layout in (torch.contiguous_format, torch.channels_last):
                laid = module(cache, work).to(memory_format=layout)
                given = image.to(memory_format=layout)
                traced = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(laid, given)))
                for _ in range(3):
                    traced(given)
                start = time.process_time()
                traced(given)
                best.append((time.process_time() - start, traced, given))
            _, traced, given = min(best, key=lambda entry: entry[0])
            return lambda: traced(given)
        return lambda: network(image)

    print("ready", flush=True)
    for line in sys.stdin:
        items, repeats = map(int, line.split())
        if items == 0:
            found = runner(1)()
            found = found[0] if isinstance(found, list) else found
            print(json.dumps(found.reshape(-1).tolist()), flush=True)
            continue
        if items not in runners:
            runners[items] = runner(items)
            for _ in range(2):
                runners[items]()
        cpu = wall = float("inf")
        for _ in range(repeats):
            start, before = time.perf_counter(), time.process_time()
            runners[items]()
            cpu = min(cpu, (time.process_time() - before) / items)
            wall = min(wall, (time.perf_counter() - start) / items)
        print(cpu, wall, flush=True)


class Side:
    """A process that answers."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ALLOCATOR,
        )
        self.greeting = self.read(command)

    def read(self, what):
        while line := self.process.stdout.readline():
            if line.startswith("[torch.onnx]"):
                continue
            return line.strip()
        sys.exit(f"ended early: {what}")

    def ask(self, items, repeats):
        self.process.stdin.write(f"{items} {repeats}\n")
        self.process.stdin.flush()
        return self.read((items, repeats))

    def time(self, items, repeats):
        return tuple(map(float, self.ask(items, repeats).split()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def line(**fields):
    print(json.dumps({"bench": "embed", **fields}), flush=True)


def agree(sides):
    """All sides must compute the same before it matters how fast."""
    embeddings = {name: json.loads(side.ask(0, 0)) for name, side in sides.items()}
    norm = lambda v: sum(x * x for x in v) ** 0.5
    mine = embeddings["ours"]
    for name, other in embeddings.items():
        cosine = sum(a * b for a, b in zip(mine, other, strict=True)) / norm(mine) / norm(other)
        if not cosine > 0.9999 or abs(norm(mine) / norm(other) - 1) > 1e-3:
            sys.exit(f"{name} computes something else: cosine {cosine}")


def beside(example_binary, cache, rounds):
    for work, (batches, bars) in WORK.items():
        model = (work, cache / "lite0.safetensors")
        if work == "vit-s16":
            model = (cache / "vit-s16.json", cache / "vit-s16.safetensors")
        ours = [example_binary, *map(str, model)]
        sides = {"ours": Side([*ours, "1"]), "ours, 2 threads": Side([*ours, "2"])}
        device, opened, work_gflop, peak = sides["ours"].greeting.split("|")
        opened, work_gflop, peak = float(opened), float(work_gflop), float(peak)
        line(work=f"{work}, open a model on disk", ours=opened, unit="s", bar=0.5, met=opened < 0.5)
        for peer in PEERS:
            sides[peer] = Side([sys.executable, __file__, "serve", peer, str(cache), work, "1"])
        traced = [str(cache / f"{work}.torchscript.json"), str(cache / f"{work}.pt")]
        engine, python = SAME_MODULE
        sides[engine] = Side([example_binary, *traced, "1"])
        sides[python] = Side([sys.executable, __file__, "serve", python, str(cache), work, "1"])
        if DEVICE:
            sides[ON_DEVICE[0]] = Side([example_binary, *traced, "1", DEVICE])
            sides[ON_DEVICE[1]] = Side([sys.executable, __file__, "serve", ON_DEVICE[1], str(cache), work, "1"])
        if wgpu := os.environ.get("EMBED_ADAPTER", "software"):
            sides[WGPU] = Side([*ours, "1", wgpu])
        agree(sides)
        for items in batches:
            repeats = max(3, 24 // items)
            for side in sides.values():
                side.time(items, 1)
            turns = {name: [] for name in sides}
            for _ in range(rounds):
                for name, side in sides.items():
                    turns[name].append(side.time(items, repeats))
            cpu = {name: statistics.median(t[0] for t in found) for name, found in turns.items()}
            # Wall time counts only where threads are compared; the least, because others may use the machine too.
            wall = {name: min(t[1] for t in found) for name, found in turns.items()}
            best = min(PEERS, key=cpu.get)
            line(
                work=f"{work}, batch {items}, one thread, of the measured peak of {peak:.0f} GFLOP/s",
                ours=work_gflop / cpu["ours"] / peak,
                unit="fraction",
            )
            for peer in PEERS:
                ratio = cpu[peer] / cpu["ours"]
                bar = bars.get(peer) or (bars.get("best") if peer == best else None)
                line(
                    work=f"{work}, batch {items}, one thread, {device}",
                    ours=1e3 * cpu["ours"],
                    unit="ms of CPU per image",
                    peer=peer,
                    peer_value=1e3 * cpu[peer],
                    ratio=ratio,
                    bar=bar,
                    met=None if bar is None else ratio >= bar,
                )
            ratio = cpu[python] / cpu[engine]
            line(
                work=f"{work}, batch {items}, one thread, {sides[engine].greeting.split('|')[0]}",
                ours=1e3 * cpu[engine],
                unit="ms of CPU per image",
                peer="Python, the same module",
                peer_value=1e3 * cpu[python],
                ratio=ratio,
                bar=SAME_MODULE_BAR,
                met=ratio >= SAME_MODULE_BAR,
            )
            if DEVICE:
                mine, its = (wall[name] for name in ON_DEVICE)
                line(
                    work=f"{work}, batch {items}, {sides[ON_DEVICE[0]].greeting.split('|')[0]}",
                    ours=1e3 * mine,
                    unit="ms per image",
                    peer=f"Python, the same module on {DEVICE}",
                    peer_value=1e3 * its,
                    ratio=its / mine,
                    bar=SAME_MODULE_BAR,
                    met=its / mine >= SAME_MODULE_BAR,
                )
            if WGPU in sides:
                most = WGPU_MOST_MS.get(work)
                for kind, found in (("wall time", wall), ("CPU, all cores,", cpu)):
                    bar = most if kind == "wall time" else None
                    line(
                        work=f"{work}, batch {items}, {sides[WGPU].greeting.split('|')[0]}",
                        ours=1e3 * found[WGPU],
                        unit=f"ms of {kind} per image",
                        most=bar,
                        met=None if bar is None else 1e3 * found[WGPU] <= bar,
                    )
            if items > 1:
                ratio = wall["ours"] / wall["ours, 2 threads"]
                line(
                    work=f"{work}, batch {items}, two threads against one",
                    ours=1e3 * wall["ours, 2 threads"],
                    unit="ms per image",
                    peer="ours, one thread",
                    peer_value=1e3 * wall["ours"],
                    ratio=ratio,
                    bar=1.9,
                    met=ratio >= 1.9,
                )
        for side in sides.values():
            side.close()


def prepare(cache, weights):
    """The ViT with random weights, and the real Lite0, in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "vit-s16.json").exists():
        subprocess.run([sys.executable, GOLDEN / "make.py", "--full", cache], check=True, stdout=subprocess.DEVNULL)
    target = cache / "lite0.safetensors"
    target.unlink(missing_ok=True)
    target.symlink_to(weights.resolve())
    for work in WORK:
        trace(cache, work)


def trace(cache, work):
    """The network as a module for the libtorch engine, and its card."""
    import torch

    torch.set_grad_enabled(False)
    traced = torch.jit.trace(module(cache, work), images(2))
    path = cache / f"{work}.pt"
    traced.save(path)
    made = json.loads((cache / "vit-s16.json").read_text())
    made |= {"name": f"{work}-torchscript", "architecture": "torchscript"}
    made["weights"] |= {"content_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "keys": []}
    made["input"] |= {"scale": 1.0, "normalisation": {"fixed": {"mean": [0.0], "std": [1.0]}}}
    made["canary"]["embedding"] = traced(images(1))[0].tolist()
    made["embedding_width"] = len(made["canary"]["embedding"])
    (cache / f"{work}.torchscript.json").write_text(json.dumps(made))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("beside")
    one.add_argument("serve")
    one.add_argument("cache", type=Path)
    one.add_argument("weights", type=Path)
    one.add_argument("--rounds", type=int, default=7)
    one = commands.add_parser("serve")
    one.add_argument("peer", choices=(*PEERS, SAME_MODULE[1], ON_DEVICE[1]))
    one.add_argument("cache", type=Path)
    one.add_argument("work", choices=WORK)
    one.add_argument("threads", type=int)
    arguments = parser.parse_args()
    if arguments.command == "serve":
        serve(arguments.peer, arguments.cache, arguments.work, arguments.threads)
    else:
        prepare(arguments.cache, arguments.weights)
        beside(arguments.serve, arguments.cache, arguments.rounds)
