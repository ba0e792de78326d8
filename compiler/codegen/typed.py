"""LLVM IR text for other LLVMs: pointers with types, and nothing that LLVM 14 does not know.

    %x5 = getelementptr nusw float, ptr %x.p, i64 %x4          %x5 = getelementptr float, float* %x.p, i64 %x4
    %x6 = load <16 x float>, ptr %x5, align 4                  %x5.v16f32 = bitcast float* %x5 to <16 x float>*
                                                               %x6 = load <16 x float>, <16 x float>* %x5.v16f32, ..

LLVM 15 and newer read both forms, LLVM 14 the right one only. What runs here is compiled from the left one: the
promise "nusw" is worth registers. A parameter's type is that of its first use; a pointer met as something else is
cast once in a block. Text that has types already stays as it is.
"""

import re
from collections.abc import Iterator

from tilewright.errors import CompileError

_ANY = "i8*"
_FLAGS = ("nusw ", "nuw ", "inbounds ")
_NAME = r'[%@][\w.$-]+|[%@]"[^"]*"'
_INTRINSIC_POINTERS = re.compile(r"\.p0(?=\.|$)")


def typed(text: str) -> str:
    """The module with typed pointers; raises CompileError for an instruction that this module does not know."""
    lines = list(_statements(text))
    module = _Module()
    for line in lines:
        module.declare(line)
    out: list[str] = []
    function: _Function | None = None
    for number, line in enumerate(lines):
        if line.startswith("define "):
            function = _Function(module, out)
            function.begin(line, lines[number + 1 :])
        elif function is not None:
            if line.startswith("}"):
                function = None
                out.append(line)
            else:
                function.statement(line)
        elif line.startswith("declare "):
            if " @llvm." not in line or not re.search(r"\bptr\b", line):
                out.append(_replaced(line))
        elif re.match(r"@[\w.$]+ = ", line):
            out.append(module.constant(line))
        else:
            out.append(line)
    return "\n".join([*sorted(module.intrinsics), *out, ""])


def _statements(text: str) -> Iterator[str]:
    """Lines without comments that follow code; those with an open bracket are joined with what follows."""
    held = ""
    for line in text.splitlines():
        if not line.startswith(";"):
            line = _without_comment(line)
        held = f"{held} {line.strip()}" if held else line
        bare = re.sub(r'"[^"]*"', "", held)
        if held.startswith(";") or bare.endswith("{") or bare.count("(") <= bare.count(")"):
            yield held
            held = ""
    if held:
        yield held


def _without_comment(line: str) -> str:
    if ";" not in line:
        return line
    quoted = False
    for at, char in enumerate(line):
        quoted ^= char == '"'
        if char == ";" and not quoted:
            return line[:at].rstrip()
    return line


def _replaced(text: str) -> str:
    """Bare pointers as i8*, but not in strings."""
    parts = re.split(r'("[^"]*")', text)
    return "".join(part if number % 2 else re.sub(r"\bptr\b", _ANY, part) for number, part in enumerate(parts))


def _type(text: str, at: int = 0) -> tuple[str, int]:
    """The type that begins at a place, bare pointers as i8*, and where it ends."""
    while text[at : at + 1] == " ":
        at += 1
    start = at
    if text[at] in "[<{":
        depth = 0
        while True:
            depth += {"[": 1, "<": 1, "{": 1, "]": -1, ">": -1, "}": -1}.get(text[at], 0)
            at += 1
            if depth == 0:
                break
    else:
        found = re.compile(r"[%\w.]+").match(text, at)
        if not found:
            raise CompileError(f"no type in '{text}'; please report this")
        at = found.end()
    while True:
        if text[at : at + 1] == "*":
            at += 1
        elif text[at : at + 2] == " (" or text[at : at + 1] == "(":
            at = _closing(text, text.index("(", at)) + 1
        else:
            return _replaced(text[start:at]), at


