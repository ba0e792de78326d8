"""Damages TensorFlow's messages, for tests that nothing a file may hold harms the importer.

    rng = random.Random(7)
    mutate(graph, rng)                  one field of one message inside it is changed, whichever
    damage_bytes(content, rng)          bytes are flipped, cut, repeated
    damage_text(text, rng)              the same with the words of the text format

Values are chosen to hurt: other nodes' names, absurd numbers, types of another kind.
"""

import random
import re
from typing import Any

Message = Any

NUMBERS = (0, 1, -1, 2, 3, 7, 100, 1 << 20, 1 << 30, (1 << 31) - 1, -(1 << 31), 1 << 36, (1 << 63) - 1, -(1 << 63))
REALS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "y", "^x", "x:1", "y:99", "x:99999999999999", "x:-1", "SAME", "VALID", "EXPLICIT", "NCHW", "f", "a/b")
NESTED = 30

_INTEGERS = {1: 64, 2: 32, 3: 64, 4: -64, 5: 32, 7: -32, 13: -32, 14: 32}


def messages(message: Message) -> list[Message]:
    """A message and all inside it."""
    found, waiting = [], [message]
    while waiting and len(found) < 2000:
        found.append(waiting.pop())
        for field, value in found[-1].ListFields():
            if field.message_type is None:
                continue
            if field.message_type.GetOptions().map_entry:
                inner = field.message_type.fields_by_name["value"]
                waiting += [value[key] for key in value] if inner.message_type else []
            else:
                waiting += list(value) if field.is_repeated else [value]
    return found


def names(graph: Message) -> list[str]:
    """What may stand where a name does."""
    found = [*TEXTS, *(node.name for node in graph.node), *(node.op for node in graph.node)]
    return found + [function.signature.name for function in graph.library.function]


def mutate(message: Message, rng: random.Random, known: list[str]) -> None:
    """Change one field of the message or of one inside it."""
    target = rng.choice(messages(message))
    field = rng.choice(target.DESCRIPTOR.fields)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _change_map(target, field, rng, known)
    elif field.is_repeated:
        _change_list(target, field, rng, known)
    elif rng.random() < 0.2:
        target.ClearField(field.name)
    elif field.message_type is not None:
        getattr(target, field.name).SetInParent()
        if field.message_type.name == "NameAttrList" and rng.random() < 0.1:
            _nest(getattr(target, field.name))
    else:
        setattr(target, field.name, _value(field, rng, known))


def _change_map(target: Message, field: Any, rng: random.Random, known: list[str]) -> None:
    entries = getattr(target, field.name)
    key = rng.choice(sorted(entries) or known) if rng.random() < 0.8 else rng.choice(known)
    inner = field.message_type.fields_by_name["value"]
    if rng.random() < 0.4:
        entries.pop(key, None)
    elif inner.message_type is None:
        entries[key] = rng.choice(known)
    elif entries and rng.random() < 0.5:
        entries[key].CopyFrom(entries[rng.choice(sorted(entries))])
    else:
        mutate(entries[key], rng, known)


def _change_list(target: Message, field: Any, rng: random.Random, known: list[str]) -> None:
    items = getattr(target, field.name)
    kind = rng.randrange(5)
    if kind == 0 and items:
        del items[rng.randrange(len(items))]
    elif kind == 1:
        target.ClearField(field.name)
    elif field.message_type is not None:
        items.add()
        if len(items) > 1:
            items[-1].CopyFrom(items[rng.randrange(len(items) - 1)])
    elif items and kind == 2:
        items[rng.randrange(len(items))] = _value(field, rng, known)
    else:
        items.extend([_value(field, rng, known)] * rng.choice((1, 1, 2, 40)))


def _value(field: Any, rng: random.Random, known: list[str]) -> Any:
    if field.type == field.TYPE_STRING:
        return rng.choice(known)
    if field.type == field.TYPE_BYTES:
        return rng.choice(known).encode() if rng.random() < 0.5 else rng.randbytes(rng.choice((0, 1, 4, 16, 64)))
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice(REALS)
    if field.type == field.TYPE_ENUM:
        return rng.choice((*range(35), 101, 107, 120, 1000))
    bits = _INTEGERS.get(field.type, 32)
    number = rng.choice(NUMBERS)
    if bits < 0:  # without a sign
        return number & (1 << -bits) - 1
    return (number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def _nest(function: Message) -> None:
    for _ in range(NESTED):
        function.name = "f"
        function = function.attr["f"].func


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """A file with something wrong in its bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data[at:at] = data[at : at + rng.choice((1, 8, 100))]
        elif kind == 2:
            data[at : at + rng.choice((1, 8))] = b""
        elif data:
            data[at] = rng.randrange(256) if kind == 3 else data[at] ^ 1 << rng.randrange(8)
    return bytes(data)


def damage_text(text: str, rng: random.Random) -> str:
    """A text file with something wrong in its words."""
    words = re.findall(r"\s+|\w+|[^\w\s]", text)
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(words)) if words else 0
        kind = rng.randrange(4)
        if kind == 0:
            words = words[:at]
        elif kind == 1:
            words[at:at] = words[at : at + rng.choice((1, 10, 100))] * rng.choice((1, 1, 200))
        elif words:
            words[at] = rng.choice(("{", "}", "-1", "1e999", "'", "[", "node", "#", rng.choice(words), ""))
    return "".join(words)
