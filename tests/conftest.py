"""Fixtures for all tests: the recorded checkpoints, unpacked once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from parity_tests.cases import unpack


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`recording(name)`: directory of a recorded case, shared by all tests; do not change it."""
    unpacked: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in unpacked:
            unpacked[name] = unpack(name, tmp_path_factory.mktemp(name))
        return unpacked[name]

    return find


@pytest.fixture
def editable(recording: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """`editable(name)`: a copy of a case's `checkpoint/` directory that the test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(recording(name) / "checkpoint", tmp_path / "checkpoint"))

    return copy
