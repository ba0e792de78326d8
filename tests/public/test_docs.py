"""The documentation says what is so: links lead somewhere, pictures are up to date, Python examples run."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tilewright.columns import default_model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [to for to in targets if "://" not in to and not (page.parent / to).exists()]
    assert not missing


def test_architecture_is_up_to_date() -> None:
    script = ROOT / "docs/images/architecture.py"
    assert runpy.run_path(str(script))["draw"]() == script.with_suffix(".svg").read_text(), f"run {script}"


@pytest.mark.parametrize(
    "page", ["README.md", "docs/hypercolumns.md", "docs/architecture.md", "docs/shared-objects.md"]
)
def test_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (tmp_path / "vgg16.onnx").symlink_to(default_model())
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photograph.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    if "columns" in names:
        assert np.shape(names["columns"]) == (192, 224, 224)
