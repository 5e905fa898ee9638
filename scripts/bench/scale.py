"""Plots what `wellspring bench scale` measured: scale.py RESULTS.jsonl PLOT.svg

Fields per second against the number of workers on logarithmic axes, beside what the engines' delays alone would give, one
line for each number of partitions; and the seconds of live plates, alone and beside a backlog, as bars.
"""

import json
import math
import re
import sys

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 320, 60, 30, 50
COLOURS = ["#1f5fa8", "#c2571a", "#2f7d4f"]


def text(x, y, words, anchor="middle", size=12):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{words}</text>'


def line(points, colour, dashes=""):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'


def throughput(lines):
    """The first panel; nothing where nothing was measured."""
    series = {}
    for measured in lines:
        found = re.fullmatch(r"(\d+) workers, (\d+) partitions", measured["work"])
        if found:
            point = (int(found[1]), measured["ours"], measured["peer_value"])
            series.setdefault(int(found[2]), []).append(point)
    if not series:
        return []
    points = [point for of in series.values() for point in of]
    right = max(math.log2(workers) for workers, _, _ in points) or 1
    low = math.log2(min(ours for _, ours, _ in points))
    high = math.log2(max(ideal for _, _, ideal in points))
    across = lambda workers: LEFT + (WIDTH - LEFT - 20) * math.log2(workers) / right
    up = lambda rate: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log2(rate) - low) / ((high - low) or 1)
    out = [text(WIDTH / 2, 18, "Fields per second", size=14), text(WIDTH / 2, HEIGHT - 8, "workers")]
    for workers in sorted({workers for workers, _, _ in points}):
        out.append(text(across(workers), HEIGHT - BOTTOM + 18, workers))
    for rate in sorted({2.0 ** math.floor(math.log2(ours)) for _, ours, _ in points}):
        if rate >= 2.0**low:
            out.append(text(LEFT - 8, up(rate) + 4, f"{rate:g}", "end"))
    ideal = sorted({(workers, rate) for workers, _, rate in points})
    out.append(line([(across(w), up(r)) for w, r in ideal], "#888", "4 4"))
    out.append(text(across(ideal[-1][0]) - 8, up(ideal[-1][1]) - 6, "engines alone", "end"))
    for number, (partitions, of) in enumerate(sorted(series.items())):
        colour = COLOURS[number % len(COLOURS)]
        out.append(line([(across(w), up(r)) for w, r, _ in of], colour))
        for workers, rate, _ in of:
            out.append(f'<circle cx="{across(workers):.1f}" cy="{up(rate):.1f}" r="3.5" fill="{colour}"/>')
        out.append(f'<text x="{LEFT + 12}" y="{TOP + 18 + 16 * number}" font-size="12" fill="{colour}">{partitions} partitions</text>')
    return out


def latency(lines):
    """The second panel; nothing where nothing was measured."""
    measured = [found for found in lines if found["work"].startswith("a live plate beside a backlog")]
    if not measured:
        return []
    most = max(max(found["ours"], found["peer_value"]) for found in measured)
    out = [text(WIDTH / 2, 18, "Seconds of a live plate: alone, beside a backlog", size=14)]
    step = (WIDTH - LEFT - 20) / len(measured)
    for number, found in enumerate(measured):
        left = LEFT + step * number
        for side, (seconds, colour) in enumerate([(found["peer_value"], "#888"), (found["ours"], COLOURS[0])]):
            tall = (HEIGHT - TOP - BOTTOM - 16) * seconds / most
            x, y = left + side * step * 0.4, HEIGHT - BOTTOM - tall
            out.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{step * 0.36:.1f}" height="{tall:.1f}" fill="{colour}"/>')
            out.append(text(x + step * 0.18, y - 4, f"{seconds:.2f}", size=11))
        what = found["work"].split("until its ")[1]
        for row, words in enumerate(what.split(", ")):
            out.append(text(left + step * 0.38, HEIGHT - BOTTOM + 18 + 14 * row, words.replace("percentile", "pct."), size=11))
    return out


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        lines = [found for found in map(json.loads, file) if found.get("bench") == "scale"]
    panels = [panel for panel in (throughput(lines), latency(lines)) if panel]
    body = "".join(f'<g transform="translate({WIDTH * number} 0)">{"".join(panel)}</g>' for number, panel in enumerate(panels))
    wide = WIDTH * max(len(panels), 1)
    with open(target, "w", encoding="utf-8") as file:
        file.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{HEIGHT}" viewBox="0 0 {wide} {HEIGHT}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>{body}</svg>\n'
        )


if __name__ == "__main__":
    main()
