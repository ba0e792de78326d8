"""The LLVM IR text that `abi` puts together, with $names to fill in.

    TYPES, TABLES, CHECKS         structs, a row for each tensor, and what holds arguments against the rows
    WEIGHTS                       tw.blob(given): where the weights begin, or null
    SINGLE, BATCH                 tw.samples(inputs): how many samples a call is for
    CALL, TYPED, ALLOC            the functions of the interface
"""

TYPES = """
%tw.tensor = type { i8*, i64*, i64 }          ; data, dims, capacity
%tw.context = type { $size, i8*, $size, i32, i8*, i8* ($size, i8*)*, void (i32, i64, i8*)*, i8* }
%tw.spec = type { i64, i32, i32, i32, i32 }   ; bytes (of a sample), alignment - 1, rank, first of its dims, batched
"""

TABLES = """
@tw.inputs = internal constant [$inputs x %tw.spec] $input_rows
@tw.outputs = internal constant [$outputs x %tw.spec] $output_rows
@tw.dims = internal constant [$ndims x i64] $dims
@tw.metadata = internal constant [$metadata_bytes x i8] $metadata
$error_texts
@tw.errors = internal constant [$errors x i8*] [$error_rows]
"""

CHECKS = """
; Whether `bytes` at a pointer are there and aligned.
define internal i32 @tw.pointer(i8* %data, i64 %mask, i64 %bytes) $plain {
entry:
  %empty = icmp eq i64 %bytes, 0
  br i1 %empty, label %fine, label %look
look:
  %none = icmp eq i8* %data, null
  br i1 %none, label %null, label %align
align:
  %address = ptrtoint i8* %data to i64
  %rest = and i64 %address, %mask
  %odd = icmp ne i64 %rest, 0
  br i1 %odd, label %misaligned, label %fine
null:
  ret i32 $NULL
misaligned:
  ret i32 $ALIGNMENT
fine:
  ret i32 0
}

; The bytes of a tensor of `n` samples.
define internal i64 @tw.bytes(%tw.spec* %spec, i64 %n) $plain {
  %each.at = getelementptr %tw.spec, %tw.spec* %spec, i32 0, i32 0
  %each = load i64, i64* %each.at
  %batched.at = getelementptr %tw.spec, %tw.spec* %spec, i32 0, i32 4
  %batched = load i32, i32* %batched.at
  %single = icmp eq i32 %batched, 0
  %times = select i1 %single, i64 1, i64 %n
  %bytes = mul i64 %each, %times
  ret i64 %bytes
}

define internal i64 @tw.mask(%tw.spec* %spec) $plain {
  %at = getelementptr %tw.spec, %tw.spec* %spec, i32 0, i32 1
  %mask = load i32, i32* %at
  %wide = zext i32 %mask to i64
  ret i64 %wide
}

; Check a tensor against its row, write the dims of a result, and put its data into a slot.
define internal i32 @tw.bind(%tw.tensor* %tensor, %tw.spec* %spec, i64 %n, i1 %writes, i8** %slot) $plain {
entry:
  %bytes = call i64 @tw.bytes(%tw.spec* %spec, i64 %n)
  %mask = call i64 @tw.mask(%tw.spec* %spec)
  %rank.at = getelementptr %tw.spec, %tw.spec* %spec, i32 0, i32 2
  %rank = load i32, i32* %rank.at
  %first.at = getelementptr %tw.spec, %tw.spec* %spec, i32 0, i32 3
  %first = load i32, i32* %first.at
  %dims.at = getelementptr %tw.tensor, %tw.tensor* %tensor, i32 0, i32 1
  %dims = load i64*, i64** %dims.at
  %scalar = icmp eq i32 %rank, 0
  %vague = icmp eq i64* %dims, null
  %skip = or i1 %scalar, %vague
  br i1 %skip, label %size, label %dim
dim:
  %i = phi i32 [ 0, %entry ], [ %next, %passed ]
  %from = add i32 %first, %i
  %table.at = getelementptr [$ndims x i64], [$ndims x i64]* @tw.dims, i32 0, i32 %from
  %fixed = load i64, i64* %table.at
  %free = icmp slt i64 %fixed, 0
  %expected = select i1 %free, i64 %n, i64 %fixed
  %here = getelementptr i64, i64* %dims, i32 %i
  br i1 %writes, label %write, label %compare
write:
  store i64 %expected, i64* %here
  br label %passed
compare:
  %actual = load i64, i64* %here
  %same = icmp eq i64 %actual, %expected
  br i1 %same, label %passed, label %wrong
passed:
  %next = add i32 %i, 1
  %more = icmp ult i32 %next, %rank
  br i1 %more, label %dim, label %size
size:
  %capacity.at = getelementptr %tw.tensor, %tw.tensor* %tensor, i32 0, i32 2
  %capacity = load i64, i64* %capacity.at
  %enough = icmp sge i64 %capacity, %bytes
  %uncounted = icmp eq i64 %capacity, 0
  %reads = xor i1 %writes, true
  %trusted = and i1 %uncounted, %reads
  %fits = or i1 %enough, %trusted
  br i1 %fits, label %data, label %short
data:
  %data.at = getelementptr %tw.tensor, %tw.tensor* %tensor, i32 0, i32 0
  %data.p = load i8*, i8** %data.at
  store i8* %data.p, i8** %slot
  %code = call i32 @tw.pointer(i8* %data.p, i64 %mask, i64 %bytes)
  ret i32 %code
wrong:
  ret i32 $DIMS
short:
  ret i32 $CAPACITY
}

; Check the pointers of a typed call.
define internal i32 @tw.pointers(i8** %pointers, %tw.spec* %specs, i32 %count, i64 %n) $plain {
entry:
  %none = icmp eq i32 %count, 0
  br i1 %none, label %fine, label %each
each:
  %i = phi i32 [ 0, %entry ], [ %next, %passed ]
  %at = getelementptr i8*, i8** %pointers, i32 %i
  %data = load i8*, i8** %at
  %spec = getelementptr %tw.spec, %tw.spec* %specs, i32 %i
  %bytes = call i64 @tw.bytes(%tw.spec* %spec, i64 %n)
  %mask = call i64 @tw.mask(%tw.spec* %spec)
  %code = call i32 @tw.pointer(i8* %data, i64 %mask, i64 %bytes)
  %good = icmp eq i32 %code, 0
  br i1 %good, label %passed, label %bad
passed:
  %next = add i32 %i, 1
  %more = icmp ult i32 %next, %count
  br i1 %more, label %each, label %fine
bad:
  ret i32 %code
fine:
  ret i32 0
}

; The number of threads that `threads` means, from 1.
define internal i32 @tw.threads(i32 %threads) $plain {
  %few = icmp slt i32 %threads, 1
  %some = select i1 %few, i32 1, i32 %threads
  %many = icmp sgt i32 %some, $most
  %count = select i1 %many, i32 $most, i32 %some
  ret i32 %count
}

define internal i64 @tw.workspace(i32 %threads) $plain {
  %count = call i32 @tw.threads(i32 %threads)
  %others = sub i32 %count, 1
  %wide = zext i32 %others to i64
  %more = mul i64 %wide, $thread
  %bytes = add i64 %more, $workspace
  ret i64 %bytes
}
"""

