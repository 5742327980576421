"""A checkpoint of a published experiment without its job's files: recognised, and its numbers."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from converters.commands.convert import convert
from converters.paxml.experiments.match import EXPERIMENTS
from converters.paxml.forecasters import PUBLIC
from efficientids_flax.backbone import Decoder
from efficientids_flax.stored import load_config, load_model
from tests.converters.invoking import config, converted, invoke, refused

Recording = Callable[[str], Path]


@pytest.mark.parametrize("name", ["SaxLlama7B", "SaxLlama70B"])
def test_what_saxml_converted_computes_what_saxml_serves(
    name: str, recording: Recording, tmp_path: Path
):
    case = recording(name)
    said = converted(case / "checkpoint", tmp_path / "out").output
    assert "note: recognised as LLaMA" in said
    found = load_config(tmp_path / "out")
    origin = found.origins["model"]["rotary.pairing"]
    assert origin.startswith("experiment LLaMA7")
    assert found.model.rotary.pairing == "interleaved"  # type: ignore[union-attr]
    # With a smaller vocabulary, nothing shows whether it is Llama 2 or 3.
    grouped = name == "SaxLlama70B"
    assert ("rotary.max_timescale=10000.0" in said) is grouped
    assert "norm_epsilon" not in said
    if grouped:
        with pytest.warns(UserWarning, match="activations and logits: rotary.max_timescale="):
            model, params, _ = load_model(tmp_path / "out", param_dtype="float32")
    else:
        model, params, _ = load_model(tmp_path / "out", param_dtype="float32", strict=True)
    with np.load(case / "logits.npz") as recorded:
        given = {name: recorded[name] for name in ("ids", "paddings", "segment_ids")}

        def logits(module: Decoder) -> jax.Array:
            return module.logits(module(**given))

        ours = jax.jit(partial(model.apply, method=logits))({"params": params})
        kept = recorded["paddings"] == 0
        # float32 on both sides: the sums of two small layers in another order.
        np.testing.assert_allclose(ours[kept], recorded["logits"][kept], atol=1e-5)


def test_a_dump_goes_before_an_experiment(recording: Recording, tmp_path: Path):
    case = recording("LlamaRepeat_gda") / "checkpoint"
    said = converted(case, tmp_path / "out", "--experiment", "Gemma2BFP16").output
    assert "--experiment Gemma2BFP16: not used, the job's own dump says all" in said
    assert set(config(tmp_path / "out")["origins"]["model"].values()) == {"tree", "dump"}


def test_an_experiment_is_named_for_a_tree_of_another_size(recording: Recording, tmp_path: Path):
    case = recording("SaxLlama7B") / "checkpoint"
    out = tmp_path / "out"
    said = converted(case, out, "--experiment", "LLaMA13B", "--set", "norm_epsilon=1e-3").output
    assert "the sizes differ (num_layers 2, not 40" in said
    origins = config(out)["origins"]["model"]
    assert origins["activation"] == "experiment LLaMA13B"
    assert origins["norm_epsilon"] == "given"


def test_an_experiment_of_other_leaves_is_refused(recording: Recording, tmp_path: Path):
    case = recording("SaxLlama7B") / "checkpoint"
    said = refused(case, tmp_path / "out", "--experiment", "LLaMA70BFP16TPUv5e")
    assert "the tree is of another model: fused_qkv is True, not False" in said
    said = refused(case, tmp_path / "out", "--experiment", "LLaMA7B")
    assert "no such experiment; did you mean LLaMA" in said
    said = refused(recording("b_everywhere") / "checkpoint", tmp_path / "out",
                   "--experiment", "LLaMA13B")  # fmt: skip
    assert "is a language model, and this tree is of family efficientids" in said


def test_the_experiments_are_listed_without_a_checkpoint():
    text = invoke(convert, "--list-experiments").output
    assert all(name in text for name in EXPERIMENTS)
    rows = json.loads(invoke(convert, "--list-experiments", "--json").output)
    assert [row["name"] for row in rows] == [*EXPERIMENTS, *PUBLIC]
    assert all(name in text for name in PUBLIC)
    end = invoke(convert)
    assert end.exit_code == 2
    assert "Missing argument 'CKPT'" in end.stderr
    assert "Missing argument 'OUT'" in invoke(convert, "somewhere").stderr
