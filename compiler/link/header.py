"""C header of a library: `NAME.h`, for C89 (with <stdint.h>) and C++.

Types that all models share, tw_tensor and tw_context, are defined by whichever header comes first.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewright.runtime.artifact import TensorSpec

_TYPES = {
    "float32": "float", "float64": "double", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t",
    "int64": "int64_t", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
    "bool": "uint8_t", "float16": "uint16_t", "bfloat16": "uint16_t",
}  # fmt: skip
_NOTES = {"bool": "0 or 1", "float16": "IEEE binary16 bits", "bfloat16": "bfloat16 bits"}

_RESERVED = set(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const
    consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double
    dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace
    new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires
    restrict return short signed sizeof static static_assert static_cast struct switch template this thread_local
    throw true try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while xor xor_eq
    weights n errno linux unix i386""".split()
)


@dataclass(frozen=True)
class HeaderFacts:
    """What the header says besides names and shapes. Sizes in bytes; `batch` is the symbol of the batch, or ""."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: str
    workspace_bytes: int
    thread_bytes: int
    threads: bool
    external_weights: str
    kernels: int
    allocates: bool
    abi_version: int
    errors: tuple[tuple[str, str], ...]
    about: tuple[str, ...]


def c_name(text: str, fallback: str = "model") -> str:
    """A name as an identifier of C and C++: what is no letter, digit or underscore becomes an underscore."""
    made = re.sub(r"[^0-9A-Za-z_]+", "_", text).strip("_") or fallback
    if made[0].isdigit():
        made = f"{fallback[0]}{made}"
    return f"{made}_" if made in _RESERVED else made


def c_names(names: Iterable[str], fallback: str) -> list[str]:
    """Different identifiers for names, also where those differ only by what cannot stand in C.

    They differ in capitals, too: so do the constants named after them.
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        first = made = c_name(name, fallback)
        number = 1
        while made.upper() in taken:
            number += 1
            made = f"{first}_{number}"
        found.append(made)
        taken.add(made.upper())
    return found


