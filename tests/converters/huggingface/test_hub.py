"""Downloads with the real client from a local server: what is fetched, tokens, errors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.converters.huggingface.hub_server import COMMIT, hub
from tests.converters.huggingface.recorded_models import FOLDERS
from tests.running import together

pytest.importorskip("huggingface_hub")
NAME = "owner/tiny"


def convert(home: Path, url: str, *options: str, **variables: str) -> subprocess.CompletedProcess:
    """Run `convert-hf owner/tiny OUT` in a new process, as the client reads its variables once."""
    code = "from converters.commands.convert_hf import convert_hf; convert_hf()"
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    places = {"HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, NAME, home / "out", *options]
    (found,) = together([command], env={**kept, **places, "HF_HUB_DISABLE_XET": "1", **variables})
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model in three files, with other files that must not be downloaded."""
    folder = shutil.copytree(FOLDERS / "qwen3", tmp_path / "source")
    (folder / "reference.npz").unlink()
    (folder / "tokenizer.json").write_text("{}")
    for name in ("README.md", "tf_model.h5", "pytorch_model.bin"):
        (folder / name).write_text("not wanted")
    return folder


def test_what_is_needed_is_fetched_once(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with hub(source, NAME, token="secret") as (url, asked):
        found = convert(home, url, "--download", "--token", "secret")
        assert found.returncode == 0, found.stderr
        assert "HuggingFace qwen3, safetensors in 3 files" in found.stdout
        snapshot = home / "hub" / "models--owner--tiny" / "snapshots" / COMMIT
        unwanted = {"README.md", "tf_model.h5", "pytorch_model.bin"}
        assert {file.name for file in snapshot.iterdir()} == {
            file.name for file in source.iterdir()
        } - unwanted
        assert not any(path.endswith(tuple(unwanted)) for path in asked)
        count = len(asked)
        again = convert(home, url, "--overwrite")  # from the cache, which needs no download
        assert again.returncode == 0, again.stderr
        assert len(asked) == count


def test_models_that_are_not_public(source: Path, tmp_path: Path) -> None:
    with hub(source, NAME, token="secret") as (url, _):
        found = convert(tmp_path, url, "--download", HF_TOKEN="wrong")
        assert found.returncode == 1
        assert f"{NAME}: access is not granted" in found.stderr
        assert "--token" in found.stderr
        assert "Traceback" not in found.stderr
        found = convert(tmp_path, url, "--download", HF_TOKEN="secret")
        assert found.returncode == 0, found.stderr


def test_errors_are_named(source: Path, tmp_path: Path) -> None:
    with hub(source, "other/model") as (url, _):
        found = convert(tmp_path, url, "--download")
        assert (found.returncode, "Traceback" in found.stderr) == (1, False)
        assert f"{NAME}: the hub has no such model" in found.stderr
        offline = convert(tmp_path, url, "--download", HF_HUB_OFFLINE="1")
        assert (offline.returncode, "Traceback" in offline.stderr) == (1, False)
        assert f"{NAME}: is not in the cache, and HF_HUB_OFFLINE forbids" in offline.stderr
    gone = convert(tmp_path, url, "--download")  # the server has stopped
    assert gone.returncode == 1
    assert f"{NAME}: cannot be downloaded: " in gone.stderr
    assert not (tmp_path / "out").exists()
