"""Converted checkpoints come back typed, from either format, on any sharding."""

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import optax
import pytest

from converters.arrays.lazy import Source
from converters.plan.leaves import PlannedLeaf
from converters.stores.local import LocalStore
from converters.write.formats.orbax import OrbaxSink
from converters.write.formats.safetensors import SafetensorsSink
from converters.write.formats.sink import Sink
from converters.write.jobs import Settings, do_job, make_jobs
from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, OptimizerConfig
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.stored import load as load_module
from efficientids_flax.stored.items import stored_parameters
from efficientids_flax.stored.load import load_converted, load_model
from efficientids_flax.stored.settings import Config, load_config
from efficientids_flax.tree import flatten
from tests.efficientids_flax.compiled import applied
from tests.leaves import MemoryLeaf, values_of

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
    assert load_config(place) == Config("generic", None, None)


def test_no_conversion_is_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json; give the OUT directory"):
        load_converted(tmp_path)
    (tmp_path / "checkpoint_00000003").mkdir()
    with pytest.raises(FileNotFoundError, match="checkpoints of a PAXml job; convert them"):
        load_converted(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: is no JSON"):
        load_config(tmp_path)


def test_weights_that_are_missing(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match=r"has neither params/ nor params\.safetensors"):
        load_converted(tmp_path)


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_configuration_of_another_schema(version: Any, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"schema_version": version}))
    with pytest.raises(ValueError, match=r"config\.json: schema .* is not 1; it was written by"):
        load_config(tmp_path)


@pytest.mark.parametrize("key", ["family", "model", "optimizer"])
def test_a_configuration_that_was_edited(key: str, tmp_path: Path):
    about = {name: value for name, value in CONFIG.items() if name != key}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=rf"config\.json: {key} missing"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"family": "bert"}))
    with pytest.raises(ValueError, match="family 'bert' has no model; known are transformer_lm"):
        load_config(tmp_path)


def test_what_is_stored_without_reading_it(written: Path):
    wanted = {
        path.removeprefix("params/"): (values.shape, values.dtype)
        for path, values in TREE.items()
        if path.startswith("params/")
    }
    found = {path: (leaf.shape, leaf.dtype) for path, leaf in stored_parameters(written).items()}
    assert found == wanted


ITEMS = EfficientIDSConfig(num_items=12, item_embedding_dim=4, num_clusters=3, backbone=MODEL)
PLACES = ClusteringInfo.from_assignments(np.arange(12) % 3, np.ones((3, 4), np.float32))


def output(
    place: Path,
    model: BackboneConfig | EfficientIDSConfig,
    form: str = "orbax",
    changes: dict[str, np.ndarray | None] | None = None,
) -> Path:
    """A converted checkpoint of random parameters; `changes` replaces leaves or removes them."""
    tree = {
        f"params/{path}": values_of(shape, seed=seed)
        for seed, (path, shape) in enumerate(parameter_shapes(model).items())
    }
    tree |= {f"params/{path}": values for path, values in (changes or {}).items()}
    write(place, {path: values for path, values in tree.items() if values is not None}, form)
    family = "transformer_lm" if isinstance(model, BackboneConfig) else "efficientids"
    about = {"family": family, "model": model.to_dict(), "optimizer": None}
    (place / "config.json").write_text(json.dumps(CONFIG | about))
    return place


@pytest.mark.parametrize("form", ["orbax", "safetensors"])
def test_a_language_model_runs(form: str, tmp_path: Path):
    out = output(tmp_path / "out", MODEL, form)
    model, params, config = load_model(out)
    assert isinstance(model, Decoder)
    assert config == Config("transformer_lm", MODEL, None)
    ids = jnp.array([[3, 1, 4]])

    def run(module: Decoder) -> jax.Array:
        return module.logits(module(ids))

    found = model.apply({"params": params}, method=run)
    wanted = load_converted(out, optimizer=False).params
    np.testing.assert_array_equal(found, Decoder(MODEL).apply({"params": wanted}, method=run))


def item_scores(model: Any, params: Any) -> jax.Array:
    batch = {"ids": jnp.array([[3, 1]]), "input_item_weights": jnp.array([[0, 1]])}
    return applied(model, {"params": params}, batch, method="scores")


