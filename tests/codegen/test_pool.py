"""The thread pool by itself: every chunk once, by whom, nested and busy regions, what workers inherit, scratch."""

import ctypes
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from object_symbols import undefined

from tilewright.compiler.codegen.entry import EntryCall, Location, emit_entry
from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import assembly, compile_module
from tilewright.compiler.codegen.pool import emit_pool, has_pool, pool_code
from tilewright.compiler.loops import Builder, Index, Operand
from tilewright.compiler.loops.nodes import F32, I32
from tilewright.compiler.targets import by_name, host
from tilewright.errors import UnsupportedError
from tilewright.runtime.artifact import aligned_empty
from tilewright.runtime.executable import pool_address
from tilewright.runtime.jit import Engine

# mark: counts[chunk] += 1, slots[chunk] = slot, after `delay` turns of a loop.
# nest: a region of 4 chunks over the row of `chunk`, from inside a region.
# halve: x[chunk] *= 0.5. regions: many regions in a row, so that workers spin between them.
FUNCTIONS = """
%job = type { ptr, ptr, i64, ptr }

define void @mark(ptr %job, i32 %chunk, i32 %slot) {
entry:
  %counts = load ptr, ptr %job
  %slots.p = getelementptr %job, ptr %job, i64 0, i32 1
  %slots = load ptr, ptr %slots.p
  %delay.p = getelementptr %job, ptr %job, i64 0, i32 2
  %delay = load i64, ptr %delay.p
  br label %wait
wait:
  %i = phi i64 [ 0, %entry ], [ %j, %wait ]
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %delay
  br i1 %more, label %wait, label %act
act:
  %c = zext i32 %chunk to i64
  %count = getelementptr i32, ptr %counts, i64 %c
  %old = atomicrmw add ptr %count, i32 1 monotonic
  %place = getelementptr i32, ptr %slots, i64 %c
  store i32 %slot, ptr %place
  ret void
}

define void @nest(ptr %job, i32 %chunk, i32 %slot) {
  %parallel.p = getelementptr %job, ptr %job, i64 0, i32 3
  %parallel = load ptr, ptr %parallel.p
  %inner = alloca %job
  %counts = load ptr, ptr %job
  %first = mul i32 %chunk, 4
  %row = getelementptr i32, ptr %counts, i32 %first
  store ptr %row, ptr %inner
  %slots.p = getelementptr %job, ptr %job, i64 0, i32 1
  %slots = load ptr, ptr %slots.p
  %slots.row = getelementptr i32, ptr %slots, i32 %first
  %inner.slots = getelementptr %job, ptr %inner, i64 0, i32 1
  store ptr %slots.row, ptr %inner.slots
  %inner.delay = getelementptr %job, ptr %inner, i64 0, i32 2
  store i64 0, ptr %inner.delay
  call void %parallel(ptr @mark, ptr %inner, i32 4, i32 3)
  ret void
}

define void @halve(ptr %job, i32 %chunk, i32 %slot) {
  %values = load ptr, ptr %job
  %place = getelementptr float, ptr %values, i32 %chunk
  %value = load float, ptr %place
  %half = fmul float %value, 0.5
  store float %half, ptr %place
  call void @mark.slot(ptr %job, i32 %chunk, i32 %slot)
  ret void
}

define void @mark.slot(ptr %job, i32 %chunk, i32 %slot) {
entry:
  %slots.p = getelementptr %job, ptr %job, i64 0, i32 1
  %slots = load ptr, ptr %slots.p
  %place = getelementptr i32, ptr %slots, i32 %chunk
  store i32 %slot, ptr %place
  br label %wait
wait:
  %i = phi i64 [ 0, %entry ], [ %j, %wait ]
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, 100000
  br i1 %more, label %wait, label %end
end:
  ret void
}

define void @regions(ptr %parallel, ptr %job, i32 %chunks, i32 %threads, i32 %count) {
entry:
  br label %next
next:
  %i = phi i32 [ 0, %entry ], [ %j, %next ]
  call void %parallel(ptr @mark, ptr %job, i32 %chunks, i32 %threads)
  %j = add i32 %i, 1
  %more = icmp ult i32 %j, %count
  br i1 %more, label %next, label %end
end:
  ret void
}
"""
# For each processor: a function that sets the floating-point control register, its bits for flushing denormals to
# zero, and those for keeping them.
CONTROL = {
    "x86_64": ("""
declare void @llvm.x86.sse.ldmxcsr(ptr)

define void @set_control(i32 %bits) {
  %word = alloca i32
  store i32 %bits, ptr %word
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  ret void
}
""", 0x1F80 | 0x8040, 0x1F80),
    "aarch64": ("""
declare void @llvm.aarch64.set.fpcr(i64)

define void @set_control(i32 %bits) {
  %word = zext i32 %bits to i64
  call void @llvm.aarch64.set.fpcr(i64 %word)
  ret void
}
""", 1 << 24, 0),
}  # fmt: skip


