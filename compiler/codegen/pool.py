"""The thread pool as LLVM IR text: regions of numbered chunks, shared out between the caller and its workers.

    @tw_pool = constant { ptr, ptr } { ptr @start, ptr @parallel }     what entry points are given

    void start(int32 threads)      grow to this many threads, the caller one of them
    void parallel(function, void *argument, int32 chunks, int32 threads)
                                   function(argument, int32 chunk, int32 slot), once for each chunk

At most 65535 chunks and 4095 threads. Slot 0 is the caller, slots 1 .. threads-1 are workers. `parallel` returns
when every chunk is done. If another region runs already, the caller computes its chunks alone.

A region is one 64-bit ticket: generation << 44 | threads << 32 | first chunk left << 16 | end of the chunks left.
Taking a chunk is a compare-and-swap of the whole word, so a latecomer never takes one of another region. Even slots
take the first, odd ones the last: from region to region a thread meets about the same rows, which its cache holds.
A worker without work spins for a moment, then sleeps on the ticket's upper half. After a fork the child has no
workers, but regions work all the same, as the caller takes every chunk; `start` sees the new process id and begins
afresh.

The module needs two functions of libc: `pthread_create` and `syscall`. Linux only: it sleeps on a futex.
"""

from dataclasses import dataclass, fields, replace
from functools import cache

from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.targets import Target, by_name
from tilewright.errors import UnsupportedError


@dataclass(frozen=True)
class _Machine:
    """What differs between processors: system calls by number, a pause, the floating-point control word, a C long."""

    futex: int
    getpid: int
    sched_yield: int
    rt_sigprocmask: int
    pauses: int
    pause: str
    declarations: str
    word: str = "i64"


_CONTROL_X86 = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define internal i64 @control() nounwind {
  %word = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %word)
  %bits = load i32, ptr %word
  %settings = and i32 %bits, 65472
  %result = zext i32 %settings to i64
  ret i64 %result
}

define internal void @set_control(i64 %control) nounwind {
  %word = alloca i32
  %bits = trunc i64 %control to i32
  store i32 %bits, ptr %word
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  ret void
}
"""
_CONTROL_ARM = """
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define internal i64 @control() nounwind {
  %result = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %result
}

define internal void @set_control(i64 %control) nounwind {
  call void @llvm.aarch64.set.fpcr(i64 %control)
  ret void
}
"""

# Elsewhere workers round as a new thread does.
_CONTROL_NONE = """
define internal i64 @control() nounwind {
  ret i64 0
}

define internal void @set_control(i64 %control) nounwind {
  ret void
}
"""

# 400 pauses are 20 us on Intel's processors: the gap between two regions of a network. The yield hint of ARM
# takes no time at all, so there an instruction barrier passes it, some 15 ns each; elsewhere a fence does.
_MACHINES = {
    "x86_64": _Machine(202, 39, 24, 14, 400, "call void @llvm.x86.sse2.pause()", _CONTROL_X86),
    "aarch64": _Machine(98, 172, 124, 135, 1200, "call void @llvm.aarch64.isb(i32 15)", _CONTROL_ARM),
    "riscv64": _Machine(98, 172, 124, 135, 1000, "fence seq_cst", _CONTROL_NONE),
    "powerpc64le": _Machine(221, 20, 158, 174, 1000, "fence seq_cst", _CONTROL_NONE),
    "arm": _Machine(240, 20, 158, 175, 1000, "fence seq_cst", _CONTROL_NONE, "i32"),
}

# All signals but those of faults (ILL 4, TRAP 5, ABRT 6, BUS 7, FPE 8, SEGV 11) and those that libc uses between
# threads (32 and 33).
_SIGNALS = (1 << 64) - 1 - sum(1 << (signal - 1) for signal in (4, 5, 6, 7, 8, 11, 32, 33))

_TEXT = """
@ticket = internal global i64 0, align 64          ; generation << 44 | threads << 32 | first << 16 | end
@done = internal global i32 0, align 64            ; chunks done
@sleeping = internal global i32 0, align 64        ; a bit a sleeper: slot 1 has bit 0, from 32 on bit 31
@waiting = internal global i32 0, align 64         ; 1 while the caller sleeps on @done
@busy = internal global i32 0, align 64            ; 1 while a region runs
@function = internal global ptr null, align 64     ; the region: set before its ticket
@argument = internal global ptr null
@chunks = internal global i32 0
@control_word = internal global i64 0              ; the caller's rounding and denormals, which workers take
@workers = internal global i32 0, align 64
@owner = internal global i32 0                     ; the process that the workers live in
@starting = internal global i32 0                  ; the process of which a thread is in start(), else 0
@blocked = internal constant i64 {signals}
@{symbol} = {linkage}constant {{ ptr, ptr }} {{ ptr @start, ptr @parallel }}

