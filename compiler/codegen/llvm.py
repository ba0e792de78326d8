"""Prints loop functions as LLVM IR text, one loop instruction at a time.

    For       guarded do-while loops with phis for the variable, for pointers that move on (`streams`), and for
              the carried values
    Load      getelementptr + load, or llvm.masked.load where lanes are inactive
    max       (a > b ? a : b), and a where a is NaN: two instructions more than one that drops NaN

Text, because building the same through llvmlite's IR classes takes eighty times as long. Addresses that share
a buffer and an index share one getelementptr; constant offsets become displacements of the instructions. They
are "nusw", not "inbounds": an index may lie outside the buffer where an offset brings it back.
"""

from collections.abc import Callable, Iterable, Sequence

from tilewright.compiler.codegen import missing
from tilewright.compiler.codegen.spelling import Spelling
from tilewright.compiler.codegen.streams import find_streams, first_address, next_addresses
from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.calls import called
from tilewright.compiler.loops.nodes import Buffer, Const, Function, Instr, Operand, Ref, Type, Var
from tilewright.compiler.targets import Target

NO_UNROLL = "!0"
_METADATA = '!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}\n!2 = !{i32 1}\n'
_FLOAT_ARITH = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


class Emitter(Spelling):
    """Emits one function; `declarations` collects the intrinsics it needs."""

    def __init__(self, function: Function, target: Target, declarations: set[str]) -> None:
        super().__init__(target.pointer_bits)
        self.function, self.target = function, target
        self.declarations = declarations
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.names: dict[Var | Buffer, str] = {}
        self.addresses: list[dict[tuple[Buffer, str], str]] = [{}]
        # In an innermost loop: the pointer that an access goes by, and how many elements behind it lies.
        self.moving: dict[tuple[Buffer, Operand], tuple[str, int]] = {}
        self.count = 0
        self.label = "entry"
        self.handlers: dict[type, Callable[..., None]] = {
            nodes.Arith: self.arith, nodes.Unary: self.unary, nodes.Fma: self.fma,
            nodes.Compare: self.compare, nodes.Select: self.select, nodes.Cast: self.cast,
            nodes.Broadcast: self.broadcast, nodes.ReduceLanes: self.reduce,
            nodes.Shuffle: self.shuffle, nodes.Extract: self.extract,
            nodes.Load: self.load, nodes.Gather: self.gather, nodes.Store: self.store,
            nodes.Prefetch: self.prefetch, nodes.Alloc: self.alloc, nodes.Call: self.call,
            nodes.For: self.loop, nodes.If: self.branch,
        }  # fmt: skip

    def text(self, linkage: str) -> str:
        """The whole definition."""
        for param in self.function.params:
            self.names[param] = f"%{param.name}.p"
        self.block(self.function.body)
        params = ", ".join(map(self.parameter, self.function.params))
        head = f"define {linkage}void @{self.function.name}({params}) #0 {{\nentry:"
        return "\n".join([head, *self.allocas, *self.lines, "  ret void\n}\n"])

    # ---- small helpers

    def emit(self, text: str) -> str:
        self.count += 1
        name = f"%x{self.count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def name(self, operand: Operand) -> str:
        return self.literal(operand) if isinstance(operand, Const) else self.names[operand]

    def typed(self, operand: Operand) -> str:
        return f"{self.type_name(operand.type)} {self.name(operand)}"

    def define(self, result: Var, text: str) -> None:
        self.names[result] = self.emit(text)

    def intrinsic(self, name: str, result: str, arguments: Sequence[tuple[str, str]]) -> str:
        """A call of an LLVM intrinsic with (type, operand) arguments."""
        self.declarations.add(f"declare {result} @{name}({', '.join(type for type, _ in arguments)})")
        return f"call {result} @{name}({', '.join(f'{type} {operand}' for type, operand in arguments)})"

    def block(self, body: Iterable[Instr]) -> None:
        self.addresses.append({})
        for instr in body:
            self.handlers[type(instr)](instr)
        self.addresses.pop()

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.label = label

    def fresh(self) -> int:
        self.count += 1
        return self.count

    # ---- arithmetic

    def arith(self, instr: nodes.Arith) -> None:
        a, b = self.name(instr.a), self.name(instr.b)
        self.names[instr.result] = self.combine(instr.op, instr.result.type, a, b)

    def combine(self, op: str, type: Type, a: str, b: str) -> str:
        kind, signed = self.type_name(type), type.kind == "i"
        if op in ("min", "max"):
            return self.extremum(op, type, a, b)
        if self.by_float(type):
            return self.by_way_of_float(type, lambda wide, *x: self.combine(op, wide, *x), a, b)
        if type.is_float:
            return self.emit(f"{_FLOAT_ARITH[op]} {kind} {a}, {b}")
        if op in ("div", "rem"):
            return self.emit(f"{'s' if signed else 'u'}{op} {kind} {a}, {b}")
        if op == "shr":
            return self.emit(f"{'ashr' if signed else 'lshr'} {kind} {a}, {b}")
        wrap = " nsw" if type.kind == "n" and op in ("add", "sub", "mul") else ""
        return self.emit(f"{op}{wrap} {kind} {a}, {b}")

    def by_float(self, type: Type) -> bool:
        """Whether arithmetic is done in float: where LLVM would call functions."""
        return type.kind == "bf" or (type.kind == "f" and type.bits == 16 and not self.target.halves)

    def by_way_of_float(self, type: Type, build: Callable[..., str], *operands: str) -> str:
        """Arithmetic in float, then rounded."""
        wide = Type("f", 32, type.lanes)
        return self.convert(wide, type, build(wide, *(self.convert(type, wide, a) for a in operands)))

    def extremum(self, op: str, type: Type, a: str, b: str) -> str:
        kind = self.type_name(type)
        bools = self.type_name(Type("b", 1, type.lanes))
        if type.is_float:
            better = self.emit(f"fcmp {'ogt' if op == 'max' else 'olt'} {kind} {a}, {b}")
            chosen = self.emit(f"select {bools} {better}, {kind} {a}, {kind} {b}")
            nan = self.emit(f"fcmp uno {kind} {a}, {a}")
            return self.emit(f"select {bools} {nan}, {kind} {a}, {kind} {chosen}")
        sign = "u" if type.kind in ("u", "b") else "s"
        better = self.emit(f"icmp {sign}{'gt' if op == 'max' else 'lt'} {kind} {a}, {b}")
        return self.emit(f"select {bools} {better}, {kind} {a}, {kind} {b}")

    def unary(self, instr: nodes.Unary) -> None:
        self.names[instr.result] = self.single(instr.op, instr.result.type, self.name(instr.a))

    def single(self, op: str, type: Type, a: str) -> str:
        kind = self.type_name(type)
        if op == "not":
            return self.emit(f"xor {kind} {a}, {self.literal(Const(type, True if type.kind == 'b' else -1))}")
        if op == "neg" and not type.is_float:
            return self.emit(f"sub {kind} {self.literal(Const(type, 0))}, {a}")
        if op == "neg":
            return self.emit(f"fneg {kind} {a}")
        if op == "abs" and not type.is_float:
            if type.kind == "u":
                return a
            return self.emit(self.intrinsic(f"llvm.abs.{self.mangled(type)}", kind, [(kind, a), ("i1", "false")]))
        if self.by_float(type) and op != "abs":
            return self.by_way_of_float(type, lambda wide, x: self.single(op, wide, x), a)
        if op in missing.ROUNDING and not self.target.rounding:
            return missing.rounded(self, op, type, a)
        name = "fabs" if op == "abs" else op
        return self.emit(self.intrinsic(f"llvm.{name}.{self.mangled(type)}", kind, [(kind, a)]))

    def fma(self, instr: nodes.Fma) -> None:
        operands = [self.name(operand) for operand in (instr.a, instr.b, instr.c)]
        type = instr.result.type

        def build(type: Type, *operands: str) -> str:
            a, b, c = operands
            return self.fused(type, a, b, c, instr.exact)

        self.names[instr.result] = (
            self.by_way_of_float(type, build, *operands) if self.by_float(type) else build(type, *operands)
        )

    def fused(self, type: Type, a: str, b: str, c: str, exact: bool) -> str:
        if not self.target.fma:
            return missing.fused(self, type, a, b, c) if exact else missing.product_and_sum(self, type, a, b, c)
        kind = self.type_name(type)
        return self.emit(self.intrinsic(f"llvm.fma.{self.mangled(type)}", kind, [(kind, x) for x in (a, b, c)]))

    def compare(self, instr: nodes.Compare) -> None:
        type = instr.a.type
        if type.is_float:
            predicate = f"fcmp {_FLOAT_COMPARE[instr.op]}"
        else:
            sign = "" if instr.op in ("eq", "ne") else "u" if type.kind in ("u", "b") else "s"
            predicate = f"icmp {sign}{instr.op}"
        self.define(instr.result, f"{predicate} {self.type_name(type)} {self.name(instr.a)}, {self.name(instr.b)}")

    def select(self, instr: nodes.Select) -> None:
        operands = ", ".join(map(self.typed, (instr.condition, instr.a, instr.b)))
        self.define(instr.result, f"select {operands}")

    def cast(self, instr: nodes.Cast) -> None:
        source, target = instr.a.type, instr.result.type
        a = self.name(instr.a)
        if instr.op == "bitcast":
            same = self.scalar_name(source) == self.scalar_name(target)
            self.names[instr.result] = a if same else self.conversion("bitcast", source, target, a)
            return
        # 16-bit floats meet other formats by way of float: LLVM would call functions for some.
        middle = Type("f", 32, source.lanes)
        if source.is_float and source.bits == 16 and target.bits != 32:
            source, a = middle, self.convert(source, middle, a)
        elif target.is_float and target.bits == 16 and source != middle:
            source, a = middle, self.convert(source, middle, a)
        self.names[instr.result] = self.convert(source, target, a)

    def conversion(self, name: str, source: Type, target: Type, a: str) -> str:
        return self.emit(f"{name} {self.type_name(source)} {a} to {self.type_name(target)}")

    def convert(self, source: Type, target: Type, a: str) -> str:
        if target.kind == "b":
            test = "fcmp une" if source.is_float else "icmp ne"
            return self.emit(f"{test} {self.type_name(source)} {a}, {self.literal(Const(source, 0))}")
        if source.is_float and not target.is_float:
            sign = "u" if target.kind == "u" else "s"
            name = f"llvm.fpto{sign}i.sat.{self.mangled(target)}.{self.mangled(source)}"
            return self.emit(self.intrinsic(name, self.type_name(target), [(self.type_name(source), a)]))
        if target.kind == "bf" and source.bits == 32:
            return missing.float_to_bfloat(self, target, a)
        if not self.target.halves and (source.kind, target.kind) == ("f", "f"):
            if source.bits == 16 and target.bits == 32:
                return missing.half_to_float(self, source, a)
            if source.bits == 32 and target.bits == 16:
                return missing.float_to_half(self, target, a)
        width, wanted = self.bits(source), self.bits(target)
        if source.is_float:
            name = "fpext" if wanted > width else "fptrunc" if wanted < width else ""
        elif target.is_float:
            name = "sitofp" if source.kind in ("i", "n") else "uitofp"
        elif wanted == width:
            name = ""
        else:
            name = "trunc" if wanted < width else "sext" if source.kind in ("i", "n") else "zext"
        return self.conversion(name, source, target, a) if name else a

    # ---- vectors

    def broadcast(self, instr: nodes.Broadcast) -> None:
        self.names[instr.result] = self.splat(instr.result.type, self.name(instr.a))

    def splat(self, type: Type, a: str) -> str:
        kind, scalar = self.type_name(type), self.scalar_name(type)
        first = self.emit(f"insertelement {kind} poison, {scalar} {a}, i32 0")
        return self.emit(f"shufflevector {kind} {first}, {kind} poison, <{type.lanes} x i32> zeroinitializer")

    def reduce(self, instr: nodes.ReduceLanes) -> None:
        type, a = instr.a.type, self.name(instr.a)
        if not type.is_float:
            signed = "u" if type.kind in ("u", "b") else "s"
            name = f"{signed}{instr.op}" if instr.op in ("min", "max") else instr.op
            call = self.intrinsic(
                f"llvm.vector.reduce.{name}.{self.mangled(type)}", self.scalar_name(type), [(self.type_name(type), a)]
            )
            self.define(instr.result, call)
            return
        while type.lanes > 1:
            half = type.vector(type.lanes // 2)
            low, high = (self.lanes(a, type, range(start, start + half.lanes)) for start in (0, half.lanes))
            a = self.combine(instr.op, half, low, high)
            type = half
        self.names[instr.result] = a

    def lanes(self, a: str, type: Type, lanes: Sequence[int], b: str = "poison") -> str:
        """Lanes of the vectors a and b, both of `type`; a scalar if it is one lane."""
        if len(lanes) == 1 and lanes[0] < type.lanes:
            return self.emit(f"extractelement {self.type_name(type)} {a}, i32 {lanes[0]}")
        kind, chosen = self.type_name(type), ", ".join(f"i32 {lane}" for lane in lanes)
        return self.emit(f"shufflevector {kind} {a}, {kind} {b}, <{len(lanes)} x i32> <{chosen}>")

    def shuffle(self, instr: nodes.Shuffle) -> None:
        type, lanes = instr.a.type, instr.lanes
        a, b = self.name(instr.a), self.name(instr.b)
        if type.lanes == 1:  # two scalars
            pair = type.vector(2)
            a = self.emit(f"insertelement {self.type_name(pair)} poison, {self.scalar_name(type)} {a}, i32 0")
            a = self.emit(f"insertelement {self.type_name(pair)} {a}, {self.scalar_name(type)} {b}, i32 1")
            self.names[instr.result] = self.lanes(a, pair, lanes)
        elif len(lanes) == 1 and lanes[0] >= type.lanes:
            self.names[instr.result] = self.lanes(b, type, [lanes[0] - type.lanes])
        else:
            self.names[instr.result] = self.lanes(a, type, lanes, b)

    def extract(self, instr: nodes.Extract) -> None:
        self.names[instr.result] = self.lanes(self.name(instr.a), instr.a.type, [instr.lane])

    # ---- memory

    def address(self, buffer: Buffer, index: Operand, offset: int) -> str:
        element = self.memory_name(buffer.type)
        base = self.names[buffer]
        if (buffer, index) in self.moving:
            base, behind = self.moving[buffer, index]
            offset += behind
        elif not (isinstance(index, Const) and index.value == 0):
            shown = self.name(index)
            key = (buffer, shown)
            known = next((scope[key] for scope in reversed(self.addresses) if key in scope), None)
            if known is None:
                known = self.emit(f"getelementptr nusw {element}, ptr {base}, {self.index} {shown}")
                self.addresses[-1][key] = known
            base = known
        return self.emit(f"getelementptr nusw {element}, ptr {base}, {self.index} {offset}") if offset else base

    def mask(self, lanes: int, active: int) -> str:
        return "<" + ", ".join(f"i1 {'true' if lane < active else 'false'}" for lane in range(lanes)) + ">"

    def from_memory(self, result: Var, loaded: str) -> None:
        if result.type.kind == "b":
            memory = self.memory_name(result.type)
            zero = "zeroinitializer" if result.type.lanes > 1 else "0"
            loaded = self.emit(f"icmp ne {memory} {loaded}, {zero}")
        self.names[result] = loaded

    def to_memory(self, operand: Operand) -> str:
        if operand.type.kind != "b":
            return self.name(operand)
        return self.emit(f"zext {self.typed(operand)} to {self.memory_name(operand.type)}")

    def load(self, instr: nodes.Load) -> None:
        type = instr.result.type
        kind, align = self.memory_name(type), type.bytes
        if instr.active <= 0:
            self.names[instr.result] = self.literal(Const(type, 0))
            return
        address = self.address(instr.buffer, instr.index, instr.offset)
        if instr.active >= type.lanes:
            loaded = self.emit(f"load {kind}, ptr {address}, align {align}")
        else:
            memory = Type("u", 8, type.lanes) if type.kind == "b" else type
            mask_type = f"<{type.lanes} x i1>"
            loaded = self.emit(
                self.intrinsic(
                    f"llvm.masked.load.{self.mangled(memory)}.p0", kind,
                    [("ptr", address), ("i32", str(align)), (mask_type, self.mask(type.lanes, instr.active)),
                     (kind, "zeroinitializer")],
                )
            )  # fmt: skip
        self.from_memory(instr.result, loaded)

    def gather(self, instr: nodes.Gather) -> None:
        type = instr.result.type
        lanes = type.lanes
        if instr.active <= 0:
            self.names[instr.result] = self.literal(Const(type, 0))
            return
        base = self.address(instr.buffer, instr.index, instr.offset)
        element, kind = self.memory_name(type.scalar), self.memory_name(type)
        pointers = self.emit(f"getelementptr nusw {element}, ptr {base}, {self.typed(instr.steps)}")
        if lanes == 1:
            self.from_memory(instr.result, self.emit(f"load {kind}, ptr {pointers}, align {type.bytes}"))
            return
        memory = Type("u", 8, lanes) if type.kind == "b" else type
        loaded = self.emit(
            self.intrinsic(
                f"llvm.masked.gather.{self.mangled(memory)}.v{lanes}p0", kind,
                [(f"<{lanes} x ptr>", pointers), ("i32", str(type.bytes)),
                 (f"<{lanes} x i1>", self.mask(lanes, instr.active)), (kind, "zeroinitializer")],
            )
        )  # fmt: skip
        self.from_memory(instr.result, loaded)

    def store(self, instr: nodes.Store) -> None:
        type = instr.value.type
        if instr.active <= 0:
            return
        kind, value = self.memory_name(type), self.to_memory(instr.value)
        address = self.address(instr.buffer, instr.index, instr.offset)
        if instr.active >= type.lanes:
            align = type.bytes * type.lanes if instr.streaming else type.bytes
            hint = ", !nontemporal !2" if instr.streaming else ""
            self.lines.append(f"  store {kind} {value}, ptr {address}, align {align}{hint}")
            return
        memory = Type("u", 8, type.lanes) if type.kind == "b" else type
        self.lines.append(
            "  "
            + self.intrinsic(
                f"llvm.masked.store.{self.mangled(memory)}.p0", "void",
                [(kind, value), ("ptr", address), ("i32", str(type.bytes)),
                 (f"<{type.lanes} x i1>", self.mask(type.lanes, instr.active))],
            )
        )  # fmt: skip

    def prefetch(self, instr: nodes.Prefetch) -> None:
        address = self.address(instr.buffer, instr.index, instr.offset)
        arguments = [("ptr", address), ("i32", "0"), ("i32", str(instr.locality)), ("i32", "1")]
        self.lines.append("  " + self.intrinsic("llvm.prefetch.p0", "void", arguments))

    def alloc(self, instr: nodes.Alloc) -> None:
        buffer = instr.buffer
        name = f"%{buffer.name}.{self.fresh()}"
        array = f"[{buffer.size} x {self.memory_name(buffer.type)}]"
        self.allocas.append(f"  {name} = alloca {array}, align {buffer.align}")
        self.names[buffer] = name

    def call(self, instr: nodes.Call) -> None:
        arguments = []
        for argument in instr.arguments:
            if isinstance(argument, Ref):
                arguments.append(f"ptr {self.address(argument.buffer, argument.index, argument.offset)}")
            else:
                arguments.append(self.typed(argument))
        self.lines.append(f"  call void @{instr.function.name}({', '.join(arguments)})")

    # ---- control

    def loop(self, instr: nodes.For) -> None:
        number = self.fresh()
        before, body, after = self.label, f"loop{number}", f"done{number}"
        lo, hi = self.name(instr.lo), self.name(instr.hi)
        static = isinstance(instr.lo, Const) and isinstance(instr.hi, Const) and int(lo) < int(hi)
        initial = [self.name(operand) for operand in instr.initial]
        found = find_streams(instr)
        first = {stream: first_address(self, stream, instr.lo) for stream, _ in found.values()}
        pointers = {stream: f"%p{number}.{position}" for position, stream in enumerate(first)}
        if static:
            self.lines.append(f"  br label %{body}")
        else:
            runs = self.emit(f"icmp slt {self.index} {lo}, {hi}")
            self.lines.append(f"  br i1 {runs}, label %{body}, label %{after}")
        self.start(body)
        self.names[instr.variable] = f"%i{number}"
        for position, var in enumerate(instr.carried):
            self.names[var] = f"%c{number}.{position}"
        phis = len(self.lines)
        self.moving = {access: (pointers[stream], behind) for access, (stream, behind) in found.items()}
        self.block(instr.body)
        self.moving = {}
        # Frozen, the variable is opaque to loop strength reduction, which would keep dozens of pointers of a register
        # tile on the stack (convolutions at half speed) and take as long as all the rest.
        frozen = self.emit(f"freeze {self.index} %i{number}")
        following = self.emit(f"add nsw {self.index} {frozen}, {instr.step}")
        moved = next_addresses(self, pointers, instr.step)
        again = self.emit(f"icmp slt {self.index} {following}, {hi}")
        latch = self.label
        yields = [self.name(operand) for operand in instr.yields]
        self.lines.append(f"  br i1 {again}, label %{body}, label %{after}, !llvm.loop {NO_UNROLL}")
        heads = [f"  %i{number} = phi {self.index} [ {lo}, %{before} ], [ {following}, %{latch} ]"]
        for stream, pointer in pointers.items():
            heads.append(f"  {pointer} = phi ptr [ {first[stream]}, %{before} ], [ {moved[stream]}, %{latch} ]")
        for position, var in enumerate(instr.carried):
            heads.append(
                f"  %c{number}.{position} = phi {self.type_name(var.type)} "
                f"[ {initial[position]}, %{before} ], [ {yields[position]}, %{latch} ]"
            )
        self.lines[phis:phis] = heads
        self.start(after)
        for position, var in enumerate(instr.results):
            last = yields[position]
            incoming = f"[ {initial[position]}, %{before} ], [ {last}, %{latch} ]"
            self.names[var] = last if static else self.emit(f"phi {self.type_name(var.type)} {incoming}")

    def branch(self, instr: nodes.If) -> None:
        number = self.fresh()
        first, second, after = f"then{number}", f"else{number}", f"end{number}"
        second = second if instr.otherwise else after
        self.lines.append(f"  br i1 {self.name(instr.condition)}, label %{first}, label %{second}")
        self.start(first)
        self.block(instr.then)
        self.lines.append(f"  br label %{after}")
        if instr.otherwise:
            self.start(second)
            self.block(instr.otherwise)
            self.lines.append(f"  br label %{after}")
        self.start(after)


def emit_module(
    functions: Sequence[Function], extra: str = "", linkage: str = "internal ", target: Target | None = None
) -> str:
    """LLVM IR text of the functions and all they call, with `extra` definitions after them.

    Without a `target`, for one with all that the text can make use of.
    """
    machine = target or _COMPLETE
    ordered: dict[Function, None] = {}
    for function in functions:
        ordered.update(dict.fromkeys(called(function)))
        ordered[function] = None
    declarations: set[str] = set()
    bodies = [Emitter(function, machine, declarations).text(linkage) for function in ordered]
    return "\n".join([*sorted(declarations), "", *bodies, extra, _attributes(machine), _METADATA])


_COMPLETE = Target("any", "x86_64-unknown-linux-gnu", "", "", 512, 32)


def _attributes(target: Target) -> str:
    """What all functions have: that they end normally, and how wide vectors may be on x86."""
    attributes = ["nounwind"]
    if target.architecture in ("x86_64", "i686"):
        attributes.append('"prefer-vector-width"="512"')
    if target.tune:
        attributes.append(f'"tune-cpu"="{target.tune}"')
    return f"attributes #0 = {{ {' '.join(attributes)} }}\n"
