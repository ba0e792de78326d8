"""Constants in every encoding, and attributes as Python values."""

import sys
from typing import Any

import numpy as np
import pytest

from tilewright.compiler.ir import BF16, F16, F32, I8, I32
from tilewright.errors import ModelError, ResourceError
from tilewright.frontends.tensorflow.attributes import read_attributes, read_node
from tilewright.frontends.tensorflow.messages import TYPE_NAMES, GraphDef
from tilewright.frontends.tensorflow.model import Function, Input, PartialShape, Reference
from tilewright.frontends.tensorflow.tensors import ElementType, Tensor, element_type, read_tensor

NUMBERS = {name: number for number, name in TYPE_NAMES.items()}


def tensor(kind: str, shape: tuple[int, ...], **fields: Any) -> Tensor:
    """A TensorProto's tensor."""
    proto = GraphDef().node.add().attr["value"].tensor
    proto.dtype = NUMBERS[kind]
    proto.tensor_shape.SetInParent()
    for dim in shape:
        proto.tensor_shape.dim.add(size=dim)
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(proto, name).extend(value)
        else:
            setattr(proto, name, value)
    return read_tensor(proto, ())


def array(kind: str, shape: tuple[int, ...], **fields: Any) -> Any:
    found = tensor(kind, shape, **fields).array
    assert found is not None and found.shape == shape
    return found


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("float", "<f4"), ("double", "<f8"), ("half", "<f2"), ("int8", "<i1"), ("int16", "<i2"), ("int32", "<i4"),
        ("int64", "<i8"), ("uint8", "<u1"), ("uint16", "<u2"), ("uint32", "<u4"), ("uint64", "<u8"), ("bool", "?"),
        ("qint8", "<i1"), ("quint8", "<u1"), ("qint16", "<i2"), ("quint16", "<u2"), ("qint32", "<i4"),
    ],
)  # fmt: skip
def test_contents(kind: str, dtype: str) -> None:
    values = np.array([[0, 1, 2], [100, 3, 1]]).astype(dtype)
    found = array(kind, (2, 3), tensor_content=values.tobytes())
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("kind", "field", "values", "expected"),
    [
        ("float", "float_val", [1.5, -2.0], np.float32([1.5, -2])),
        ("double", "double_val", [1.5, -2.0], np.float64([1.5, -2])),
        ("int32", "int_val", [1, -2], np.int32([1, -2])),
        ("int16", "int_val", [1, -2], np.int16([1, -2])),
        ("int8", "int_val", [1, -2], np.int8([1, -2])),
        ("uint8", "int_val", [1, 254], np.uint8([1, 254])),
        ("uint16", "int_val", [1, 65535], np.uint16([1, 65535])),
        ("int64", "int64_val", [1, -(2**40)], np.int64([1, -(2**40)])),
        ("uint32", "uint32_val", [1, 2**32 - 1], np.uint32([1, 2**32 - 1])),
        ("uint64", "uint64_val", [1, 2**64 - 1], np.uint64([1, 2**64 - 1])),
        ("bool", "bool_val", [True, False], np.array([True, False])),
        ("qint8", "int_val", [1, -2], np.int8([1, -2])),
        ("quint8", "int_val", [1, 254], np.uint8([1, 254])),
        ("qint32", "int_val", [1, -2], np.int32([1, -2])),
        ("half", "half_val", [0x3C00, 0xC000], np.float16([1, -2])),
        ("bfloat16", "half_val", [0x3F80, 0xC000], np.float32([1, -2])),
    ],
)
def test_lists(kind: str, field: str, values: list[Any], expected: Any) -> None:
    found = array(kind, (2,), **{field: values})
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    # What is missing is like the last one that is there; with none there, zero.
    np.testing.assert_array_equal(array(kind, (2, 2), **{field: values}), expected[[[0, 1], [1, 1]]])
    np.testing.assert_array_equal(array(kind, (3,), **{field: values[:1]}), expected[[0, 0, 0]])
    np.testing.assert_array_equal(array(kind, (3,)), np.zeros(3, expected.dtype))
    np.testing.assert_array_equal(array(kind, (), **{field: values[:1]}), expected[0])


def test_bfloat16_contents_are_float32_numbers() -> None:
    bits = np.array([0x3F80, 0x4049, 0x7F80, 0xFF80], "<u2")
    found = tensor("bfloat16", (4,), tensor_content=bits.tobytes())
    assert found.type == ElementType("bfloat16", BF16)
    np.testing.assert_array_equal(found.array, np.float32([1, 3.140625, np.inf, -np.inf]))


