"""The command find-settings, on a model that the real PAXml trained, without its job's files."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner, Result

from converters import convert
from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.settings import ASSUMED, FOUND, GIVEN, origin_of
from efficientids_flax.stored import load_config, load_model, save_model, write_settings
from parity_tests.cases import RECORDINGS, checkpoint_of, recordings, unpack
from parity_tests.commands.find_settings import find_settings
from tests.efficientids_flax.backbone.small_decoders import made
from tests.efficientids_flax.search.small import CONFIG, sequences

TRAINED = RECORDINGS / "trained" / "LlaHybrid"
# Settings of the right model. The others are found by loss (activation), by momentum (the cap,
# which the loss does not show), or not at all (epsilon). With all open, a search takes a minute.
KNOWN = {
    "norm": "rms_norm", "norm_scale_plus_one": False, "norm_policy": "primer_hybrid",
    "parallel_residual": False, "position_embedding": "none", "rotary.pairing": "half_split",
    "rotary.max_timescale": 10_000.0, "rotary.fraction": 1.0, "embedding_scale": "none",
    "attention_logit_cap": None, "attention_extra_logit": None, "sliding_window": None,
    "attention_mask": "causal", "query_scaling": "inverse_sqrt_head_dim",
    "attention_residual_weight": 1.0, "mlp_residual_weight": 1.0, "mlp_padding_first": False,
    "scale_before_logits": False,
}  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(find_settings, list(map(str, arguments)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    convert(TRAINED / "checkpoint", out, overrides=KNOWN)
    return out


def off(out: Path) -> float:
    """Distance of the logits from the recorded ones, relative to the largest."""
    with np.load(TRAINED / "reference.npz") as file:
        recorded = dict(file)
    model, params, _ = load_model(out)

    def logits(module):
        hidden = module(recorded["in/ids"], paddings=recorded["in/paddings"],
                        segment_ids=recorded["in/segment_ids"],
                        positions=recorded["in/segment_pos"])  # fmt: skip
        return module.logits(hidden)

    with jax.default_matmul_precision("highest"):
        ours = jax.jit(lambda params: model.apply({"params": params}, method=logits))(params)
    wanted = recorded["out/logits"]
    return float(np.max(np.abs(ours - wanted)) / np.max(np.abs(wanted)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of assumed settings, and of Orbax
def test_what_a_lone_checkpoint_does_not_tell_is_found_from_tokens(trained):
    assert off(trained) > 1e-2
    result = run(trained, "--tokens", TRAINED / "tokens.npz", "--json")
    assert result.exit_code == 0, result.output
    told = {one["key"]: one for one in json.loads(result.output)["settings"]}
    assert told["activation"]["value"] == "squared_relu"
    assert told["final_logit_cap"]["value"] == 20.0
    assert told["norm_epsilon"]["origin"] == ASSUMED
    config = load_config(trained)
    origins = config.origins["model"]
    assert origin_of(origins, "activation") == FOUND
    assert origin_of(origins, "final_logit_cap") == FOUND
    assert origin_of(origins, "norm_epsilon") == ASSUMED
    assert origin_of(origins, "query_scaling") == "given"
    assert off(trained) < 1e-5  # float32, sums in another order


@pytest.mark.filterwarnings("ignore::UserWarning")  # Orbax's
def test_models_that_learned_nothing_tell_nothing(tmp_path):
    out, file = tmp_path / "out", tmp_path / "tokens.npz"
    told = {"model": dict.fromkeys(CONFIG.to_dict(), GIVEN)}
    save_model(out, Decoder(CONFIG), made(CONFIG), origins=told)
    np.savez(file, **sequences().batch)  # pyright: ignore[reportArgumentType]
    before = (out / "config.json").read_bytes()
    result = run(out, "--tokens", file, "--try", "activation", "--try", "norm_epsilon")
    assert result.exit_code == 0, result.output
    assert "cannot tell" in result.output
    assert "Nothing is written" in result.output
    assert (out / "config.json").read_bytes() == before


@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
def test_two_wrong_settings_are_found_from_a_recording(tmp_path):
    case = recordings()["PlainScale"]  # one layer
    out = tmp_path / "out"
    convert(checkpoint_of(case, tmp_path / "case"), out)
    right = load_config(out)
    assert isinstance(right.model, BackboneConfig)
    wrong = replace(right.model, activation="relu", norm_epsilon=1e-2)
    keys: list[str] = ["activation", "norm_epsilon", "query_scaling"]
    write_settings(out, wrong, {"model": dict.fromkeys(keys, ASSUMED)})
    before = (out / "config.json").read_bytes()
    result = run(out, "--against", case, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "recorded values agree" in result.output
    assert "nothing is written" in result.output
    assert (out / "config.json").read_bytes() == before
    assert run(out, "--against", case).exit_code == 0
    found = load_config(out)
    assert found.model == right.model
    assert origin_of(found.origins["model"], "activation") == FOUND


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "give one of --tokens and --against"),
        (["--tokens", "a.npz", "--against", "b"], 2, "give one of"),
        (["--against", "b", "--tokenizer", "c"], 2, "--tokenizer goes with --tokens"),
        (["--tokens", "nowhere.npz"], 1, "nowhere.npz: no such file"),
    ],
)
def test_bad_usage_and_bad_input(trained, arguments, code, words):
    result = run(trained, *arguments)
    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_folder_without_a_model_is_named(tmp_path):
    result = run(tmp_path, "--tokens", TRAINED / "tokens.npz")
    assert result.exit_code == 1
    assert "no config.json" in result.output


def test_the_recording_is_a_case():
    assert unpack("LlaHybrid", Path()) == TRAINED
