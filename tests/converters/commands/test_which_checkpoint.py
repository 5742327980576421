"""Which paths are accepted as CKPT, and which step is taken."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.converters import stored, synthetic
from tests.converters.invoking import BETAS, converted, refused

Recording = Callable[[str], Path]


@pytest.fixture(scope="module")
def small_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with steps 0, 20 and 100, each with values of its own."""
    job = tmp_path_factory.mktemp("steps") / "job"
    for step in (0, 20, 100):
        leaves = {
            "step": np.array(step, np.uint32),
            "mdl_vars/params/w": np.full((2, 3), step, np.float32),
        }
        synthetic.write_step(job / "checkpoints" / f"checkpoint_{step:08d}", leaves)
    return job


@pytest.mark.parametrize(
    ("inside", "options", "step"),
    [
        ("", (), 100),
        ("checkpoints", (), 100),
        ("", ("--step", "20"), 20),
        ("checkpoints", ("--step", "0"), 0),
        ("checkpoints/checkpoint_00000020", (), 20),
        ("checkpoints/checkpoint_00000020/state", (), 20),
    ],
)
def test_what_stands_for_a_checkpoint(
    inside: str, options: tuple[str, ...], step: int, small_job: Path, tmp_path: Path
):
    result = converted(small_job / inside, tmp_path / "out", *options)
    assert f"checkpoint_{step:08d}: " in result.stdout  # says which it took
    output = stored.read_output(tmp_path / "out")
    assert output["params/w"].tolist() == [[step] * 3] * 2
    assert output["state/step"] == step
    assert stored.read_manifest(tmp_path / "out")["source"]["step"] == step


def test_a_step_that_is_not_there(small_job: Path, tmp_path: Path):
    said = refused(small_job, tmp_path / "out", "--step", "7")
    assert "no step 7; there are 0, 20, 100" in said


@pytest.mark.parametrize("inside", ["checkpoint", "checkpoint/checkpoint_4"])
def test_a_flax_file(inside: str, recording: Recording, tmp_path: Path):
    case = recording("LlamaRepeatEma_v00flax_file")
    converted(case / inside, tmp_path / "out", *BETAS)
    assert stored.read_manifest(tmp_path / "out")["source"]["step"] == 4


def test_a_path_from_a_folder_beside_it(recording, tmp_path: Path, monkeypatch) -> None:
    """`../job` works, although TensorStore's OCDBT driver does not accept such a path."""
    case = recording("b_everywhere")
    (tmp_path / "here").mkdir()
    (tmp_path / "job").symlink_to(case / "checkpoint")
    monkeypatch.chdir(tmp_path / "here")
    converted("../job", "../out", "--no-optimizer")
    assert (tmp_path / "out" / "config.json").is_file()
