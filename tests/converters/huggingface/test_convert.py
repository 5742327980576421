"""`convert-hf`: the writer and the verification of `convert-paxml`, from a pretrained model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converters.commands.convert_hf import convert_hf
from converters.errors import OutputError
from converters.huggingface import convert_pretrained, load_pretrained_lm
from converters.huggingface.convert import ConvertPretrainedOptions
from efficientids_flax.stored.load import load_converted
from efficientids_flax.tree import flatten
from tests.converters.huggingface.recorded_models import FOLDERS


@pytest.mark.parametrize("to", ["orbax", "safetensors"])
@pytest.mark.parametrize("name", ["phi3", "qwen3", "gpt_neox"])
def test_what_is_written_is_what_is_loaded(tmp_path: Path, name: str, to: str) -> None:
    report = convert_pretrained(FOLDERS / name, tmp_path / "out", ConvertPretrainedOptions(to=to))
    converted = load_converted(tmp_path / "out")
    config, params = load_pretrained_lm(FOLDERS / name)
    assert converted.config.family == "transformer_lm"
    assert converted.config.model == config
    found, wanted = flatten(converted.params), flatten(params)
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        assert np.asarray(found[path]).dtype == value.dtype
        np.testing.assert_array_equal(found[path], value)
    assert all(record["verified"] for record in report.records.values())


def test_the_manifest_says_where_each_leaf_comes_from(tmp_path: Path) -> None:
    convert_pretrained(FOLDERS / "phi3", tmp_path / "out", dtype="bfloat16", scan_layers=True)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    leaves = {leaf["target"]: leaf for leaf in manifest["leaves"]}
    query = leaves["params/layers/attention/query/kernel"]
    assert query["sources"] == [f"model.layers.{i}.self_attn.qkv_proj.weight" for i in range(2)]
    assert query["operation"] == "split 0 4 4; stack 0; cast bfloat16"
    assert manifest["source"]["layout"] == "HuggingFace phi3, safetensors"
    assert manifest["config"]["model"]["config.json"]["model_type"] == "phi3"
    assert manifest["options"]["dtype"] == "bfloat16"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model"]["param_dtype"] == "bfloat16"


def test_the_command(tmp_path: Path) -> None:
    runner, out = CliRunner(), str(tmp_path / "out")
    found = runner.invoke(convert_hf, [str(FOLDERS / "gemma"), out, "--dry-run"])
    assert found.exit_code == 0
    assert "params/lm_head/kernel" in found.output
    assert "model.embed_tokens.weight" in found.output
    assert not (tmp_path / "out").exists()
    found = runner.invoke(convert_hf, [str(FOLDERS / "gemma"), out, "--quiet"])
    assert (found.exit_code, found.output) == (0, "")
    again = runner.invoke(convert_hf, [str(FOLDERS / "gemma"), out])
    assert again.exit_code == 1
    assert "give --overwrite to replace it" in again.output
    missing = runner.invoke(convert_hf, [str(tmp_path / "no"), out + "2"])
    assert missing.exit_code == 1
    assert "no such folder" in missing.output
    told = runner.invoke(convert_hf, [str(FOLDERS / "gemma"), out, "--overwrite", "--json"])
    assert json.loads(told.output)["output"] == out


def test_unknown_ways_of_writing(tmp_path: Path) -> None:
    for options in (ConvertPretrainedOptions(to="zip"), ConvertPretrainedOptions(verify="some")):
        with pytest.raises(OutputError, match="verify is one of"):
            convert_pretrained(FOLDERS / "gemma", tmp_path / "out", options)


def test_jax_stays_out_of_memory() -> None:
    code = (
        "import sys, converters.commands.convert_hf;"
        "assert not {'jax', 'flax', 'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