class Job(ctypes.Structure):
    _fields_ = (("counts", ctypes.c_void_p), ("slots", ctypes.c_void_p), ("delay", ctypes.c_int64),
                ("parallel", ctypes.c_void_p))  # fmt: skip


@dataclass(frozen=True)
class Pool:
    start: Any
    parallel: Any
    regions: Any
    address: int
    functions: Engine

    def job(self, counts: np.ndarray, slots: np.ndarray, delay: int = 0) -> Any:
        return ctypes.byref(Job(counts.ctypes.data, slots.ctypes.data, delay, self.address))


@pytest.fixture(scope="module")
def pool() -> Pool:
    start, parallel = (ctypes.c_void_p * 2).from_address(pool_address(pool_code(host())))
    functions = Engine(compile_module(FUNCTIONS, host()))
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    regions = ctypes.CFUNCTYPE(None, pointer, pointer, number, number, number)(functions.address("regions"))
    return Pool(
        ctypes.CFUNCTYPE(None, number)(start),
        ctypes.CFUNCTYPE(None, pointer, pointer, number, number)(parallel),
        lambda job, *numbers: regions(parallel, job, *numbers), parallel, functions,
    )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("chunks", [0, 1, 2, 7, 65535])
def test_every_chunk_runs_once(pool: Pool, chunks: int, threads: int) -> None:
    pool.start(threads)
    counts, slots = np.zeros(chunks, np.int32), np.full(chunks, -1, np.int32)
    mark = pool.functions.address("mark")
    for expected in range(1, 6):
        pool.parallel(mark, pool.job(counts, slots), chunks, threads)
        assert (counts == expected).all()
        assert ((slots >= 0) & (slots < threads)).all()


def test_regions_in_quick_succession(pool: Pool) -> None:
    """Latecomers of one region meet the next one's ticket; pools of all sizes follow each other."""
    pool.start(8)
    counts, slots = np.zeros(5, np.int32), np.zeros(5, np.int32)
    for threads in (8, 2, 3, 8, 2):
        counts[:] = 0
        pool.regions(pool.job(counts, slots, delay=50), 5, threads, 3000)
        assert (counts == 3000).all()
        assert slots.max() < threads


def test_workers_take_part(pool: Pool) -> None:
    pool.start(2)
    counts, slots = np.zeros(64, np.int32), np.zeros(64, np.int32)
    seen: set[int] = set()
    for _ in range(50):
        pool.parallel(pool.functions.address("mark"), pool.job(counts, slots, delay=200_000), 64, 2)
        seen |= set(slots.tolist())
        if seen == {0, 1}:
            return
    raise AssertionError("the worker never took a chunk")


def test_nested_regions(pool: Pool) -> None:
    pool.start(3)
    counts, slots = np.zeros(40, np.int32), np.zeros(40, np.int32)
    for expected in range(1, 200):
        pool.parallel(pool.functions.address("nest"), pool.job(counts, slots), 10, 3)
        assert (counts == expected).all()


def test_regions_from_many_threads(pool: Pool) -> None:
    pool.start(4)

    def call(_: int) -> bool:
        counts, slots = np.zeros(9, np.int32), np.zeros(9, np.int32)
        pool.regions(pool.job(counts, slots, delay=20), 9, 4, 500)
        return bool((counts == 500).all())

    with ThreadPoolExecutor(16) as executor:
        assert all(executor.map(call, range(64)))


def test_workers_round_and_flush_like_the_caller(pool: Pool) -> None:
    pool.start(2)
    text, flush, keep = CONTROL[platform.machine()]
    engine = Engine(compile_module(text, host()))
    set_control = ctypes.CFUNCTYPE(None, ctypes.c_uint32)(engine.address("set_control"))
    tiny = np.float32(1e-40)
    for bits, expected in ((flush, np.float32(0)), (keep, tiny * np.float32(0.5))):
        seen: set[int] = set()
        for _ in range(50):
            values, slots = np.full(64, tiny, np.float32), np.zeros(64, np.int32)
            job = pool.job(values, slots)
            set_control(bits)
            pool.parallel(pool.functions.address("halve"), job, 64, 2)
            set_control(keep)
            assert set(values.view(np.uint32)) == {expected.view(np.uint32)}
            seen |= set(slots.tolist())
            if seen == {0, 1}:
                break
        assert seen == {0, 1}


