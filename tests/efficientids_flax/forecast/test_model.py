"""The forecaster against recordings of `timesfm` 1.2.0 and 1.3.0: every value on the way."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters import convert
from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast import Statistics, TimesFM
from efficientids_flax.stored import load_converted
from efficientids_flax.tree import flatten
from tests.efficientids_flax.compiled import applied

CASES = ("TimesFM_shared", "TimesFM_2")
NEAR = 1e-5  # of a row's largest magnitude: sums in other orders, through layers and blocks
LAYER = "decoder/layers_0"
SOWN = {
    "normalised_patches": "normalised_patches",
    "patched_padding": "patched_padding",
    "input_ff_layer": "input_block/__call__",
    "after_position": "after_position",
    "freq_emb": "frequencies",
    "transformer_input": "decoder/layer_input",
    "layer_0": f"{LAYER}/__call__",
    "layer_1": "decoder/layers_1/__call__",
    "layer_0_rms_norm": f"{LAYER}/attention_norm/__call__",
    "layer_0_query_scaled": f"{LAYER}/attention/scaled_query",
    "layer_0_attention": f"{LAYER}/attention/__call__",
    "layer_0_attention_probs": f"{LAYER}/attention/probs",
    "layer_0_ff_layer_norm": f"{LAYER}/mlp_norm/__call__",
}


class Case:
    def __init__(self, folder: Path, out: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())["config"]
        self.arrays = dict(np.load(folder / "reference.npz"))
        given = {
            "use_positional_embedding": manifest["use_pos_emb"],
            "quantiles": manifest["quantiles"],
            "context_length": manifest["context_len"],
        }
        convert(folder / "checkpoint", out, overrides=given)
        self.params, _, found = load_converted(out)
        assert isinstance(found.model, TimesFMConfig)
        self.config = found.model
        self.inputs = [self.arrays[f"in/{name}"] for name in ("input_ts", "input_padding", "freq")]
        self.statistics = Statistics(
            *(jnp.asarray(self.arrays[f"fwd/{name}"]) for name in ("mu", "sigma"))
        )

    def run(self, **options: Any) -> Any:
        config = replace(self.config, **options.pop("config", {}))

        @jax.jit
        def run(params: Any, inputs: Any) -> Any:
            return TimesFM(config).apply({"params": params}, *inputs, **options)

        with jax.default_matmul_precision("highest"):
            return run(self.params, self.inputs)


@pytest.fixture(scope="module")
def case(
    recording: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Case]:
    return cache(lambda name: Case(recording(name), tmp_path_factory.mktemp("out") / name))


def off(mine: Any, recorded: np.ndarray) -> np.ndarray:
    """Of each row, the largest difference relative to its largest magnitude."""
    axes = tuple(range(1, recorded.ndim))
    gap = np.max(np.abs(np.asarray(mine, np.float64) - recorded), axis=axes)
    return gap / np.maximum(np.max(np.abs(recorded), axis=axes), 1e-30)


@pytest.mark.parametrize("name", CASES)
def test_every_value_on_the_way_is_the_recorded_one(case: Callable[[str], Case], name: str):
    one = case(name)
    found, kept = one.run(
        statistics=one.statistics, capture_intermediates=True, mutable=["intermediates"]
    )
    assert np.max(off(found.values, one.arrays["fwd/output_ts"])) < NEAR
    inside = flatten(kept["intermediates"])
    for recorded, ours in SOWN.items():
        if f"mid/{recorded}" in one.arrays:
            (mine,) = inside[ours]
            assert np.max(off(mine, one.arrays[f"mid/{recorded}"])) < NEAR, recorded


@pytest.mark.parametrize("name", CASES)
def test_the_release_s_statistics(case: Callable[[str], Case], name: str):
    one = case(name)
    found = one.run()
    mean, sigma = one.arrays["fwd/mu"], one.arrays["fwd/sigma"]
    # The formula cancels: 2e-7 (mean / sigma)^2 of a row, as the specification of it says.
    allowed = NEAR + 2e-7 * (mean / sigma) ** 2
    assert np.all(off(found.values, one.arrays["fwd/output_ts"]) < allowed)
    np.testing.assert_allclose(found.statistics.mean, mean, rtol=1e-6)
    assert np.all(sigma[[4, 7]] == 1)  # constant: no deviation


def test_positions_are_not_shifted_in_training(case: Callable[[str], Case]):
    one = case("TimesFM_shared")
    found = one.run(statistics=one.statistics, train=True).values
    assert np.max(off(found, one.arrays["fwd_training_mode/output_ts"])) < NEAR
    padded = off(found, one.arrays["fwd/output_ts"])[[1, 2]]
    assert np.all(padded > 1e-3)


def test_centred_statistics_keep_their_digits_far_from_zero(case: Callable[[str], Case]):
    one = case("TimesFM_shared")
    series = one.inputs[0][5]  # 1000 plus noise
    found = one.run(config={"statistics": "centred"}).statistics
    first = series[: one.config.patch_length].astype(np.float64)
    np.testing.assert_allclose(found.deviation[5], first.std(), rtol=1e-4)
    raw = one.run().statistics
    assert abs(raw.deviation[5] / first.std() - 1) > 1e-4
    np.testing.assert_allclose(found.deviation[4], one.config.tolerance)  # constant
    others = np.array([0, 1, 6])
    same = (np.asarray(statistics.deviation)[others] for statistics in (found, raw))
    np.testing.assert_allclose(*same, rtol=1e-4)


def test_the_last_patch_alone_is_that_of_all(case: Callable[[str], Case]):
    one = case("TimesFM_2")
    every, last = one.run().values, one.run(last=True).values
    assert last.shape == (9, 1, 16, 10)
    assert np.max(off(last, np.asarray(every)[:, -1:])) < NEAR


def test_scanned_layers_compute_the_same(case: Callable[[str], Case]):
    one = case("TimesFM_2")
    layers = [one.params["decoder"][f"layers_{i}"] for i in range(2)]
    stacked = {**one.params, "decoder": {"layers": jax.tree.map(lambda *x: np.stack(x), *layers)}}
    model = TimesFM(replace(one.config, scan_layers=True))
    found = applied(model, {"params": stacked}, *one.inputs)
    assert np.max(off(found.values, np.asarray(one.run().values))) < NEAR


def test_shapes_that_do_not_fit_are_told(case: Callable[[str], Case]):
    one = case("TimesFM_2")
    model = TimesFM(one.config)
    with pytest.raises(ValueError, match="expected a multiple of patch_length = 4"):
        model.apply({"params": one.params}, np.zeros((2, 10)))
    with pytest.raises(ValueError, match=r"paddings: found \(2, 8\), expected \(2, 12\)"):
        model.apply({"params": one.params}, np.zeros((2, 12)), np.zeros((2, 8)))
    with pytest.raises(ValueError, match=r"found shape \[12\], expected \[B, T\]"):
        model.apply({"params": one.params}, np.zeros(12))


def test_parameters_are_those_of_the_table(case: Callable[[str], Case]):
    from efficientids_flax.parameters import parameter_shapes

    one = case("TimesFM_2")
    made = jax.eval_shape(TimesFM(one.config).init, jax.random.key(0), *one.inputs)
    found = {path: leaf.shape for path, leaf in flatten(made["params"]).items()}
    assert found == parameter_shapes(one.config)
