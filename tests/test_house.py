"""The house: what a newcomer relies on when walking through the folders."""

import ast
import re
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("efficientids_flax", "converters", "parity_tests")
APART = {"record", "recordings"}  # runs on Python 3.10 beside the real PAXml; data
MOST = 13  # files side by side

FOLDERS = sorted(
    path.parent
    for package in PACKAGES
    for path in (ROOT / package).rglob("__init__.py")
    if not APART & set(path.parts)
)


def name(folder: Path) -> str:
    return folder.relative_to(ROOT).as_posix()


def described(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""


def inside(folder: Path) -> set[str]:
    """Files and folders of code in a folder."""
    return {
        path.stem
        for path in folder.iterdir()
        if (path.suffix == ".py" and not path.name.startswith(("__", "test_", "conftest")))
        or (path / "__init__.py").exists()
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_a_folder_says_what_happens_in_it(folder: Path):
    text = described(folder)
    assert text, "no docstring"
    assert sum((folder / f"{file}.py").exists() for file in inside(folder)) <= MOST
    # The order to read it in names files that are there.
    order = re.search(r"\bRead\s.*?(?=\n\n|\Z)", text, re.DOTALL)
    assert order or len(inside(folder)) < 3, "says no order to read its files in"
    if order:
        named = set(re.findall(r"`(\w+)`", order[0]))
        assert inside(folder) - APART <= named, "files that the order does not name"
        assert named <= inside(folder), "names that are no files"


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_file_names_do_not_repeat_the_folders(folder: Path):
    words = {folder.name, folder.name.removesuffix("s")}
    repeated = [file for file in inside(folder) if words & set(file.split("_"))]
    assert repeated == []


def test_tests_mirror_the_tree():
    """Each folder of tests is that of a package's folder, but for what goes across folders."""
    across = {"data", "docs", "examples"}
    for package in PACKAGES:
        for place in (ROOT / "tests" / package).rglob("*/"):
            if place.name == "__pycache__":
                continue
            assert (ROOT / place.relative_to(ROOT / "tests")).is_dir(), place
    tops = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}
    assert tops <= {*PACKAGES, *across}