def _closing(text: str, at: int) -> int:
    depth = 0
    for place in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise CompileError(f"unbalanced brackets in '{text}'; please report this")


def _split(text: str) -> list[str]:
    """Parts between the commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += {"(": 1, "[": 1, "{": 1, "<": 1, ")": -1, "]": -1, "}": -1, ">": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()] if text.strip() else []


def _short(type: str) -> str:
    """A type as intrinsics' names spell it: v16f32."""
    vector = re.fullmatch(r"<(\d+) x (.*)>", type)
    if vector:
        return f"v{vector[1]}{_short(vector[2])}"
    if type.endswith("*"):
        return f"p0{_short(type[:-1])}"
    return {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}.get(type, type)


def _element(type: str) -> str:
    """What a vector consists of."""
    vector = re.fullmatch(r"<\d+ x (.*)>", type)
    return vector[1] if vector else type


class _Module:
    """The types of global names, and the intrinsics that are called."""

    def __init__(self) -> None:
        self.globals: dict[str, str] = {}
        self.results: dict[str, str] = {}
        self.parameters: dict[str, list[str]] = {}
        self.intrinsics: set[str] = set()
        self.body: list[str] | None = None

    def declare(self, line: str) -> None:
        """Note what a line says of a name; parameters of functions get their types when the body is known."""
        if self.body is not None:
            if line.startswith("}"):
                self._signature(self.body[0], self.body[1:])
                self.body = None
            else:
                self.body.append(line)
        elif line.startswith("define "):
            self.body = [line]
        elif line.startswith("declare "):
            self._signature(line, [])
        else:
            found = re.match(rf"({_NAME}) = (?:[\w\"() ]*? )?(?:global|constant) (.*)", line)
            if found and found[1].startswith("@"):
                self.globals[found[1]] = _type(found[2])[0]

    def _signature(self, head: str, body: list[str]) -> None:
        found = re.search(rf"(?:^|\s)({_NAME})\(", head)
        if not found:
            raise CompileError(f"no function in '{head}'; please report this")
        name = found[1]
        params = head[found.end() : _closing(head, found.end() - 1)]
        types = []
        for param in _split(params):
            type, _ = _type(param) if param != "..." else ("...", 0)
            if re.match(r"ptr\b", param):
                type = _first_use(param.split()[-1], body)
            types.append(type)
        before = head[: found.start(1)].rstrip()
        self.results[name] = _replaced(before.split()[-1] if before[-1] not in ">}]" else before[before.rindex("<") :])
        self.parameters[name] = types

    def type_of(self, name: str) -> str:
        """The type of a global name as an operand."""
        if name in self.parameters:
            return f"{self.results[name]} ({', '.join(self.parameters[name])})*"
        if name in self.globals:
            return f"{self.globals[name]}*"
        raise CompileError(f"the name {name} is not defined; please report this")

    def cast(self, name: str, want: str) -> str:
        """A global name, as another pointer."""
        have = self.type_of(name)
        return name if have == want else f"bitcast ({have} {name} to {want})"

    def constant(self, line: str) -> str:
        """A global variable; names in its value become i8*."""

        def name(found: re.Match[str]) -> str:
            return f"{_ANY} {self.cast(found[1], _ANY)}"

        parts = re.split(r'("[^"]*")', line)
        return "".join(
            part if number % 2 else _replaced(re.sub(r"\bptr (@[\w.$]+)", name, part))
            for number, part in enumerate(parts)
        )


def _first_use(name: str, body: list[str]) -> str:
    """The type of the pointer parameter `name`, by the first instruction that goes through it."""
    ending = rf"ptr {re.escape(name)}(?![\w.$])"
    for line in body:
        found = re.search(rf"= (?:getelementptr (?:nusw |nuw |inbounds )*|load (?:atomic )?)(.*), {ending}", line)
        found = found or re.search(rf" store (?:atomic )?(.*) [^ ]+, {ending}", line)
        if found:
            return f"{_element(_type(found[1])[0])}*"
    return _ANY


