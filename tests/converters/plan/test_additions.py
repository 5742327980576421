"""LoRA and DoRA weights of a TimesFM tree: merged into the weights, or kept separate."""

from pathlib import Path

import jax
import numpy as np
import pytest

from converters import convert
from converters.errors import MappingError
from efficientids_flax.stored import load_config, load_converted, load_model
from tests.converters import stored
from tests.converters.forecasters import Params, random_forecaster, with_adapters, write_forecaster

GIVEN = {
    "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], "use_positional_embedding": True,
    "context_length": 32,
}  # fmt: skip


def merged(params: Params) -> Params:
    """What the adapters of the TimesFM package compute (`LoraTheta`, `DoraTheta`), in float64."""
    found = {}
    for name, stored_value in params.items():
        place, _, leaf = name.rpartition("/")
        if leaf in ("lora_a", "lora_b", "dora_m"):
            continue
        value = stored_value.astype(np.float64)
        if leaf == "w" and f"{place}/lora_a" in params:
            delta = np.einsum(
                "...dr,...nr->...dn", params[f"{place}/lora_a"], params[f"{place}/lora_b"]
            )
            value = value + delta.reshape(value.shape)
            if f"{place}/dora_m" in params:
                norm = np.linalg.norm(value, axis=0, keepdims=True)
                value = params[f"{place}/dora_m"] * (value / norm)
        found[name] = value.astype(np.float32)
    return found


def notes_of(out: Path) -> list[str]:
    return stored.read_manifest(out)["notes"]


def forecast(out: Path) -> np.ndarray:
    model, params, _ = load_model(out)
    series = np.random.default_rng(1).normal(size=(2, 32)).astype(np.float32)
    return np.asarray(jax.jit(model.apply)({"params": params}, series).values)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("prefix", ["", "core_layer/"])
def test_additions_are_put_into_the_weights(tmp_path: Path, dora: bool, prefix: str):
    params = with_adapters(random_forecaster(), 2, dora)
    convert(write_forecaster(tmp_path / "a", params, prefix), tmp_path / "out", overrides=GIVEN)
    convert(
        write_forecaster(tmp_path / "b", merged(params), prefix),
        tmp_path / "plain",
        overrides=GIVEN,
    )
    assert any("put into 12 weights" in note for note in notes_of(tmp_path / "out"))
    found, wanted = (
        load_converted(tmp_path / "out").params,
        load_converted(tmp_path / "plain").params,
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, wanted)


def test_additions_that_are_kept_compute_the_same(tmp_path: Path):
    params = with_adapters(random_forecaster(), 2)
    place = write_forecaster(tmp_path / "a", params)
    convert(place, tmp_path / "merged", overrides=GIVEN)
    convert(place, tmp_path / "kept", overrides=GIVEN, keep_lora=True)
    config = load_config(tmp_path / "kept").model
    assert config is not None
    assert config.lora is not None
    assert (config.lora.rank, len(config.lora.targets)) == (2, 6)
    first, second = forecast(tmp_path / "kept"), forecast(tmp_path / "merged")
    # Two products instead of one, with values of some hundreds.
    np.testing.assert_allclose(first, second, atol=1e-5 * np.abs(second).max())


def test_norms_of_dora_are_kept_as_weights_alone(tmp_path: Path):
    place = write_forecaster(tmp_path / "a", with_adapters(random_forecaster(), 2, dora=True))
    convert(place, tmp_path / "kept", keep_lora=True)
    assert load_config(tmp_path / "kept").model is None
    assert any("DoRA" in note for note in notes_of(tmp_path / "kept"))
    kernels = load_converted(tmp_path / "kept").params["decoder"]["layers_0"]["mlp"]["up"]
    assert set(kernels) == {"kernel", "bias", "lora_a", "lora_b", "dora_m"}


def test_an_addition_without_its_other_half_is_told(tmp_path: Path):
    params = with_adapters(random_forecaster(), 2)
    del params["stacked_transformer_layer/x_layers_1/self_attention/post/lora_b"]
    with pytest.raises(
        MappingError, match=r"x_layers_1/self_attention/post: expected w, lora_a and"
    ):
        convert(write_forecaster(tmp_path / "a", params), tmp_path / "out")
