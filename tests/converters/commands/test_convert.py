"""The command `convert`: wrong usage, exit codes, output."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.commands.convert import convert
from tests.converters import stored, synthetic
from tests.converters.invoking import converted, invoke, refused

Recording = Callable[[str], Path]
REPEATED, RECOMMENDER = "LlamaRepeat_gda", "b_everywhere"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'CKPT'"),
        (("c",), "Missing argument 'OUT'"),
        (("c", "o", "--no-such-flag"), "No such option"),
        (("c", "o", "--step", "-1"), "--step"),
        (("c", "o", "--step", "last"), "--step"),
        (("c", "o", "--family", "gpt5"), "is not one of 'transformer_lm', 'efficientids'"),
        (("c", "o", "--to", "pickle"), "is not one of 'orbax', 'safetensors'"),
        (("c", "o", "--verify", "maybe"), "is not one of 'full', 'sample', 'none'"),
        (("c", "o", "--memory", "much"), "'much' is not a size such as 512MiB or 2GB"),
        (("c", "o", "--memory", "5"), "at least 1MiB is needed"),
        (("c", "o", "--workers", "0"), "--workers"),
        (("c", "o", "--set", "activation"), "'activation' is not KEY=VALUE"),
        (("c", "o", "--no-optimizer", "--raw-optimizer"), "exclude each other"),
        (("c", "o", "-v", "-q"), "-v and -q exclude each other"),
        (("c", "o", "--process", "1"), "--process goes with --distributed"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], said: str):
    result = invoke(convert, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_missing_checkpoint_and_existing_output_exit_with_1(recording: Recording, tmp_path: Path):
    assert "nowhere: no checkpoint found" in refused(tmp_path / "nowhere", tmp_path / "out")
    assert "exists; give --overwrite" in refused(recording(RECOMMENDER) / "checkpoint", tmp_path)


def test_a_conversion_needs_neither_jax_nor_orbax(recording: Recording, tmp_path: Path):
    import subprocess

    script = (
        "import sys; from efficientids_flax.commands.program import main\n"
        "try: main()\n"
        "finally: print(sorted({'jax', 'orbax', 'flax', 'optax'} & set(sys.modules)))\n"
    )
    arguments = [str(recording(RECOMMENDER) / "checkpoint"), str(tmp_path / "out"), "--quiet"]
    command = [synthetic.command()[0], "-W", "error", "-c", script, "convert", *arguments]
    end = subprocess.run(
        command, env=synthetic.environment(), capture_output=True, text=True, check=True
    )
    assert end.stdout == "[]\n"


def test_quiet_prints_nothing(recording: Recording, tmp_path: Path):
    end = synthetic.run(recording(RECOMMENDER) / "checkpoint", tmp_path / "out", "--quiet")
    assert (end.returncode, end.stdout, end.stderr) == (0, "", "")


def test_report(recording: Recording, tmp_path: Path):
    case, out = recording(REPEATED), tmp_path / "out"
    lines = converted(case / "checkpoint", out).stdout.splitlines()
    assert lines[-2].startswith(f"{case}/checkpoint/checkpoint_00000004: zarr 1.1")
    assert re.fullmatch(
        rf"{out}: written in \d+\.\d s; 39 of 39 leaves read back and compared", lines[-1]
    )


def test_report_as_json(recording: Recording, tmp_path: Path):
    case, out = recording(REPEATED), tmp_path / "out"
    found = json.loads(converted(case / "checkpoint", out, "--json").stdout)
    assert found["output"] == str(out)
    assert (found["leaves"], found["verified"], found["nonfinite"]) == (39, 39, {})
    assert found["step"] == 4


def test_report_names_leaves_with_nan(tmp_path: Path):
    params = synthetic.random_params(count=2, rows=4, columns=4)
    params["layer1/w"][0, :3] = [np.nan, np.inf, -np.inf]
    job = synthetic.write_job(tmp_path / "job", params)
    result = converted(job, tmp_path / "out", "--no-optimizer")
    assert "warning: params/layer1/w: 3 values are NaN or infinite" in result.stdout
    assert "layer0/w: " not in result.stdout
    counts = {
        leaf["target"]: leaf["nonfinite"]
        for leaf in stored.read_manifest(tmp_path / "out")["leaves"]
    }
    assert counts == {"params/layer0/w": 0, "params/layer1/w": 3, "state/step": 0}
