"""TimesFM to a folder of transformers and back; the folder opens there with the same forecasts."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from converters import convert
from converters.errors import MappingError
from converters.huggingface import ExportOptions, convert_pretrained, export_pretrained
from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast import TimesFM, forecast
from efficientids_flax.stored import load_config, load_converted, load_model
from efficientids_flax.tree import flatten
from tests.converters.forecasters import Sizes, random_forecaster, with_adapters, write_forecaster

SIZES = Sizes(layers=11, width=12, hidden=20, heads=3, quantiles=3)
GIVEN = {"quantiles": [0.1, 0.5, 0.9], "use_positional_embedding": True, "context_length": 16}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`converted(positions, scan)`: a converted forecaster; do not change it."""

    @cache
    def make(positions: bool = True, scan: bool | None = None) -> Path:
        place = tmp_path_factory.mktemp("converted")
        write_forecaster(place / "pax", random_forecaster(SIZES))
        given = {**GIVEN, "use_positional_embedding": positions}
        convert(place / "pax", place / "out", overrides=given, scan_layers=scan)
        return place / "out"

    return make


@pytest.fixture(scope="module")
def exported(converted: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of it; do not change it."""
    folder = tmp_path_factory.mktemp("exported") / "folder"
    export_pretrained(converted(), folder)
    return folder


def leaves(out: Path) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten(load_converted(out).params).items()}


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("scan", [None, True])
def test_there_and_back(converted: Any, tmp_path: Path, positions: bool, scan: bool | None):
    out = converted(positions, scan)
    export_pretrained(out, tmp_path / "folder")
    convert_pretrained(tmp_path / "folder", tmp_path / "back", scan_layers=bool(scan))
    before, after = leaves(out), leaves(tmp_path / "back")
    assert before.keys() == after.keys()
    for path, values in before.items():
        # 1 is added to a LayerNorm's scale, and subtracted again.
        near = 1e-7 if path.endswith("mlp_norm/scale") else 0.0
        np.testing.assert_allclose(after[path], values, rtol=0, atol=near, err_msg=path)
    config = load_config(tmp_path / "back").model
    assert isinstance(config, TimesFMConfig)
    assert config.use_positional_embedding is positions
    assert (config.statistics, config.tolerance) == ("centred", 1e-6)
    assert (config.quantiles, config.context_length) == ((0.1, 0.5, 0.9), 16)


def test_transformers_opens_the_folder_with_the_same_forecasts(converted: Any, exported: Path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    other = transformers.AutoModelForTimeSeriesPrediction.from_pretrained(exported).eval()
    assert type(other).__name__ == "TimesFmModelForPrediction"
    random = np.random.default_rng(3)
    series = [random.normal(size=length).astype(np.float32) for length in (16, 30, 5)]
    with torch.no_grad():
        found = other(past_values=[torch.tensor(one) for one in series], freq=[0, 1, 2])
    model, params, _ = load_model(converted())
    mean, quantiles = forecast(model, params, series, 8, freq=[0, 1, 2])
    full = np.concatenate([mean[..., None], quantiles], axis=-1)
    wanted = found.full_predictions.numpy()
    np.testing.assert_allclose(full, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_config_json_has_what_transformers_reads(exported: Path):
    content = json.loads((exported / "config.json").read_text())
    assert content["architectures"] == ["TimesFmModelForPrediction"]
    assert (content["num_hidden_layers"], content["patch_length"], content["horizon_length"]) == (
        11, 4, 8,
    )  # fmt: skip
    assert (content["pad_val"], content["tolerance"], content["min_timescale"]) == (
        1123581321.0, 1e-6, 1,
    )  # fmt: skip
    notes = json.loads((exported / "manifest.json").read_text())["notes"]
    assert any("centred" in note for note in notes)


@pytest.mark.parametrize(
    ("values", "text"),
    [({"frequencies": 0}, "num_frequencies: transformers always adds"),
     ({"lora": True}, "lora: convert again without --keep-lora")],
)  # fmt: skip
def test_what_transformers_cannot_express_is_told(tmp_path: Path, values: dict, text: str):
    sizes = Sizes(quantiles=3, frequencies=values.get("frequencies", 3))
    params = random_forecaster(sizes)
    if values.get("lora"):
        params = with_adapters(params, 2)
    place = write_forecaster(tmp_path / "pax", params)
    convert(place, tmp_path / "out", overrides=GIVEN, keep_lora=True)
    with pytest.raises(MappingError, match=text):
        export_pretrained(tmp_path / "out", tmp_path / "folder")
    with pytest.raises(MappingError, match="a forecaster is written as timesfm"):
        export_pretrained(tmp_path / "out", tmp_path / "folder", ExportOptions(family="llama"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"hidden_size": 16}, "tensors and config.json do not fit"),
     ({"quantiles": [0.5, 2.0]}, "expected levels between 0 and 1"),
     ({"rms_norm_eps": 1e-5}, "our norms have one epsilon")],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_told(
    exported: Path, tmp_path: Path, changes: dict, text: str
):
    file = shutil.copytree(exported, tmp_path / "folder") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(MappingError, match=text):
        convert_pretrained(tmp_path / "folder", tmp_path / "back")


def test_another_dtype(converted: Any, tmp_path: Path):
    export_pretrained(converted(), tmp_path / "folder", ExportOptions(dtype="bfloat16"))
    convert_pretrained(tmp_path / "folder", tmp_path / "back")
    found = leaves(tmp_path / "back")
    assert {str(leaf.dtype) for leaf in found.values()} == {"bfloat16"}
    config = load_config(tmp_path / "back").model
    assert isinstance(config, TimesFMConfig)
    assert (config.dtype, config.param_dtype) == ("bfloat16", "bfloat16")
    model = TimesFM(config)
    made: Any = jax.jit(model.apply)(
        {"params": load_converted(tmp_path / "back").params}, np.ones((1, 16))
    )
    assert jax.numpy.isfinite(made.values).all()
    assert made.values.dtype == np.float32
