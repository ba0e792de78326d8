"""What a processor must have for a module's kernels, checked by the module itself, as LLVM IR text.

    const char *NAME_missing_feature(void)      NULL, or the first feature that the processor or its system lacks
    internal int32 tw.cpu()                     0 if there is none; looked up once

x86 is asked by its `cpuid` instruction, in hand-assembled bytes, since LLVM has no name for it and inline assembly
would need an assembler for every target. Linux tells what other processors have through `getauxval`. Elsewhere
nothing is checked.

    _X86["avx2"] = Feature(word=1, bits=1 << 5)          word 1 is EBX of leaf 7
"""

from dataclasses import dataclass
from string import Template

from tilewright.compiler.targets import Target

_AVX_STATE, _AVX512_STATE = 0x6, 0xE6


@dataclass(frozen=True)
class _Feature:
    """Where a feature stands: these bits of this word, and this state of registers that the system must keep."""

    word: int
    bits: int
    state: int = 0


def _bit(word: int, bit: int, state: int = 0) -> _Feature:
    return _Feature(word, 1 << bit, state)


# Words: 0 leaf 1 ECX, 1 leaf 7 EBX, 2 leaf 7 ECX, 3 leaf 7 EDX, 4 leaf 7.1 EAX, 5 leaf 80000001h ECX, 6 XCR0.
# Names are LLVM's, bits those of Intel's and AMD's manuals.
_X86 = {
    "sse3": _bit(0, 0), "ssse3": _bit(0, 9), "sse4.1": _bit(0, 19), "sse4.2": _bit(0, 20), "popcnt": _bit(0, 23),
    "cx16": _bit(0, 13), "movbe": _bit(0, 22), "lzcnt": _bit(5, 5), "sse4a": _bit(5, 6), "prfchw": _bit(5, 8),
    "bmi": _bit(1, 3), "bmi2": _bit(1, 8), "adx": _bit(1, 19),
    **{
        name: _bit(word, bit, _AVX_STATE)
        for name, word, bit in (
            ("avx", 0, 28), ("f16c", 0, 29), ("fma", 0, 12), ("avx2", 1, 5), ("vaes", 2, 9), ("vpclmulqdq", 2, 10),
            ("gfni", 2, 8), ("avxvnni", 4, 4), ("avxifma", 4, 23), ("xop", 5, 11), ("fma4", 5, 16),
        )
    },
    **{
        f"avx512{name}": _bit(word, bit, _AVX512_STATE)
        for name, word, bit in (
            ("f", 1, 16), ("dq", 1, 17), ("ifma", 1, 21), ("cd", 1, 28), ("bw", 1, 30), ("vl", 1, 31), ("vbmi", 2, 1),
            ("vbmi2", 2, 6), ("vnni", 2, 11), ("bitalg", 2, 12), ("vpopcntdq", 2, 14), ("fp16", 3, 23), ("bf16", 4, 5),
        )
    },
}  # fmt: skip

# Words of getauxval: 0 AT_HWCAP, 1 AT_HWCAP2; bits as in Linux's headers <asm/hwcap.h> of each architecture.
_LINUX = {
    "aarch64": {
        "neon": _bit(0, 1), "aes": _bit(0, 3), "crc": _bit(0, 7), "lse": _bit(0, 8), "fullfp16": _bit(0, 10),
        "rdm": _bit(0, 12), "rcpc": _bit(0, 15), "dotprod": _bit(0, 20), "fp16fml": _bit(0, 23), "sve": _bit(0, 22),
        "sve2": _bit(1, 1), "i8mm": _bit(1, 13), "bf16": _bit(1, 14),
    },
    "arm": {"neon": _bit(0, 12), "vfp3": _bit(0, 13), "vfp4": _bit(0, 16)},
    "riscv64": {letter: _bit(0, ord(letter) - ord("a")) for letter in "acdfmv"},
    "powerpc64le": {"altivec": _bit(0, 28), "vsx": _bit(0, 7), "power8-vector": _bit(1, 31)},
}  # fmt: skip


def checked_features(target: Target) -> tuple[str, ...]:
    """The features that code for `target` may use and whose presence it checks."""
    return tuple(name for name in target.requires if name in _known(target))


def _known(target: Target) -> dict[str, _Feature]:
    if target.architecture == "x86_64":
        return _X86
    return _LINUX.get(target.architecture, {}) if target.system == "linux" else {}


