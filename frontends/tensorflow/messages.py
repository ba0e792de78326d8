"""The message classes of protos/graph.proto.

They live in a pool of their own: TensorFlow, or anything else that brings protobuf messages along, may be imported
in the same process, and the version of protobuf's compiler does not matter.
"""

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Message = Any
"""A message; its class is only known at run time."""

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    (files("tilewright.frontends.tensorflow") / "protos" / "graph.binpb").read_bytes()
).file:
    _POOL.AddSerializedFile(_file.SerializeToString())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"tilewright.tensorflow.{name}"))


GraphDef = _class("GraphDef")
MetaGraphDef = _class("MetaGraphDef")
SavedModel = _class("SavedModel")
BundleHeaderProto = _class("BundleHeaderProto")
BundleEntryProto = _class("BundleEntryProto")

TYPE_NAMES: dict[int, str] = {
    value.number: value.name.removeprefix("DT_").lower()
    for value in _POOL.FindEnumTypeByName("tilewright.tensorflow.DataType").values
}
"""TensorFlow's number of an element type -> its name."""
