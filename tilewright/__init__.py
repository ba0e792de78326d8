"""Tilewright compiles neural-network graphs into native code.

    import tilewright as tw
    model = tw.compile("vgg16.onnx")
    y = model(x)

Importing it is quick: what it offers is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

from tilewright.errors import TilewrightError

if TYPE_CHECKING:
    from tilewright.api import compile as compile
    from tilewright.columns import Hypercolumns as Hypercolumns
    from tilewright.columns import hypercolumns as hypercolumns
    from tilewright.runtime.artifact import TensorSpec as TensorSpec
    from tilewright.runtime.model import Model as Model
    from tilewright.runtime.native import load as load

__version__ = "0.1.0"
__all__ = ["Hypercolumns", "Model", "TensorSpec", "TilewrightError", "compile", "hypercolumns", "load"]

_HOMES = {
    "compile": "tilewright.api",
    "Model": "tilewright.runtime.model",
    "load": "tilewright.runtime.native",
    "TensorSpec": "tilewright.runtime.artifact",
    "Hypercolumns": "tilewright.columns",
    "hypercolumns": "tilewright.columns",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for, so that `import tilewright` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tilewright' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
