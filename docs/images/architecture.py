"""Draws architecture.svg, the picture in docs/architecture.md: `python docs/images/architecture.py`.

Three columns (frontends, compiler, runtime) of boxes, and arrows along the way of a model.
"""

from html import escape
from pathlib import Path

WIDTH, HEIGHT = 960, 420
COLUMNS = {"frontends/": (20, "#e8f1fa"), "compiler/": (270, "#eef6ea"), "runtime/": (710, "#fbf1e3")}
COLUMN_WIDTH = {"frontends/": 220, "compiler/": 410, "runtime/": 230}

# (x, y, width, title, lines below it)
BOXES = (
    (35, 70, 190, "model file", ("ONNX: nodes, weights",)),
    (35, 170, 190, "onnx/model.py", ("protobuf to plain data,", "external weights mapped")),
    (35, 290, 190, "onnx/operators/", ("each node becomes", "primitives; names.py", "finds layers by name")),
    (285, 70, 180, "ir/ + ops/", ("graph of primitives:", "shape rule, reference,", "scalar formula")),
    (285, 200, 180, "passes/", ("fold, select, layout,", "fuse, memory plan")),
    (285, 320, 180, "lower/", ("nodes to kernel calls,", "epilogues inlined")),
    (485, 320, 180, "kernels/ + loops/", ("tiled, vectorised loop", "functions as data")),
    (485, 200, 180, "codegen/", ("LLVM IR text, object", "code through llvmlite")),
    (485, 70, 180, "Artifact", ("object code, packed", "weights, manifest")),
    (725, 70, 200, "jit.py", ("MCJIT maps the code",)),
    (725, 170, 200, "model.py", ("checks and binds arrays,", "out=, threads, one", "specialisation a shape")),
    (725, 320, 200, "your arrays", ("NumPy in, NumPy out;", "hypercolumns, pictures")),
)  # fmt: skip
ARROWS = (
    ((130, 125), (130, 168)), ((130, 245), (130, 288)), ((225, 330), (283, 115)), ((375, 162), (375, 198)),
    ((375, 274), (375, 318)), ((465, 352), (483, 352)), ((575, 318), (575, 274)), ((575, 198), (575, 144)),
    ((665, 97), (723, 97)), ((825, 125), (825, 168)), ((825, 262), (825, 318)),
)  # fmt: skip


TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#444"/></marker></defs>'
)


def text(x: float, y: float, size: int, content: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}"{more}>{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, look: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" {look}/>'


def draw() -> str:
    """The picture as SVG text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        TIP,
        box(0, 0, WIDTH, HEIGHT, 'fill="white"'),
    ]
    for name, (x, colour) in COLUMNS.items():
        width = COLUMN_WIDTH[name]
        parts.append(box(x, 20, width, HEIGHT - 40, f'rx="10" fill="{colour}"'))
        parts.append(text(x + width / 2, 48, 17, name, ' text-anchor="middle"'))
    for x, y, width, title, lines in BOXES:
        parts.append(box(x, y, width, 36 + 18 * len(lines), 'rx="6" fill="white" stroke="#667"'))
        parts.append(text(x + 10, y + 22, 15, title, ' font-weight="bold"'))
        parts += [text(x + 10, y + 42 + 18 * number, 13, line) for number, line in enumerate(lines)]
    for (x1, y1), (x2, y2) in ARROWS:
        ends = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
        parts.append(f'<line {ends} stroke="#444" stroke-width="1.5" marker-end="url(#tip)"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw())
