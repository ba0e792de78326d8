"""Opens what TensorFlow writes: GraphDefs, MetaGraphDefs and SavedModels, binary or text, files or folders.

    Loaded
        graph           the GraphDef message
        payloads        contents of its large constants, where they lie in the mapped file
        signatures      {"serving_default": SignatureDef}, for a SavedModel or MetaGraphDef
        file_name       the placeholder for the name of a file with variables, or ""
        variables       SavedModel: the path of its variables without the endings, .../variables/variables
        serving         whether it is a SavedModel, whose graph alone does not say what it computes
        files           what was read besides the path that was named: the file, where that was a folder

What a file is says its content, not its name.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError, EncodeError

from tilewright.errors import ModelError, UnsupportedError
from tilewright.frontends.files import open_file, refuse_strangers
from tilewright.frontends.tensorflow import messages
from tilewright.frontends.tensorflow.messages import Message
from tilewright.frontends.tensorflow.wire import recognise, recognise_text, split
from tilewright.frontends.wire import Damaged

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Any
"""A path, bytes, or a message, TensorFlow's own ones too."""

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
KINDS = ("GraphDef", "MetaGraphDef", "SavedModel")
EXPECTED = "a TensorFlow graph"

@dataclass(frozen=True, eq=False)
class Loaded:
    """See the module's docstring."""

    graph: Message
    payloads: tuple[memoryview, ...]
    signatures: Mapping[str, Message] = field(default_factory=dict)
    file_name: str = ""
    variables: Path | None = None
    serving: bool = False
    files: tuple[Path, ...] = ()


def load(source: Source) -> Loaded:
    """Open a model; raises ModelError, or UnsupportedError for a SavedModel without a single graph to serve."""
    if _kind_of(source) in KINDS:
        message: Message = source
        try:
            data = memoryview(message.SerializeToString())
        except (EncodeError, ValueError) as error:  # such as one of more than 2 GiB
            raise ModelError(f"the message cannot be serialised ({error}); pass a path to the file") from None
        return _loaded(_parsed(data, _kind_of(source)), None, ())
    if not isinstance(source, str | os.PathLike):
        return _loaded(_parse(memoryview(source).cast("B")), None, ())
    path = Path(source)
    file = _in_folder(path) if path.is_dir() else path
    return _loaded(_parse(open_file(file)), file.parent, () if file is path else (file,))


def _kind_of(source: object) -> str:
    return str(getattr(getattr(source, "DESCRIPTOR", None), "name", ""))


def _in_folder(path: Path) -> Path:
    for name in SAVED_MODEL_FILES:
        if (path / name).is_file():
            return path / name
    raise ModelError("is a folder without saved_model.pb; pass a SavedModel's folder, or a file")


def _parse(data: memoryview) -> tuple[str, Message, list[memoryview]]:
    """The kind of the message in a file, the message, and what was left in the file."""
    refuse_strangers(data, EXPECTED)
    kind = recognise_text(data)
    if kind is not None:
        return kind, _parse_text(data, kind), []
    kind = recognise(data)
    if kind not in KINDS:
        raise ModelError(f"is not {EXPECTED}; pass a GraphDef (.pb or .pbtxt) or a SavedModel's folder")
    return _parsed(data, kind)


def _parsed(data: memoryview, kind: str) -> tuple[str, Message, list[memoryview]]:
    try:
        skeleton, payloads = split(data, kind)
        return kind, getattr(messages, kind).FromString(skeleton), payloads
    except (Damaged, DecodeError) as error:
        where = f": {error.message}" if isinstance(error, Damaged) else ""
        raise ModelError(f"the file is truncated or damaged{where}; export or download it again") from None


def _parse_text(data: memoryview, kind: str) -> Message:
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError:
        raise ModelError("is not UTF-8 text all through; the file is damaged, export it again") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own, about escapes in the file's strings
            return text_format.Parse(text, getattr(messages, kind)(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeError) as error:
        where = str(error)[:200]  # it quotes the line, however long
        raise ModelError(f"is not a well-formed text {kind} ({where}); correct it, or export it again") from None
    except RecursionError:
        raise ModelError("its text nests too deeply; no graph needs that") from None


def _loaded(found: tuple[str, Message, list[memoryview]], folder: Path | None, files: tuple[Path, ...]) -> Loaded:
    kind, message, payloads = found
    if kind == "GraphDef":
        return Loaded(message, tuple(payloads), files=files)
    meta = message if kind == "MetaGraphDef" else _to_serve(message)
    variables = None
    if kind == "SavedModel" and folder is not None and (folder / "variables" / "variables.index").is_file():
        variables = folder / "variables" / "variables"
    file_name = meta.saver_def.filename_tensor_name
    serving = kind == "SavedModel"
    return Loaded(meta.graph_def, tuple(payloads), dict(meta.signature_def), file_name, variables, serving, files)


def _to_serve(message: Message) -> Message:
    """The graph of a SavedModel that is for inference."""
    graphs = list(message.meta_graphs)
    serving = [meta for meta in graphs if "serve" in meta.meta_info_def.tags]
    chosen = serving or graphs
    if not chosen:
        raise ModelError("is a SavedModel without a graph; the file is damaged, export it again")
    if len(chosen) > 1:
        tags = "; ".join(", ".join(meta.meta_info_def.tags) or "none" for meta in chosen)
        raise UnsupportedError(
            f"is a SavedModel with {len(chosen)} graphs to choose from, their tags are {tags}; export it with one that "
            "is tagged 'serve'"
        )
    return chosen[0]
