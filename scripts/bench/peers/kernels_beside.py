"""Runs our kernels and those of the peers in turn, each in a process of its own, and prints JSON lines.

    python kernels_beside.py KERNELS_TIME INPUT_DIR [--device D] [--rounds N] [WORK...]

Each line: {"bench","work","ours","unit","peer","peer_value","ratio","bar","met"}. Seconds: the median of the rounds, each
the best of some repeats; the ratio is peer / ours, and the bar the least it must be. "ours_cpu" and "peer_cpu" are seconds
of all processors together, which say on a busy machine what the clock cannot. Lines in GB/s say how much of what must
move, moved, beside a copy with all threads in the same round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

# Work: our name for it, the peer's work, the peer, the bar.
WORK = {
    "fused": [
        ("fused", "fused_skimage", "numpy 2.4.6 and scikit-image 0.26.0", 20),
        ("fused", "fused_opencv", "numpy 2.4.6 and OpenCV 5.0.0.93", 10),
    ],
    "percentiles": [("percentiles", "percentiles", "numpy 2.4.6", 10)],
    "gaussian2": [("gaussian2", "gaussian2", "scipy 1.17.1", 4)],
    "gaussian50": [("gaussian50", "gaussian50", "scipy 1.17.1", 10)],
    "top_hat15": [("top_hat15", "top_hat15", "scikit-image 0.26.0", 10)],
    "rolling_ball50": [("rolling_ball50", "rolling_ball50", "scikit-image 0.26.0", 20)],
    "median5": [("median5", "median5", "scipy 1.17.1", None)],
    "illumination": [
        ("illumination", "illumination", "scikit-image 0.26.0 rank.median", 15),
        ("illumination_full", "illumination", "scikit-image 0.26.0 rank.median", None),
    ],
}
TITLES = {
    "fused": "flat-field, background, percentile scaling, area resize to 512, fused, 5 x 2160 x 2160",
    "percentiles": "percentiles 0.1, 1, 50, 99, 99.9, 5 x 2160 x 2160",
    "gaussian2": "Gaussian sigma 2, 5 x 2160 x 2160",
    "gaussian50": "Gaussian sigma 50, 5 x 2160 x 2160",
    "top_hat15": "top-hat, disk 15, 5 x 2160 x 2160",
    "rolling_ball50": "rolling ball 50, 5 x 2160 x 2160",
    "median5": "median 5 x 5, 5 x 2160 x 2160",
    "illumination": "illumination median, filter size 200, every fourth row and column, 1080 x 1080",
    "illumination_full": "illumination median, filter size 200, full resolution, 1080 x 1080",
}
# The least share of the copy bandwidth, per byte that must move.
SHARES = {"fused": 0.55}
THREADS = str(min(2, os.cpu_count() or 1))
ENVIRONMENT = os.environ | {
    name: THREADS
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "RAYON_NUM_THREADS")
}


def run(*command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def line(**fields):
    print(json.dumps({"bench": "kernels", **fields}), flush=True)


def beside(program, folder, device, work, rounds):
    pairs = WORK[work]
    ours = {name: [] for name, *_ in pairs}
    theirs = {peer: [] for _, peer, *_ in pairs}
    cpu = {name: [] for name in [*ours, *(f"peer {peer}" for peer in theirs)]}
    speeds, copies, scaled = [], [], {}
    for _ in range(rounds):
        for answer in run(program, "--device", device, "copy", *ours):
            if answer["work"] == "copy":
                copies.append(answer["bytes"] / answer["seconds"] / 1e9)
                continue
            ours[answer["work"]].append(answer["seconds"])
            cpu[answer["work"]].append(answer["cpu_seconds"])
            if answer["work"] == work and answer["bytes"]:
                speeds.append(answer["bytes"] / answer["seconds"] / 1e9)
        for peer in theirs:
            [answer] = run(sys.executable, Path(__file__).with_name("kernels.py"), peer, folder)
            theirs[peer].append(answer["seconds"])
            cpu[f"peer {peer}"].append(answer["cpu_seconds"])
            if answer.get("scaled_from"):
                scaled[peer] = f", {answer['scaled_from']} of {answer['of']} channels measured and scaled"
    where = "" if device == "cpu" else f", on {device}"
    for name, peer, title, bar in pairs:
        mine, other = statistics.median(ours[name]), statistics.median(theirs[peer])
        line(
            work=TITLES[name] + where,
            ours=mine,
            unit="s",
            peer=title + scaled.get(peer, ""),
            peer_value=other,
            ratio=other / mine,
            bar=bar,
            met=None if bar is None else other / mine >= bar,
            ours_cpu=statistics.median(cpu[name]),
            peer_cpu=statistics.median(cpu[f"peer {peer}"]),
        )
    if speeds:
        mine, copy = statistics.median(speeds), statistics.median(copies)
        bar = SHARES.get(work)
        line(
            work=f"bytes that must move, {TITLES[work]}{where}",
            ours=mine,
            unit="GB/s",
            peer="memory copy, read and written",
            peer_value=copy,
            ratio=mine / copy,
            bar=bar,
            met=None if bar is None else mine / copy >= bar,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("work", nargs="*", choices=[[], *WORK])
    arguments = parser.parse_intermixed_args()
    for work in arguments.work or WORK:
        beside(arguments.program, arguments.folder, arguments.device, work, arguments.rounds)
    if arguments.device != "cpu" and "fused" in (arguments.work or WORK):
        for dispatch in run(arguments.program, "--device", arguments.device, "dispatches"):
            line(work="fused recipe, dispatch", **dispatch)
