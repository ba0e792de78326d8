"""What timed entry points call (see `entry`), as LLVM IR text.

    int64 tw.clock()                                                     ns; 0 where there is no clock
    void tw.report(void *profile, void *user, int32 index, int64 started)     profile(index, ns since then, user)
"""

from string import Template

from tilewright.compiler.targets import Target

_CLOCKS = {"linux": 1, "macos": 6}
"""CLOCK_MONOTONIC, where there is clock_gettime."""


def emit_clock(target: Target, plain: str) -> str:
    """The text for `target`; `plain` are the attributes of functions that run everywhere."""
    size = f"i{target.pointer_bits}"
    widen = "sext i32 {} to i64" if size == "i32" else "add i64 {}, 0"
    values = {
        "plain": plain, "size": size, "clock": _CLOCKS.get(target.system, 0),
        "seconds_to_i64": widen.format("%seconds"), "rest_to_i64": widen.format("%rest"),
    }  # fmt: skip
    return Template((_CLOCK if target.system in _CLOCKS else _NO_CLOCK) + _REPORT).substitute(values)


_CLOCK = """
declare i32 @clock_gettime(i32, i8*)

define internal i64 @tw.clock() $plain {
  %time = alloca [2 x $size], align 8
  %place = bitcast [2 x $size]* %time to i8*
  %code = call i32 @clock_gettime(i32 $clock, i8* %place)
  %seconds.at = getelementptr [2 x $size], [2 x $size]* %time, i32 0, i32 0
  %seconds = load $size, $size* %seconds.at
  %rest.at = getelementptr [2 x $size], [2 x $size]* %time, i32 0, i32 1
  %rest = load $size, $size* %rest.at
  %wide = $seconds_to_i64
  %more = $rest_to_i64
  %product = mul i64 %wide, 1000000000
  %result = add i64 %product, %more
  ret i64 %result
}
"""
_NO_CLOCK = """
define internal i64 @tw.clock() $plain {
  ret i64 0
}
"""
_REPORT = """
define internal void @tw.report(i8* %profile, i8* %user, i32 %index, i64 %started) $plain {
  %now = call i64 @tw.clock()
  %taken = sub i64 %now, %started
  %function = bitcast i8* %profile to void (i32, i64, i8*)*
  call void %function(i32 %index, i64 %taken, i8* %user)
  ret void
}
"""
