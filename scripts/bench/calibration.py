"""Are p-values of screens without any effect even, and how many compounds are called wrongly?

Made screens enter `wellspring compare`, seed after seed; a Markdown table leaves on standard output. Every compound of
the first screen of a seed is inactive; the second has the same plates with two rescuers and two toxic compounds as well,
so that calls and false discoveries are counted beside true ones. Needs numpy and pyarrow.

    python scripts/bench/calibration.py BINARY [SEEDS] [--first SEED] [--disease X] [--rescue X] [--toxicity X] [--design N]
        [--spoilt SHARE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCREEN = """
[screen]
name = "null"
[profiles]
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
[comparison]
seed = %d
[monitor]
enabled = false
[output]
report = false
"""
DOSES = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
# Name, plates, control wells of each kind per plate, compounds, features, degrees of freedom of the noise (0: normal).
DESIGNS = [
    ("4 plates, 32 controls of each kind, 64 features", 4, 32, 40, 64, 0),
    ("2 plates, 16 controls of each kind, 64 features", 2, 16, 40, 64, 0),
    ("4 plates, 32 controls, 384 features", 4, 32, 40, 384, 0),
    ("4 plates, 32 controls, 64 features, heavy tails (t with 4 degrees)", 4, 32, 40, 64, 4),
]


def screen(seed, plates, controls, compounds, features, tails, active, sizes):
    """Wells on plates with shifts and scales of their own.

    `sizes`: how far the disease lies from healthy in noise lengths, the share of it that rescuers take away at most,
    how far toxic compounds reach beside it in noise lengths, and the share of the first plate's controls of each kind
    that hold debris, 30 noise lengths away.
    """
    disease, rescue, toxicity, spoilt = sizes
    random = np.random.default_rng([seed, plates, controls, features, tails])

    def noise(*shape):
        return random.standard_t(tails, shape) if tails else random.normal(size=shape)

    def direction(length):
        vector = random.normal(size=features)
        return vector / np.linalg.norm(vector) * length * np.sqrt(features)

    axis, harm = direction(disease), direction(toxicity)
    kinds = ["rescue"] * 2 + ["toxic"] * 2 if active else []
    kinds += ["none"] * (compounds - len(kinds))
    wells, rows = [], []
    for plate in range(plates):
        given = [("healthy", "DMSO", 0.0, np.zeros(features))] * controls
        given += [("disease", "DMSO", 0.0, axis)] * controls
        for number, kind in enumerate(kinds):
            for dose in DOSES:
                reached = dose / (dose + 0.5)
                mean = axis * (1 - rescue * reached) if kind == "rescue" else axis
                mean = axis + harm * reached if kind == "toxic" else mean
                given.append(("treated", f"{kind}-{number:02}", dose, mean))
        if plate == 0 and spoilt:
            debris = 30 * np.random.default_rng(seed).normal(size=features)
            for first in (0, controls):
                for well in range(first, first + round(spoilt * controls)):
                    given[well] = (*given[well][:3], given[well][3] + debris)
        shift = random.normal(size=features)
        scale = np.exp(0.1 * random.normal(size=features))
        for place, (role, compound, dose, mean) in zip(random.permutation(384), given):
            wells.append((f"P{plate}", f"{chr(65 + place // 24)}{place % 24 + 1:02}", role, compound, str(dose)))
            rows.append(mean)
        last = len(given)
        rows[-last:] = list(shift + scale * (np.array(rows[-last:]) + noise(last, features)))
    names = ["Metadata_Plate", "Metadata_Well", "Metadata_role", "Metadata_compound", "Metadata_dose"]
    columns = {name: list(cells) for name, cells in zip(names, zip(*wells))}
    values = np.array(rows, dtype=np.float32)
    columns |= {f"e_{i}": values[:, i] for i in range(features)}
    return pa.table(columns)


def compared(binary, folder, table, seed):
    """Rows and compounds of a comparison."""
    pq.write_table(table, folder / "wells.parquet")
    (folder / "screen.toml").write_text(SCREEN % seed)
    command = [binary, "compare", "--json", "--features", folder / "wells.parquet"]
    command += ["--screen", folder / "screen.toml", "--out", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    json.loads(done.stdout.splitlines()[-1])
    read = lambda name: pq.read_table(folder / "out" / name).to_pylist()
    return read("comparisons.parquet"), read("compounds.parquet")


def main():
    parser = argparse.ArgumentParser(description="Calibration of calls on made screens")
    parser.add_argument("binary")
    parser.add_argument("seeds", type=int, nargs="?", default=20, help="screens of each design")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--disease", type=float, default=0.75, help="distance of the disease, in noise lengths")
    parser.add_argument("--rescue", type=float, default=1.0, help="share of it that rescuers take away at most")
    parser.add_argument("--toxicity", type=float, default=1.5, help="distance of toxic compounds, in noise lengths")
    parser.add_argument("--design", type=int, help="one of the designs only, from 0")
    parser.add_argument("--spoilt", type=float, default=0.0, help="share of the first plate's controls with debris")
    given = parser.parse_args()
    binary, seeds = given.binary, given.seeds
    sizes = given.disease, given.rescue, given.toxicity, given.spoilt
    designs = DESIGNS if given.design is None else [DESIGNS[given.design]]
    print("| design | rows | p < 0.05 | p < 0.01 | beside: p < 0.05 | largest gap to even | screens with a false q < 0.05 "
          "| false hits | false toxic | rescuers found | toxic found | false share of q < 0.05 |")
    print("|---|" + "---|" * 11)
    for name, *design in designs:
        p, beside, any_false, hits, toxic = [], [], 0, 0, 0
        found, toxic_found, false, discovered = 0, 0, 0, 0
        for seed in range(given.first, given.first + seeds):
            with tempfile.TemporaryDirectory() as folder:
                rows, compounds = compared(binary, Path(folder), screen(seed, *design, False, sizes), seed)
            treated = [row for row in rows if row["compound"] != "DMSO"]
            p += [row["p_value"] for row in treated]
            beside += [row["p_off"] for row in treated]
            any_false += any(row["q_value"] < 0.05 for row in treated)
            hits += sum(row["call"] == "rescue_hit" for row in compounds)
            toxic += sum(row["call"] == "toxic" for row in compounds)
            with tempfile.TemporaryDirectory() as folder:
                rows, compounds = compared(binary, Path(folder), screen(seed, *design, True, sizes), seed)
            for row in compounds:
                kind = row["compound"].split("-")[0]
                found += kind == "rescue" and row["call"] == "rescue_hit"
                toxic_found += kind == "toxic" and row["call"] == "toxic"
                hits += kind != "rescue" and row["call"] == "rescue_hit"
                toxic += kind != "toxic" and row["call"] == "toxic"
            least = [row for row in rows if row["compound"] != "DMSO" and row["q_value"] < 0.05]
            discovered += len(least)
            false += sum(row["compound"].startswith("none") for row in least)
        p, beside = np.sort(p), np.array(beside)
        gap = np.abs(p - (np.arange(len(p)) + 0.5) / len(p)).max()
        print(f"| {name} | {len(p)} | {np.mean(p < 0.05):.3f} | {np.mean(p < 0.01):.4f} | {np.mean(beside < 0.05):.3f} | "
              f"{gap:.3f} | {any_false} / {seeds} | {hits} | {toxic} | {found} / {2 * seeds} | {toxic_found} / {2 * seeds} | "
              f"{false / max(discovered, 1):.3f} of {discovered} |", flush=True)


if __name__ == "__main__":
    main()
