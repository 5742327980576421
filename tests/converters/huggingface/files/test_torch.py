"""PyTorch's own files: read with PyTorch if it is installed, else refused with an explanation."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.errors import CheckpointError, MappingError
from converters.huggingface import load_pretrained_lm, open_pretrained
from converters.huggingface.files.torch import read_torch
from converters.stores.local import LocalStore
from efficientids_flax.tree import flatten
from tests.converters.huggingface.recorded_models import FOLDERS

torch: Any = pytest.importorskip("torch")
safetensors: Any = pytest.importorskip("safetensors.torch")


def as_torch(name: str, folder: Path) -> Path:
    """A copy of a recorded model with a `.bin` file instead of each safetensors file."""
    shutil.copytree(FOLDERS / name, folder)
    for file in folder.glob("*.safetensors"):
        new = file.name.replace("model", "pytorch_model").replace(".safetensors", ".bin")
        torch.save(safetensors.load_file(file), folder / new)
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if index.exists():
        text = index.read_text().replace(".safetensors", ".bin").replace("model-", "pytorch_model-")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()
    return folder


# One file of float32; three of bfloat16.
@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_the_same_parameters_as_from_safetensors(name: str, tmp_path: Path) -> None:
    folder = as_torch(name, tmp_path / name)
    layout = open_pretrained(folder).layout
    assert layout == ("PyTorch" if name == "gpt2" else "PyTorch in 3 files")
    found, wanted = load_pretrained_lm(folder), load_pretrained_lm(FOLDERS / name)
    assert found[0] == wanted[0]
    for path, value in flatten(wanted[1]).items():
        np.testing.assert_array_equal(flatten(found[1])[path], value)


def test_files_that_cannot_be_mapped_and_views(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    torch.save(
        {"turned": base.T, "half": base[::2].to(torch.float16), "number": base[1, 1]},
        tmp_path / "old.bin",
        _use_new_zipfile_serialization=False,
    )
    found = read_torch(LocalStore(tmp_path), "old.bin")
    np.testing.assert_array_equal(found["turned"].read(), base.numpy().T)
    assert found["half"].spec.dtype == np.float16
    region = (slice(1, 2), slice(2, 5))
    np.testing.assert_array_equal(found["half"].reader(0).read(region), base.numpy()[2:3, 2:5])
    assert found["number"].read() == 7


class Code:
    """An object that can only be unpickled by running code from the file."""


def test_other_content_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    torch.save({"a": Code()}, tmp_path / "code.bin")
    with pytest.raises(CheckpointError, match=r"code\.bin: holds more than tensors"):
        read_torch(store, "code.bin")
    torch.save([torch.ones(2)], tmp_path / "list.bin")
    with pytest.raises(CheckpointError, match="holds a list, no tensors"):
        read_torch(store, "list.bin")
    torch.save({"step": 3}, tmp_path / "int.bin")
    with pytest.raises(CheckpointError, match="step is int; only dense tensors are weights"):
        read_torch(store, "int.bin")
    torch.save({"x": torch.ones(300)}, tmp_path / "cut.bin")
    data = (tmp_path / "cut.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.bin: cannot be read: "):
        read_torch(store, "cut.bin")


def test_without_pytorch_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_torch("gpt2", tmp_path / "gpt2")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MappingError, match="only PyTorch can read it, and it is not installed"):
        open_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt2"
