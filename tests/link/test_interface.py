"""The C interface: the header, the functions that are there, what they return, and that they compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from libraries import SHAPE, compile_c, needs_cc, needs_cxx, run_c, small_library
from numpy.typing import NDArray
from small_models import reference

from tilewright.compiler.link import write_header, write_object, write_shared
from tilewright.compiler.link.header import c_name, c_names
from tilewright.runtime.abi import ERRORS

IMAGE = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)
COMMON = """
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float x[NET_INPUT_IMAGE_SIZE], y[NET_OUTPUT_SCORES_SIZE];
static unsigned char space[NET_WORKSPACE_BYTES + 4 * NET_THREAD_BYTES + 64];

static void *workspace(void) { return space + (64 - (uintptr_t)space % 64) % 64; }
"""
RUNS = COMMON + """
static void read_input(void) {
    FILE *file = fopen("x.bin", "rb");
    if (!file || fread(x, sizeof x, 1, file) != 1) exit(9);
    fclose(file);
}

static void show(int code) {
    int i;
    printf("%d", code);
    for (i = 0; i < NET_OUTPUT_SCORES_SIZE; i++) printf(" %.9g", y[i]);
    printf("\\n");
    memset(y, 0, sizeof y);
}

static void *take(size_t bytes, void *user) { ++*(int *)user; (void)bytes; return workspace(); }
static void count(int32_t kernel, int64_t ns, void *user) { if (ns > 0) *(int *)user += 1 << kernel; }

int main(void) {
    int64_t in_dims[4] = {1, 3, 16, 24}, out_dims[2] = {0, 0};
    tw_tensor in, out;
    tw_context context;
    net_inputs inputs;
    net_outputs outputs;
    int calls = 0, kernels = 0;
    read_input();
    inputs.image = x;
    outputs.scores = y;
    show(net_run(&inputs, &outputs, workspace()));
    show(net_run_alloc(&inputs, &outputs, 3));
    memset(&context, 0, sizeof context);
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    context.struct_size = sizeof context;
    context.threads = 4;
    context.alloc = take;
    context.user = &calls;
    in.data = x;
    in.dims = in_dims;
    out.data = y;
    out.dims = out_dims;
    out.capacity = sizeof y;
    show(net_call(&in, &out, &context));
    show(net_call(&in, &out, &context));
    context.profile = count;
    context.user = &kernels;
    show(net_call(&in, &out, &context));
    printf("%d %d %d %d\\n", calls, kernels == (1 << NET_KERNELS) - 1, (int)out_dims[0], (int)out_dims[1]);
    printf("%d %d\\n", context.workspace_bytes == net_workspace_bytes(NULL, 4),
           net_workspace_bytes(in_dims, 1) == NET_WORKSPACE_BYTES);
    printf("%u %d %s\\n", net_abi_version(), net_missing_feature() == NULL, net_error_text(NET_ERROR_DIMS));
    return 0;
}
"""
REFUSES = COMMON + """
static void *refuse(size_t bytes, void *user) { (void)bytes; (void)user; return NULL; }

#define TRY(change, restore) change; printf(#change " %d\\n", net_call(in_p, out_p, context_p)); restore

