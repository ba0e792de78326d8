"""Libraries for any number of samples: called from C and through `load`, the same bits as in this process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_networks import exported, numbers
from libraries import needs_cc, run_c

import tilewright as tw
from tilewright.aot import save_model
from tilewright.compiler.targets import by_name
from tilewright.errors import CallError

COUNTS = (1, 2, 3, 8, 9, 100)

CALLS = """
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 100
#define CHECK(condition) if (!(condition)) { printf("line %d, n %d\\n", __LINE__, n); return 1; }

static float x[MOST * NET_INPUT_X_SAMPLE_SIZE], y[MOST * NET_OUTPUT_Y_SAMPLE_SIZE];
static float expected[MOST * NET_OUTPUT_Y_SAMPLE_SIZE];

static int read_all(const char *name, void *into, size_t bytes) {
    FILE *file = fopen(name, "rb");
    int fine = file && fread(into, bytes, 1, file) == 1;
    if (file) fclose(file);
    return fine;
}

int main(void) {
    static const int counts[] = {1, 2, 3, 8, 9, 100};
    int64_t dims[4] = {0, 1, 28, 28}, out_dims[2];
    size_t i;
    int n = 0, threads;
    CHECK(read_all("x.bin", x, sizeof x) && read_all("y.bin", expected, sizeof expected));
    for (i = 0; i < sizeof counts / sizeof *counts; i++)
        for (threads = 1; threads <= 3; threads++) {
            tw_tensor in = {x, 0, 0}, out = {y, 0, 0};
            tw_context context;
            size_t bytes, used;
            n = counts[i];
            used = n * NET_OUTPUT_Y_SAMPLE_SIZE * sizeof *y;
            dims[0] = n;
            in.dims = dims;
            in.capacity = n * NET_INPUT_X_SAMPLE_SIZE * sizeof *x;
            out.dims = out_dims;
            out.capacity = used;
            memset(&context, 0, sizeof context);
            context.struct_size = sizeof context;
            context.threads = threads;
            bytes = context.workspace_bytes = net_workspace_bytes(dims, threads);
            CHECK(bytes == net_workspace_bytes(NULL, threads));
            /* The bytes behind the workspace and the results stay what they are. */
            context.workspace = aligned_alloc(64, bytes + 64);
            memset(context.workspace, 0xff, bytes + 64);
            memset(y, 0xff, sizeof y);
            out_dims[0] = out_dims[1] = -1;
            CHECK(net_call(&in, &out, &context) == 0);
            CHECK(out_dims[0] == n && out_dims[1] == NET_OUTPUT_Y_DIM1);
            CHECK(memcmp(y, expected, used) == 0);
            CHECK(n == MOST || ((unsigned char *)y)[used] == 0xff);
            CHECK(((unsigned char *)context.workspace)[bytes] == 0xff);
            free(context.workspace);
        }
    puts("fine");
    return 0;
}
"""


def saved(name: str, folder: Path, **options: Any) -> tuple[Path, bytes, tuple[int, ...]]:
    """One of the networks as a shared object for this machine; with its ONNX model and the shape of a sample."""
    _, data, sample = exported(name)
    path = folder / "net.so"
    save_model(data, path, target=by_name("host"), shapes={"x": ("N", *sample)}, **options)
    return path, data, sample


@needs_cc
def test_from_c(tmp_path: Path) -> None:
    path, data, sample = saved("mnist", tmp_path)
    x = numbers(max(COUNTS), *sample)
    x.tofile(tmp_path / "x.bin")
    tw.compile(data, shapes={"x": ("N", *sample)})(x).tofile(tmp_path / "y.bin")
    assert run_c(tmp_path, CALLS, path.name, std="c11") == "fine\n"


@pytest.mark.parametrize("name", ["mnist", "attention, tokens first", "large"])
def test_loaded(name: str, tmp_path: Path) -> None:
    path, data, sample = saved(name, tmp_path)
    here = tw.compile(data, shapes={"x": ("N", *sample)})
    model = tw.load(path)
    assert model.inputs == here.inputs and model.outputs == here.outputs
    x = numbers(33, *sample)
    expected = here(x)
    for count in (0, 1, 2, 3, 8, 9, 33):
        np.testing.assert_array_equal(model(x[:count]), expected[:count])
    with pytest.raises(CallError, match="the model takes Nx"):
        model(x[0])


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    path, data, sample = saved("resnet", tmp_path, weights="external")
    x = numbers(9, *sample)
    np.testing.assert_array_equal(tw.load(path)(x), tw.compile(data, shapes={"x": ("N", *sample)})(x))
