"""One piece of work by a Python peer, on the input that `kernels_time --write-input DIR` wrote.

    python kernels.py WORK DIR

Prints one JSON object: {"seconds", "cpu_seconds"}, and "scaled_from" and "of" where only some channels were measured. Only the work is
timed, not imports or reading; the best of three, or of one where one takes long.
"""

import json
import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import numpy as np

LEVELS = (0.1, 1, 50, 99, 99.9)


def field(folder):
    return np.load(folder / "field.npy")


def best(work, repeats=3):
    if repeats > 1:
        work()
    times, cpu = [], time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "cpu_seconds": (time.process_time() - cpu) / repeats}


def each(folder, work, repeats=3):
    """Of all channels, one after the other."""
    planes = field(folder)
    return best(lambda: [work(plane) for plane in planes], repeats)


def one_of(folder, work):
    """Of the first channel, once, for all."""
    planes = field(folder)
    one = best(lambda: work(planes[0]), 1)
    return {name: value * len(planes) for name, value in one.items()} | {"scaled_from": 1, "of": len(planes)}


def scaled(x, function):
    """Flat-field division, first percentile subtracted, scaled between percentiles 0.1 and 99.9."""
    y = np.maximum(x.astype(np.float32) - np.float32(100), 0) / function
    y = np.maximum(y - np.float32(np.percentile(y, 1)), 0)
    low, high = np.percentile(y, (0.1, 99.9)).astype(np.float32)
    return np.clip((y - low) / max(high - low, 1e-12), 0, 1) * np.float32(255)


def fused_opencv(folder):
    import cv2

    planes, functions = field(folder), np.load(folder / "illumination.npy")
    shrink = lambda x: cv2.resize(x, (512, 512), interpolation=cv2.INTER_AREA)
    return best(lambda: [shrink(scaled(x, f)) for x, f in zip(planes, functions)])


def fused_skimage(folder):
    from skimage.transform import resize

    planes, functions = field(folder), np.load(folder / "illumination.npy")
    shrink = lambda x: resize(x, (512, 512), order=1, anti_aliasing=True, preserve_range=True)
    return best(lambda: [shrink(scaled(x, f)) for x, f in zip(planes, functions)])


def percentiles(folder):
    return each(folder, lambda x: np.percentile(x, LEVELS))


def gaussian(sigma):
    def run(folder):
        from scipy.ndimage import gaussian_filter

        return each(folder, lambda x: gaussian_filter(x.astype(np.float32), sigma), 1)

    return run


def top_hat(folder):
    from skimage.morphology import disk, white_tophat

    return one_of(folder, lambda x: white_tophat(x, disk(15)))


def rolling_ball(folder):
    from skimage.restoration import rolling_ball

    def work(x):
        x = x.astype(np.float32)
        return x - rolling_ball(x, radius=50)

    return one_of(folder, work)


def median(folder):
    from scipy.ndimage import median_filter

    return one_of(folder, lambda x: median_filter(x, size=5))


def illumination(folder):
    from skimage.filters import median
    from skimage.morphology import disk

    mean = np.load(folder / "mean.npy")
    return best(lambda: median(mean, disk(85), behavior="rank"), 1)


WORK = {
    "fused_opencv": fused_opencv,
    "fused_skimage": fused_skimage,
    "percentiles": percentiles,
    "gaussian2": gaussian(2),
    "gaussian50": gaussian(50),
    "top_hat15": top_hat,
    "rolling_ball50": rolling_ball,
    "median5": median,
    "illumination": illumination,
}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](Path(sys.argv[2]))))