# cpuid(leaf, subleaf, uint32 words[4]):  mov r8, rdx; mov r9, rbx; mov eax, edi; mov ecx, esi; cpuid;
#   mov [r8], eax; mov [r8+4], ebx; mov [r8+8], ecx; mov [r8+12], edx; mov rbx, r9; ret
# xgetbv():  xor ecx, ecx; xgetbv; shl rdx, 32; or rax, rdx; ret
# Calling convention 78 is that of System V, also on Windows. Bodies follow that are never reached.
_CPUID = bytes.fromhex("4989d0 4989d9 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 4c89cb c3")
_XGETBV = bytes.fromhex("31c9 0f01d0 48c1e220 4809d0 c3")

_WORDS_X86 = """
define internal cc 78 void @tw.cpuid(i32 %leaf, i32 %subleaf, i32* %words) noinline optnone nounwind prologue $cpuid {
  ret void
}

define internal cc 78 i64 @tw.xgetbv() noinline optnone nounwind prologue $xgetbv {
  ret i64 0
}

define internal void @tw.words(i64* %words) $plain {
entry:
  %four = alloca [4 x i32]
  %eax.at = getelementptr [4 x i32], [4 x i32]* %four, i32 0, i32 0
  %ebx.at = getelementptr [4 x i32], [4 x i32]* %four, i32 0, i32 1
  %ecx.at = getelementptr [4 x i32], [4 x i32]* %four, i32 0, i32 2
  %edx.at = getelementptr [4 x i32], [4 x i32]* %four, i32 0, i32 3
  call cc 78 void @tw.cpuid(i32 0, i32 0, i32* %eax.at)
  %last = load i32, i32* %eax.at
  call cc 78 void @tw.cpuid(i32 1, i32 0, i32* %eax.at)
  %basic = load i32, i32* %ecx.at
  call void @tw.word(i64* %words, i32 0, i32* %ecx.at)
  %osxsave = and i32 %basic, 134217728
  %keeps = icmp ne i32 %osxsave, 0
  br i1 %keeps, label %state, label %more
state:
  %xcr0 = call cc 78 i64 @tw.xgetbv()
  %state.at = getelementptr i64, i64* %words, i32 6
  store i64 %xcr0, i64* %state.at
  br label %more
more:
  %seven = icmp uge i32 %last, 7
  br i1 %seven, label %structured, label %extended
structured:
  call cc 78 void @tw.cpuid(i32 7, i32 0, i32* %eax.at)
  call void @tw.word(i64* %words, i32 1, i32* %ebx.at)
  call void @tw.word(i64* %words, i32 2, i32* %ecx.at)
  call void @tw.word(i64* %words, i32 3, i32* %edx.at)
  %subleaves = load i32, i32* %eax.at
  %one = icmp ne i32 %subleaves, 0
  br i1 %one, label %subleaf, label %extended
subleaf:
  call cc 78 void @tw.cpuid(i32 7, i32 1, i32* %eax.at)
  call void @tw.word(i64* %words, i32 4, i32* %eax.at)
  br label %extended
extended:
  call cc 78 void @tw.cpuid(i32 2147483648, i32 0, i32* %eax.at)
  %last.extended = load i32, i32* %eax.at
  %has = icmp uge i32 %last.extended, 2147483649
  br i1 %has, label %amd, label %end
amd:
  call cc 78 void @tw.cpuid(i32 2147483649, i32 0, i32* %eax.at)
  call void @tw.word(i64* %words, i32 5, i32* %ecx.at)
  br label %end
end:
  ret void
}

define internal void @tw.word(i64* %words, i32 %index, i32* %from) $plain {
  %value = load i32, i32* %from
  %wide = zext i32 %value to i64
  %at = getelementptr i64, i64* %words, i32 %index
  store i64 %wide, i64* %at
  ret void
}
"""
_WORDS_LINUX = """
declare $size @getauxval($size)

define internal void @tw.words(i64* %words) $plain {
  %first = call $size @getauxval($size 16)
  %second = call $size @getauxval($size 26)
  %first.wide = $first_wide
  %second.wide = $second_wide
  store i64 %first.wide, i64* %words
  %second.at = getelementptr i64, i64* %words, i32 1
  store i64 %second.wide, i64* %second.at
  ret void
}
"""
_CHECK = """
%tw.feature = type { i8*, i32, i64, i64 }     ; name, word, its bits, bits of word 6
$names
@tw.features = internal constant [$count x %tw.feature] [$rows]
@tw.able = internal global i32 0

define internal i8* @tw.lacks() $plain {
entry:
  %words = alloca [8 x i64]
  %first = getelementptr [8 x i64], [8 x i64]* %words, i32 0, i32 0
  store [8 x i64] zeroinitializer, [8 x i64]* %words
  call void @tw.words(i64* %first)
  %state.at = getelementptr [8 x i64], [8 x i64]* %words, i32 0, i32 6
  %state = load i64, i64* %state.at
  br label %each
each:
  %i = phi i32 [ 0, %entry ], [ %next, %has ]
  %word.at = getelementptr [$count x %tw.feature], [$count x %tw.feature]* @tw.features, i32 0, i32 %i, i32 1
  %word = load i32, i32* %word.at
  %bits.at = getelementptr [$count x %tw.feature], [$count x %tw.feature]* @tw.features, i32 0, i32 %i, i32 2
  %bits = load i64, i64* %bits.at
  %kept.at = getelementptr [$count x %tw.feature], [$count x %tw.feature]* @tw.features, i32 0, i32 %i, i32 3
  %kept = load i64, i64* %kept.at
  %actual.at = getelementptr [8 x i64], [8 x i64]* %words, i32 0, i32 %word
  %actual = load i64, i64* %actual.at
  %found = and i64 %actual, %bits
  %there = icmp eq i64 %found, %bits
  %saved = and i64 %state, %kept
  %safe = icmp eq i64 %saved, %kept
  %good = and i1 %there, %safe
  br i1 %good, label %has, label %lacks
has:
  %next = add i32 %i, 1
  %more = icmp ult i32 %next, $count
  br i1 %more, label %each, label %all
lacks:
  %name.at = getelementptr [$count x %tw.feature], [$count x %tw.feature]* @tw.features, i32 0, i32 %i, i32 0
  %name = load i8*, i8** %name.at
  ret i8* %name
all:
  ret i8* null
}

define internal i32 @tw.cpu() $plain {
entry:
  %known = load atomic i32, i32* @tw.able monotonic, align 4
  %yes = icmp eq i32 %known, 1
  br i1 %yes, label %able, label %look
look:
  %lacking = call i8* @tw.lacks()
  %none = icmp eq i8* %lacking, null
  br i1 %none, label %note, label %unable
note:
  store atomic i32 1, i32* @tw.able monotonic, align 4
  br label %able
able:
  ret i32 0
unable:
  ret i32 -1
}
"""
_NOTHING = """
define internal i8* @tw.lacks() $plain {
  ret i8* null
}

define internal i32 @tw.cpu() $plain {
  ret i32 0
}
"""
_EXPORTED = """
define $export i8* @${name}_missing_feature() $plain {
  %result = call i8* @tw.lacks()
  ret i8* %result
}
"""