EMBEDDED = """
@${name}_weights = external hidden constant [$weights_bytes x i8], align 64
@tw.weights = internal global i8* bitcast ([$weights_bytes x i8]* @${name}_weights to i8*)

define internal i8* @tw.blob(i8* %given) $plain {
  %blob = load volatile i8*, i8** @tw.weights
  ret i8* %blob
}
"""
EXTERNAL = """
@tw.weights = internal constant [8 x i64] [$weights_words]

; The weights in a file that was mapped at `given`; null if it is not the right one.
define internal i8* @tw.blob(i8* %given) $plain {
entry:
  %none = icmp eq i8* %given, null
  br i1 %none, label %refuse, label %align
align:
  %address = ptrtoint i8* %given to i64
  %rest = and i64 %address, $mask
  %odd = icmp ne i64 %rest, 0
  br i1 %odd, label %refuse, label %start
start:
  %words = bitcast i8* %given to i64*
  br label %word
word:
  %i = phi i32 [ 0, %start ], [ %next, %same ]
  %here = getelementptr i64, i64* %words, i32 %i
  %actual = load i64, i64* %here
  %there = getelementptr [8 x i64], [8 x i64]* @tw.weights, i32 0, i32 %i
  %expected = load i64, i64* %there
  %equal = icmp eq i64 %actual, %expected
  br i1 %equal, label %same, label %refuse
same:
  %next = add i32 %i, 1
  %more = icmp ult i32 %next, 8
  br i1 %more, label %word, label %found
found:
  %blob = getelementptr i8, i8* %given, i32 $page
  ret i8* %blob
refuse:
  ret i8* null
}
"""
NONE = """
define internal i8* @tw.blob(i8* %given) $plain {
  %blob = bitcast [$ndims x i64]* @tw.dims to i8*
  ret i8* %blob
}
"""
WEIGHTS = {"embed": EMBEDDED, "external": EXTERNAL, "none": NONE}

