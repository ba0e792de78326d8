"""What all tests share: the hypothesis profile and golden files."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

TESTS = Path(__file__).parent

# No deadline: an example may compile a kernel. In CI the examples are the same on every run, so that a change
# is judged by itself; elsewhere they differ, and a failure prints how to repeat it.
hypothesis.settings.register_profile(
    "tilewright", deadline=None, derandomize="CI" in os.environ, print_blob=True
)
hypothesis.settings.load_profile("tilewright")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files, do not compare")


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests never touch the user's cache, and start with an empty one."""
    folder = tmp_path_factory.mktemp("cache", numbered=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEWRIGHT_CACHE_DIR", str(folder))
        patch.setenv("TILEWRIGHT_CACHE_BYTES", str(1 << 30))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`golden(text)` compares text with the test's own file, tests/golden/<test module>/<test name>.txt.

    `pytest --update-golden` writes the files; read the difference in git before you commit it.
    """
    module = request.path.relative_to(TESTS).with_suffix("")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name).strip("-")
    path = TESTS / "golden" / module / f"{name}.txt"

    def check(text: str) -> None:
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        shown = path.relative_to(TESTS.parent)
        assert path.is_file(), f"{shown} is missing: look at the text and run pytest --update-golden\n{text}"
        assert text == path.read_text(), f"differs from {shown}"

    return check
