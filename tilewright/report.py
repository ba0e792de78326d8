"""The page that `tilewright bench --report` writes: engines, layers, roofline and memory, drawn as SVG.

    Path("report.html").write_text(page(facts, layers(..), machine_peak()))

One file that loads nothing from elsewhere and follows the reader's light or dark setting. It is well-formed XML too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from tilewright.benching import OURS, Layer
from tilewright.peak import Peak

COLOURS = {"compute": "#4c78a8", "memory": "#e08a1e", None: "#8b9198"}
"""By what binds a kernel; they stand out on white and on black."""
WIDTH = 960
NAMED = 10
"""Dots of the roofline that have a name beside them, if it would cover no other."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; max-width: 980px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; overflow-wrap: anywhere; } h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; } td, th { padding: .1em 1.2em .1em 0; text-align: right; }
td:first-child, th:first-child, td.wide { text-align: left; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; } svg text { fill: currentColor; }
.line { stroke: currentColor; fill: none; } .faint { stroke: currentColor; opacity: .2; } .note { opacity: .7; }
"""


def page(facts: Mapping[str, Any], layers: Sequence[Layer], peak: Peak) -> str:
    """The page, from what `--json` says and the kernel calls in the order they are run."""
    name = escape(str(facts["model"]))
    limits = f"{peak.flops / 1e9:.0f} GFLOP/s and {peak.bandwidth / 1e9:.1f} GB/s"
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{name}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{name}</h1>",
            _summary(facts),
            "<h2>Engines</h2>",
            _engines(facts),
            "<h2>Kernels, in order</h2>",
            f'<p class="note">Milliseconds on one thread, and the share reached of the limit that binds: {_legend()} '
            "Data that come from the caches pass 100%. The operations are those carried out: Winograd needs fewer.</p>",
            _bars(layers),
            "<h2>Roofline</h2>",
            f'<p class="note">Operations carried out. The limits, {limits}, were measured on one core. '
            "A dot's area is its time; the largest are named where there is room.</p>",
            _roofline(layers, peak),
            "<h2>Memory</h2>",
            '<p class="note">Mebibytes of the workspace in use during each kernel; the dashed line is its size.</p>',
            _memory(layers, int(facts["workspace_bytes"])),
            "</body></html>\n",
        ]
    )


def _summary(facts: Mapping[str, Any]) -> str:
    inputs = ", ".join(f"{escape(name)} {'x'.join(map(str, shape))}" for name, shape in facts["inputs"].items())
    return (
        f"<p>{inputs}; threads: {facts['threads']}; compiled in {facts['compile_ms'] / 1e3:.2f} s; "
        f"{facts['gflops']:.1f} GFLOP/s at the median of {facts['rounds']} calls.</p>"
    )


def _engines(facts: Mapping[str, Any]) -> str:
    mine = {**facts, "name": OURS, "version": "", "note": "", "ratio": 1.0, "difference": None}
    rows = [mine, *facts["peers"]]
    slowest = max(row["median"] for row in rows if "error" not in row)
    cells = [
        f'<tr><td>{escape(row["name"])}</td><td class="wide" colspan="6">{escape(row["error"])}</td></tr>'
        if "error" in row
        else f"<tr><td>{escape(' '.join((row['name'], row['version'], row['note'])))}</td><td>{row['min']:.3f}</td>"
        f"<td>{row['median']:.3f}</td><td>{row['spread']:.3f}</td><td>{row['ratio']:.2f}</td>"
        f"<td>{'' if row['difference'] is None else format(row['difference'], '.1e')}</td>"
        f'<td class="wide"><svg viewBox="0 0 220 12" style="width:220px" role="img" aria-label="median">'
        f'<rect y="1" height="10" width="{max(220 * row["median"] / slowest, 1):.1f}" fill="{COLOURS["compute"]}"/>'
        "</svg></td></tr>"
        for row in rows
    ]
    heads = "".join(
        f"<th>{head}</th>" for head in ("", "min ms", "median ms", "spread", "times ours", "difference", "")
    )
    return f"<table><tr>{heads}</tr>{''.join(cells)}</table>"


def _legend() -> str:
    words = {"compute": "arithmetic", "memory": "memory", None: "not known"}
    return ", ".join(f'<span style="color:{COLOURS[key]}">&#9632;</span> {word}' for key, word in words.items()) + "."


def _svg(height: float, body: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}">{"".join(body)}</svg>'


def _about(layer: Layer) -> str:
    """What a mark says when the pointer rests on it."""
    speed = "" if layer.gflops is None else f", {layer.gflops:.1f} GFLOP/s"
    shape = "x".join(map(str, layer.shape)) or "scalar"
    return f"<title>{escape(layer.layer or '-')} {layer.template} {shape}: {layer.ms:.3f} ms{speed}</title>"


def _bars(layers: Sequence[Layer]) -> str:
    row, left, right = 17, 330, 130
    scale = (WIDTH - left - right) / max((layer.ms for layer in layers), default=1)
    body = []
    for i, layer in enumerate(layers):
        name = layer.layer if len(layer.layer) <= 34 else "…" + layer.layer[-33:]
        width, y = layer.ms * scale, i * row
        colour = COLOURS[layer.bound]
        limit = "" if layer.limit is None else f", {layer.limit:.0%}"
        body.append(
            f"<g>{_about(layer)}"
            f'<text x="{left - 118}" y="{y + 12}" text-anchor="end">{escape(name) or "-"}</text>'
            f'<text class="note" x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(layer.template)}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{max(width, 1):.1f}" height="{row - 4}" fill="{colour}"/>'
            f'<text x="{left + width + 6:.1f}" y="{y + 12}">{layer.ms:.3f}{limit}</text></g>'
        )
    return _svg(row * len(layers) + 4, body, "time of each kernel")


def _roofline(layers: Sequence[Layer], peak: Peak) -> str:
    """GFLOP/s over operations a byte, both logarithmic."""
    height, left, bottom = 420, 60, 40
    dots = [
        (layer.performed / layer.bytes, layer.performed / layer.ms / 1e6, layer)
        for layer in layers
        if layer.performed and layer.bytes
    ]
    ridge = peak.flops / peak.bandwidth
    xs = _ticks([ridge, *(intensity for intensity, _, _ in dots)])
    ys = _ticks([peak.flops / 1e9, *(gflops for _, gflops, _ in dots)])

    def at_x(value: float) -> float:
        return left + math.log(value / xs[0]) / math.log(xs[-1] / xs[0]) * (WIDTH - left - 20)

    def at_y(value: float) -> float:
        return height - bottom - math.log(value / ys[0]) / math.log(ys[-1] / ys[0]) * (height - bottom - 15)

    body = []
    for value in xs:
        x = at_x(value)
        body.append(f'<line class="faint" x1="{x:.1f}" x2="{x:.1f}" y1="15" y2="{height - bottom}"/>')
        body.append(f'<text x="{x:.1f}" y="{height - bottom + 15}" text-anchor="middle">{value:g}</text>')
    for value in ys:
        y = at_y(value)
        body.append(f'<line class="faint" x1="{left}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    start = max(xs[0], ys[0] * 1e9 / peak.bandwidth)
    roof = [(start, start * peak.bandwidth / 1e9), (ridge, peak.flops / 1e9), (xs[-1], peak.flops / 1e9)]
    points = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in roof)
    body.append(f'<polyline class="line" stroke-width="1.5" points="{points}"/>')
    dots.sort(key=lambda dot: -dot[2].share)
    for intensity, gflops, layer in dots:
        body.append(
            f'<circle cx="{at_x(intensity):.1f}" cy="{at_y(gflops):.1f}" r="{3 + 24 * math.sqrt(layer.share):.1f}" '
            f'fill="{COLOURS[layer.bound]}" fill-opacity=".6">{_about(layer)}</circle>'
        )
    marks = [(at_x(intensity), at_y(gflops)) for intensity, gflops, _ in dots]
    for (x, y), (_, _, layer) in list(zip(marks, dots, strict=True))[:NAMED]:
        name = _short(layer)
        edge, width = 6 + 24 * math.sqrt(layer.share), 6.5 * len(name)
        for at, low, anchor in ((x + edge, x + edge, "start"), (x - edge, x - edge - width, "end")):
            if (
                low < left
                or low + width > WIDTH
                or any(low - 5 < mark[0] < low + width + 5 and abs(mark[1] - y) < 13 for mark in marks)
            ):
                continue
            body.append(f'<text x="{at:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(name)}</text>')
            marks += [(low + part * width / 4, y) for part in range(5)]
            break
    body.append(f'<text x="{WIDTH - 20}" y="{height - 6}" text-anchor="end">operations a byte</text>')
    body.append(f'<text x="{left}" y="11">GFLOP/s</text>')
    return _svg(height, body, "speed of each kernel below the machine's limits")


def _short(layer: Layer) -> str:
    return layer.layer if len(layer.layer) <= 22 else "…" + layer.layer[-21:]


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, .. around all these values."""
    steps = [mantissa * 10.0**power for power in range(-9, 19) for mantissa in (1, 2, 5)]
    first = max(i for i, step in enumerate(steps) if step <= min(values) or i == 0)
    last = min(i for i, step in enumerate(steps) if step >= max(values) or i == len(steps) - 1)
    return steps[min(first, last - 1) : last + 1]