def header(facts: HeaderFacts) -> str:
    """The text of NAME.h."""
    upper = facts.name.upper()
    ins, outs = c_names((t.name for t in facts.inputs), "input"), c_names((t.name for t in facts.outputs), "output")
    lines = [
        *_comment(*facts.about),
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        _SHARED.strip(),
        "",
        f"#define {upper}_ABI_VERSION {facts.abi_version}",
        "",
        *_comment("What functions return."),
        *(f"#define {upper}_{'' if i == 0 else 'ERROR_'}{code} {-i if i == 0 else f'({-i})'}  /* {text} */"
          for i, (code, text) in enumerate(facts.errors)),
        "",
        *_comment(
            "The workspace: its bytes for one thread, what each further thread takes, the alignment of its start.",
            "Whether several threads can compute a call (1) or not (0), and the number of kernels.",
        ),
        f"#define {upper}_WORKSPACE_BYTES {facts.workspace_bytes}",
        f"#define {upper}_THREAD_BYTES {facts.thread_bytes}",
        f"#define {upper}_ALIGNMENT 64",
        f"#define {upper}_THREADS {int(facts.threads)}",
        f"#define {upper}_KERNELS {facts.kernels}",
        f"#define {upper}_INPUTS {len(ins)}",
        f"#define {upper}_OUTPUTS {len(outs)}",
        "",
        *_sizes(upper, "INPUT", facts.inputs, ins, facts.batch),
        *_sizes(upper, "OUTPUT", facts.outputs, outs, facts.batch),
        *_struct(facts, "inputs", facts.inputs, ins, "const "),
        *_struct(facts, "outputs", facts.outputs, outs, ""),
        *_functions(facts),
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"#endif /* {upper}_H */",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _comment(*lines: str) -> list[str]:
    safe = [line.replace("*/", "* /").replace("/*", "/ *") for line in lines]
    safe = ["".join(c if " " <= c < "\x7f" else "?" for c in line) for line in safe]
    if len(safe) == 1:
        return [f"/* {safe[0]} */"]
    return [f"/* {safe[0]}", *(f" * {line}".rstrip() for line in safe[1:]), " */"]


def _sizes(upper: str, side: str, specs: Sequence[TensorSpec], names: Sequence[str], batch: str) -> list[str]:
    lines = []
    for number, (spec, name) in enumerate(zip(specs, names, strict=True)):
        count = 1
        for dim in spec.shape:
            count *= dim if isinstance(dim, int) else 1
        shape = "x".join(map(str, spec.shape)) or "scalar"
        prefix = f"{upper}_{side}_{name.upper()}"
        lines += _comment(f"{side.capitalize()} {number}, '{spec.name}': {spec.dtype} {shape}.")
        lines += [f"#define {prefix}_INDEX {number}", f"#define {prefix}_RANK {len(spec.shape)}"]
        lines += [f"#define {prefix}_DIM{i} {dim}" for i, dim in enumerate(spec.shape) if isinstance(dim, int)]
        each = f"{prefix}_SAMPLE_SIZE" if batch in spec.shape else f"{prefix}_SIZE"
        lines += [f"#define {each} {count}  /* elements{' of one sample' if batch in spec.shape else ''} */", ""]
    return lines


def _struct(
    facts: HeaderFacts, side: str, specs: Sequence[TensorSpec], names: Sequence[str], const: str
) -> list[str]:
    lines = [f"typedef struct {facts.name}_{side} {{"]
    for spec, name in zip(specs, names, strict=True):
        note = f"  /* {_NOTES[spec.dtype]} */" if spec.dtype in _NOTES else ""
        lines.append(f"    {const}{_TYPES.get(spec.dtype, 'void')} *{name};{note}")
    if side == "inputs" and facts.external_weights:
        lines.append(f"    const void *weights;  /* {facts.external_weights}, mapped or read to a multiple of 64 */")
    if side == "inputs" and facts.batch:
        lines.append("    int64_t n;  /* how many samples */")
    if len(lines) == 1:
        lines.append("    char unused;")
    return [*lines, f"}} {facts.name}_{side};", ""]


def _functions(facts: HeaderFacts) -> list[str]:
    name, upper = facts.name, facts.name.upper()
    weights = (
        [f"The weights are not in the library: map the file {facts.external_weights} and pass its address."]
        if facts.external_weights
        else []
    )
    lines = [
        *_comment(
            "Compute the outputs from the inputs, with every option. `inputs` and `outputs` are arrays of",
            f"{upper}_INPUTS and {upper}_OUTPUTS tensors, dense and row-major; outputs may not overlap anything else.",
            "An input's dims may be NULL: then they are those the model was compiled for. An output's dims, unless",
            "NULL, are filled in. `capacity` is how many bytes there are at `data`; 0 for an input means enough.",
            "Set context->struct_size to sizeof(tw_context). If context->workspace is NULL it is asked from",
            "context->alloc, put into the context, and yours to free. Calls may run at the same time as long as they",
            "have different contexts and workspaces. Returns 0 or an error code; then nothing was computed.",
            *weights,
        ),
        f"int32_t {name}_call(const tw_tensor *inputs, tw_tensor *outputs, tw_context *context);",
        "",
        *_comment(
            "The same for one thread, from typed pointers. `workspace` has at least",
            f"{upper}_WORKSPACE_BYTES bytes and starts at a multiple of {upper}_ALIGNMENT; NULL will do if that is 0.",
            *weights,
        ),
        f"int32_t {name}_run(const {name}_inputs *inputs, const {name}_outputs *outputs, void *workspace);",
        "",
    ]
    if facts.allocates:
        lines += [
            *_comment("The same with a workspace that malloc gives and free takes back, by `threads` threads."),
            f"int32_t {name}_run_alloc(const {name}_inputs *inputs, const {name}_outputs *outputs, int32_t threads);",
            "",
        ]
    return [
        *lines,
        *_comment(
            "The bytes of workspace that a call by `threads` threads takes. `dims` may be NULL: the dims of all inputs",
            "one after the other, on which it does not depend so far.",
        ),
        f"size_t {name}_workspace_bytes(const int64_t *dims, int32_t threads);",
        "",
        *_comment(
            "The first feature that the code needs and this processor or its system lacks; NULL if it has all.",
            f"Calls on such a processor return {upper}_ERROR_CPU.",
        ),
        f"const char *{name}_missing_feature(void);",
        "",
        *_comment("What an error code means, in English; NULL for a number that is none."),
        f"const char *{name}_error_text(int32_t code);",
        "",
        *_comment(
            "Inputs, outputs, workspace, kernels, required features and versions, as JSON in UTF-8.",
        ),
        f"const char *{name}_metadata_json(void);",
        "",
        *_comment(f"The version of this interface the library was made with: compare with {upper}_ABI_VERSION."),
        f"uint32_t {name}_abi_version(void);",
        "",
    ]


_SHARED = """
#ifndef TW_ABI_TYPES
#define TW_ABI_TYPES
/* A tensor: its elements, its dims (as many as its rank), and how many bytes there are at `data`. */
typedef struct tw_tensor {
    void *data;
    int64_t *dims;
    int64_t capacity;
} tw_tensor;

/* How a call is made. Set everything you do not use to 0. */
typedef struct tw_context {
    size_t struct_size;       /* sizeof(tw_context) */
    void *workspace;
    size_t workspace_bytes;
    int32_t threads;          /* below 2: the caller alone */
    const void *weights;      /* only where they are not in the library */
    void *(*alloc)(size_t bytes, void *user);  /* called where workspace is NULL; aligned to 64 */
    void (*profile)(int32_t kernel, int64_t ns, void *user);  /* called after each kernel, if not NULL */
    void *user;               /* for the functions above */
} tw_context;
#endif
"""