int main(void) {
    int64_t dims[4] = {1, 3, 16, 24};
    tw_tensor in, out, *in_p = &in, *out_p = &out;
    tw_context context, *context_p = &context;
    net_inputs inputs;
    net_outputs outputs;
    memset(&context, 0, sizeof context);
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    context.struct_size = sizeof context;
    context.workspace = workspace();
    context.workspace_bytes = NET_WORKSPACE_BYTES;
    in.data = x;
    in.dims = dims;
    out.data = y;
    out.capacity = sizeof y;
    TRY(in_p = NULL, in_p = &in);
    TRY(out_p = NULL, out_p = &out);
    TRY(context_p = NULL, context_p = &context);
    TRY(in.data = NULL, in.data = x);
    TRY(out.data = NULL, out.data = y);
    TRY(in.data = (char *)x + 2, in.data = x);
    TRY(out.data = (char *)y + 1, out.data = y);
    TRY(dims[2] = 17, dims[2] = 16);
    TRY(dims[0] = -1, dims[0] = 1);
    TRY(out.capacity = sizeof y - 1, out.capacity = sizeof y);
    TRY(out.capacity = 0, out.capacity = sizeof y);
    TRY(in.capacity = sizeof x - 1, in.capacity = 0);
    TRY(context.workspace_bytes -= 1, context.workspace_bytes += 1);
    TRY(context.workspace = (char *)workspace() + 32, context.workspace = workspace());
    TRY(context.workspace = NULL, context.workspace = workspace());
    context.alloc = refuse;
    TRY(context.workspace = NULL, context.workspace = workspace());
    TRY(context.struct_size -= 8, context.struct_size += 8);
    TRY(in.dims = NULL, in.dims = dims);
    inputs.image = x;
    outputs.scores = y;
    printf("typed %d %d", net_run(NULL, &outputs, workspace()), net_run(&inputs, NULL, workspace()));
    printf(" %d", net_run(&inputs, &outputs, NULL));
    printf(" %d", net_run(&inputs, &outputs, (char *)workspace() + 8));
    inputs.image = NULL;
    printf(" %d", net_run(&inputs, &outputs, workspace()));
    inputs.image = (const float *)((const char *)x + 1);
    printf(" %d", net_run(&inputs, &outputs, workspace()));
    printf(" %d\\n", net_run_alloc(&inputs, &outputs, 1));
    printf("%s %d %d\\n", net_error_text(0), net_error_text(1) == NULL, net_error_text(-99) == NULL);
    return 0;
}
"""
REFUSALS = {
    "in_p = NULL": "NULL", "out_p = NULL": "NULL", "context_p = NULL": "NULL", "in.data = NULL": "NULL",
    "out.data = NULL": "NULL", "in.data = (char *)x + 2": "ALIGNMENT", "out.data = (char *)y + 1": "ALIGNMENT",
    "dims[2] = 17": "DIMS", "dims[0] = -1": "DIMS", "out.capacity = sizeof y - 1": "CAPACITY",
    "out.capacity = 0": "CAPACITY", "in.capacity = sizeof x - 1": "CAPACITY",
    "context.workspace_bytes -= 1": "WORKSPACE", "context.workspace = (char *)workspace() + 32": "ALIGNMENT",
    "context.struct_size -= 8": "ABI", "in.dims = NULL": "OK",
}  # fmt: skip
BATCH = """
#include "net.h"
#include <stdio.h>
#include <string.h>

static float x[5 * NET_INPUT_IMAGE_SAMPLE_SIZE], y[5 * NET_OUTPUT_SCORES_SAMPLE_SIZE];

