"""`config.json`: settings with their origins, of today's conversions and of older ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, OptimizerConfig
from efficientids_flax.stored import load_config, write_settings

MODEL = BackboneConfig(
    vocab_size=40, num_layers=1, model_dims=6, hidden_dims=8, num_heads=2, num_kv_heads=2,
    head_dim=4,
)  # fmt: skip
ORIGINS = {
    "model": {"num_layers": "tree", "rotary": "assumed", "activation": "experiment LLaMA7B"},
    "optimizer": {"beta1": "given", "beta2": "assumed"},
}
CONTENT: dict[str, Any] = {
    "schema_version": 1,
    "family": "transformer_lm",
    "model": MODEL.to_dict(),
    "optimizer": OptimizerConfig("adam", beta1=0.9).to_dict(),
    "origins": ORIGINS,
}


def written(place: Path, **content: Any) -> Path:
    (place / "config.json").write_text(json.dumps({**CONTENT, **content}))
    return place


def test_origins_are_those_of_the_file(tmp_path: Path):
    assert load_config(written(tmp_path)).origins == ORIGINS


def test_without_origins_nothing_is_said(tmp_path: Path):
    content = {key: value for key, value in CONTENT.items() if key != "origins"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert load_config(tmp_path).origins == {}
    (tmp_path / "manifest.json").write_text("{")
    assert load_config(tmp_path).origins == {}


def test_of_an_older_conversion_the_manifest_tells_them(tmp_path: Path):
    content = {key: value for key, value in CONTENT.items() if key != "origins"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    causes = {"num_layers": "tree", "activation": "default", "norm_epsilon": "flag"}
    model = {key: {"value": None, "from": cause} for key, cause in causes.items()}
    model["hub"] = {"model_type": "llama"}  # what convert-hf writes there
    (tmp_path / "manifest.json").write_text(json.dumps({"config": {"model": model}}))
    assert load_config(tmp_path).origins == {
        "model": {"num_layers": "tree", "activation": "assumed", "norm_epsilon": "given"}
    }


@pytest.mark.parametrize(
    "origins", [[], {"models": {}}, {"model": []}, {"model": {"rotary": 1}}, {"rotary": "found"}]
)
def test_origins_of_another_form_are_refused(tmp_path: Path, origins: Any):
    with pytest.raises(ValueError, match="expected"):
        load_config(written(tmp_path, origins=origins))
    with pytest.raises(ValueError, match="expected"):
        write_settings(written(tmp_path), MODEL, origins)


def test_other_settings_are_written_and_all_else_stays(tmp_path: Path):
    turned = MODEL.from_dict({**MODEL.to_dict(), "rotary": {"pairing": "interleaved"}})
    write_settings(written(tmp_path, note="kept"), turned, {"model": {"rotary.pairing": "found"}})
    found = load_config(tmp_path)
    assert found.model == turned
    assert found.optimizer == OptimizerConfig("adam", beta1=0.9)
    of_model = found.origins["model"]
    assert of_model["rotary.pairing"] == "found"
    assert of_model["rotary.max_timescale"] == "assumed"
    assert of_model["num_layers"] == "tree"
    assert of_model["activation"] == "experiment LLaMA7B"
    assert "rotary" not in of_model
    assert found.origins["optimizer"]["beta1"] == "given"
    assert json.loads((tmp_path / "config.json").read_text())["note"] == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_settings_of_another_model_are_refused(tmp_path: Path):
    place = written(tmp_path)
    before = (place / "config.json").read_text()
    with pytest.raises(ValueError, match="other parameters"):
        write_settings(place, replace(MODEL, hidden_dims=9), {})
    items = EfficientIDSConfig(num_items=5, item_embedding_dim=4, backbone=MODEL)
    with pytest.raises(ValueError, match="no EfficientIDSConfig"):
        write_settings(place, items, {})  # type: ignore[arg-type]
    assert (place / "config.json").read_text() == before