def test_a_recommender_runs_with_the_clustering_however_it_comes(tmp_path: Path):
    out = output(tmp_path / "out", ITEMS)
    with pytest.raises(FileNotFoundError, match=r"needs its clustering.*convert-clustering FILE"):
        load_model(out)
    PLACES.save(tmp_path / "elsewhere.npz")
    given = [PLACES, tmp_path / "elsewhere.npz", str(tmp_path / "elsewhere.npz")]
    scores = []
    for clustering in given:
        model, params, config = load_model(out, clustering)
        assert isinstance(model, EfficientIDSModel)
        assert config.model == ITEMS
        scores.append(item_scores(model, params))
    PLACES.save(out / "clustering.npz")
    scores.append(item_scores(*load_model(out)[:2]))
    assert scores[0].shape == (1, 2, 12)
    for other in scores[1:]:
        np.testing.assert_array_equal(other, scores[0])


def test_the_originals_pickle_beside_the_checkpoint(tmp_path: Path):
    out = output(tmp_path / "out", ITEMS)
    with (out / "clustering.pkl").open("wb") as file:
        for table in (PLACES.cluster_of, PLACES.members, PLACES.slot_of, PLACES.means):
            pickle.dump(table, file)
    model, params, _ = load_model(out)
    np.testing.assert_array_equal(
        item_scores(model, params), item_scores(*load_model(out, PLACES)[:2])
    )


def test_a_clustering_of_other_items(tmp_path: Path):
    out = output(tmp_path / "out", ITEMS)
    other = ClusteringInfo.from_assignments(np.arange(9) % 3)
    with pytest.raises(ValueError, match=r"num_items: the clustering has 9, the model 12"):
        load_model(out, other)


def test_a_clustering_that_nobody_needs(tmp_path: Path):
    out = output(tmp_path / "lm", MODEL)
    with pytest.raises(ValueError, match=r"clustering: .*lm is a language model, which has none"):
        load_model(out, PLACES)
    full = dataclasses.replace(ITEMS, full_softmax=True, num_clusters=None)
    out = output(tmp_path / "full", full)
    with pytest.raises(ValueError, match=r"clustering: .*full is a full softmax, which has none"):
        load_model(out, PLACES)
    model, params, _ = load_model(out)
    assert item_scores(model, params).shape == (1, 2, 12)


def test_other_dtypes(tmp_path: Path):
    out = output(tmp_path / "out", ITEMS)
    model, params, config = load_model(out, PLACES, dtype="bfloat16", param_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    assert config.model is not None
    assert (model.config.backbone.dtype, model.config.backbone.param_dtype) == ("bfloat16",) * 2
    assert config.model == model.config
    _, params, _ = load_model(out, PLACES, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    with pytest.raises(ValueError, match=r"dtype: expected 'float32'.*found 'int8'"):
        load_model(out, PLACES, dtype="int8")


def test_parameters_on_devices(tmp_path: Path):
    out = output(tmp_path / "out", MODEL)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    _, params, _ = load_model(out, shardings=sharding, param_dtype="float16")
    for leaf in jax.tree.leaves(params):
        assert isinstance(leaf, jax.Array)
        assert (leaf.sharding, leaf.dtype) == (sharding, jnp.float16)


def test_a_generic_tree_cannot_run(tmp_path: Path):
    place = write(tmp_path / "out", TREE, "orbax")
    about = CONFIG | {"family": "generic", "model": None, "optimizer": None}
    (place / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"family 'generic' has no model.*load_converted loads"):
        load_model(place)


def test_parameters_that_are_not_the_configurations(tmp_path: Path):
    wrong = {"lm_head/kernel": values_of((6, 41)), "final_norm/scale": None}
    out = output(tmp_path / "out", MODEL, changes=wrong)
    with pytest.raises(ValueError) as error:
        load_model(out)
    assert "final_norm/scale: missing, [6] expected" in str(error.value)
    assert "lm_head/kernel: found [6, 41], [6, 40] expected" in str(error.value)


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "efficientids_flax.stored.free_memory.available_memory", lambda device=None: 100
    )
    read: list[Any] = []
    monkeypatch.setattr(load_module, "load_converted", lambda *args, **given: read.append(args))
    out = output(tmp_path / "out", MODEL)
    with pytest.raises(MemoryError, match=r"the parameters take 1\.99 kB on this host, and 100 B"):
        load_model(out)
    assert not read  # told before anything is read
    monkeypatch.undo()
    monkeypatch.setattr(
        "efficientids_flax.stored.free_memory.available_memory", lambda device=None: 100
    )
    with pytest.warns(ResourceWarning, match="on this host, and 100 B are free"):
        assert load_model(out, memory="warn").params
    assert load_model(out, memory="ignore").params
    wrong: Any = "no"
    with pytest.raises(ValueError, match="memory: expected one of refuse, warn, ignore, found 'no"):
        load_model(out, memory=wrong)


def test_paths_of_a_tree():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert flatten({}) == {}
