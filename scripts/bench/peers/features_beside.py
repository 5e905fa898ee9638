"""Runs our bench of nuclei and features and the peers in turn, each in a process of its own, and prints JSON lines.

    python features_beside.py FEATURES_TIME INPUT_DIR [--rounds N] [WORK...]

Each line: {"bench","work","ours","unit","peer","peer_value","ratio","bar","met"}. Seconds: the median of the rounds;
the ratio is peer / ours, and the bar the least it must be. "limit" is what reading every pixel and label once would
take at the copy bandwidth measured in the same run. Segmentation adds the F1 of the two sides at an overlap of 0.5.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

# Work: what it is, the peer, the bar.
WORK = {
    "slope": ("power log-log slope", "CellProfiler with centrosome 1.3.4", 5),
    "segment": ("nuclei segmentation", "scipy 1.17.1 and scikit-image 0.26.0", 5),
    "shape": ("shape", "cp_measure 0.3.0 sizeshape and feret", 5),
    "texture": ("texture", "cp_measure 0.3.0 texture", 5),
    "granularity": ("granularity", "cp_measure 0.3.0 granularity", 5),
    "radial": ("radial distribution", "cp_measure 0.3.0 radial_distribution", 5),
    "intensity": ("intensity", "cp_measure 0.3.0 intensity", None),
    "zernike": ("Zernike moments", "cp_measure 0.3.0 zernike and radial_zernikes", None),
    "colocalisation": ("colocalisation", "cp_measure 0.3.0 pearson, manders_fold, rwc, overlap", None),
}
F1_BAR = 0.95
THREADS = str(min(2, os.cpu_count() or 1))


def run(command, threads=THREADS):
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    answer = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | dict.fromkeys(names, threads)
    )
    if answer.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {answer.returncode}")
    return json.loads(answer.stdout)


def beside(ours, folder, work, rounds):
    name, peer, bar = WORK[work]
    mine, alone, theirs = [], [], []
    for _ in range(rounds):
        answer = run([ours, "--input", folder, work])
        mine.append(answer["seconds"])
        alone.append(run([ours, "--input", folder, work], threads="1")["seconds"])
        other = run([sys.executable, Path(__file__).with_name("features.py"), work, folder])
        theirs.append(other["seconds"])
    mine, theirs = statistics.median(mine), statistics.median(theirs)
    line = {
        "bench": "features",
        "work": f"{name}, 1080 x 1080, {answer['nuclei']} nuclei",
        "ours": mine,
        "ours_one_thread": statistics.median(alone),
        "unit": "s",
        "peer": peer,
        "peer_value": theirs,
        "ratio": theirs / mine,
        "bar": bar,
        "met": None if bar is None else theirs / mine >= bar,
        "limit": answer["limit_seconds"],
        "fraction_of_limit": answer["limit_seconds"] / mine,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(line), flush=True)
    if "f1" in other:
        f1 = {"ours": other["f1"], "unit": "F1 at IoU 0.5", "peer": peer, "bar": F1_BAR, "met": other["f1"] >= F1_BAR}
        counts = {"ours_count": answer["nuclei"], "peer_count": other["count"]}
        print(json.dumps({"bench": "features", "work": f"agreement of {name}"} | f1 | counts), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("ours")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("work", nargs="*", choices=[[], *WORK])
    arguments = parser.parse_args()
    for work in arguments.work or WORK:
        beside(arguments.ours, arguments.folder, work, arguments.rounds)