def emit_cpu(name: str, export: str, plain: str, target: Target) -> str:
    """LLVM IR text of the check for `target`; `plain` are the attributes of functions that run everywhere."""
    features, known, size = checked_features(target), _known(target), f"i{target.pointer_bits}"
    widen = "zext i32 {} to i64" if size == "i32" else "add i64 {}, 0"
    rows = [
        f"%tw.feature {{ i8* getelementptr ([{len(feature) + 1} x i8], [{len(feature) + 1} x i8]* @tw.feature.{i}, "
        f"i32 0, i32 0), i32 {known[feature].word}, i64 {known[feature].bits}, i64 {known[feature].state} }}"
        for i, feature in enumerate(features)
    ]
    values = {
        "name": name,
        "export": export,
        "plain": plain,
        "size": size,
        "cpuid": _bytes(_CPUID),
        "xgetbv": _bytes(_XGETBV),
        "first_wide": widen.format("%first"),
        "second_wide": widen.format("%second"),
        "count": len(features),
        "names": "\n".join(
            f'@tw.feature.{i} = internal constant [{len(feature) + 1} x i8] c"{feature}\\00"'
            for i, feature in enumerate(features)
        ),
        "rows": ", ".join(rows),
    }
    words = _WORDS_X86 if target.architecture == "x86_64" else _WORDS_LINUX
    pieces = [words, _CHECK, _EXPORTED] if features else [_NOTHING, _EXPORTED]
    return "\n".join(Template(piece).substitute(values) for piece in pieces)


def _bytes(code: bytes) -> str:
    return f'[{len(code)} x i8] c"{"".join(f"{chr(92)}{byte:02X}" for byte in code)}"'
