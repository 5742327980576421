"""Fixtures for all tests: the recorded checkpoints, unpacked once."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

RECORDINGS = Path(__file__).parent.parent / "parity_tests" / "recordings"


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`recording(name)`: directory of a recorded case, shared by all tests; do not change it."""
    unpacked: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in unpacked:
            unpacked[name] = _unpack(name, tmp_path_factory)
        return unpacked[name]

    return find


@pytest.fixture
def editable(recording: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """`editable(name)`: a copy of a case's `checkpoint/` directory that the test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(recording(name) / "checkpoint", tmp_path / "checkpoint"))

    return copy


def _unpack(name: str, factory: pytest.TempPathFactory) -> Path:
    (found,) = [*RECORDINGS.glob(f"*/{name}.tar.xz"), *RECORDINGS.glob(f"*/{name}/")]
    if found.is_dir():
        return found
    target = factory.mktemp(name)
    with tarfile.open(found) as archive:
        archive.extractall(target, filter="data")
    return target
