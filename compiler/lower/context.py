"""What lowering produces, and the registry of lowerings by primitive name.

    Step(kernel, arguments=(%x, %w, %y), source="conv1_1", template="conv_direct")

A lowering turns one node into steps, in order. A step calls one kernel; its arguments are graph values, one for
each buffer parameter of the kernel's function in the same order. Equal kernels are built once: `Lowering.kernel`
takes a key that says everything the function depends on.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from tilewright.compiler.ir import Graph, Node, TensorType, Value
from tilewright.compiler.ir.graph import Array
from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.targets import Target
from tilewright.errors import CompileError


@dataclass(frozen=True)
class Step:
    """One kernel call: which function, over which values, for which node of the model."""

    kernel: Kernel
    arguments: tuple[Value, ...]
    source: str
    template: str


@dataclass
class Lowering:
    """The state of lowering one graph.

    `placed` says which operands of a node that only joins them already lie in its result. The names of kernels begin
    with `prefix`.
    """

    graph: Graph
    target: Target
    placed: Callable[[Node], frozenset[int]]
    prefix: str = ""
    steps: list[Step] = field(default_factory=list)
    _kernels: dict[Hashable, Kernel] = field(default_factory=dict)
    _templates: dict[str, int] = field(default_factory=dict)
    _scratch: int = 0

    def kernel(self, template: str, key: Hashable, build: Callable[[str], Kernel]) -> Kernel:
        """The kernel of `template` for `key`, built by `build(function name)` the first time."""
        whole = (template, key)
        if whole not in self._kernels:
            number = self._templates.get(template, 0)
            self._templates[template] = number + 1
            self._kernels[whole] = build(f"{self.prefix}{template}_{number}")
        return self._kernels[whole]

    def call(self, kernel: Kernel, arguments: tuple[Value, ...], node: Node, template: str) -> None:
        """Append a step."""
        self.steps.append(Step(kernel, arguments, node.source, template))

    def scratch(self, type: TensorType) -> Value:
        """A value for one node's intermediate results."""
        self._scratch += 1
        return Value(f"scratch{self._scratch}", type)

    def scalar_of(self, value: Value) -> Array | None:
        """The array of a constant with one element, which kernels take as an immediate; else None."""
        array = self.graph.constants.get(value)
        return array if array is not None and array.size == 1 else None


LOWERINGS: dict[str, Callable[[Lowering, Node], None]] = {}


def lowering(*names: str) -> Callable[[Callable[[Lowering, Node], None]], Callable[[Lowering, Node], None]]:
    """Register a function that lowers nodes of these primitives (or, for plans, of template "template:NAME")."""

    def register(function: Callable[[Lowering, Node], None]) -> Callable[[Lowering, Node], None]:
        for name in names:
            if name in LOWERINGS:
                raise CompileError(f"{name} is lowered twice")
            LOWERINGS[name] = function
        return function

    return register