declare i32 @syscall({word}, ...) nounwind
declare i32 @pthread_create(ptr, ptr, ptr, ptr) nounwind
declare i32 @llvm.umin.i32(i32, i32)
declare i64 @llvm.umin.i64(i64, i64)
{declarations}
; How many chunks are left for `slot`, 0 if it has no part in the region.
define internal i32 @remaining(i64 %ticket, i32 %slot) nounwind {{
  %low = trunc i64 %ticket to i32
  %first = lshr i32 %low, 16
  %end = and i32 %low, 65535
  %chunks = sub i32 %end, %first
  %upper = lshr i64 %ticket, 32
  %high = trunc i64 %upper to i32
  %threads = and i32 %high, 4095
  %admitted = icmp ult i32 %slot, %threads
  %result = select i1 %admitted, i32 %chunks, i32 0
  ret i32 %result
}}

; Take and compute chunks until none remains for `slot`.
define internal void @work(i32 %slot) nounwind {{
entry:
  %odd = trunc i32 %slot to i1
  %step = select i1 %odd, i64 -1, i64 65536
  br label %look
look:
  %ticket = load atomic i64, ptr @ticket acquire, align 8
  %left = call i32 @remaining(i64 %ticket, i32 %slot)
  %none = icmp eq i32 %left, 0
  br i1 %none, label %end, label %take
take:
  %less = add i64 %ticket, %step
  %swap = cmpxchg ptr @ticket, i64 %ticket, i64 %less acq_rel acquire
  %taken = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %taken, label %settle, label %look
settle:
  %theirs = load i64, ptr @control_word
  %mine = call i64 @control()
  %same = icmp eq i64 %mine, %theirs
  br i1 %same, label %run, label %adopt
adopt:
  call void @set_control(i64 %theirs)
  br label %run
run:
  %function = load ptr, ptr @function
  %argument = load ptr, ptr @argument
  %chunks = load i32, ptr @chunks
  %low = trunc i64 %ticket to i32
  %first = lshr i32 %low, 16
  %last.end = and i32 %low, 65535
  %last = sub i32 %last.end, 1
  %chunk = select i1 %odd, i32 %last, i32 %first
  call void %function(ptr %argument, i32 %chunk, i32 %slot)
  %before = atomicrmw add ptr @done, i32 1 seq_cst
  %after = add i32 %before, 1
  %all = icmp eq i32 %after, %chunks
  br i1 %all, label %finish, label %look
finish:
  %waits = load atomic i32, ptr @waiting seq_cst, align 4
  %awake = icmp eq i32 %waits, 0
  br i1 %awake, label %look, label %wake
wake:
  call i32 ({word}, ...) @syscall({word} {futex}, ptr @done, i32 {WAKE}, i32 1)
  br label %look
end:
  ret void
}}

