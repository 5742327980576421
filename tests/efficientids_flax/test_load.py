"""Converted checkpoints come back typed, from either format, on any sharding."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import optax
import pytest
from leaves import MemoryLeaf, values_of

from converters.arrays.lazy import Source
from converters.plan import PlannedLeaf
from converters.storage import LocalStore
from converters.write.jobs import Settings, do_job, make_jobs
from converters.write.orbax import OrbaxSink
from converters.write.safetensors import SafetensorsSink
from converters.write.sink import Sink
from efficientids_flax.config import BackboneConfig, OptimizerConfig
from efficientids_flax.load import flatten, load_config, load_converted

MODEL = BackboneConfig(
    vocab_size=40,
    num_layers=1,
    model_dims=6,
    hidden_dims=8,
    num_heads=2,
    num_kv_heads=2,
    head_dim=3,
)
TREE = {
    "params/embedder/embedding": values_of((40, 6)),
    "params/layers_0/attention/out/kernel": values_of((6, 2, 3), "bfloat16"),
    "state/step": np.array(7, np.uint32),
    "state/optimizer/adam/count": np.array(7, np.int32),
    "state/optimizer/adam/mu/embedder/embedding": values_of((40, 6), seed=1),
    "state/optimizer/adam/nu/embedder/embedding": values_of((40, 6), seed=2),
    "state/optimizer/schedule/count": np.array(7, np.int32),
    "state/collections/non_trainable/moving_mean": values_of((6,)),
}
CONFIG: dict[str, Any] = {
    "schema_version": 1,
    "family": "transformer_lm",
    "model": MODEL.to_dict(),
    "optimizer": OptimizerConfig("adam", beta1=0.9).to_dict(),
}

Write = Callable[[Path, dict[str, np.ndarray]], Path]


def write(place: Path, tree: dict[str, np.ndarray], form: str) -> Path:
    """An output as a conversion leaves it."""
    leaves = [
        PlannedLeaf(target, Source(MemoryLeaf(values, values.shape, target)), "rename")
        for target, values in tree.items()
    ]
    store = LocalStore(place)
    sink: Sink = OrbaxSink(store)
    if form != "orbax":
        sink = SafetensorsSink(store, leaves, shard=100 if form == "shards" else 10**9)
    for job in make_jobs(leaves):
        do_job(job, sink, Settings(200, "full"), lambda nbytes: None)
    sink.finish(leaves)
    (place / "config.json").write_text(json.dumps(CONFIG))
    return place


@pytest.fixture(params=["orbax", "safetensors", "shards"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "out", TREE, request.param)


def assert_equal(found: dict[str, Any], prefix: str) -> None:
    wanted = {k.removeprefix(prefix): v for k, v in TREE.items() if k.startswith(prefix)}
    assert set(found) == set(wanted)
    for path, values in wanted.items():
        assert (found[path].dtype, found[path].shape) == (values.dtype, values.shape), path
        assert np.asarray(found[path]).tobytes() == values.tobytes(), path


def test_one_line_loads_all(written: Path):
    params, state, config = load_converted(written)
    assert_equal(flatten(params), "params/")
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
    assert (state.step, type(state.step)) == (7, int)
    adam = state.optimizer["adam"]
    assert isinstance(adam, optax.ScaleByAdamState)
    assert isinstance(state.optimizer["schedule"], optax.ScaleByScheduleState)
    assert_equal(flatten(adam.mu), "state/optimizer/adam/mu/")
    assert_equal(flatten(adam.nu), "state/optimizer/adam/nu/")
    assert list(flatten(state.rest)) == ["collections/non_trainable/moving_mean"]
    assert config.family == "transformer_lm"
    assert config.model == MODEL
    assert config.optimizer == OptimizerConfig("adam", beta1=0.9)


def test_the_state_can_stay_away(written: Path):
    params, state, _ = load_converted(written, optimizer=False)
    assert_equal(flatten(params), "params/")
    assert (state.step, state.optimizer, state.rest) == (None, {}, {})


def test_an_output_without_a_state(tmp_path: Path):
    for form in ("orbax", "safetensors"):
        params = {path: v for path, v in TREE.items() if path.startswith("params/")}
        found = load_converted(write(tmp_path / form, params, form))
        assert_equal(flatten(found.params), "params/")
        assert (found.optimizer_state.step, found.optimizer_state.optimizer) == (None, {})


def test_one_sharding_for_all(written: Path):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params, state, _ = load_converted(written, sharding)
    assert_equal(flatten(params), "params/")
    for leaf in [*jax.tree.leaves(params), state.optimizer["adam"].count]:
        assert isinstance(leaf, jax.Array)
        assert leaf.sharding == sharding
    assert state.step == 7


def test_a_sharding_a_leaf(written: Path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    asked: dict[str, tuple[tuple[int, ...], str]] = {}

    def choose(name: str, leaf: jax.ShapeDtypeStruct) -> jax.sharding.Sharding:
        asked[name] = (leaf.shape, leaf.dtype.name)
        spec = jax.sharding.PartitionSpec(
            *["data", *[None] * (len(leaf.shape) - 1)][: len(leaf.shape)]
        )
        return jax.sharding.NamedSharding(mesh, spec)

    params, _, _ = load_converted(written, choose)
    assert_equal(flatten(params), "params/")
    assert asked == {path: (values.shape, values.dtype.name) for path, values in TREE.items()}
    embedding = params["embedder"]["embedding"]
    assert embedding.sharding.spec == jax.sharding.PartitionSpec("data", None)


def test_a_generic_tree_has_no_model(tmp_path: Path):
    place = write(tmp_path / "out", TREE, "orbax")
    about = CONFIG | {"family": "generic", "model": None, "optimizer": None}
    (place / "config.json").write_text(json.dumps(about))
    assert load_config(place) == ("generic", None, None)


def test_no_conversion_is_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json; give the OUT directory"):
        load_converted(tmp_path)


def test_weights_that_are_missing(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match=r"has neither params/ nor params\.safetensors"):
        load_converted(tmp_path)


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_configuration_of_another_schema(version: Any, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"schema_version": version}))
    with pytest.raises(ValueError, match=r"config\.json: schema .* is not 1; it was written by"):
        load_config(tmp_path)


def test_paths_of_a_tree():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert flatten({}) == {}
