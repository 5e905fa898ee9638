"""Decoding by a Python peer, and the files to decode.

    python decode.py write DIR [DATA]      the files, made from real fields in DATA where it is there, else simulated
    python decode.py PEER FILE             one JSON object: {"seconds", "cpu_seconds", "sum"}; "error" where it cannot read it

Peers: tifffile (with imagecodecs), opencv and pillow (both with libtiff), one thread each. Only the decoding of bytes in memory is timed, the
best of half a second.
"""

import io
import json
import sys
import time
from pathlib import Path

import numpy as np

SIZE = 2160
# Name, compression, predictor of tifffile.
KINDS = {
    "none": (None, None),
    "lzw": ("lzw", None),
    "lzw_predictor": ("lzw", True),
    "deflate": ("zlib", None),
    "deflate_predictor": ("zlib", True),
    "zstd": ("zstd", None),
    "zstd_predictor": ("zstd", True),
    "packbits": ("packbits", None),
}


def field(data):
    """A 2160 x 2160 field: four real ones of 1080 x 1080, or cells of Gaussian shape with noise of photons and camera."""
    import tifffile

    folder = data / "cell_painting_fields/pediatric_cancer_atlas_profiling/images/orig"
    files = [folder / f"r03c03f03p01-ch{channel}sk1fk1fl1.tiff" for channel in (1, 2, 3, 5)]
    if all(file.exists() for file in files):
        a, b, c, d = map(tifffile.imread, files)
        return np.block([[a, b], [c, d]]), "four real fields of Opera Phenix"
    random = np.random.default_rng(7)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    light = np.full((SIZE, SIZE), 60, np.float32)
    for top, left in random.integers(0, SIZE, (400, 2)):
        near = np.s_[max(top - 60, 0) : top + 60, max(left - 60, 0) : left + 60]
        light[near] += 900 * np.exp(-((y[near] - top) ** 2 + (x[near] - left) ** 2) / 450)
    return np.clip(random.poisson(light) + random.normal(100, 4, light.shape), 0, 65535).astype(np.uint16), "simulated"


def write(folder, data):
    import tifffile

    pixels, content = field(data)
    for name, (compression, predictor) in KINDS.items():
        tifffile.imwrite(folder / f"{name}.tif", pixels, compression=compression, predictor=predictor)
    tifffile.imwrite(
        folder / "deflate_tiles.tif", pixels, compression="zlib", predictor=True, tile=(256, 256)
    )
    print(json.dumps({"content": content, "sum": int(pixels.sum(dtype=np.uint64)), "bytes": pixels.nbytes}))


def reader(peer):
    if peer == "tifffile":
        import tifffile

        return lambda data: tifffile.imread(io.BytesIO(data), maxworkers=1)
    if peer == "opencv":
        import cv2

        cv2.setNumThreads(1)
        return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    from PIL import Image

    # Pillow decodes when pixels are asked for; the copy to an array is not counted.
    return lambda data: (image := Image.open(io.BytesIO(data)), image.load())[0]


def measure(peer, file):
    data, read = file.read_bytes(), reader(peer)
    try:
        pixels = np.asarray(read(data))
        if pixels.ndim != 2:
            raise ValueError(f"an image of shape {pixels.shape}")
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    total = int(pixels.sum(dtype=np.uint64))
    del pixels
    start, cpu, times = time.perf_counter(), time.process_time(), []
    while time.perf_counter() - start < 0.5:
        once = time.perf_counter()
        read(data)
        times.append(time.perf_counter() - once)
    return {"seconds": min(times), "cpu_seconds": (time.process_time() - cpu) / len(times), "sum": total}


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else ""))
    else:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