; A worker: works, spins, sleeps, for ever. The argument is its slot.
define internal ptr @worker(ptr %argument) nounwind {{
entry:
  %wide = ptrtoint ptr %argument to i64
  %slot = trunc i64 %wide to i32
  %index = sub i32 %slot, 1
  %capped = call i32 @llvm.umin.i32(i32 %index, i32 31)
  %bit = shl i32 1, %capped
  %inverse = xor i32 %bit, -1
  %shared = icmp eq i32 %capped, 31
  %kept = select i1 %shared, i32 -1, i32 %inverse   ; workers that share a bit leave it set
  call i32 ({word}, ...) @syscall({word} {rt_sigprocmask}, i32 2, ptr @blocked, ptr null, {word} 8)
  br label %work
work:
  call void @work(i32 %slot)
  br label %spin
spin:
  %pauses = phi i32 [ 0, %work ], [ %more, %again ]
  {pause}
  %seen = load atomic i64, ptr @ticket acquire, align 8
  %left = call i32 @remaining(i64 %seen, i32 %slot)
  %some = icmp ne i32 %left, 0
  br i1 %some, label %work, label %again
again:
  %more = add i32 %pauses, 1
  %spins = icmp ult i32 %more, {pauses}
  br i1 %spins, label %spin, label %park
park:
  %other = atomicrmw or ptr @sleeping, i32 %bit seq_cst
  %ticket = load atomic i64, ptr @ticket seq_cst, align 8
  %new = call i32 @remaining(i64 %ticket, i32 %slot)
  %idle = icmp eq i32 %new, 0
  br i1 %idle, label %sleep, label %rise
sleep:
  %upper = lshr i64 %ticket, 32
  %value = trunc i64 %upper to i32
  call i32 ({word}, ...) @syscall({word} {futex}, ptr getelementptr (i8, ptr @ticket, i64 4), i32 {WAIT_BITSET},
                                i32 %value, ptr null, ptr null, i32 %bit)
  br label %rise
rise:
  %others = atomicrmw and ptr @sleeping, i32 %kept seq_cst
  br label %work
}}

define internal void @parallel(ptr %function, ptr %argument, i32 %chunks, i32 %threads) nounwind {{
entry:
  %none = icmp eq i32 %chunks, 0
  br i1 %none, label %end, label %claim
claim:
  %swap = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %swap, 1
  br i1 %free, label %publish, label %serial
publish:
  store ptr %function, ptr @function
  store ptr %argument, ptr @argument
  store i32 %chunks, ptr @chunks
  %control = call i64 @control()
  store i64 %control, ptr @control_word
  store atomic i32 0, ptr @done monotonic, align 4
  %old = load atomic i64, ptr @ticket monotonic, align 8
  %next = add i64 %old, 17592186044416              ; 1 << 44
  %generation = and i64 %next, -17592186044416
  %threads64 = zext i32 %threads to i64
  %place = shl i64 %threads64, 32
  %chunks64 = zext i32 %chunks to i64
  %low = or i64 %place, %chunks64
  %ticket = or i64 %generation, %low
  store atomic i64 %ticket, ptr @ticket seq_cst, align 8
  %helpers = sub i64 %threads64, 1
  %bits = call i64 @llvm.umin.i64(i64 %helpers, i64 32)
  %power = shl i64 1, %bits
  %all = sub i64 %power, 1
  %asleep = load atomic i32, ptr @sleeping seq_cst, align 4
  %low32 = trunc i64 %all to i32
  %mask = and i32 %asleep, %low32
  %awake = icmp eq i32 %mask, 0
  br i1 %awake, label %work, label %wake
wake:
  %spare = sub i64 %chunks64, 1
  %count64 = call i64 @llvm.umin.i64(i64 %spare, i64 %helpers)
  %count = trunc i64 %count64 to i32
  call i32 ({word}, ...) @syscall({word} {futex}, ptr getelementptr (i8, ptr @ticket, i64 4), i32 {WAKE_BITSET},
                                i32 %count, ptr null, ptr null, i32 %mask)
  br label %work
work:
  call void @work(i32 0)
  br label %spin
spin:
  %pauses = phi i32 [ 0, %work ], [ %more, %again ]
  %done = load atomic i32, ptr @done acquire, align 4
  %finished = icmp eq i32 %done, %chunks
  br i1 %finished, label %release, label %again
again:
  {pause}
  %more = add i32 %pauses, 1
  %spins = icmp ult i32 %more, {pauses}
  br i1 %spins, label %spin, label %park
park:
  store atomic i32 1, ptr @waiting seq_cst, align 4
  %now = load atomic i32, ptr @done seq_cst, align 4
  %over = icmp eq i32 %now, %chunks
  br i1 %over, label %rise, label %sleep
sleep:
  call i32 ({word}, ...) @syscall({word} {futex}, ptr @done, i32 {WAIT}, i32 %now, ptr null)
  br label %park
rise:
  store atomic i32 0, ptr @waiting monotonic, align 4
  br label %release
release:
  store atomic i32 0, ptr @busy release, align 4
  br label %end
serial:
  %chunk = phi i32 [ 0, %claim ], [ %following, %serial ]
  call void %function(ptr %argument, i32 %chunk, i32 0)
  %following = add i32 %chunk, 1
  %unfinished = icmp ult i32 %following, %chunks
  br i1 %unfinished, label %serial, label %end
end:
  ret void
}}