# The number of samples: 1, or what the first input of a batch says; -1 if nothing does.
SINGLE = """
define internal i64 @tw.samples(%tw.tensor* %inputs) $plain {
  ret i64 1
}
"""
BATCH = """
define internal i64 @tw.samples(%tw.tensor* %inputs) $plain {
entry:
  br label %each
each:
  %i = phi i32 [ 0, %entry ], [ %next, %other ]
  %over = icmp uge i32 %i, $inputs
  br i1 %over, label %none, label %look
look:
  %batched.at = getelementptr [$inputs x %tw.spec], [$inputs x %tw.spec]* @tw.inputs, i32 0, i32 %i, i32 4
  %batched = load i32, i32* %batched.at
  %dims.at = getelementptr %tw.tensor, %tw.tensor* %inputs, i32 %i, i32 1
  %dims = load i64*, i64** %dims.at
  %unbatched = icmp eq i32 %batched, 0
  %unknown = icmp eq i64* %dims, null
  %skip = or i1 %unbatched, %unknown
  br i1 %skip, label %other, label %found
other:
  %next = add i32 %i, 1
  br label %each
found:
  %n = load i64, i64* %dims
  ret i64 %n
none:
  ret i64 -1
}
"""

CALL = """
define $export i32 @${name}_abi_version() $plain {
  ret i32 $abi
}

define $export i8* @${name}_metadata_json() $plain {
  ret i8* getelementptr ([$metadata_bytes x i8], [$metadata_bytes x i8]* @tw.metadata, i32 0, i32 0)
}

define $export i8* @${name}_error_text(i32 %code) $plain {
  %number = sub i32 0, %code
  %known = icmp ult i32 %number, $errors
  %index = select i1 %known, i32 %number, i32 0
  %at = getelementptr [$errors x i8*], [$errors x i8*]* @tw.errors, i32 0, i32 %index
  %text = load i8*, i8** %at
  %result = select i1 %known, i8* %text, i8* null
  ret i8* %result
}

define $export $size @${name}_workspace_bytes(i64* %dims, i32 %threads) $plain {
  %bytes = call i64 @tw.workspace(i32 %threads)
  %result = $to_size
  ret $size %result
}

; The kernels, after everything was checked but the workspace's place, the weights and the processor.
define internal i32 @tw.start(i8** %inputs, i8** %outputs, i8* %workspace, i8* %weights, i32 %threads, i64 %n,
                              i8* %profile, i8* %user) $plain {
entry:
  %able = call i32 @tw.cpu()
  %runs = icmp eq i32 %able, 0
  br i1 %runs, label %space, label %unable
space:
  %need = icmp ugt i64 $workspace, 0
  %wanted = zext i1 %need to i64
  %code = call i32 @tw.pointer(i8* %workspace, i64 $mask, i64 %wanted)
  %good = icmp eq i32 %code, 0
  br i1 %good, label %find, label %bad
find:
  %blob = call i8* @tw.blob(i8* %weights)
  %lost = icmp eq i8* %blob, null
  br i1 %lost, label %missing, label %share
share:
  %count = call i32 @tw.threads(i32 %threads)
  %several = icmp sgt i32 %count, 1
  %pool = select i1 %several, i8* $pool, i8* null
  %silent = icmp eq i8* %profile, null
  br i1 %silent, label %quiet, label %timed
quiet:
  %result = call i32 @${entry}(i8** %inputs, i8** %outputs, i8* %blob, i8* %workspace, i8* %pool, i32 %count$last_n)
  ret i32 %result
timed:
  %watched = call i32 @${profiled}(i8** %inputs, i8** %outputs, i8* %blob, i8* %workspace, i8* %pool,
                                   i32 %count$last_n, i8* %profile, i8* %user)
  ret i32 %watched
unable:
  ret i32 $CPU
bad:
  ret i32 %code
missing:
  ret i32 $WEIGHTS
}

define $export i32 @${name}_call(%tw.tensor* %inputs, %tw.tensor* %outputs, %tw.context* %context) $plain {
entry:
  %ins = alloca [$inputs x i8*]
  %outs = alloca [$outputs x i8*]
  %no.context = icmp eq %tw.context* %context, null
  br i1 %no.context, label %null, label %version
version:
  %stated.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 0
  %stated = load $size, $size* %stated.at
  %known = icmp uge $size %stated, ptrtoint (%tw.context* getelementptr (%tw.context, %tw.context* null,
                                                                              i32 1) to $size)
  br i1 %known, label %lists, label %foreign
lists:
  %no.inputs = icmp eq %tw.tensor* %inputs, null
  %some.inputs = icmp ugt i32 $inputs, 0
  %lacks.inputs = and i1 %no.inputs, %some.inputs
  %no.outputs = icmp eq %tw.tensor* %outputs, null
  %lacks = or i1 %lacks.inputs, %no.outputs
  br i1 %lacks, label %null, label %count
count:
  %n = call i64 @tw.samples(%tw.tensor* %inputs)
  %sensible = icmp ult i64 %n, 2147483648
  br i1 %sensible, label %input, label %wrong
input:
  %i = phi i32 [ 0, %count ], [ %i.next, %bound ]
  %i.left = icmp ult i32 %i, $inputs
  br i1 %i.left, label %bind, label %output
bind:
  %i.tensor = getelementptr %tw.tensor, %tw.tensor* %inputs, i32 %i
  %i.spec = getelementptr [$inputs x %tw.spec], [$inputs x %tw.spec]* @tw.inputs, i32 0, i32 %i
  %i.slot = getelementptr [$inputs x i8*], [$inputs x i8*]* %ins, i32 0, i32 %i
  %i.code = call i32 @tw.bind(%tw.tensor* %i.tensor, %tw.spec* %i.spec, i64 %n, i1 false, i8** %i.slot)
  %i.good = icmp eq i32 %i.code, 0
  br i1 %i.good, label %bound, label %bad
bound:
  %i.next = add i32 %i, 1
  br label %input
output:
  %o = phi i32 [ 0, %input ], [ %o.next, %offered ]
  %o.left = icmp ult i32 %o, $outputs
  br i1 %o.left, label %offer, label %space
offer:
  %o.tensor = getelementptr %tw.tensor, %tw.tensor* %outputs, i32 %o
  %o.spec = getelementptr [$outputs x %tw.spec], [$outputs x %tw.spec]* @tw.outputs, i32 0, i32 %o
  %o.slot = getelementptr [$outputs x i8*], [$outputs x i8*]* %outs, i32 0, i32 %o
  %o.code = call i32 @tw.bind(%tw.tensor* %o.tensor, %tw.spec* %o.spec, i64 %n, i1 true, i8** %o.slot)
  %o.good = icmp eq i32 %o.code, 0
  br i1 %o.good, label %offered, label %bad
offered:
  %o.next = add i32 %o, 1
  br label %output
space:
  %threads.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 3
  %threads = load i32, i32* %threads.at
  %needed = call i64 @tw.workspace(i32 %threads)
  %workspace.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 1
  %given = load i8*, i8** %workspace.at
  %bytes.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 2
  %none = icmp eq i8* %given, null
  %need = icmp ugt i64 %needed, 0
  %lacking = and i1 %none, %need
  br i1 %lacking, label %ask, label %measure
ask:
  %alloc.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 5
  %alloc = load i8* ($size, i8*)*, i8* ($size, i8*)** %alloc.at
  %mute = icmp eq i8* ($size, i8*)* %alloc, null
  br i1 %mute, label %null, label %take
take:
  %alloc.user.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 7
  %alloc.user = load i8*, i8** %alloc.user.at
  %asked = $needed_to_size
  %taken = call i8* %alloc($size %asked, i8* %alloc.user)
  %refused = icmp eq i8* %taken, null
  br i1 %refused, label %memory, label %keep
keep:
  store i8* %taken, i8** %workspace.at
  store $size %asked, $size* %bytes.at
  br label %go
measure:
  %bytes = load $size, $size* %bytes.at
  %bytes.wide = $bytes_to_i64
  %fits = icmp uge i64 %bytes.wide, %needed
  br i1 %fits, label %go, label %short
go:
  %workspace.p = phi i8* [ %taken, %keep ], [ %given, %measure ]
  %weights.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 4
  %weights.p = load i8*, i8** %weights.at
  %profile.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 6
  %profile = load void (i32, i64, i8*)*, void (i32, i64, i8*)** %profile.at
  %profile.p = bitcast void (i32, i64, i8*)* %profile to i8*
  %user.at = getelementptr %tw.context, %tw.context* %context, i32 0, i32 7
  %user = load i8*, i8** %user.at
  %first.in = getelementptr [$inputs x i8*], [$inputs x i8*]* %ins, i32 0, i32 0
  %first.out = getelementptr [$outputs x i8*], [$outputs x i8*]* %outs, i32 0, i32 0
  %result = call i32 @tw.start(i8** %first.in, i8** %first.out, i8* %workspace.p, i8* %weights.p, i32 %threads, i64 %n,
                               i8* %profile.p, i8* %user)
  ret i32 %result
null:
  ret i32 $NULL
foreign:
  ret i32 $ABI
wrong:
  ret i32 $DIMS
short:
  ret i32 $WORKSPACE
memory:
  ret i32 $MEMORY
bad:
  %code = phi i32 [ %i.code, %bind ], [ %o.code, %offer ]
  ret i32 %code
}
"""

