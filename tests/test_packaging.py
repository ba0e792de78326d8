"""The package list in pyproject.toml is written by hand: it must equal the folders that hold Python files."""

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

import tilewright

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]  # package -> top-level folder


def package_folders() -> dict[str, Path]:
    """Every folder below the mapped ones that holds Python files, by the package name it is installed as."""
    packages = {}
    for package, top in MAPPED.items():
        for folder in {path.parent for path in (ROOT / top).rglob("*.py")}:
            packages[".".join([package, *folder.relative_to(ROOT / top).parts])] = folder
    return packages


def test_package_list_equals_folders() -> None:
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(package_folders())


def test_every_package_has_an_init() -> None:
    without = [str(folder) for folder in package_folders().values() if not (folder / "__init__.py").is_file()]
    assert not without, f"folders with Python files but no __init__.py: {without}"


def test_data_files_are_packaged() -> None:
    """A file beside the code that is not Python reaches the wheel only through package-data."""
    declared: dict[str, list[str]] = PYPROJECT["tool"]["setuptools"]["package-data"]
    forgotten = []
    for package, folder in package_folders().items():
        packaged = {path for pattern in declared.get(package, []) for path in folder.glob(pattern)}
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in {".py", ".pyc", ".md"} and path not in packaged:
                forgotten.append(str(path.relative_to(ROOT)))
    assert not forgotten, f"not in [tool.setuptools.package-data]: {forgotten}"


def test_version_agrees() -> None:
    declared = PYPROJECT["project"]["version"]
    assert tilewright.__version__ == declared
    assert importlib.metadata.version("tilewright") == declared


def test_imported_from_this_checkout() -> None:
    """The tests must run against the files beside them, not against another installed copy."""
    assert Path(tilewright.__file__).parent == ROOT / "tilewright"


def test_console_script_points_at_the_cli() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="tilewright")
    assert [script.value for script in scripts] == ["tilewright.cli:main"]
    assert all(callable(script.load()) for script in scripts)