def _memory(layers: Sequence[Layer], workspace: int) -> str:
    height, left, bottom = 220, 60, 25
    top = max([workspace, *(layer.live_bytes for layer in layers), 1])
    step = (WIDTH - left - 20) / max(len(layers), 1)

    def at_y(value: float) -> float:
        return height - bottom - value / top * (height - bottom - 15)

    step_size = next(size for size in (2.0**power for power in range(60)) if top / size <= 6)
    body = [_tick(step_size * part, left, at_y) for part in range(int(top / step_size) + 1)]
    for i, layer in enumerate(layers):
        y = at_y(layer.live_bytes)
        body.append(
            f'<rect x="{left + i * step:.2f}" y="{y:.1f}" width="{step:.2f}" height="{height - bottom - y:.1f}" '
            f'fill="{COLOURS["compute"]}"><title>{escape(layer.layer or "-")} {escape(layer.template)}: '
            f"{layer.live_bytes / 2**20:.2f} MiB</title></rect>"
        )
    y = at_y(workspace)
    body.append(f'<line class="line" stroke-dasharray="5 4" x1="{left}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>')
    body.append(f'<text x="{WIDTH - 20}" y="{height - 6}" text-anchor="end">kernel calls in order</text>')
    return _svg(height, body, "workspace in use during each kernel")


def _tick(value: float, left: int, at_y: Callable[[float], float]) -> str:
    y = at_y(value)
    return (
        f'<line class="faint" x1="{left}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value / 2**20:.3g}</text>'
    )
