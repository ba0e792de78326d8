"""A module's text in parts that can be compiled at the same time.

    split(text)  ->  [text of the entry points and some kernels, text of other kernels, ..]

What is hidden may lie in any part, and is declared where another uses it; all else stays in the first. How many parts
there are depends on the text alone, so that equal text gives equal code on every machine.
"""

import re

MOST = 4
SIZE = 400_000
"""Characters from which a part of its own pays; LLVM takes some 100 ms for so many."""

_NAME = re.compile(r"@((?!llvm\.)[\w.$]+)")


def split(text: str) -> list[str]:
    """The parts; the whole text where it is short, or has variables."""
    count = min(len(text) // SIZE, MOST)
    if count < 2:
        return [text]
    before, *rest = text.split("\ndefine ")
    pieces = [piece.partition("\n}\n") for piece in rest]
    definitions = [f"define {body}{end}" for body, end, _ in pieces]
    frame = "\n".join([before, *(after for _, _, after in pieces)])
    if re.search(r"^@", frame, re.MULTILINE):
        return [text]
    used = [_NAME.findall(definition) for definition in definitions]  # the first is its own
    heads = {names[0]: definition.partition("\n")[0] for names, definition in zip(used, definitions, strict=True)}
    fixed = {name for name, head in heads.items() if not head.startswith("define hidden ")}
    loads = [0] * count
    placed: list[int] = [0] * len(definitions)
    for number in sorted(range(len(definitions)), key=lambda number: -len(definitions[number])):
        stays = not fixed.isdisjoint(used[number])
        placed[number] = 0 if stays else loads.index(min(loads))
        loads[placed[number]] += len(definitions[number])
    parts = []
    for part in range(count):
        here = [number for number, place in enumerate(placed) if place == part]
        own = {name for number, name in enumerate(heads) if placed[number] == part}
        needed = {name for number in here for name in used[number]} - own
        declared = [_declared(head) for name, head in heads.items() if name in needed]
        parts.append("\n".join([*declared, *(definitions[number] for number in here), frame]))
    return parts


def _declared(head: str) -> str:
    """The declaration for a definition's first line."""
    return "declare" + re.sub(r" %[\w.]+", "", head.removeprefix("define").rpartition(")")[0]) + ")"
