"""How far float32 results are from exact ones.

    ulps(np.float32([1]), np.array([1 + 2**-24]))       [0.5]
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def ulps(result: Array, exact: Array) -> Array:
    """Distance in units in the last place of float32; results that are not finite must be equal."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        finite = np.isfinite(exact) & np.isfinite(result)
        same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
        unit = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - 24, -149))
        return np.where(finite, np.abs(result - exact) / unit, np.where(same, 0, np.inf))
