"""Assumed settings of a stored model: said once where it is loaded, an error if so wished."""

import json
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from efficientids_flax import load_model, save_model
from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, OptimizerConfig
from efficientids_flax.stored import assumed_in, load_config
from efficientids_flax.train import trainer_from_converted

pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided")  # Orbax
MODEL = BackboneConfig(
    vocab_size=40, num_layers=1, model_dims=6, hidden_dims=8, num_heads=2, num_kv_heads=2,
    head_dim=4,
)  # fmt: skip
ADAM = OptimizerConfig("adam", beta1=0.9, beta2=0.99)
BATCH = {
    "ids": np.ones((1, 4), np.int32),
    "labels": np.ones((1, 4), np.int32),
    "paddings": np.zeros((1, 4), np.float32),
    "weights": np.ones((1, 4), np.float32),
}


@pytest.fixture
def stored_model(tmp_path: Path) -> Any:
    """Writes a model whose settings have these origins, the dump's where none is given."""

    def write(name: str, origins: dict[str, dict[str, str]] | None) -> Path:
        model = Decoder(MODEL)
        save_model(tmp_path / name, model, model.init(jax.random.key(0), BATCH["ids"])["params"])
        file = tmp_path / name / "config.json"
        content = json.loads(file.read_text()) | {"optimizer": ADAM.to_dict()}
        file.write_text(json.dumps(content if origins is None else content | {"origins": origins}))
        return tmp_path / name

    return write


def told(**origins: str) -> dict[str, str]:
    return dict.fromkeys(MODEL.to_dict(), "dump") | origins


def test_what_was_assumed_is_said_once_for_each_place(stored_model: Any):
    origins = {"model": told(activation="assumed", norm_epsilon="assumed", z_loss_weight="assumed")}
    first = stored_model("first", origins)
    with pytest.warns(UserWarning, match="activation=relu, norm_epsilon=1e-06") as found:
        load_model(first)
    (warning,) = (one for one in found if "not all of its settings" in str(one.message))
    assert warning.filename == __file__
    assert "z_loss_weight" not in str(warning.message)  # it changes no logit
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*not all of its settings")
        load_model(first)
    with pytest.warns(UserWarning, match="activation=relu"):
        load_model(stored_model("second", origins))


def test_strict_makes_it_an_error(stored_model: Any):
    place = stored_model("out", {"model": told(activation="assumed")})
    with pytest.raises(ValueError, match=rf"{place}: not all .*\n  assumed, .*: activation=relu\n"):
        load_model(place, strict=True)
    load_model(stored_model("told", {"model": told()}), strict=True)
    load_model(stored_model("own", None), strict=True)  # made here: nothing was inferred


def test_going_on_also_tells_what_matters_for_training(stored_model: Any):
    origins = {"model": told(z_loss_weight="assumed"), "optimizer": {"name": "tree"}}
    place = stored_model("out", origins)
    load_model(place, strict=True)
    whole = {"learning_rate": 0.1, "schedule": {"kind": "constant"}, "epsilon": 1e-6}
    with pytest.raises(ValueError, match=r"z_loss_weight=0\.0") as error:
        trainer_from_converted(place, BATCH, optimizer_config=whole, beta1=0.9, strict=True)
    assert "optimizer not known" not in str(error.value)
    assert "clip_threshold=null" in str(error.value)
    assert "beta1" not in str(error.value)
    with pytest.raises(ValueError, match="not known: learning_rate, schedule, epsilon"):
        trainer_from_converted(place, BATCH, beta1=0.9, beta2=0.99, strict=True)
    with pytest.warns(UserWarning, match=r"z_loss_weight=0\.0"):
        trainer_from_converted(place, BATCH, optimizer_config=whole)


def test_a_saved_model_keeps_the_origins(stored_model: Any, tmp_path: Path):
    place = stored_model("out", {"model": told(activation="assumed"), "optimizer": {}})
    config = load_config(place)
    with pytest.warns(UserWarning, match="activation"):
        model, params, _ = load_model(place)
    save_model(tmp_path / "again", model, params, origins=config.origins)
    again = load_config(tmp_path / "again")
    assert assumed_in(again, ("forward",)) == assumed_in(config, ("forward",))
    assert again.optimizer is None
    assert list(again.origins) == ["model"]
