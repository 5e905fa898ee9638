"""One piece of work by a Python peer, on the input that `wellspring bench compare --write-input DIR` wrote.

    python peers.py WORK DIR

Prints one JSON object: {"seconds", "scaled_from", "of"}. Only the work is timed, not imports or reading.
"""

import json
import shutil
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import numpy as np
import pandas as pd


def read(folder):
    values = np.load(folder / "values.npy").astype(np.float64)
    wells = pd.read_csv(folder / "wells.csv", keep_default_na=False)
    return values, wells


def timed(work):
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}


def frame(values, wells):
    names = [f"Nuclei_e{i:03d}" for i in range(values.shape[1])]
    meta = wells.rename(columns=lambda name: f"Metadata_{name}")
    return pd.concat([meta, pd.DataFrame(values, columns=names)], axis=1), list(meta.columns), names


def normalize(method):
    def run(folder):
        from pycytominer import normalize

        table, meta, names = frame(*read(folder))
        plates = [group.reset_index(drop=True) for _, group in table.groupby("Metadata_plate", sort=False)]
        healthy = "Metadata_role == 'healthy'"
        one = lambda plate: normalize(plate, features=names, meta_features=meta, samples=healthy, method=method)
        return timed(lambda: pd.concat([one(plate) for plate in plates]))

    return run


def sphere(folder):
    from pycytominer.operations.transform import Spherize

    values, wells = read(folder)
    table = pd.DataFrame(values, columns=[str(i) for i in range(values.shape[1])])
    controls = (wells.role != "treated").values
    work = lambda: Spherize(method="ZCA-cor", return_numpy=True).fit(table[controls]).transform(table)
    return timed(work)


def import_efaar():
    """efaar_benchmarking imports scvi, torch and geomloss for methods that are not used here."""
    import scipy.stats, sklearn.metrics.pairwise  # noqa: F401,E401 (before their optional imports are replaced)

    added = {
        "scvi": {},
        "scvi.model": {"SCVI": object},
        "geomloss": {"SamplesLoss": object},
        "torch": {"from_numpy": lambda x: x, "Tensor": type("Tensor", (), {})},
    }
    added = {name: content for name, content in added.items() if name not in sys.modules}
    for name, content in added.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module
    from efaar_benchmarking import efaar

    for name in added:
        sys.modules.pop(name, None)
    return efaar


def tvn(folder):
    efaar = import_efaar()
    values, wells = read(folder)
    values = values[:, :128].copy()
    controls = (wells.role != "treated").values
    meta = pd.DataFrame({"plate": wells.plate, "pert": np.where(controls, "CTRL", "x")})
    return timed(lambda: efaar.tvn_on_controls(values, meta, "pert", "CTRL", "plate"))


def mean_average_precision(folder):
    from copairs import map as cmap
    from copairs.matching import assign_reference_index

    values, wells = read(folder)
    use = (wells.role != "disease").values
    meta = wells[use].reset_index(drop=True).rename(columns=lambda name: f"Metadata_{name}")
    meta = assign_reference_index(
        meta, "Metadata_role == 'healthy'", reference_col="Metadata_ref", default_value=-1
    )
    values = values[use][:, :128]

    def work():
        ap = cmap.average_precision(
            meta,
            values,
            ["Metadata_perturbation", "Metadata_ref"],
            [],
            ["Metadata_plate"],
            ["Metadata_perturbation", "Metadata_ref"],
            progress_bar=False,
        )
        ap = ap[ap.Metadata_role == "treated"].reset_index(drop=True)
        cache = tempfile.mkdtemp()
        cmap.mean_average_precision(
            ap, ["Metadata_perturbation"], 10000, 0.05, 0, progress_bar=False, cache_dir=cache
        )
        shutil.rmtree(cache)

    return timed(work)


def hill(folder):
    """Three parameters from the best of four starts; measured on the first curves, scaled to all."""
    from scipy.optimize import curve_fit

    curves = np.load(folder / "curves.npy").astype(np.float64)
    doses = np.log10(np.loadtxt(folder / "doses.csv"))
    few = 200
    f = lambda x, top, ec50, slope: top / (1 + 10 ** (slope * (ec50 - x)))
    low, high = doses.min(), doses.max()
    bounds = ([-0.5, low - 1, 0.3], [1.5, high + 1, 5])

    def fit(y):
        best = None
        for ec50 in np.linspace(low, high, 4):
            start = [np.clip(y[-2:].mean(), 0.05, 1.45), ec50, 1.0]
            try:
                p, _ = curve_fit(f, doses, y, start, bounds=bounds)
            except RuntimeError:
                continue
            sse = ((f(doses, *p) - y) ** 2).sum()
            best = sse if best is None else min(best, sse)
        return best

    result = timed(lambda: [fit(y) for y in curves[:few]])
    return {"seconds": result["seconds"] * len(curves) / few, "scaled_from": few, "of": len(curves)}


WORK = {
    "robust_mad": normalize("mad_robustize"),
    "standardise": normalize("standardize"),
    "sphere": sphere,
    "tvn": tvn,
    "map": mean_average_precision,
    "hill": hill,
}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](Path(sys.argv[2]))))
