"""What a conversion assumed: printed by name and value, kept in files, refused by `--strict`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from efficientids_flax.config import BackboneConfig
from efficientids_flax.settings import OPEN, assumed, open_settings
from efficientids_flax.stored import load_config
from tests.converters import stored
from tests.converters.invoking import config, converted, refused

Recording = Callable[[str], Path]
ALONE, WITH_DUMP = "Llama_v11orbaxnames", "LlamaRepeat_gda"


def test_what_was_assumed_is_printed_by_name_and_value(recording: Recording, tmp_path: Path):
    out = tmp_path / "out"
    said = converted(recording(ALONE) / "checkpoint", out, "--set", "activation=silu").output
    (forward,) = [line for line in said.splitlines() if "activations and logits" in line]
    (training,) = [line for line in said.splitlines() if "for training alone" in line]
    shown = dict(text.split("=", 1) for text in forward.split(": ", 1)[1].split(", "))
    found = load_config(out)
    assert isinstance(found.model, BackboneConfig)
    names = assumed(found.model, found.origins["model"])
    assert {name.split(".pairing")[0] for name in shown} == set(names)
    assert "activation" not in shown  # given
    assert shown["norm_epsilon"] == "1e-06"
    assert not {row.key for row in OPEN if row.affects == "training"} & set(shown)
    assert "input_dropout=0.0" in training
    assert "not known: learning_rate, schedule, beta1, beta2, epsilon" in said
    assert f"efficientids find-settings {out} --tokens FILE" in said
    assert "moe." not in said  # what this model does not have
    assert not {"moe.gating", "relative_bias.max_distance"} & open_settings(found.model).keys()


def test_origins_stand_in_the_files(recording: Recording, tmp_path: Path):
    case, out = recording(ALONE) / "checkpoint", tmp_path / "out"
    end = converted(case, out, "--set", "norm_epsilon=1e-5", "--dtype", "bfloat16", "--json")
    origins = config(out)["origins"]
    of_model = {"norm_epsilon": "given", "param_dtype": "given", "activation": "assumed"}
    assert of_model.items() <= origins["model"].items()
    assert origins["optimizer"]["name"] == "tree"
    assert load_config(out).origins == origins
    manifest = stored.read_manifest(out)
    causes = {key: cause["from"] for key, cause in manifest["config"]["model"].items()}
    assert causes == origins["model"]
    assert manifest["assumed"] == json.loads(end.stdout)["assumed"]
    assert "norm_epsilon" not in manifest["assumed"]["forward"]


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_strict_refuses_and_leaves_nothing(
    options: tuple[str, ...], recording: Recording, tmp_path: Path
):
    said = refused(recording(ALONE) / "checkpoint", tmp_path / "out", "--strict", *options)
    assert "--strict: not all settings are known" in said
    assert "activation=silu" in said
    assert list(tmp_path.glob("out*")) == []


def test_strict_is_content_with_what_is_told(recording: Recording, tmp_path: Path):
    said = converted(recording(WITH_DUMP) / "checkpoint", tmp_path / "out", "--strict").output
    assert "assumed" not in said
    # The printed settings can be passed to --set unchanged.
    plan = converted(recording(ALONE) / "checkpoint", tmp_path / "none", "--dry-run").output
    (line,) = [line for line in plan.splitlines() if "activations and logits" in line]
    told = [part for text in line.split(": ", 1)[1].split(", ") for part in ("--set", text)]
    converted(recording(ALONE) / "checkpoint", tmp_path / "told", "--strict", *told)