class _Function:
    """Rewrites one function, line by line."""

    def __init__(self, module: _Module, out: list[str]) -> None:
        self.module, self.out = module, out
        self.types: dict[str, str] = {}
        self.casts: dict[tuple[str, str], str] = {}
        self.count = 0

    def begin(self, head: str, body: list[str]) -> None:
        """The line of the definition."""
        found = re.search(rf"(?:^|\s)({_NAME})\(", head)
        assert found
        end = _closing(head, found.end() - 1)
        params = []
        for param, type in zip(_split(head[found.end() : end]), self.module.parameters[found[1]], strict=True):
            if re.match(r"ptr\b", param):
                self.types[param.split()[-1]] = type
                param = type + param.removeprefix("ptr")
            params.append(param)
        self.out.append(f"{_replaced(head[: found.end()])}{', '.join(params)}{head[end:]}")

    def statement(self, line: str) -> None:
        """An instruction, a label, or nothing."""
        if re.match(r'[\w.$"-]+:', line):
            self.casts = {}
            self.out.append(line)
            return
        found = re.match(rf"(\s*)(?:({_NAME}) = )?(?:tail |notail )?(\w+) ?(.*)", line)
        if not found:
            self.out.append(line)
            return
        _, result, op, rest = found.groups()
        into = f"  {result} = " if result else "  "
        if op == "call":
            self.call(line, result, rest)
        elif op != "alloca" and not re.search(r"\bptr\b", line):
            self.out.append(line)
        elif op in _HANDLERS:
            _HANDLERS[op](self, into, result, rest)
        else:
            raise CompileError(f"'{line.strip()}' cannot be written for other LLVMs; please report this")

    def have(self, operand: str) -> str:
        """The type of a pointer operand."""
        return self.types.get(operand, _ANY) if operand.startswith("%") else self.module.type_of(operand)

    def pointer(self, operand: str, want: str) -> str:
        """A pointer operand as type `want`."""
        if operand in ("null", "undef", "poison"):
            return operand
        inner = re.fullmatch(r"getelementptr \((?:inbounds )?(\S+), ptr (@[\w.$]+), (\w+ -?\d+)\)", operand)
        if inner:
            base = self.module.cast(inner[2], f"{inner[1]}*")
            inside = f"getelementptr ({inner[1]}, {inner[1]}* {base}, {inner[3]})"
            return inside if want == f"{inner[1]}*" else f"bitcast ({inner[1]}* {inside} to {want})"
        return self.cast(operand, self.have(operand), want)

    def cast(self, operand: str, have: str, want: str) -> str:
        if have == want:
            return operand
        if operand.startswith("@"):
            return self.module.cast(operand, want)
        if (operand, want) not in self.casts:
            self.count += 1
            stem = operand.strip('%"')
            name = f"%{stem}.as{self.count}" if not operand.startswith('%"') else f'%"{stem}.as{self.count}"'
            self.out.append(f"  {name} = bitcast {have} {operand} to {want}")
            self.casts[operand, want] = name
        return self.casts[operand, want]

    def define(self, result: str | None, type: str) -> None:
        if result and "*" in type:
            self.types[result] = type

    # ---- instructions

    def element(self, into: str, result: str | None, rest: str) -> None:
        for flag in _FLAGS:
            rest = rest.replace(flag, "", 1) if rest.startswith(flag) else rest
        element, at = _type(rest)
        base, *indices = _split(rest[at + 1 :])
        want = f"{element}*"
        self.out.append(
            f"{into}getelementptr {element}, {want} {self.pointer(base.removeprefix('ptr '), want)}, "
            f"{', '.join(indices)}"
        )
        lanes = re.match(r"<(\d+) x ", indices[0])
        inner = element if len(indices) == 1 else _element_at(element, len(indices) - 1)
        self.define(result, f"<{lanes[1]} x {inner}*>" if lanes else f"{inner}*")

    def load(self, into: str, result: str | None, rest: str) -> None:
        atomic = "atomic " if rest.startswith("atomic ") else ""
        type, at = _type(rest.removeprefix("atomic "))
        address, *hints = _split(rest.removeprefix("atomic ")[at + 1 :])
        address, _, order = address.removeprefix("ptr ").partition(" ")
        if address == "getelementptr":
            raise CompileError(f"'load {rest}' cannot be written for other LLVMs; please report this")
        where = self.pointer(address, f"{type}*")
        tail = "".join(f", {hint}" for hint in hints)
        self.out.append(f"{into}load {atomic}{type}, {type}* {where}{' ' + order if order else ''}{tail}")
        self.define(result, type)

    def store(self, into: str, result: str | None, rest: str) -> None:
        atomic = "atomic " if rest.startswith("atomic ") else ""
        rest = rest.removeprefix("atomic ")
        bare = rest.startswith("ptr ")
        type, at = _type(rest)
        value, address, *hints = _split(rest[at + 1 :])
        if bare:
            value = self.pointer(value, type)
        address, _, order = address.removeprefix("ptr ").partition(" ")
        where = self.pointer(address, f"{type}*")
        tail = "".join(f", {hint}" for hint in hints)
        self.out.append(f"  store {atomic}{type} {value}, {type}* {where}{' ' + order if order else ''}{tail}")

    def alloca(self, into: str, result: str | None, rest: str) -> None:
        type, at = _type(rest)
        self.out.append(f"{into}alloca {type}{rest[at:]}")
        self.define(result, f"{type}*")

    def compare(self, into: str, result: str | None, rest: str) -> None:
        predicate, _, operands = rest.partition(" ptr ")
        a, b = _split(operands)
        type = self.have(a)
        self.out.append(f"{into}icmp {predicate} {type} {a}, {self.pointer(b, type)}")

    def exchange(self, into: str, result: str | None, rest: str) -> None:
        head, _, tail = rest.partition("ptr ")
        address, *values = _split(tail)
        type, _ = _type(values[0])
        op = "cmpxchg" if len(values) == 2 else "atomicrmw"
        where = self.pointer(address, f"{type}*")
        self.out.append(f"{into}{op} {head}{type}* {where}, {', '.join(values)}")

    def to_integer(self, into: str, result: str | None, rest: str) -> None:
        operand, _, type = rest.removeprefix("ptr ").partition(" to ")
        self.out.append(f"{into}ptrtoint {self.have(operand)} {operand} to {type}")

    def from_integer(self, into: str, result: str | None, rest: str) -> None:
        self.out.append(f"{into}inttoptr {_replaced(rest)}")
        self.define(result, _ANY)

    def select(self, into: str, result: str | None, rest: str) -> None:
        condition, a, b = _split(rest)
        chosen = ", ".join(f"{_ANY} {self.pointer(x.removeprefix('ptr '), _ANY)}" for x in (a, b))
        self.out.append(f"{into}select {condition}, {chosen}")
        self.define(result, _ANY)

    def phi(self, into: str, result: str | None, rest: str) -> None:
        """Pointers that meet are of one type, which the first tells."""
        found = re.match(rf"ptr \[ ({_NAME}), ", rest)
        if not found:
            raise CompileError(f"'phi {rest}' cannot be written for other LLVMs; please report this")
        type = self.have(found[1])
        self.out.append(f"{into}phi {type}{rest.removeprefix('ptr')}")
        self.define(result, type)

    def freeze(self, into: str, result: str | None, rest: str) -> None:
        operand = rest.removeprefix("ptr ")
        self.out.append(f"{into}freeze {self.have(operand)} {operand}")
        self.define(result, self.have(operand))

    def give(self, into: str, result: str | None, rest: str) -> None:
        self.out.append(f"  ret {_ANY} {self.pointer(rest.removeprefix('ptr '), _ANY)}")

    def call(self, line: str, result: str | None, rest: str) -> None:
        """Arguments as the callee declares them; the callee of a pointer as its arguments are."""
        convention = re.match(r"(?:(?:fastcc|cc \d+) )?", rest)
        assert convention
        kind, at = _type(rest, convention.end())
        found = re.compile(rf" ({_NAME})\(").match(rest, at)
        if not found:
            raise CompileError(f"'{line.strip()}' cannot be written for other LLVMs; please report this")
        name, end = found[1], _closing(rest, found.end() - 1)
        if name.startswith("%") and not re.search(r"\bptr\b", line):
            self.out.append(line)
            return
        given = [self._argument(argument) for argument in _split(rest[found.end() : end])]
        result_type = kind.partition(" (")[0]
        wanted = [type for type, _, _ in given]
        if name.startswith("@llvm."):
            name, wanted = self._intrinsic(name, result_type, wanted)
        elif name.startswith("@"):
            declared = self.module.parameters[name]
            wanted = declared[: len(wanted)] if "..." not in declared else [
                declared[i] if i < len(declared) - 1 else type if not bare else _ANY
                for i, (type, _, bare) in enumerate(given)
            ]  # fmt: skip
        else:
            wanted = [_ANY if bare else type for type, _, bare in given]
            callee = f"{result_type} ({', '.join(wanted)})*"
            name = self.cast(name, self.have(name), callee)
        arguments = []
        for (type, operand, bare), want in zip(given, wanted, strict=True):
            if bare:
                operand = self.pointer(operand, want)
            elif type != want and type.endswith("*"):
                operand = self.cast(operand, type, want)
            arguments.append(f"{want} {operand}")
        into = f"  {result} = " if result else "  "
        self.out.append(f"{into}call {convention[0]}{kind} {name}({', '.join(arguments)}){rest[end + 1 :]}")
        self.define(result, result_type)

    def _argument(self, text: str) -> tuple[str, str, bool]:
        """Type, operand, and whether the pointer's type was not said; attributes are dropped."""
        type, at = _type(text)
        operand = text[at:].strip()
        bare = re.match(r"ptr\b|<\d+ x ptr>", text) is not None
        if bare and operand.startswith(("%", "@")):
            type = self.have(operand)
        return type, operand, bare

    def _intrinsic(self, name: str, result: str, given: list[str]) -> tuple[str, list[str]]:
        """The name and the arguments' types of an intrinsic; it is declared as well."""
        wanted = list(given)
        if name.startswith("@llvm.masked.load."):
            wanted[0] = f"{result}*"
        elif name.startswith("@llvm.masked.store."):
            wanted[1] = f"{given[0]}*"
        elif name.startswith("@llvm.masked.gather."):
            name = re.sub(r"\.v(\d+)p0$", lambda m: f".{_short(given[0])}", name)
        else:
            wanted = [_ANY if type.endswith("*") else type for type in given]
        pointers = iter([type for type in wanted if type.endswith("*")])
        name = _INTRINSIC_POINTERS.sub(lambda _: f".p0{_short(next(pointers)[:-1])}", name)
        if any("*" in type for type in wanted):
            self.module.intrinsics.add(f"declare {result} {name}({', '.join(wanted)})")
        return name, wanted


def _element_at(type: str, depth: int) -> str:
    """What `depth` further indices lead to, in arrays."""
    for _ in range(depth):
        found = re.fullmatch(r"\[\d+ x (.*)\]", type)
        if not found:
            raise CompileError(f"elements of {type} cannot be written for other LLVMs; please report this")
        type = found[1]
    return type


_HANDLERS = {
    "getelementptr": _Function.element,
    "load": _Function.load,
    "store": _Function.store,
    "alloca": _Function.alloca,
    "icmp": _Function.compare,
    "cmpxchg": _Function.exchange,
    "atomicrmw": _Function.exchange,
    "ptrtoint": _Function.to_integer,
    "inttoptr": _Function.from_integer,
    "select": _Function.select,
    "phi": _Function.phi,
    "freeze": _Function.freeze,
    "ret": _Function.give,
}