# The struct of inputs ends in the address of the weights, where they are a file, and in the size of the batch.
TYPED = """
%tw.typed = type { [$inputs x i8*]$typed_members }

define internal i32 @tw.typed.run(%tw.typed* %inputs, i8** %outs, i8* %workspace, i32 %threads) $plain {
entry:
  %no.inputs = icmp eq %tw.typed* %inputs, null
  %some.members = icmp ugt i32 $typed_count, 0
  %lacks.inputs = and i1 %no.inputs, %some.members
  %no.outputs = icmp eq i8** %outs, null
  %lacks = or i1 %lacks.inputs, %no.outputs
  br i1 %lacks, label %null, label %look
look:
  %ins = getelementptr %tw.typed, %tw.typed* %inputs, i32 0, i32 0, i32 0
  $typed_weights
  $typed_batch
  %sensible = icmp ult i64 %n, 2147483648
  br i1 %sensible, label %inputs.check, label %wrong
inputs.check:
  %i.spec = getelementptr [$inputs x %tw.spec], [$inputs x %tw.spec]* @tw.inputs, i32 0, i32 0
  %i.code = call i32 @tw.pointers(i8** %ins, %tw.spec* %i.spec, i32 $inputs, i64 %n)
  %i.good = icmp eq i32 %i.code, 0
  br i1 %i.good, label %outputs.check, label %bad
outputs.check:
  %o.spec = getelementptr [$outputs x %tw.spec], [$outputs x %tw.spec]* @tw.outputs, i32 0, i32 0
  %o.code = call i32 @tw.pointers(i8** %outs, %tw.spec* %o.spec, i32 $outputs, i64 %n)
  %o.good = icmp eq i32 %o.code, 0
  br i1 %o.good, label %go, label %bad
go:
  %result = call i32 @tw.start(i8** %ins, i8** %outs, i8* %workspace, i8* %weights, i32 %threads, i64 %n,
                               i8* null, i8* null)
  ret i32 %result
null:
  ret i32 $NULL
wrong:
  ret i32 $DIMS
bad:
  %code = phi i32 [ %i.code, %inputs.check ], [ %o.code, %outputs.check ]
  ret i32 %code
}

define $export i32 @${name}_run(%tw.typed* %inputs, i8** %outputs, i8* %workspace) $plain {
  %result = call i32 @tw.typed.run(%tw.typed* %inputs, i8** %outputs, i8* %workspace, i32 1)
  ret i32 %result
}
"""

ALLOC = """
declare noalias i8* @malloc($size)
declare void @free(i8*)

define $export i32 @${name}_run_alloc(%tw.typed* %inputs, i8** %outputs, i32 %threads) $plain {
entry:
  %needed = call i64 @tw.workspace(i32 %threads)
  %bytes = add i64 %needed, $mask
  %size = $run_alloc_size
  %memory = call i8* @malloc($size %size)
  %none = icmp eq i8* %memory, null
  br i1 %none, label %fail, label %align
align:
  %address = ptrtoint i8* %memory to i64
  %over = add i64 %address, $mask
  %start = and i64 %over, $inverse
  %workspace = inttoptr i64 %start to i8*
  %result = call i32 @tw.typed.run(%tw.typed* %inputs, i8** %outputs, i8* %workspace, i32 %threads)
  call void @free(i8* %memory)
  ret i32 %result
fail:
  ret i32 $MEMORY
}
"""
