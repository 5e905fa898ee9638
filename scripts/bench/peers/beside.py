"""Runs our benches and those of the peers in turn, each in a process of its own, and prints JSON lines.

    python beside.py WELLSPRING INPUT_DIR [--rounds N] [WORK...]

Each line: {"bench","work","ours","unit","peer","peer_value","ratio","bar","met"}. Seconds: the median of the rounds;
the ratio is peer / ours, and the bar the least it must be. Bytes: the largest peak of the rounds; the bar, where there
is one, is the most ours may be.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

# Work: the area of `wellspring bench compare`, how its line begins, the peer, the bar, the bar of memory in bytes.
WORK = {
    "robust_mad": ("scale", "robust MAD", "pycytominer 1.7.1", 20, None),
    "standardise": ("scale", "standardise", "pycytominer 1.7.1", 20, None),
    "sphere": ("sphere", "sphering ZCA-cor", "pycytominer 1.7.1", 30, 500e6),
    "tvn": ("tvn", "TVN with CORAL", "EFAAR_benchmarking 1.0", 20, None),
    "map": ("map", "mean average precision", "copairs 0.5.5", 5, None),
    "hill": ("hill", "Hill fits", "scipy 1.17.1 curve_fit, four starts", 100, None),
}
THREADS = str(min(2, os.cpu_count() or 1))
ENVIRONMENT = os.environ | {
    name: THREADS
    for name in (
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "RAYON_NUM_THREADS",
    )
}


def run(command):
    """Standard output of a command and the most memory it held."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return text, usage.ru_maxrss * 1024


def ours(wellspring, work):
    area, beginning, *_ = WORK[work]
    text, peak = run([wellspring, "bench", "compare", "--areas", area, "--without-limits", "--json"])
    for line in map(json.loads, text.splitlines()):
        if line["unit"] == "s" and line["work"].startswith(beginning):
            return line["ours"], line["work"], peak
    sys.exit(f"wellspring bench compare --areas {area} has no line '{beginning}'")


def peers(folder, work):
    text, peak = run([sys.executable, Path(__file__).with_name("peers.py"), work, folder])
    return json.loads(text), peak


def line(**fields):
    print(json.dumps({"bench": "compare", **fields}), flush=True)


def beside(wellspring, folder, work, rounds):
    _, _, peer, bar, memory_bar = WORK[work]
    our_seconds, our_peaks, peer_seconds, peer_peaks = [], [], [], []
    for _ in range(rounds):
        seconds, name, peak = ours(wellspring, work)
        our_seconds.append(seconds)
        our_peaks.append(peak)
        answer, peak = peers(folder, work)
        peer_seconds.append(answer["seconds"])
        peer_peaks.append(peak)
        if answer.get("scaled_from"):
            peer = f"{WORK[work][2]}, {answer['scaled_from']} of {answer['of']} measured and scaled"
    mine, theirs = statistics.median(our_seconds), statistics.median(peer_seconds)
    line(
        work=name,
        ours=mine,
        unit="s",
        peer=peer,
        peer_value=theirs,
        ratio=theirs / mine,
        bar=bar,
        met=theirs / mine >= bar,
    )
    mine, theirs = max(our_peaks), max(peer_peaks)
    line(
        work=f"peak memory, {name}",
        ours=mine,
        unit="bytes",
        peer=peer,
        peer_value=theirs,
        ratio=theirs / mine,
        bar=memory_bar,
        met=None if memory_bar is None else mine <= memory_bar,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("wellspring")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("work", nargs="*", choices=[[], *WORK])
    arguments = parser.parse_intermixed_args()
    for work in arguments.work or WORK:
        beside(arguments.wellspring, arguments.folder, work, arguments.rounds)
