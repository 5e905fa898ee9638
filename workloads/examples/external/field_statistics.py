#!/usr/bin/env python3
"""An external step in plain Python: reads the pixels of a field and answers with statistics of its channels.

As a command it reads one request per line from standard input and writes one answer per line to standard output;
messages for people go to standard error. With `--http PORT` it is a web service that takes the same requests by POST; where
a request says where to call back, it answers 202 and POSTs its answer there.

Columns are `<channel>_<measure>`, with the measures mean, sd, max and bright (the share of pixels above mean + 2 sd).
Images are TIFF (grey, 8 or 16 bits, plain or deflate) or PNG (grey, 8 or 16 bits) at file:// URIs; nothing but the
standard library is needed. A real service would open s3:// URIs with its own client, and run a network.
"""

import array
import json
import math
import struct
import sys
import urllib.parse
import urllib.request
import zlib

MEASURES = ("mean", "sd", "max", "bright")


class Refused(Exception):
    """What the screen is told."""


def read_bytes(uri):
    """The bytes of a file:// URI."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme != "file":
        raise Refused(f"{uri}: this example reads file:// only")
    with open(urllib.request.url2pathname(parts.path), "rb") as file:
        return file.read()


def samples(data, bits, big_endian):
    """Grey levels of 8- or 16-bit samples."""
    if bits == 8:
        return array.array("B", data)
    if bits != 16:
        raise Refused(f"{bits} bits per sample: 8 or 16 are read")
    levels = array.array("H", data[: len(data) // 2 * 2])
    if big_endian != (sys.byteorder == "big"):
        levels.byteswap()
    return levels


def read_tiff(data):
    """Grey levels of the first image of a TIFF file (TIFF 6.0; strips, no or deflate compression, predictor 1 or 2)."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags = {}
    for index in range(count):
        at = start + 2 + 12 * index
        tag, kind, number = struct.unpack_from(order + "HHI", data, at)
        size = {1: 1, 3: 2, 4: 4}.get(kind)
        if size is None:
            continue
        if size * number <= 4:
            place = at + 8
        else:
            (place,) = struct.unpack_from(order + "I", data, at + 8)
        tags[tag] = struct.unpack_from(f"{order}{number}{'.BH.I'[size]}", data, place)
    width, bits = tags[256][0], tags.get(258, (1,))[0]
    compression, predictor = tags.get(259, (1,))[0], tags.get(317, (1,))[0]
    levels = array.array("H" if bits == 16 else "B")
    for offset, size in zip(tags[273], tags[279]):
        strip = data[offset : offset + size]
        if compression in (8, 32946):
            strip = zlib.decompress(strip)
        elif compression != 1:
            raise Refused(f"TIFF compression {compression}: none and deflate are read")
        levels.extend(samples(strip, bits, order == ">"))
    if predictor == 2:
        mask = (1 << bits) - 1
        for row in range(0, len(levels), width):
            for at in range(row + 1, min(row + width, len(levels))):
                levels[at] = (levels[at] + levels[at - 1]) & mask
    return levels


def read_png(data):
    """Grey levels of a PNG file (grey without alpha, not interlaced)."""
    at, packed, header = 8, b"", None
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR":
            header = struct.unpack_from(">IIBBBBB", data, at + 8)
        elif kind == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += 12 + size
    width, height, bits, colour, _, _, interlace = header
    if colour != 0 or interlace != 0 or bits not in (8, 16):
        raise Refused("PNG: grey images of 8 or 16 bits are read, not interlaced")
    raw, step, stride = zlib.decompress(packed), bits // 8, width * bits // 8
    image, above = bytearray(), bytearray(stride)
    for row in range(height):
        start = row * (stride + 1)
        method, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for i in range(stride):
            left = line[i - step] if i >= step else 0
            up, corner = above[i], above[i - step] if i >= step else 0
            if method == 1:
                line[i] = (line[i] + left) & 255
            elif method == 2:
                line[i] = (line[i] + up) & 255
            elif method == 3:
                line[i] = (line[i] + (left + up) // 2) & 255
            elif method == 4:
                guess = left + up - corner
                near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))
                line[i] = (line[i] + near[2]) & 255
        image += line
        above = line
    return samples(bytes(image), bits, True)


def read_image(uri):
    """Grey levels of an image."""
    data = read_bytes(uri)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return read_tiff(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return read_png(data)
    raise Refused(f"{uri}: neither TIFF nor PNG")


def statistics(levels):
    """The measures of one plane."""
    mean = sum(levels) / len(levels)
    sd = math.sqrt(sum((level - mean) ** 2 for level in levels) / len(levels))
    bright = sum(1 for level in levels if level > mean + 2 * sd) / len(levels)
    return {"mean": mean, "sd": sd, "max": max(levels), "bright": bright}


def answer(request):
    """The answer to one request; every problem becomes one, so that the field is told what is wrong."""
    reply = {"correlation_id": request["correlation_id"]}
    try:
        wanted = [column.rsplit("_", 1) for column in request["columns"]]
        channels = {name for name, _ in wanted}
        found = {}
        for image in request["images"]:
            if image["channel"] in channels:
                planes = [read_image(uri) for uri in image["uris"]]
                # The planes of a z stack become their maximum, as they do for the network.
                levels = planes[0] if len(planes) == 1 else [max(pixel) for pixel in zip(*planes)]
                found[image["channel"]] = statistics(levels)
        reply["features"] = {f"{name}_{measure}": found[name][measure] for name, measure in wanted}
    except OSError as error:
        # A share that is away for a moment.
        reply.update(error=str(error), retry=True)
    except Refused as error:
        reply.update(error=str(error))
    except (KeyError, ValueError, IndexError, struct.error, zlib.error) as error:
        reply.update(error=f"{type(error).__name__}: {error}")
    return reply


def serve_lines():
    """As a command."""
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(answer(json.loads(line))), flush=True)


def call_back(request):
    """POSTs the answer to where the request says; one that is not taken for good or never arrives is asked for again."""
    body = json.dumps(answer(request)).encode()
    headers = {"Content-Type": "application/json"}
    try:
        urllib.request.urlopen(urllib.request.Request(request["callback"], body, headers), timeout=30).close()
    except OSError as error:
        print(f"{request['callback']}: {error}", file=sys.stderr)


def serve_http(port):
    """As a web service."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "callback" in request:
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()
                threading.Thread(target=call_back, args=(request,), daemon=True).start()
                return
            body = json.dumps(answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *values):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--http"]:
        serve_http(int(sys.argv[2]))
    else:
        serve_lines()
