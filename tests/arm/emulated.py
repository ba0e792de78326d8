"""What tests here are given by tests/arm/run: the private folder, and in it the results of references.py."""

import os
import pickle
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["TILEWRIGHT_ARM"])
REFERENCES: dict[str, Any] = pickle.loads((FOLDER / "references").read_bytes())
