#!/usr/bin/env python3
"""Writes the Zarr arrays and OME-Zarr plates that the tests read, and seeds of the fuzz target, with other implementations than ours: zarr-python (which
calls numcodecs) and ome-zarr-py. What it wrote is committed beside it; run it again only to change what is tested:

    python3 -m venv venv && venv/bin/pip install zarr==3.1.6 ome-zarr==0.18.0
    venv/bin/python pipeline/zarr/tests/made/make.py

Every pixel can be computed from its place, so that the tests need no copy: see `level`.
"""

import pathlib
import shutil
import tempfile
import zipfile

import numcodecs
import numpy as np
import zarr
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

HERE = pathlib.Path(__file__).parent


def level(page, y, x, seed=0):
    """Grey level of a pixel; page counts planes with the last axis before height and width fastest."""
    return seed * 4001 + page * 2003 + y * 64 + x


def pixels(shape, dtype, seed=0):
    pages = int(np.prod(shape[:-2], dtype=int))
    page, y, x = np.meshgrid(np.arange(pages), np.arange(shape[-2]), np.arange(shape[-1]), indexing="ij")
    return level(page, y, x, seed).astype(dtype).reshape(shape)


def packed(folder, name):
    """Packs a folder into one file, the same every time."""
    target = HERE / name
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(str(path.relative_to(folder)), (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    print(target, target.stat().st_size, "bytes")


SHAPE = (2, 3, 20, 30)


def arrays(folder):
    """Arrays of 2 x 3 planes of 20 x 30 pixels, one for each way of storing them."""

    def v2(name, dtype="<u2", **settings):
        settings.setdefault("chunks", (1, 2, 16, 16))
        array = zarr.create_array(folder / name, shape=SHAPE, dtype=dtype, zarr_format=2, fill_value=7, **settings)
        array[:] = pixels(SHAPE, dtype)

    slash = {"name": "v2", "separator": "/"}
    v2("v2-raw", compressors=None)
    v2("v2-raw-slash", compressors=None, chunk_key_encoding=slash)
    v2("v2-big-endian", dtype=">u2", compressors=numcodecs.Zstd(level=3))
    v2("v2-bytes", dtype="|u1", compressors=numcodecs.Blosc(cname="lz4", shuffle=numcodecs.Blosc.BITSHUFFLE))
    v2("v2-fortran", compressors=numcodecs.GZip(level=5), order="F")
    v2("v2-zlib", compressors=numcodecs.Zlib(level=5), chunks=(2, 3, 20, 30))
    for cname in ["blosclz", "lz4", "lz4hc", "zlib", "zstd"]:
        v2(f"v2-blosc-{cname}", compressors=numcodecs.Blosc(cname=cname, clevel=5, shuffle=numcodecs.Blosc.SHUFFLE))

    def v3(name, dtype="uint16", data=None, **settings):
        settings.setdefault("chunks", (1, 2, 16, 16))
        array = zarr.create_array(folder / name, shape=SHAPE, dtype=dtype, zarr_format=3, fill_value=7, **settings)
        array[:] = pixels(SHAPE, dtype) if data is None else data

    v3("v3-raw", compressors=None)
    v3("v3-dots", compressors=None, chunk_key_encoding={"name": "v2", "separator": "."})
    v3("v3-big-endian", compressors=ZstdCodec(level=3, checksum=True), serializer=BytesCodec(endian="big"))
    v3("v3-gzip-crc32c", compressors=[GzipCodec(level=5), Crc32cCodec()])
    v3("v3-blosc", compressors=BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"))
    v3("v3-bytes", dtype="uint8", compressors=ZstdCodec(level=3))
    v3("v3-transposed", compressors=ZstdCodec(level=3), filters=TransposeCodec(order=(3, 1, 0, 2)))
    v3("v3-shards", compressors=ZstdCodec(level=3), chunks=(1, 1, 8, 8), shards=(2, 3, 24, 32))
    v3(
        "v3-shards-first",
        chunks=(1, 3, 16, 32),
        compressors=None,
        serializer=ShardingCodec(
            chunk_shape=(1, 1, 8, 16),
            codecs=[BytesCodec(endian="big"), BloscCodec(cname="lz4"), Crc32cCodec()],
            index_codecs=[BytesCodec()],
            index_location="start",
        ),
    )
    # The second half of the planes was never written: no chunk, and no chunk of the shard.
    half = pixels(SHAPE, "uint16")
    half[1] = 7
    v3("v3-half", compressors=ZstdCodec(level=3), data=half)
    v3("v3-half-shards", compressors=ZstdCodec(level=3), chunks=(1, 1, 8, 8), shards=(2, 3, 24, 32), data=half)
    # What is not read.
    v3("v3-floats", dtype="float32")


WELLS = ["B/3", "C/11"]


def plate(folder, version):
    """A plate of two wells with two fields of two channels, with a z stack (0.4) or in shards (0.5)."""
    name, format_, stack = ("BR04.ome.zarr", FormatV04(), True) if version == "0.4" else ("BR05.zarr", FormatV05(), False)
    root = zarr.open_group(folder / name, mode="w", zarr_format=format_.zarr_format)
    write_plate_metadata(
        root,
        rows=["A", "B", "C"],
        columns=[str(column) for column in range(1, 13)],
        wells=WELLS,
        fmt=format_,
        acquisitions=[{"id": 0, "maximumfieldcount": 2}],
        field_count=2,
        name="test plate",
    )
    for number, well in enumerate(WELLS):
        row, column = well.split("/")
        group = root.require_group(row).require_group(column)
        write_well_metadata(group, [{"path": "0", "acquisition": 0}, {"path": "1", "acquisition": 0}], fmt=format_)
        for field in range(2):
            image = group.require_group(str(field))
            seed = 2 * number + field
            shape, axes = ((2, 3, 40, 56), "czyx") if stack else ((2, 40, 56), "cyx")
            storage = {"chunks": (1, 1, 32, 32)} if stack else {"chunks": (1, 16, 16), "shards": (2, 48, 64)}
            write_image(
                pixels(shape, "uint16", seed),
                image,
                scale_factors=[2],
                axes=axes,
                scale={axis: {"c": 1, "z": 1.5}.get(axis, 0.65) for axis in axes},
                axes_units={axis: "micrometer" for axis in axes if axis != "c"},
                fmt=format_,
                storage_options=storage,
                omero={"channels": [channel("DAPI", "0000FF"), channel("GFP", "00FF00")]},
            )


def channel(label, color):
    return {"label": label, "color": color, "window": {"start": 0, "end": 65535, "min": 0, "max": 65535}}


def seeds(folder):
    """Seeds of the fuzz target: a document, a zero, and one object of the array."""
    target = HERE.parent.parent / "fuzz" / "seeds" / "zarr"
    target.mkdir(parents=True, exist_ok=True)
    for array in sorted(folder.iterdir()):
        documents = [path for path in array.rglob("*") if path.name in (".zarray", "zarr.json")]
        objects = [path for path in array.rglob("*") if path.is_file() and path.name not in (".zarray", ".zattrs", "zarr.json")]
        (target / array.name).write_bytes(documents[0].read_bytes() + b"\0" + min(objects).read_bytes())


def main():
    for name, write in [
        ("arrays.zip", arrays),
        ("plate-0.4.zip", lambda folder: plate(folder, "0.4")),
        ("plate-0.5.zip", lambda folder: plate(folder, "0.5")),
    ]:
        folder = pathlib.Path(tempfile.mkdtemp())
        write(folder)
        packed(folder, name)
        if write is arrays:
            seeds(folder)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
