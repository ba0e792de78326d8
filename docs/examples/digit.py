"""Names the digit in a picture of 28 x 28 float32 pixels, with nothing but Python's own ctypes.

tilewright compile mnist.onnx -o mnist.so
python digit.py picture.f32

Where Tilewright is installed, `tilewright.load("mnist.so")` does all of this.
"""

import array
import ctypes
import json
import os
import sys

library = ctypes.CDLL(os.path.abspath("mnist.so"))
library.mnist_metadata_json.restype = ctypes.c_char_p
library.mnist_error_text.restype = ctypes.c_char_p

metadata = json.loads(library.mnist_metadata_json())
(image,) = metadata["inputs"]
assert (image["dtype"], image["shape"]) == ("float32", [1, 1, 28, 28])

picture = array.array("f")
with open(sys.argv[1], "rb") as file:
    picture.fromfile(file, 784)
scores = array.array("f", bytes(4 * 10))

# The structs of typed calls hold one pointer for each tensor, so arrays of pointers will do.
inputs = (ctypes.c_void_p * 1)(picture.buffer_info()[0])
outputs = (ctypes.c_void_p * 1)(scores.buffer_info()[0])
code = library.mnist_run_alloc(inputs, outputs, ctypes.c_int32(1))
if code:
    sys.exit(library.mnist_error_text(code).decode())
best = max(range(10), key=scores.__getitem__)
print(f"{best} with {scores[best]:.3f}")