; Grow the pool to `threads` threads. One thread at a time; a lock that a process before a fork held is void.
define internal void @start(i32 %threads) nounwind {{
entry:
  %thread = alloca i64
  %wanted = sub i32 %threads, 1
  %pid = call i32 ({word}, ...) @syscall({word} {getpid})
  %home = load atomic i32, ptr @owner acquire, align 4
  %ours = icmp eq i32 %home, %pid
  br i1 %ours, label %count, label %lock
count:
  %running = load atomic i32, ptr @workers acquire, align 4
  %enough = icmp sge i32 %running, %wanted
  br i1 %enough, label %end, label %lock
lock:
  %holder = load atomic i32, ptr @starting monotonic, align 4
  %held = icmp eq i32 %holder, %pid
  br i1 %held, label %yield, label %acquire
yield:
  call i32 ({word}, ...) @syscall({word} {sched_yield})
  br label %lock
acquire:
  %swap = cmpxchg ptr @starting, i32 %holder, i32 %pid acquire monotonic
  %got = extractvalue {{ i32, i1 }} %swap, 1
  br i1 %got, label %check, label %lock
check:
  %owner = load atomic i32, ptr @owner monotonic, align 4
  %fresh = icmp eq i32 %owner, %pid
  br i1 %fresh, label %grow, label %reset
reset:
  store atomic i64 0, ptr @ticket monotonic, align 8
  store atomic i32 0, ptr @sleeping monotonic, align 4
  store atomic i32 0, ptr @waiting monotonic, align 4
  store atomic i32 0, ptr @workers monotonic, align 4
  store atomic i32 0, ptr @busy monotonic, align 4
  store atomic i32 %pid, ptr @owner release, align 4
  br label %grow
grow:
  %made = load atomic i32, ptr @workers monotonic, align 4
  %slot = add i32 %made, 1
  %full = icmp sge i32 %made, %wanted
  br i1 %full, label %unlock, label %create
create:
  %slot64 = zext i32 %slot to i64
  %as_pointer = inttoptr i64 %slot64 to ptr
  %error = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %as_pointer)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %unlock, label %created
created:
  store atomic i32 %slot, ptr @workers release, align 4
  br label %grow
unlock:
  store atomic i32 0, ptr @starting release, align 4
  br label %end
end:
  ret void
}}
"""


def has_pool(target: Target) -> bool:
    """True for the systems and processors that the pool knows."""
    return target.system == "linux" and target.architecture in _MACHINES


def emit_pool(target: Target, symbol: str = "tw_pool", linkage: str = "") -> str:
    """LLVM IR text of the pool as the constant `symbol` of this linkage; all else is internal.

    Raises UnsupportedError where there is none.
    """
    if not has_pool(target):
        raise UnsupportedError(f"there is no thread pool for {target.triple}; compile with threads=1")
    machine = _MACHINES[target.architecture]
    futexes = {"WAIT": 0 | 128, "WAKE": 1 | 128, "WAIT_BITSET": 9 | 128, "WAKE_BITSET": 10 | 128}
    numbers = {field.name: getattr(machine, field.name) for field in fields(machine)}
    return _TEXT.format(symbol=symbol, linkage=linkage, signals=_SIGNALS - (1 << 64), **numbers, **futexes)


def pool_code(target: Target) -> bytes:
    """The pool's object code: one for all processors of an architecture, as a process needs one pool."""
    return _compiled(target.triple)


@cache
def _compiled(triple: str) -> bytes:
    target = by_name(triple)
    if target.architecture == "x86_64":
        target = replace(target, cpu="x86-64")
    return compile_module(emit_pool(target), target)