def test_bytes_that_are_no_bools() -> None:
    np.testing.assert_array_equal(array("bool", (3,), tensor_content=b"\0\1\7"), [False, True, True])


def test_byte_order_is_little_endian() -> None:
    """Whatever this machine's is: the file does not say, and TensorFlow runs on little-endian machines."""
    assert array("int32", (1,), tensor_content=b"\1\0\0\0").item() == 1
    assert sys.byteorder in ("little", "big")


def test_an_empty_tensor() -> None:
    assert array("float", (0, 3)).size == 0
    assert array("float", (0, 3), float_val=[1.0]).size == 0


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (tensor("float", (3,), tensor_content=bytes(8)), ModelError, "float 3, which takes 12 bytes, but holds 8"),
        (tensor("float", (1,), float_val=[1.0, 2.0]), ModelError, "float 1, which is 1 elements, but holds 2"),
        (tensor("float", (-1,), float_val=[1.0]), ModelError, r"a negative dimension: \(-1,\)"),
        (tensor("float", (2**20, 2**20), float_val=[1.0]), ResourceError, r"1048576x1048576, beyond 2\*\*36 elements"),
        (tensor("float", (1,) * 40, float_val=[1.0]), ResourceError, "or 32 axes"),
        (tensor("float", (2**62, 2**62, 0)), ResourceError, r"beyond 2\*\*36 elements"),
        (tensor("float", (2**30,), float_val=[1.0]), ResourceError, "holds 1 elements of it; more than 2"),
        (tensor("int8", (2**35,)), ResourceError, "holds 0 elements of it"),
        (tensor("float", (1,), payload=3), ModelError, "lies nowhere in the file"),
        (tensor("float", (1,), payload=-3), ModelError, "lies nowhere in the file"),
    ],
)
def test_tensors_that_are_refused(found: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = found.array


@pytest.mark.parametrize("kind", ["string", "complex64", "complex128", "resource", "variant", "float8_e4m3fn", "int4"])
def test_types_that_are_lacking(kind: str) -> None:
    found = tensor(kind, (1,))
    assert found.array is None and str(found.type) == kind


def test_strings() -> None:
    assert tensor("string", (2,), string_val=[b"a", b"b/\xff"]).strings == ("a", "b/�")
    assert tensor("int32", (2,)).strings == ()


def test_element_types() -> None:
    assert element_type(1) == element_type(101) == ElementType("float", F32)
    assert element_type(11) == ElementType("qint8", I8)
    assert element_type(19) == ElementType("half", F16)
    assert element_type(20) == ElementType("resource", None)
    assert element_type(99) == ElementType("type 99", None)


def test_attributes() -> None:
    node = GraphDef().node.add(name="n", op="Op", input=["a", "b:2", "^c", "scope/d:10"])
    attr = node.attr
    attr["text"].s, attr["raw"].s, attr["number"].i, attr["real"].f, attr["flag"].b = b"SAME", b"\xff", -3, 0.5, True
    attr["T"].type = 3
    attr["shape"].shape.dim.add(size=-1)
    attr["shape"].shape.dim.add(size=4)
    attr["free"].shape.unknown_rank = True
    attr["f"].func.name = "body"
    attr["f"].func.attr["k"].i = 1
    attr["later"].placeholder = "dtype"
    attr["ints"].list.i.extend([1, 2])
    attr["types"].list.type.extend([1, 3])
    attr["none"].list.SetInParent()
    attr["texts"].list.s.extend([b"a", b"b"])
    attr["unset"].SetInParent()
    attr["_class"].list.s.append(b"note")
    found = read_node(node, ())
    assert (found.name, found.op, found.controls) == ("n", "Op", ("c",))
    assert found.inputs == (Input("a"), Input("b", 2), Input("scope/d", 10))
    assert found.attributes == {
        "text": "SAME", "raw": b"\xff", "number": -3, "real": 0.5, "flag": True, "T": ElementType("int32", I32),
        "shape": PartialShape((None, 4)), "free": PartialShape(None), "f": Function("body"),
        "later": Reference("dtype"), "ints": (1, 2), "types": (element_type(1), element_type(3)), "none": (),
        "texts": ("a", "b"), "unset": (),
    }  # fmt: skip
    function = read_attributes(attr, ())["f"]
    assert isinstance(function, Function) and function.attributes == {"k": 1}