int main(void) {
    int64_t dims[4] = {5, 3, 16, 24}, out_dims[2];
    net_inputs inputs;
    net_outputs outputs;
    tw_tensor in = {0, 0, 0}, out = {0, 0, 0};
    tw_context context;
    int n;
    FILE *file = fopen("x.bin", "rb");
    if (!file || fread(x, sizeof x, 1, file) != 1) return 9;
    fclose(file);
    inputs.image = x;
    outputs.scores = y;
    for (n = 0; n < 6; n++) {
        inputs.n = n;
        memset(y, 0, sizeof y);
        printf("%d", net_run_alloc(&inputs, &outputs, 1));
        printf(" %.9g %d\\n", n ? y[5 * n - 1] : 0, n < 5 && y[5 * n] != 0);
    }
    inputs.n = -1;
    printf("%d\\n", net_run_alloc(&inputs, &outputs, 1));
    memset(&context, 0, sizeof context);
    context.struct_size = sizeof context;
    in.data = x;
    out.data = y;
    out.dims = out_dims;
    out.capacity = sizeof y;
    printf("%d", net_call(&in, &out, &context));
    in.dims = dims;
    out.capacity -= 1;
    printf(" %d", net_call(&in, &out, &context));
    out.capacity += 1;
    printf(" %d %d %d\\n", net_call(&in, &out, &context), (int)out_dims[0], (int)out_dims[1]);
    return 0;
}
"""
CODES = {name: -number for number, (name, _) in enumerate(ERRORS)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interface")
    write_shared(small_library(), path / "net.so")
    write_header(small_library(), path / "net.h")
    IMAGE.tofile(path / "x.bin")
    return path


def close(got: NDArray[Any], image: NDArray[Any] = IMAGE) -> bool:
    return np.allclose(got, reference(image)["scores"].ravel(), rtol=0, atol=1e-5)


@needs_cc
def test_every_form_of_a_call_computes(folder: Path) -> None:
    lines = run_c(folder, RUNS, "net.so").splitlines()
    for line in lines[:5]:
        code, *values = line.split()
        assert code == "0"
        assert close(np.array(values, np.float32))
        assert values == lines[0].split()[1:]
    assert lines[5:] == ["1 1 1 5", "1 1", f"1 1 {dict(ERRORS)['DIMS']}"]


@needs_cc
def test_bad_arguments_have_codes(folder: Path) -> None:
    lines = run_c(folder, REFUSES, "net.so").splitlines()
    found = [line.rsplit(" ", 1) for line in lines[:-2]]
    # Without a workspace: first there is no alloc, then one that has no memory.
    assert [int(code) for text, code in found if text == "context.workspace = NULL"] == [CODES["NULL"], CODES["MEMORY"]]
    others = {text: int(code) for text, code in found if text != "context.workspace = NULL"}
    assert others == {text: CODES[name] for text, name in REFUSALS.items()}
    names = ("NULL", "NULL", "NULL", "ALIGNMENT", "NULL", "ALIGNMENT", "ALIGNMENT")
    assert lines[-2] == f"typed {' '.join(str(CODES[name]) for name in names)}"
    assert lines[-1] == "success 1 1"


@needs_cc
def test_any_number_of_samples(tmp_path: Path) -> None:
    library = small_library(batched=True)
    write_shared(library, tmp_path / "net.so")
    write_header(library, tmp_path / "net.h")
    images = np.random.default_rng(6).standard_normal((5, *SHAPE[1:])).astype(np.float32)
    images.tofile(tmp_path / "x.bin")
    lines = run_c(tmp_path, BATCH, "net.so").splitlines()
    expected = reference(images)["scores"]
    for n, line in enumerate(lines[:6]):
        code, value, beyond = line.split()
        assert (code, beyond) == ("0", "0")
        assert n == 0 or abs(float(value) - expected[n - 1, -1]) < 1e-5
    assert lines[6] == str(CODES["DIMS"])
    assert lines[7] == f"{CODES['DIMS']} {CODES['CAPACITY']} {CODES['NULL']} 5 5"


@needs_cc
@pytest.mark.parametrize("std", ["c89", "c99", "c17"])
def test_the_header_is_plain_c(folder: Path, std: str) -> None:
    run_c(folder, '#include "net.h"\n#include "net.h"\nint main(void) { return 0; }\n', "net.so", std=std)


@needs_cxx
def test_the_header_is_cpp(folder: Path) -> None:
    source = '#include "net.h"\nint main() { return net_run(nullptr, nullptr, nullptr) == NET_ERROR_NULL ? 0 : 1; }\n'
    compile_c(folder, source, "net.so", language="c++", std="c++11")


@needs_cc
def test_two_models_in_one_program(tmp_path: Path) -> None:
    for name in ("one", "two"):
        library = small_library(name, weights="external" if name == "two" else "embed")
        write_object(library, tmp_path / f"{name}.o")
        write_header(library, tmp_path / f"{name}.h")
    source = """
#include "one.h"
#include "two.h"
#include <stdio.h>

static double weights[(4096 + 16384) / 8 + 8];

int main(void) {
    static float x[ONE_INPUT_IMAGE_SIZE], y[5], z[5];
    one_inputs a = {x};
    one_outputs b = {y};
    two_inputs c = {x, NULL};
    two_outputs d = {z};
    char *start = (char *)weights + (64 - (uintptr_t)weights % 64) % 64;
    FILE *file = fopen("two.weights", "rb");
    size_t bytes = file ? fread(start, 1, 4096 + 16384, file) : 0;
    printf("%d %d", one_run_alloc(&a, &b, 2), two_run_alloc(&c, &d, 2));
    c.weights = start;
    printf(" %d", two_run_alloc(&c, &d, 2));
    printf(" %d %d", y[0] == z[0] && y[4] == z[4] && y[0] != 0, bytes > 4096);
    start[30]++;
    printf(" %d", two_run_alloc(&c, &d, 2));
    c.weights = start + 8;
    printf(" %d\\n", two_run_alloc(&c, &d, 2));
    return 0;
}
"""
    weights = CODES["WEIGHTS"]
    assert run_c(tmp_path, source, "one.o", "two.o") == f"0 {weights} 0 1 1 {weights} {weights}\n"


def test_names_in_c() -> None:
    assert c_name("res-net 50:0") == "res_net_50_0"
    assert c_name("1x") == "m1x"
    assert c_name("ö") == "model"
    assert c_name("class") == "class_"
    assert c_names(["a.b", "a-b", "a_b_2", "", "int"], "input") == ["a_b", "a_b_2", "a_b_2_2", "input", "int_"]
    assert c_names(["x", "X", "X_2"], "input") == ["x", "X_2", "X_2_2"], "constants are in capitals"


def test_a_header_of_odd_names(tmp_path: Path) -> None:
    """Names from a model file end up in comments only, and cannot leave them."""
    library = small_library()
    text = library.header
    assert text.isascii()
    assert text.count("/*") == text.count("*/")
