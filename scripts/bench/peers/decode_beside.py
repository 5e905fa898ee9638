"""Runs our decoding and that of the peers in turn, each in a process of its own, and prints JSON lines.

    python decode_beside.py DECODE_TIME DATA [--rounds N] [FILE...]

Each line: {"bench","work","ours","unit","peer","peer_value","ratio","bar","met"}. MB/s of decoded pixels, one thread on both sides: the
median of the rounds, each the best of half a second. The ratio is the median of ours / peer within the same round, since other work on the
machine slows both, and the bar the least it must be. "cpu_ratio" is the same of processor time, of which "ours_cpu_seconds" and
"peer_cpu_seconds" are those of one image. The sums of the pixels of all are compared. Lines of 2 threads stand beside our own 1.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import decode

PEERS = {
    "tifffile": "tifffile 2026.3.3 with imagecodecs 2026.3.6",
    "opencv": "libtiff in OpenCV 5.0.0.93",
    "pillow": "libtiff in Pillow 11.3.0",
}
# The least ratio to tifffile, and to the faster of the two that call libtiff.
TIFFFILE = {
    "none": 1,
    "deflate": 1,
    "deflate_predictor": 1,
    "deflate_tiles": 1,
    "zstd": 1,
    "zstd_predictor": 1,
}
LIBTIFF = {"lzw": 0.9, "lzw_predictor": 0.9}


def run(*command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return json.loads(done.stdout)


def line(**fields):
    print(json.dumps({"bench": "decode", **fields}), flush=True)


def beside(program, file, facts, rounds):
    name, peers = file.stem, {peer: [] for peer in PEERS}
    one, two = [], []
    for _ in range(rounds):
        one.append(run(program, file))
        for peer, answers in peers.items():
            answer = run(sys.executable, Path(__file__).with_name("decode.py"), peer, file)
            if "error" in answer:
                answers.clear()
                continue
            answers.append(answer)
        two.append(run(program, "--threads", 2, file))
    sums = {answer["sum"] for answer in [*one, *two, *sum(peers.values(), [])]}
    if sums != {facts["sum"]}:
        sys.exit(f"{name}: the pixels differ: {sums}, written {facts['sum']}")
    megabytes = facts["bytes"] / 1e6
    speed = lambda answers: statistics.median(megabytes / answer["seconds"] for answer in answers)
    cpu = lambda answers: statistics.median(answer["cpu_seconds"] for answer in answers)
    work = f"TIFF {name.replace('_', ' with ')}, 2160 x 2160 16 bit, {facts['content']}, file {100 * file.stat().st_size / facts['bytes']:.0f} %"
    fastest = max(("opencv", "pillow"), key=lambda peer: speed(peers[peer]) if peers[peer] else 0)
    for peer, answers in peers.items():
        if not answers:
            line(work=work, ours=speed(one), unit="MB/s", peer=f"{PEERS[peer]} cannot read it", peer_value=None, ratio=None, bar=None, met=None)
            continue
        ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(one, answers))
        bar = TIFFFILE.get(name) if peer == "tifffile" else LIBTIFF.get(name) if peer == fastest else None
        line(
            work=work,
            ours=speed(one),
            unit="MB/s",
            peer=PEERS[peer],
            peer_value=speed(answers),
            ratio=ratio,
            bar=bar,
            met=None if bar is None else ratio >= bar,
            cpu_ratio=statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(one, answers)),
            ours_cpu_seconds=cpu(one),
            peer_cpu_seconds=cpu(answers),
        )
    ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(one, two))
    line(
        work=f"{work}, 2 threads",
        ours=speed(two),
        unit="MB/s",
        peer="1 thread",
        peer_value=speed(one),
        ratio=ratio,
        bar=None,
        met=None,
        ours_cpu_seconds=cpu(two),
        peer_cpu_seconds=cpu(one),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("file", nargs="*", choices=[[], *decode.KINDS, "deflate_tiles"])
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        facts = run(sys.executable, Path(__file__).with_name("decode.py"), "write", folder, arguments.data)
        for name in arguments.file or [*decode.KINDS, "deflate_tiles"]:
            beside(arguments.program, Path(folder) / f"{name}.tif", facts, arguments.rounds)