def test_scratch_belongs_to_a_slot(pool: Pool) -> None:
    """A kernel that fills its scratch, then reads it back; slots' pieces must not meet."""
    size, items = 1000, 60
    b = Builder("fill_and_sum")
    x, y = b.input("x", F32, items), b.output("y", F32, items)
    scratch = b.inout("scratch", F32, size)
    begin, end = b.scalar("begin"), b.scalar("end")

    def item(number: Index, _: list[Operand]) -> None:
        value = b.load(x, number)
        b.for_(0, size, lambda i, _: b.store(scratch, i, value))

        def add(i: Index, sums: list[Operand]) -> list[Operand]:
            return [b.add(sums[0], b.load(scratch, i))]

        (total,) = b.for_(0, size, add, carried=[b.const(0, F32)])
        b.store(y, number, total)

    b.for_(begin, end, item)
    slot_bytes = -(-size * 4 // 64) * 64
    buffers = (Location("inputs", 0), Location("outputs", 0), Location("workspace", 64))
    function = b.finish()
    call = EntryCall("fill_and_sum", buffers, items, 15, slot_bytes)
    engine = Engine(compile_module(emit_module([function], emit_entry("run", [call])), host()))
    run = ctypes.CFUNCTYPE(ctypes.c_int32, *(ctypes.c_void_p,) * 5, ctypes.c_int32)(engine.address("run"))
    for threads in (1, 2, 3, 8):
        values, sums = np.arange(items, dtype=np.float32), np.zeros(items, np.float32)
        workspace = aligned_empty(64 + threads * slot_bytes + 64)
        workspace[:] = 0xFF
        inputs, outputs = (ctypes.c_void_p * 1)(values.ctypes.data), (ctypes.c_void_p * 1)(sums.ctypes.data)
        for address in (pool_address(pool_code(host())), None):
            sums[:] = -1
            assert run(inputs, outputs, None, workspace.ctypes.data, address, threads) == 0
            np.testing.assert_array_equal(sums, values * size)
        assert (workspace[:64] == 0xFF).all()
        assert (workspace[64 + threads * slot_bytes :] == 0xFF).all()


def test_chunks_cover_the_items() -> None:
    """Each item gets the first item of its chunk."""
    b = Builder("number")
    y = b.output("y", I32, 60)
    begin, end = b.scalar("begin"), b.scalar("end")
    b.for_(begin, end, lambda i, _: b.store(y, i, b.convert(begin, I32)))
    function = b.finish()
    for chunks in (2, 7, 13, 30, 60):
        call = EntryCall("number", (Location("outputs", 0),), 60, chunks)
        engine = Engine(compile_module(emit_module([function], emit_entry("run", [call])), host()))
        run = ctypes.CFUNCTYPE(ctypes.c_int32, *(ctypes.c_void_p,) * 5, ctypes.c_int32)(engine.address("run"))
        firsts = np.full(60, -1, np.int32)
        outputs = (ctypes.c_void_p * 1)(firsts.ctypes.data)
        assert run(None, outputs, None, None, pool_address(pool_code(host())), 3) == 0
        begins = sorted(set(firsts.tolist()))
        assert len(begins) == chunks
        assert begins[0] == 0
        np.testing.assert_array_equal(firsts, np.array(begins)[np.searchsorted(begins, range(60), "right") - 1])


def test_code_for_each_architecture() -> None:
    names = ("x86-64-v2", "x86-64-v4", "aarch64", "riscv64", "ppc64le", "armv7")
    code = {name: pool_code(by_name(name)) for name in names}
    assert code["x86-64-v2"] == code["x86-64-v4"]
    for name, text in code.items():
        assert sorted(set(undefined(text)) - {".TOC."}) == ["pthread_create", "syscall"], name
    arm = by_name("aarch64")
    assert "isb" in assembly(emit_pool(arm), arm)
    mac = by_name("arm64-macos")
    assert not has_pool(mac)
    with pytest.raises(UnsupportedError, match="no thread pool for arm64-apple-macosx; compile with threads=1"):
        emit_pool(mac)
