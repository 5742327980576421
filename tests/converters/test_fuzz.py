"""Damaged checkpoints end in an output or in one clear message, in time, whatever was damaged."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.converters import fuzz

Recording = Callable[[str], Path]
SEEDS = 20  # a checkpoint, a tenth of a second each; `make fuzz` goes on
ZARR = "LlamaRepeat_gda"  # with few files, all of which are copied for each test


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return fuzz.sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize("name", fuzz.CASES)
def test_one_damaged_file(name: str, known: dict[str, Path]):
    found = [fuzz.attempt(known[name], seed) for seed in range(SEEDS)]
    assert [text for text in found if text] == []


@pytest.fixture
def copied(recording: Recording, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording(ZARR), tmp_path / "case"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [10**12]), ("shape", [10**12, 10**12]), ("shape", 3), ("chunks", [10**12, 10**6]),
        ("dimension_separator", [[]]), ("dimension_separator", "\x1b"), ("fill_value", [1]),
        ("compressor", []), ("compressor", {"id": ["x"]}), ("dtype", [["a", "<f4"]]),
        ("order", "X"), ("filters", [{"id": "delta"}]),
    ],
)  # fmt: skip
def test_array_metadata_that_claims_the_impossible(
    key: str, value: Any, copied: Path, tmp_path: Path
):
    file = sorted(copied.rglob(".zarray"))[5]
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    assert fuzz.fault(copied / "checkpoint", tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["num_heads", "model_dims", "num_layers", "hidden_dims", "epsilon"])
@pytest.mark.parametrize("value", ["inf", "nan", "0", "-1", "1e400", "99999999999999999999", "'x'"])
def test_dumps_with_numbers_that_are_none(key: str, value: str, copied: Path, tmp_path: Path):
    for file in copied.rglob("model_params.txt"):
        text = re.sub(rf"(?<=\b{key} : ).*", value, file.read_text())
        assert text != file.read_text()
        file.write_text(text)
    assert fuzz.fault(copied / "checkpoint", tmp_path / "out") is None


def test_the_fuzzer_finds_what_it_looks_for(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It must detect a fault of the reader, a hang, and a long message."""

    def found_with(opened: Callable[..., Any]) -> str:
        monkeypatch.setattr("converters.commands.inspect.open_checkpoint", opened)
        return fuzz.fault(recording(ZARR) / "checkpoint", tmp_path / "out") or ""

    def raises(*_: Any) -> None:
        raise KeyError("a fault")

    assert "KeyError" in found_with(raises)
    monkeypatch.setattr(fuzz, "LONGEST", 10)
    from converters.errors import CheckpointError

    def long(*_: Any) -> None:
        raise CheckpointError("x" * 50)

    assert "a message of" in found_with(long)
